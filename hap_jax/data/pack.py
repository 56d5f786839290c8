"""Packs a source into a TFDS data set of ArrayRecord shards, without TensorFlow. `sources/tfds.py` reads it.

  <out>/hap_<source>/1.0.0/   the data set, with several shards per split. Any program with TFDS can read it.
  <out>/hap_<source>/1.0.0/table_<split>.npz   the columns: the fields that are known without reading pictures

A record has these fields:
  image      bytes of a picture file. If the picture is a whole file of the source, the bytes are copied. A
             picture that is drawn or cut out of a larger picture is encoded as JPEG of quality 95.
  keypoints  [K, 3] float32 for K joints: x, y in pixels, and 1 (visible) or 0. Only if the source has joints
  id         index of the record in the source
  name       name of the record, relative to the source's root
and every other field of the source under its own name. Such a field is an array of numbers with a fixed
shape. A column may also have texts. metadata.json has the description of the source.

Records are stored in the order of the source, uncompressed, in shards of about 256 MiB. TFDS's own
writer is not used, because it shuffles the records, and needs TensorFlow to shuffle more than a gigabyte.
This module serialises the records as TFDS does, and writes the metadata that TFDS needs to read them.
"""

import pathlib
from typing import NamedTuple

import numpy as np
from absl import logging
from array_record.python.array_record_module import ArrayRecordWriter

from hap_jax.data import columns
from hap_jax.data.sources import base
from hap_jax.io import picture_file, unfinished
from hap_jax.io.progress import SILENT

# Version of the format of records, tables and metadata. A new format gets a new number if programs for the
# previous format cannot read it.
# 1: the tables have only pid, camid and attributes. The metadata has only the names of the attributes.
# 2: the tables have any columns. The metadata has the names of the columns, their labels and `people`.
# 3: the metadata may contain exif="apply": the reader must turn the pictures as their EXIF headers say.
# A data set with exif="ignore" is still written as format 2, because programs for format 2 read it correctly.
FORMAT = 3
_FORMAT_OF = {base.IGNORE: 2, base.APPLY: 3}
METADATA_KEY = "hap_jax"
_JOINTS = ("keypoints_xy", "keypoints_visible")
_VERSION = "1.0.0"
_SHARD_BYTES = 2**28  # size of the records of a shard after which a new shard begins


class Packed(NamedTuple):
  """The result of packing a split.

  Attributes:
    records: number of records written.
    bad: {record number: error message} of the records that cannot be read and were left out.
  """

  records: int
  bad: dict[int, str]


def write_dataset(out, sources, *, root="", max_bad_share=0.001, progress=SILENT):
  """Writes the splits of a data set.

  The folder has a temporary name and is renamed at the end. So the folder `out` is never incomplete. Records
  that cannot be read are left out and logged. The metadata has their number and a list of the first ten.

  Args:
    out: folder to create.
    sources: {split: source}, the splits of one data set.
    root: folder of the data set. The names of the records are relative to this folder.
    max_bad_share: largest share of a split's records that may be bad.
    progress: a started `Progress` that counts the records.

  Returns:
    {split: Packed}.

  Raises:
    ValueError: if `out` exists or its parent folder does not exist, if too many records are bad, if the
      splits differ in columns or EXIF handling, or if a value cannot be packed.
  """
  out = pathlib.Path(out)
  unfinished.check_new(out)
  with unfinished.new_folder(out) as part:
    splits = {
      split: _Split(split, source, str(root), max_bad_share, progress) for split, source in sources.items()
    }
    progress.begin(sum(map(len, sources.values())), "records")
    _check_same_columns(splits)
    _check_same_exif(splits)
    _build(part, splits)
  return {name: Packed(len(split.source) - len(split.bad), split.bad) for name, split in splits.items()}


def _check_same_columns(splits):
  """Raises ValueError if the splits {name: _Split} differ in columns. The metadata has one list for all."""
  found = {name: ", ".join(sorted(split.columns)) or "none" for name, split in splits.items()}
  if len(set(found.values())) > 1:
    listed = "; ".join(f"{name}: {columns}" for name, columns in found.items())
    raise ValueError(
      f"splits with different columns, {listed}; expected the same columns in all splits: pack each split "
      "into a separate folder"
    )


def _check_same_exif(splits):
  """Raises ValueError if the splits {name: _Split} differ in exif. The metadata has one value for all."""
  found = {name: split.source.spec.exif for name, split in splits.items()}
  if len(set(found.values())) > 1:
    raise ValueError(
      f"splits with different values of the option exif, {found}; expected one value for all splits"
    )


class _Split:
  """A split during packing. It yields the records, and remembers which records are good and which are bad."""

  def __init__(self, name, source, root, max_bad_share, progress=SILENT):
    self.progress = progress
    self.name, self.source, self.root, self.max_bad_share = name, source, root, max_bad_share
    self.bad = {}
    if "image" not in source.spec.fields:
      raise ValueError(
        f"split {name} of {source.spec.name} has no pictures, so it cannot be packed: pack the pairs of its "
        "split, then this view can be opened from the packed data set"
      )
    self.columns = columns.check(source)
    self.good = []
    self.fields = [field for field in source.spec.fields if field not in ("image", *_JOINTS)]

  def examples(self):
    """Yields all readable records in order, as {name: value} for TFDS."""
    for i in range(len(self.source)):
      try:
        example = self._example(i)
      except base.BadRecordError as error:
        self._note_bad(i, error)
        continue
      finally:
        self.progress.add(1)
      self.good.append(i)
      yield example

  def table(self):
    """Returns the columns of the n records that `examples` yielded, {field: [n, ...] array}."""
    return {field: column[self.good] for field, column in self.columns.items()}

  def _example(self, i):
    name = self._name(i)
    # This line decodes every picture, even if its file is only copied. So broken files are found now.
    record = self.source[i]
    example = {"image": self._bytes(i, record), "id": i, "name": name}
    if self.source.spec.skeleton is not None:
      xy, visible = (record[field] for field in _JOINTS)
      example["keypoints"] = np.concatenate([xy, visible[:, None]], axis=1).astype(np.float32)
    for field in self.fields:
      example[field] = np.asarray(self.columns[field][i] if field in self.columns else record[field])
    return example

  def _bytes(self, i, record):
    if hasattr(self.source, "file"):
      return base.read_bytes(self.source.file(i))
    return picture_file.encode_jpeg(record["image"])

  def _name(self, i):
    name = pathlib.Path(self.source.name(i))
    is_below = self.root and name.is_relative_to(self.root)
    text = str(name.relative_to(self.root) if is_below else name)
    base.check_utf8(text, self.source.spec.name)
    return text

  def _note_bad(self, i, error):
    self.bad[i] = str(error)
    logging.warning("record %d of %s is left out: %s", i, self.name, error)
    if len(self.bad) > self.max_bad_share * len(self.source):
      raise ValueError(
        f"{len(self.bad)} of {len(self.source)} records of {self.name} cannot be read, more than the share "
        f"{self.max_bad_share:g} that --max_bad_share allows: repair the records or raise this share. The "
        f"first: {'; '.join(list(self.bad.values())[:3])}"
      ) from error


def _build(part, splits):
  """Writes {name: _Split} as a TFDS data set below `part`."""
  # The import is here because it takes a second and only this function needs it.
  import tensorflow_datasets as tfds

  spec = next(iter(splits.values())).source.spec
  name = f"hap_{spec.name}"
  folder = part / name / _VERSION
  folder.mkdir(parents=True)
  features = tfds.features.FeaturesDict(_features(tfds, next(iter(splits.values()))))
  template = tfds.core.ShardedFileTemplate(data_dir=folder, dataset_name=name, filetype_suffix="array_record")
  infos = []
  for split in splits.values():
    lengths, num_bytes = _write_shards(folder, f"{name}-{split.name}", split, features)
    place = template.replace(split=split.name)
    infos.append(
      tfds.core.SplitInfo(
        name=split.name, shard_lengths=lengths, num_bytes=num_bytes, filename_template=place
      )
    )
    if split.columns:
      np.savez(folder / f"table_{split.name}.npz", **split.table())
  tfds.folder_dataset.write_metadata(
    data_dir=folder,
    features=features,
    split_infos=infos,
    version=_VERSION,
    check_data=False,  # True would read a record with TensorFlow
    description=f"Persons of the source {spec.name}, packed by hap_jax in the order of the source.",
    license=spec.licence,
    disable_shuffling=True,
    metadata=tfds.core.MetadataDict({METADATA_KEY: _metadata(splits)}),
  )


def _write_shards(folder, prefix, split, features):
  """Writes a split's records. Returns (number of records in each shard, bytes of all records together)."""
  lengths, sizes = [], []
  writer = None
  for example in split.examples():
    if writer is None:
      path = folder / f"{split.name}-{len(lengths):05d}.part"
      # group_size is 1, so that a single record can be read. Records are not compressed, because compression
      # does not make JPEG files smaller and doubles the time to read a record.
      writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
      lengths.append(0)
      sizes.append(0)
    data = features.serialize_example({name: _as_tfds(value) for name, value in example.items()})
    writer.write(data)
    lengths[-1] += 1
    sizes[-1] += len(data)
    if sizes[-1] >= _SHARD_BYTES:
      writer.close()
      writer = None
  if writer is not None:
    writer.close()
  if not lengths:
    raise ValueError(f"{split.name} of {split.source.spec.name} has no record that can be read")
  # TFDS expects the number of shards in every file name. This number is only known now.
  for shard in range(len(lengths)):
    name = f"{prefix}.array_record-{shard:05d}-of-{len(lengths):05d}"
    (folder / f"{split.name}-{shard:05d}.part").rename(folder / name)
  return lengths, sum(sizes)


def _features(tfds, split):
  """Returns {name: TFDS feature} of a split's records. The shapes are taken from its first good record."""
  example = _first_example(split)
  features = {
    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
    "id": np.int64,
    "name": tfds.features.Text(),
  }
  for name in example.keys() - features.keys():
    value = example[name]
    is_text = name in split.columns and value.dtype.kind == "U"
    if not is_text and value.dtype.kind not in "biu" and value.dtype != np.float32:
      raise ValueError(
        f"field {name} of {split.source.spec.name} is of type {value.dtype}; expected whole numbers, "
        "float32, or a column of texts"
      )
    if is_text and value.shape == ():
      features[name] = tfds.features.Text()
    else:
      features[name] = tfds.features.Tensor(shape=value.shape, dtype=np.object_ if is_text else value.dtype)
  return features


def _as_tfds(value):
  """Converts a value to a type that TFDS can serialise. NumPy texts become Python strings."""
  if isinstance(value, np.ndarray) and value.dtype.kind == "U":
    return value.astype(object) if value.shape else value.item()
  return value


def _first_example(split):
  probe = _Split(split.name, split.source, split.root, split.max_bad_share)
  for example in probe.examples():
    return example
  raise ValueError(f"{split.name} of {split.source.spec.name} has no record that can be read")


def _metadata(splits):
  first = next(iter(splits.values())).source
  spec = first.spec
  notes = {name: list(split.source.spec.notes) for name, split in splits.items()}
  for name, split in splits.items():
    if split.bad:
      numbers = ", ".join(map(str, list(split.bad)[:10]))
      notes[name].append(f"{len(split.bad)} records that cannot be read are left out (id {numbers})")
  return {
    "format": _FORMAT_OF[spec.exif],
    "source": spec.name,
    "licence": spec.licence,
    "skeleton": spec.skeleton.name if spec.skeleton else None,
    "fields": list(spec.fields),
    "notes": notes,
    "pictures": "bytes of the source's files" if hasattr(first, "file") else "encoded as JPEG, quality 95",
    "exif": spec.exif,
    "columns": sorted(next(iter(splits.values())).columns),
    "labels": {field: list(names) for field, names in spec.labels.items()},
    "people": {name: split.source.spec.people for name, split in splits.items()},
  }
