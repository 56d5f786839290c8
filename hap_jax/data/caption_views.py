"""The two views of a split of text ReID: pictures and captions. Scores compare the two views.

A source of text ReID has a record for each pair of a picture and a caption (see `sources/base.py`). The view
"<split>_pictures" has each picture once. The view "<split>_captions" has all captions, and reads no picture.
"""

import dataclasses
import functools

import numpy as np

from hap_jax.data.columns import LazyColumns
from hap_jax.data.sources.base import Source

PAIRS, PICTURES, CAPTIONS = VIEWS = ("pairs", "pictures", "captions")
SPLITS = ("train", "val", "test", "trainval")
FIELDS = ("image", "caption", "pid", "picture")  # fields of a pair
_PICTURE_FIELDS = ("image", "pid")
_CAPTION_FIELDS = ("caption", "pid", "picture")


def parse(split):
  """Returns (split, view): ("test", "captions") for "test_captions", ("val", "pairs") for "val"."""
  for view in (PICTURES, CAPTIONS):
    if split.endswith(f"_{view}"):
      return split.removesuffix(f"_{view}"), view
  return split, PAIRS


def check_split(name, split, splits=SPLITS):
  """Returns `parse(split)`. Raises ValueError if the source `name` does not have this split.

  Args:
    name: name of the source.
    split: name of a split or of a view.
    splits: the names of the splits of the source.
  """
  base, view = parse(split)
  if base not in splits:
    raise ValueError(
      f"split={split!r}: {name} has {', '.join(splits)}, and for each split the views <split>_{PICTURES} "
      f"and <split>_{CAPTIONS}"
    )
  return base, view


def are_pairs(columns):
  """Returns True if a source with these columns has pairs of a picture and a caption."""
  return {"caption", "pid", "picture"} <= set(columns)


def make(pairs, view):
  """Makes a view of a source of pairs.

  Args:
    pairs: source with the columns `caption`, `pid` and `picture`.
    view: one of VIEWS. "pairs" returns the source itself.
  Raises:
    ValueError: if the column `picture` does not have one whole number per pair.
  """
  if view == PAIRS:
    return pairs
  picture = pairs.columns["picture"]
  if picture.ndim != 1 or picture.dtype.kind not in "iu":
    raise ValueError(
      f"column picture of {pairs.spec.name} is {picture.dtype} of shape {picture.shape}; expected one whole "
      "number per record, the id of its picture"
    )
  _, first, row = np.unique(picture, return_index=True, return_inverse=True)
  if view == PICTURES:
    return Pictures(pairs, first)
  return Captions(pairs, np.arange(len(pairs)), row.astype(np.int32))


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
  """A view of P pictures. A record has `image` and `pid`. The pictures are in the order of their ids.

  Attributes:
    pairs: source of pairs.
    rows: [P] index of one pair of each picture.
  """

  pairs: Source
  rows: np.ndarray

  def __len__(self):
    return len(self.rows)

  def __getitem__(self, index):
    return _without_caption(self.pairs[self._row(index)])

  @property
  def spec(self):
    return dataclasses.replace(self.pairs.spec, fields=_PICTURE_FIELDS)

  @property
  def columns(self):
    return LazyColumns({"pid": lambda: self.pairs.columns["pid"][self.rows]})

  def name(self, index):
    return self.pairs.name(self._row(index))

  @property
  def file(self):
    """`file(i)` as in `sources/base.py`. The attribute exists only if the source of pairs has it."""
    file = self.pairs.file
    return lambda index: file(self._row(index))

  @property
  def fetch(self):
    """`fetch(i)` as in `sources/base.py`. The attribute exists only if the source of pairs has it."""
    fetch = self.pairs.fetch
    return lambda index: _decode_picture(fetch(self._row(index)))

  def _row(self, index):
    return _row(self.rows, index)


@dataclasses.dataclass(frozen=True, eq=False)
class Captions:
  """A view of N captions. A record has `caption`, `pid` and `picture`. No picture is read.

  Attributes:
    pairs: source of pairs.
    rows: [N] index of the pair of each caption.
    picture: [N] int32, row of the caption's picture in the view of pictures. -1: the caption describes a
      person, not a single picture.
  """

  pairs: Source
  rows: np.ndarray
  picture: np.ndarray

  def __len__(self):
    return len(self.rows)

  def __getitem__(self, index):
    _row(self.rows, index)
    return {field: column[index] for field, column in self.columns.items()}

  @property
  def spec(self):
    return dataclasses.replace(self.pairs.spec, fields=_CAPTION_FIELDS)

  @functools.cached_property
  def columns(self):
    columns = self.pairs.columns
    return LazyColumns(
      {
        "caption": lambda: columns["caption"][self.rows],
        "pid": lambda: columns["pid"][self.rows],
        "picture": lambda: self.picture,
      }
    )

  def __getstate__(self):
    return {name: value for name, value in self.__dict__.items() if name != "columns"}

  def name(self, index):
    return f"caption {index} ({self.pairs.name(_row(self.rows, index))})"


def _row(rows, index):
  if not 0 <= index < len(rows):
    raise IndexError(f"record {index} of {len(rows)}")
  return int(rows[index])


def _without_caption(record):
  return {field: record[field] for field in _PICTURE_FIELDS}


def _decode_picture(decode):
  """Returns a function that decodes a pair and returns the record of its picture."""
  return lambda: _without_caption(decode())
