"""Source: a packed data set in TFDS's format, as `python -m hap_jax.cli prepare SOURCE --out=DIR` writes it.

The packed source is the SOURCE of this command. The records are in the order of their `id`, their index in
the packed source. They equal the records of that source, with one exception: a picture that was drawn or cut
out of a larger picture is stored as JPEG (see `data/pack.py`). The time to open a data set grows with the
number of shards, not with the number of records.

A data set may come from anyone. So not TFDS, but `packed_metadata` reads the JSON files and checks them.
"""

import dataclasses
import functools
import math
import os
import pathlib
import re
from typing import Any

import numpy as np
from absl import logging

from hap_jax.data import caption_views, packed_features, packed_metadata, packed_shards
from hap_jax.data.columns import LazyColumns
from hap_jax.data.skeletons import SKELETONS
from hap_jax.data.sources.base import BadRecordError, SourceSpec, check_root, decode_image, held_out
from hap_jax.io import npz_file

_VERSION = re.compile(r"\d+\.\d+\.\d+")


def open_source(*, root, split, seed, num_val=0):
  """Opens a split of a packed data set.

  Args:
    root: folder that `prepare` wrote, or its sub-folder of one data set and version (config.data.root).
    split: name of a packed split. "trainval" is also allowed: it is "train", followed by "val" if "val" was
      packed. "val" is also allowed if it was not packed and num_val is above 0. If the records are pairs of a
      picture and a caption, the views of these splits are allowed (see `caption_views`), such as
      "test_captions".
    seed: not used, because the order is the order of the packed source.
    num_val: number of records held out as "val" (config.data.num_val). If "val" was not packed, it is the
      last num_val records of "train", or of "all" if there is no "train". If "val" was packed, "val" is the
      last num_val records of the packed "val", or all of them for num_val=0.

  Returns:
    a source of records with the fields of the packed source (see `base.py`).

  Raises:
    ValueError: if there is no such data set or split, if a program other than `prepare` wrote the data set,
      or if one of its files is damaged.
  """
  del seed
  check_root(root, "a data set written by `python -m hap_jax.cli prepare SOURCE --out=DIR`")
  folder = _find_dataset(root)
  metadata = packed_metadata.read(folder)
  pairs_split, view = caption_views.parse(split)
  if (
    view == caption_views.PAIRS
    or split in metadata.splits
    or not caption_views.are_pairs(metadata.facts.columns)
  ):
    return _open_packed(folder, metadata, split, num_val)
  return caption_views.make(_open_packed(folder, metadata, pairs_split, num_val), view)


def _open_packed(folder, metadata, split, num_val):
  """Opens records of a packed split; see `open_source`."""
  sizes = {name: packed.num_records for name, packed in metadata.splits.items()}
  start, stop, packed_split = _rows(sizes, folder, split, num_val)
  parts = packed_split.split("+")
  source = PackedPeople(
    folder=str(folder),
    split=packed_split,
    start=start,
    stop=stop,
    data=packed_shards.open_shards([metadata.splits[part] for part in parts]),
    layout=packed_metadata.number_fields(metadata.features),
    texts=packed_metadata.text_fields(metadata.features, metadata.facts),
    held=metadata.facts.columns,
    spec=_spec(metadata, packed_split),
    rows=tuple(sizes[part] for part in parts),
  )
  # Tables are read at their first use. They are checked now, so that a damaged file stops the run at its
  # start.
  for path, expected in source.tables():
    npz_file.check(path, expected)
  return source


@dataclasses.dataclass(frozen=True, eq=False)
class PackedPeople:
  """A source of the records start, ..., stop - 1 of a packed split; see `open_source`.

  Attributes:
    folder: folder of the data set.
    split: name of the packed split, or "train+val".
    start, stop: range of the split's records that this source contains.
    data: ArrayRecord's reader. data[i] returns the bytes of record i of the split. Its pickle has no open
      files.
    layout: {field: (dtype, shape)} of the fields with numbers, except the joints.
    texts: {field: shape} of the fields with texts.
    held: names of the fields that are columns, which are stored in the files table_<split>.npz.
    spec: facts about the packed source.
    rows: number of records of each part of `split`. "train+val" has two parts.
  """

  folder: str
  split: str
  start: int
  stop: int
  data: Any
  layout: dict[str, tuple[np.dtype, tuple[int, ...]]]
  texts: dict[str, tuple[int, ...]]
  held: tuple[str, ...]
  spec: SourceSpec
  rows: tuple[int, ...]

  def __len__(self):
    return self.stop - self.start

  def __getitem__(self, index):
    return self.fetch(index)()

  def fetch(self, index):
    """Reads a record without pixels. Returns a function that decodes the pixels and returns the record."""
    features = self._features(index)
    place = self._place(index)
    record = {"image": None}  # `image` is the first field in all sources. decode() sets the pixels
    for name, (dtype, shape) in self.layout.items():
      record[name] = _array(features, name, dtype, shape, place)
    for name, shape in self.texts.items():
      record[name] = _texts(features, name, shape, place)
    if self.spec.skeleton is not None:
      shape = (len(self.spec.skeleton.joints), 3)
      keypoints = _array(features, "keypoints", np.dtype(np.float32), shape, place)
      record["keypoints_xy"] = np.ascontiguousarray(keypoints[:, :2])
      record["keypoints_visible"] = keypoints[:, 2] > 0
    data = _bytes(features, "image", place)

    def decode():
      record["image"] = decode_image(data, place, self.spec.exif)
      return record

    return decode

  def name(self, index):
    place = self._place(index)
    try:
      return _bytes(self._features(index), "name", place).decode()
    except UnicodeDecodeError as error:
      raise BadRecordError(f"{place}: its name is not UTF-8: {error.object[:100]}") from error

  def read_bytes(self, index):
    """Returns the bytes of the picture file of record `index`."""
    return _bytes(self._features(index), "image", self._place(index))

  @functools.cached_property
  def columns(self):
    """The columns of the source, {field: [N, ...] array}. Each column is read at its first use."""
    return LazyColumns({field: functools.partial(self._column, field) for field in self.held})

  def __getstate__(self):
    return {name: value for name, value in self.__dict__.items() if name != "columns"}

  def tables(self):
    """Returns [(path of a table, {field: expected `npz_file.Column`})], one table per part of the split."""
    if not self.held:
      return []
    return [
      (
        os.path.join(self.folder, f"table_{part}.npz"),
        {field: self._expected(field, num_rows) for field in self.held},
      )
      for part, num_rows in zip(self.split.split("+"), self.rows, strict=True)
    ]

  def _expected(self, field, num_rows):
    """Returns the expected `npz_file.Column` of a field in a table of `num_rows` records."""
    if field in self.texts:
      return npz_file.Column((num_rows, *self.texts[field]), packed_features.TEXT)
    if field in self.layout:
      dtype, shape = self.layout[field]
      return npz_file.Column((num_rows, *shape), dtype)
    num_joints = len(self.spec.skeleton.joints)
    if field == "keypoints_xy":
      return npz_file.Column((num_rows, num_joints, 2), np.dtype(np.float32))
    return npz_file.Column((num_rows, num_joints), np.dtype(bool))  # keypoints_visible

  def _column(self, field):
    parts = [npz_file.read(path, expected, field) for path, expected in self.tables()]
    return np.concatenate(parts)[self.start : self.stop]

  def _features(self, index):
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    parse, errors = _parser()
    try:
      return parse(self.data[self.start + index]).features.feature
    except errors as error:
      text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
      raise BadRecordError(f"{self._place(index)}: cannot be read: {text}") from error

  def _place(self, index):
    return f"record {self.start + index} of {self.split} in {self.folder}"


@functools.cache
def _parser():
  """Returns (function that parses the bytes of a record, error types of reading and parsing)."""
  # The import is here because it is slow and only packed data sets need it.
  from google.protobuf.message import DecodeError
  from tensorflow_datasets.proto import tf_example_pb2

  errors = (RuntimeError, ValueError, OSError, IndexError, TypeError, DecodeError)
  return tf_example_pb2.Example.FromString, errors


def _bytes(features, field, place):
  """Returns the bytes of a TFDS feature that is a picture or a text."""
  values = features[field].bytes_list.value  # empty if the feature is missing or has numbers
  if len(values) != 1:
    raise BadRecordError(f"{place}: field {field} holds {len(values)} strings of bytes, expected 1")
  return values[0]


def _texts(features, field, shape, place):
  """Returns the texts of a TFDS feature as an array, or as a NumPy string if `shape` is ()."""
  values = features[field].bytes_list.value
  if len(values) != math.prod(shape):
    raise BadRecordError(f"{place}: field {field} holds {len(values)} texts, expected {math.prod(shape)}")
  try:
    texts = [value.decode() for value in values]
  except UnicodeDecodeError as error:
    raise BadRecordError(f"{place}: field {field} is not UTF-8: {error.object[:100]}") from error
  return np.array(texts, dtype=str).reshape(shape)[()]


def _array(features, field, dtype, shape, place):
  """Returns the numbers of a TFDS feature as an array, or as a NumPy scalar if `shape` is ()."""
  feature = features[field]
  is_float = dtype.kind == "f"
  values = feature.float_list.value if is_float else feature.int64_list.value
  if len(values) != math.prod(shape):
    kind = "floats" if is_float else "integers"
    raise BadRecordError(f"{place}: field {field} holds {len(values)} {kind}, expected {math.prod(shape)}")
  if is_float:
    return np.array(values, dtype).reshape(shape)[()]
  numbers = np.array(values, np.int64)
  result = numbers.astype(dtype)
  if (result != numbers).any():  # astype drops the upper bits of a large number without an error
    raise BadRecordError(f"{place}: field {field} holds a number that does not fit into {dtype}")
  return result.reshape(shape)[()]


def _find_dataset(root):
  """Returns the folder of the data set. It is `root`, or the only folder <root>/<name>/<version>."""
  root = pathlib.Path(root)
  if (root / packed_metadata.INFO_FILE).exists():
    return root
  found = sorted(
    path.parent
    for path in root.glob(f"*/*/{packed_metadata.INFO_FILE}")
    if _VERSION.fullmatch(path.parent.name)
  )
  if len(found) != 1:
    raise ValueError(
      f"{root}: found {len(found)} data sets of TFDS ({', '.join(map(str, found[:5]))}); expected one, "
      "written by `python -m hap_jax.cli prepare SOURCE --out=DIR` (config.data.root)"
    )
  return found[0]


def _rows(sizes, folder, split, num_val):
  """Returns (start, stop, packed split): the requested `split` is the records start ... stop - 1.

  Args:
    sizes: {packed split: number of records}.
    folder: folder of the data set, for error messages.
    split, num_val: see `open_source`.
  """
  # If "val" was not packed, "train" is divided, as in other sources. The source `folder` packs only "all".
  whole = "train" if "train" in sizes else "all"
  is_divided = split == "val" or (split == "train" and (num_val or whole == "all"))
  if "val" not in sizes and whole in sizes and is_divided:
    return *held_out(sizes[whole], num_val, split), whole
  if split == "trainval" and split not in sizes and "train" in sizes:
    return 0, sizes["train"] + sizes.get("val", 0), "train+val" if "val" in sizes else "train"
  if split not in sizes:
    raise ValueError(f"split={split!r}: {folder} has {', '.join(sizes)}")
  if split == "val" and num_val:
    return *held_out(sizes["val"], num_val, "val"), "val"
  return 0, sizes[split], split


def _spec(metadata, split):
  facts = metadata.facts
  notes = [note for part in split.split("+") for note in facts.notes[part]]
  read = {
    *("image", "id", "name", "keypoints"),
    *packed_metadata.number_fields(metadata.features),
    *packed_metadata.text_fields(metadata.features, facts),
  }
  unread = sorted(metadata.features.keys() - read)
  if unread:
    names = ", ".join(map(repr, unread))
    notes.append(
      "these features are not read, because they are neither numbers of a fixed shape nor texts that are a "
      f"field of the source: {names}"
    )
  for note in notes:
    logging.warning("%s: %s", facts.source, note)
  skeleton = SKELETONS[facts.skeleton] if facts.skeleton else None
  people = " + ".join(dict.fromkeys(facts.people[part] for part in split.split("+")))
  return SourceSpec(
    facts.source,
    skeleton,
    facts.licence,
    facts.fields,
    tuple(notes),
    labels=facts.labels,
    people=people,
    exif=facts.exif,
  )
