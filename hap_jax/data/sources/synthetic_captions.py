"""Source: synthetic people with captions, for text ReID. The people are the same as in `synthetic`.

Two captions describe each person. All eight pictures of the person share them, so each picture has two pairs.
The view of captions has the two captions of each person once. A caption there does not belong to a single
picture.
"""

import dataclasses
import functools

import numpy as np

from hap_jax.data import caption_views
from hap_jax.data.columns import LazyColumns
from hap_jax.data.sources import base, synthetic
from hap_jax.synthetic import captions, draw

SPLITS = ("train", "val", "test")
_CAPTIONS = 2  # captions of each person


@dataclasses.dataclass(frozen=True, eq=False)
class SyntheticPairs:
  """Pairs of a picture and a caption; see `open_source`. Pairs 2 * i and 2 * i + 1 have picture i.

  Attributes:
    people: `SyntheticSource` of the pictures.
    spec: facts about the source.
  """

  people: synthetic.SyntheticSource
  spec: base.SourceSpec

  def __len__(self):
    return _CAPTIONS * len(self.people)

  def __getitem__(self, index):
    row, number = self._divide(index)
    record = self.people[row]
    return {
      "image": record["image"],
      "caption": self.people.captions(row)[number],
      "pid": record["pid"],
      "picture": self.people.indices[row],
    }

  @functools.cached_property
  def columns(self):
    """`caption`, [N] str; `pid` and `picture`, [N] int32. Nothing is drawn."""
    return LazyColumns(
      {
        "caption": self._texts,
        "pid": lambda: np.repeat(self.people.columns["pid"], _CAPTIONS),
        "picture": lambda: np.repeat(self.people.indices, _CAPTIONS),
      }
    )

  def __getstate__(self):
    return {name: value for name, value in self.__dict__.items() if name != "columns"}

  def name(self, index):
    return self.people.name(self._divide(index)[0])

  def first_pairs(self):
    """Returns the indices of the two pairs of each person's first picture, [2 * P] for P persons."""
    _, first = np.unique(self.people.columns["pid"], return_index=True)
    return (_CAPTIONS * first[:, None] + np.arange(_CAPTIONS)).ravel()

  def _texts(self):
    pids, person = np.unique(self.people.columns["pid"], return_inverse=True)
    texts = [captions.captions_of(draw.look_of(self.people.seed, pid)) for pid in pids.tolist()]
    return np.array(texts, object)[person].ravel()

  def _divide(self, index):
    """Returns (index of the picture, index of the caption) of a pair."""
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    return divmod(index, _CAPTIONS)


def open_source(
  *,
  root="",
  split="train",
  seed=0,
  num_train=12000,
  num_val=1024,
  num_test=1024,
  image_size=(256, 128),
  hold_in_memory=False,
):
  """Opens one split of synthetic people with captions.

  Args:
    root: not used, because the people are drawn. It may be empty.
    split: "train", "val", "test", "trainval" (train followed by val), or a view of one of them, such as
      "test_pictures" and "test_captions".
    seed: whole number >= 0. Another seed gives other people and places.
    num_train, num_val, num_test: number of pictures of each split, 8 per person.
    image_size: (H, W) of the pictures in pixels.
    hold_in_memory: True: all pictures are drawn now, on all processors, and kept in memory. One picture takes
      H * W * 3 bytes.

  Returns:
    a source of pairs of picture and caption, or a view of it (see `base.py`). In the view of captions,
    `picture` is -1.

  Raises:
    ValueError: if the split is unknown, or if the image size or the number of pictures is out of range.
  """
  del root
  part, view = caption_views.check_split("synthetic_captions", split)
  people = synthetic.open_people(
    "synthetic_captions",
    split=part,
    seed=seed,
    counts={"train": num_train, "val": num_val, "test": num_test},
    image_size=image_size,
    hold_in_memory=hold_in_memory and view != caption_views.CAPTIONS,
  )
  spec = dataclasses.replace(
    people.spec, name="synthetic_captions", skeleton=None, fields=caption_views.FIELDS, labels={}
  )
  pairs = SyntheticPairs(people, spec)
  if view != caption_views.CAPTIONS:
    return caption_views.make(pairs, view)
  rows = pairs.first_pairs()
  return caption_views.Captions(pairs, rows, np.full(len(rows), -1, np.int32))


def published(split, options):
  """Returns the sizes of the drawn people of a split, see `base.py`. A picture has two captions."""
  sizes = synthetic.published(split, options)
  return {"records": _CAPTIONS * sizes["records"], "persons": sizes["persons"]}


def write_files(out, **options):
  """Draws people and writes them as plain files, as the source `synthetic` does."""
  return synthetic.write_files(out, **options)
