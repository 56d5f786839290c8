"""A data set that `python -m hap_jax.cli prepare SOURCE --out=DIR` packed: TFDS, in shards of ArrayRecord.

Records come in the order of their `id`, the number in the packed source, and are those of that source, but
pictures that were cut out or drawn went through JPEG once (see `data/pack.py`). The time to open a data set
grows with the number of its shards, not of its records.
"""

import dataclasses
import functools
import os
import pathlib
import re
from typing import Any

import numpy as np
from absl import logging

from hap_jax.data import pack
from hap_jax.data.skeletons import SKELETONS
from hap_jax.data.sources.base import BadRecordError, SourceSpec, check_root, decode_image, held_out

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_INFO_FILE = "dataset_info.json"


def open_source(*, root, split, seed, num_val=0):
  """Opens a split of a packed data set.

  Args:
    root: folder that `prepare` made, or the folder of one data set and version in it (config.data.root).
    split: one that was packed; or "val", if none was packed and num_val is above 0; or "trainval", train and
      then the packed val, if there is one.
    seed: not used; the order is that of the packed source.
    num_val: if the data set has no "val" of its own, this many of the last records of "train" are "val"; if
      it has one, so many of its last records are, 0: all (config.data.num_val).

  Returns:
    a source of records with the fields of the packed one (see `base.py`).

  Raises:
    ValueError: if there is no such data set or split, or it was written by something else.
  """
  del seed
  check_root(root, "a data set made by `python -m hap_jax.cli prepare SOURCE --out=DIR`")
  import tensorflow_datasets as tfds  # here and not above: it takes a second, and other sources do without

  folder = _find_dataset(root)
  builder = tfds.builder_from_directory(folder)
  facts = (builder.info.metadata or {}).get(pack.METADATA_KEY)
  if facts is None or facts["format"] > pack.FORMAT:
    found = "without the metadata of `prepare`" if facts is None else f"of format {facts['format']}"
    raise ValueError(
      f"{folder}: a data set {found}; expected one made by this version's `hap prepare SOURCE`"
    )
  start, stop, packed_split = _rows(builder, split, num_val)
  raw = tfds.decode.DeserializeMethod.RAW_BYTES
  return PackedPeople(
    folder=str(folder),
    split=packed_split,
    start=start,
    stop=stop,
    # The features are taken from the record's bytes here, in a tenth of the time that TFDS takes.
    data=builder.as_data_source(packed_split, deserialize_method=raw).data_source,
    layout=_layout(builder.info.features),
    spec=_spec(facts, packed_split),
    attribute_names=tuple(facts["attribute_names"] or ()),
  )


@dataclasses.dataclass(frozen=True, eq=False)
class PackedPeople:
  """Records [start, stop) of a packed split; see `open_source`.

  Attributes:
    folder: of the data set. split: its name, or "train+val". start, stop: the records of it that this source
      has.
    data: ArrayRecord's reader, bytes by record number; it pickles without its open files.
    layout: {field: (dtype, shape)} of what is neither picture nor joints.
    spec: facts about the packed source. attribute_names: of the field `attributes`, if there is one.
  """

  folder: str
  split: str
  start: int
  stop: int
  data: Any
  layout: dict[str, tuple[np.dtype, tuple[int, ...]]]
  spec: SourceSpec
  attribute_names: tuple[str, ...]

  def __len__(self):
    return self.stop - self.start

  def __getitem__(self, index):
    return self.fetch(index)()

  def fetch(self, index):
    """Reads a record but for its pixels; returns the function that decodes them and returns the record."""
    features = self._features(index)
    record = {"image": None}  # comes first, as in all sources
    for name, (dtype, shape) in self.layout.items():
      record[name] = _array(features[name], dtype, shape)
    if self.spec.skeleton is not None:
      keypoints = _array(features["keypoints"], np.float32, (-1, 3))
      record["keypoints_xy"] = np.ascontiguousarray(keypoints[:, :2])
      record["keypoints_visible"] = keypoints[:, 2] > 0
    data = _first(features["image"])

    def decode():
      record["image"] = decode_image(data, self._place(index))
      return record

    return decode

  def name(self, index):
    return _first(self._features(index)["name"]).decode()

  def read_bytes(self, index):
    """Returns the bytes of record `index`'s picture file."""
    return _first(self._features(index)["image"])

  @property
  def pids(self):
    """[N] int32, the person of each record."""
    return self._column("pid")

  @property
  def camids(self):
    """[N] int32, the camera of each record."""
    return self._column("camid")

  @property
  def attributes(self):
    """[N, A], those of each record."""
    return self._column("attributes")

  def _column(self, field):
    if field not in self._table:
      raise AttributeError(f"{self.split} in {self.folder} has no {field}: the packed source had none")
    return self._table[field]

  @functools.cached_property
  def _table(self):
    paths = [os.path.join(self.folder, f"table_{part}.npz") for part in self.split.split("+")]
    if not all(map(os.path.isfile, paths)):
      return {}
    tables = []
    for path in paths:
      with np.load(path) as file:
        tables.append({name: file[name] for name in file.files})
    columns = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    return {name: column[self.start : self.stop] for name, column in columns.items()}

  def _features(self, index):
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    parse, errors = _parser()
    try:
      return parse(self.data[self.start + index]).features.feature
    except errors as error:
      raise BadRecordError(f"{self._place(index)}: cannot be read: {error}") from error

  def _place(self, index):
    return f"record {self.start + index} of {self.split} in {self.folder}"


@functools.cache
def _parser():
  """Returns (the function from bytes to a TFDS example, what reading and parsing may raise)."""
  # Imported here and not above, because only those who read packed data sets should wait for it.
  from google.protobuf.message import DecodeError
  from tensorflow_datasets.proto import tf_example_pb2

  return tf_example_pb2.Example.FromString, (RuntimeError, ValueError, OSError, DecodeError)


def _first(feature):
  return feature.bytes_list.value[0]


def _array(feature, dtype, shape):
  """Returns the numbers of a TFDS feature as an array, or as a NumPy scalar where `shape` is ()."""
  values = feature.float_list.value if dtype == np.float32 else feature.int64_list.value
  return np.array(values, dtype).reshape(shape)[()]


def _find_dataset(root):
  """Returns the folder <root>/<name>/<version> of the one data set below `root`, or `root` if it is one."""
  root = pathlib.Path(root)
  if (root / _INFO_FILE).is_file():
    return root
  found = sorted(
    path.parent for path in root.glob(f"*/*/{_INFO_FILE}") if _VERSION.fullmatch(path.parent.name)
  )
  if len(found) != 1:
    raise ValueError(
      f"{root}: {len(found)} data sets of TFDS in it ({', '.join(map(str, found[:5]))}); expected one, as "
      "`python -m hap_jax.cli prepare SOURCE --out=DIR` makes it (config.data.root)"
    )
  return found[0]


def _rows(builder, split, num_val):
  """Returns (start, stop, packed split) of what `split` asks for."""
  sizes = {name: info.num_examples for name, info in builder.info.splits.items()}
  if "val" not in sizes and "train" in sizes and (split == "val" or (split == "train" and num_val)):
    return *held_out(sizes["train"], num_val, split), "train"
  if split == "trainval" and split not in sizes and "train" in sizes:
    return 0, sizes["train"] + sizes.get("val", 0), "train+val" if "val" in sizes else "train"
  if split not in sizes:
    raise ValueError(f"split={split!r}: {builder.data_dir} has {', '.join(sizes)}")
  if split == "val" and num_val:
    return *held_out(sizes["val"], num_val, "val"), "val"
  return 0, sizes[split], split


def _spec(facts, split):
  skeleton = SKELETONS[facts["skeleton"]] if facts["skeleton"] else None
  notes = tuple(note for part in split.split("+") for note in facts["notes"][part])
  for note in notes:
    logging.warning("%s: %s", facts["source"], note)
  return SourceSpec(facts["source"], skeleton, facts["licence"], tuple(facts["fields"]), notes)


def _layout(features):
  others = features.keys() - {"image", "id", "name", "keypoints"}
  return {name: (features[name].np_dtype, features[name].shape) for name in sorted(others)}
