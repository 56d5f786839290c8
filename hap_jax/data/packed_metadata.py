"""Reads and checks the JSON files of a packed data set: dataset_info.json, features.json, metadata.json.

The author of a data set is not trusted. TFDS imports the classes whose names are in features.json, and opens
the files whose names are in dataset_info.json. So with TFDS, a data set could run code and read files. This
module reads the JSON files without TFDS, and checks every value before it is used.
"""

import hashlib
import math
import os
import re
from typing import NamedTuple

from hap_jax.data import pack, packed_features
from hap_jax.data.packed_features import Feature, as_object, shorten, whole_number
from hap_jax.data.skeletons import SKELETONS
from hap_jax.data.sources.base import EXIF, IGNORE
from hap_jax.io.regular_file import open_regular

INFO_FILE = "dataset_info.json"
_FEATURES_FILE = "features.json"
_FACTS_FILE = "metadata.json"
_REMEDY = "copy this file from the original data set, or pack it again with `hap prepare SOURCE`"
_MAX_JSON_BYTES = 2**22  # enough for a data set of 300,000 shards
_MIN_RECORD_BYTES = 40  # the size of the header that ArrayRecord writes for each record
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_TEMPLATE = re.compile(r"(?:\{[A-Z_]+\}|[A-Za-z0-9_.-])+")
_TEMPLATE_OF_TFDS = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_FILE_FORMAT = "array_record"


class Split(NamedTuple):
  """One split of a packed data set.

  Attributes:
    shards: path of each shard.
    lengths: number of records in each shard.
    num_bytes: size of all shards together.
  """

  shards: tuple[str, ...]
  lengths: tuple[int, ...]
  num_bytes: int

  @property
  def num_records(self):
    return sum(self.lengths)


class Facts(NamedTuple):
  """The description of the packed source. `pack` writes it to metadata.json (see `SourceSpec`).

  Attributes:
    source: name of the source.
    licence: licence of the data.
    skeleton: a key of SKELETONS. None: the records have no joints.
    fields: names of the fields of a record.
    notes: {split: sentences}.
    columns: names of the fields that are columns, stored in the files table_<split>.npz.
    labels: {field: names of the values of this field, in their order}.
    people: {split: name of the numbering of `pid`}.
    exif: "apply" or "ignore" the EXIF headers of the pictures.
  """

  source: str
  licence: str
  skeleton: str | None
  fields: tuple[str, ...]
  notes: dict[str, tuple[str, ...]]
  columns: tuple[str, ...]
  labels: dict[str, tuple[str, ...]]
  people: dict[str, str]
  exif: str


class PackedMetadata(NamedTuple):
  """The content of the JSON files of a packed data set."""

  splits: dict[str, Split]
  features: dict[str, Feature]
  facts: Facts


def read(folder):
  """Reads the metadata of the packed data set in `folder`.

  Returns:
    PackedMetadata. It is checked: every shard is a regular file in `folder`, and the shards are large enough
    for the numbers of records and the shapes of the fields.

  Raises:
    ValueError: if a file is missing or damaged, does not have the form that `prepare` writes, or contains the
      name of a class or a file that is not allowed.
  """
  splits = _read_file(folder, INFO_FILE, lambda value: _splits(value, folder))
  features = _read_file(folder, _FEATURES_FILE, lambda value: _features(value, splits))
  facts = _read_file(folder, _FACTS_FILE, lambda value: _facts(value, splits, features, folder))
  return PackedMetadata(splits, features, facts)


def number_fields(features):
  """Returns {field: (dtype, shape)} of the features that are arrays of numbers of a fixed shape.

  The features "image", "keypoints", "name" and "id" are left out.
  """
  return {
    name: (feature.dtype, feature.shape)
    for name, feature in sorted(features.items())
    if feature.shape is not None
    and feature.dtype != packed_features.TEXT
    and name not in ("image", "id", "name", "keypoints")
  }


def text_fields(features, facts):
  """Returns {field: shape} of the fields of the source whose values are texts, except `name`."""
  return {
    name: features[name].shape
    for name in facts.fields
    if name in features and features[name].dtype == packed_features.TEXT and name != "name"
  }


def _read_file(folder, name, parse):
  """Returns parse(content of a JSON file). Adds the path and the remedy to the message of a ValueError."""
  path = os.path.join(folder, name)
  try:
    with open_regular(path) as file:
      data = file.read(_MAX_JSON_BYTES + 1)
    if len(data) > _MAX_JSON_BYTES:
      raise ValueError(f"it is larger than {_MAX_JSON_BYTES} bytes")
    return parse(packed_features.load_json(data.decode("utf-8")))
  except OSError as error:
    raise ValueError(f"{path}: cannot be read: {error.strerror or error}; {_REMEDY}") from error
  except ValueError as error:
    raise ValueError(f"{path}: {error}; {_REMEDY}") from error


def _splits(info, folder):
  """Returns {name: Split} of the parsed dataset_info.json."""
  if not isinstance(info, dict):
    raise ValueError(f"expected an object, found {shorten(info)}")
  dataset = _name(info.get("name"), "name")
  if info.get("fileFormat") != _FILE_FORMAT:
    raise ValueError(f"fileFormat: expected {_FILE_FORMAT}, found {shorten(info.get('fileFormat'))}")
  if not isinstance(info.get("version"), str) or not re.fullmatch(r"\d{1,9}(\.\d{1,9}){2}", info["version"]):
    raise ValueError(f"version: expected a version such as 1.0.0, found {shorten(info.get('version'))}")
  entries = info.get("splits")
  if not isinstance(entries, list) or not entries:
    raise ValueError(f"splits: expected a list of splits, found {shorten(entries)}")
  splits = {}
  for entry in entries:
    if not isinstance(entry, dict):
      raise ValueError(f"splits: expected objects, found {shorten(entry)}")
    name = _name(entry.get("name"), "splits, name")
    if name in splits:
      raise ValueError(f"splits: two splits have the name {name}")
    splits[name] = _split(entry, name, dataset, folder)
  return splits


def _split(entry, split, dataset, folder):
  where = f"split {split}"
  lengths = entry.get("shardLengths")
  if not isinstance(lengths, list) or not lengths:
    raise ValueError(f"{where}, shardLengths: expected a list of numbers, found {shorten(lengths)}")
  sizes, numbers = {}, []
  names = _shard_names(entry.get("filepathTemplate"), where, dataset, split, len(lengths))
  for name, length in zip(names, lengths, strict=True):
    path = os.path.join(folder, name)
    if path in sizes:
      raise ValueError(f"{where}, filepathTemplate: several shards have the name {name}")
    if not os.path.isfile(path):
      raise ValueError(f"{where}: shardLengths lists {len(lengths)} shards, but there is no file {name}")
    sizes[path] = os.path.getsize(path)
    # The length is checked, because arrays of this length are allocated later.
    most = sizes[path] // _MIN_RECORD_BYTES
    numbers.append(whole_number(length, f"{where}, shardLengths of {name}", 1, most))
  return Split(tuple(sizes), tuple(numbers), sum(sizes.values()))


def _shard_names(template, where, dataset, split, num_shards):
  """Yields the file names of a split's shards from TFDS's template. All files are in the folder itself."""
  # The pattern does not allow "/". A name such as ".." is a folder, and `_split` accepts only files.
  template = _TEMPLATE_OF_TFDS if template in (None, "") else template
  if not isinstance(template, str) or len(template) > 200 or not _TEMPLATE.fullmatch(template):
    raise ValueError(
      f"{where}, filepathTemplate: expected a file name such as {_TEMPLATE_OF_TFDS}, without a folder, found "
      f"{shorten(template)}"
    )
  for shard in range(num_shards):
    words = {
      "DATASET": dataset,
      "SPLIT": split,
      "FILEFORMAT": _FILE_FORMAT,
      "SHARD_INDEX": f"{shard:05d}",
      "NUM_SHARDS": f"{num_shards:05d}",
      "SHARD_X_OF_Y": f"{shard:05d}-of-{num_shards:05d}",
    }
    unknown = set(re.findall(r"\{([A-Z_]+)\}", template)) - words.keys()
    if unknown:
      raise ValueError(f"{where}, filepathTemplate: unknown words {', '.join(sorted(unknown))[:100]}")
    yield re.sub(r"\{([A-Z_]+)\}", lambda match, words=words: words[match[1]], template)


def _name(value, where):
  if not isinstance(value, str) or not _NAME.fullmatch(value):
    raise ValueError(f"{where}: expected a name of letters, digits, _ . -, found {shorten(value)}")
  return value


def _features(value, splits):
  """Returns {name: Feature} of the parsed features.json. Compares the shapes with the size of the shards."""
  features = packed_features.parse(value)
  for name, kind in (("image", "Image"), ("name", "Text")):
    found = features[name].kind if name in features else "none"
    if found != kind:
      raise ValueError(f"feature {name}: expected class {kind}, found {found}")
  # A number or a text takes at least one byte of a record. So shapes that need more values than the shards
  # have bytes are wrong. This check also prevents arrays that are much larger than the shards.
  numbers = sum(math.prod(feature.shape) for feature in features.values() if feature.shape is not None)
  for split, (_, lengths, num_bytes) in splits.items():
    if numbers * sum(lengths) > num_bytes:
      raise ValueError(
        f"its shapes need {numbers} numbers per record: too many for the {sum(lengths)} records of split "
        f"{split} in {num_bytes} bytes"
      )
  return features


def _facts(value, splits, features, folder):
  """Returns Facts of the parsed metadata.json."""
  facts = value.get(pack.METADATA_KEY) if isinstance(value, dict) else None
  if not isinstance(facts, dict):
    raise ValueError(
      f"this data set has no metadata from `hap prepare` (key {pack.METADATA_KEY} is {shorten(facts)})"
    )
  where = "format (a larger number needs a later version of hap_jax)"
  written = whole_number(facts.get("format"), where, 1, pack.FORMAT)
  skeleton = facts.get("skeleton")
  if skeleton is not None and (not isinstance(skeleton, str) or skeleton not in SKELETONS):
    raise ValueError(f"skeleton: expected null or {', '.join(SKELETONS)}, found {shorten(skeleton)}")
  notes = as_object(facts.get("notes"), "notes")
  fields = _texts(facts.get("fields"), "fields")
  if written == 1:
    facts = _complete_format_1(facts, fields, splits, folder)
  result = Facts(
    source=_text(facts.get("source"), "source"),
    licence=_text(facts.get("licence"), "licence"),
    skeleton=skeleton,
    fields=fields,
    notes={split: _texts(notes.get(split), f"notes, {split}") for split in splits},
    columns=_texts(facts.get("columns"), "columns"),
    labels={
      field: _texts(names, f"labels, {shorten(field)}")
      for field, names in as_object(facts.get("labels"), "labels").items()
    },
    people={
      split: _text(as_object(facts.get("people"), "people").get(split), f"people, {split}")
      for split in splits
    },
    # Older versions of hap_jax did not write this entry, and did not turn pictures.
    exif=facts.get("exif", IGNORE),
  )
  if result.exif not in EXIF:
    raise ValueError(f'exif: expected "apply" or "ignore", found {shorten(result.exif)}')
  _check_fields(result, features)
  return result


def _complete_format_1(facts, fields, splits, folder):
  """Adds the keys of format 2 to the facts of a data set of format 1."""
  names = facts.get("attribute_names")
  columns = [field for field in ("pid", "camid", "attributes") if field in fields]
  return facts | {
    "columns": columns,
    "labels": {} if names is None else {"attributes": names},
    "people": {split: _former_people(facts, split, folder) if "pid" in columns else "" for split in splits},
  }


def _former_people(facts, split, folder):
  """Returns the name of a split's numbering of persons. Format 1 does not store this name."""
  # At the time of format 1, only the sources market1501 and msmt17 had fixed ids. The ids of the sources
  # synthetic and identity_folder depend on a seed or a folder, which format 1 does not store. The numbering
  # of such a data set gets a unique name, so that it is never treated as equal to another numbering.
  source = _text(facts.get("source"), "source")
  if source == "market1501":
    return source
  if source == "msmt17":
    return source if split == "train" else f"{source}, test"
  with open_regular(os.path.join(folder, INFO_FILE)) as file:
    digest = hashlib.sha256(file.read(_MAX_JSON_BYTES)).hexdigest()[:12]
  return f"{source}, packed as {digest}"


def _check_fields(facts, features):
  """Raises ValueError if metadata.json lists fields that are not in features.json."""
  present = {"image", *number_fields(features), *text_fields(features, facts)}
  if facts.skeleton is not None:
    num_joints = len(SKELETONS[facts.skeleton].joints)
    joints = features.get("keypoints", Feature("none"))
    if joints.dtype != "float32" or joints.shape != (num_joints, 3):
      raise ValueError(
        f"skeleton: {facts.skeleton} needs the feature keypoints, float32 of shape ({num_joints}, 3), in "
        f"{_FEATURES_FILE}; found {joints.kind}, {joints.dtype} of shape {joints.shape}"
      )
    present |= {"keypoints_xy", "keypoints_visible"}
  missing = [field for field in facts.fields if field not in present]
  if missing:
    raise ValueError(
      f"fields: {shorten(missing)} have no numbers or texts of a fixed shape in {_FEATURES_FILE}"
    )
  for key, named in (("columns", facts.columns), ("labels", facts.labels)):
    unknown = sorted(set(named) - set(facts.fields) | {"image"} & set(named))
    if unknown:
      raise ValueError(f"{key}: {shorten(unknown)} are not fields of numbers or texts")
  for field, names in facts.labels.items():
    shape = features[field].shape if field in features else ()
    if len(shape) == 1 and shape[0] != len(names):
      raise ValueError(
        f"labels, {shorten(field)}: expected {shape[0]} names, one per value, found {len(names)}"
      )


def _text(value, where):
  if not isinstance(value, str):
    raise ValueError(f"{where}: expected text, found {shorten(value)}")
  return value.encode(
    "utf-8", "replace"
  ).decode()  # JSON can contain half of a surrogate pair, which cannot be printed


def _texts(value, where):
  if not isinstance(value, list):
    raise ValueError(f"{where}: expected a list of texts, found {shorten(value)}")
  return tuple(_text(item, where) for item in value)
