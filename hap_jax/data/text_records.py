"""Reads the annotation file of a data set for text ReID: a JSON list with one object per picture.

The sources CUHK-PEDES, ICFG-PEDES and RSTPReid use it. An object has these keys:
  split      "train", "val" or "test", in upper or lower case
  id         id of the person
  captions   list of texts. They are not changed, so superfluous blanks remain.
  file_path  path of the picture. The key is `img_path` in RSTPReid.
Other keys, such as `processed_tokens`, are ignored. The split and the person are never read from the path.
"""

import dataclasses
import functools
import itertools
import os
import posixpath
from typing import NamedTuple

from hap_jax.data import json_entries
from hap_jax.data.pose_people import first_five
from hap_jax.data.sources.base import check_relative, check_utf8, describe_folder, printable
from hap_jax.io.npz_file import MAX_TEXT_LENGTH

SPLITS = ("train", "val", "test")
_MAX_ID = 2**31 - 1


@dataclasses.dataclass(frozen=True, eq=False)
class DataSet:
  """Facts about a data set for text ReID.

  Attributes:
    name: name of the source.
    splits: the names of its splits.
    files: possible names of the annotation file. The first file that exists is read.
    picture_key: key of the path of a picture.
    licence: licence of the data.
    counts: {split: official (pictures, persons, captions)}, after the official preparation.
    dropped: ids of persons that the official preparation leaves out of training.
    without_splits: name of a file of the same archive that has no splits, "" if there is none.
    path_parts: number of components at the end of a path that are used. 0: all components.
    shares_ids: True: the same id may mean different people in different splits.
  """

  name: str
  splits: tuple[str, ...]
  files: tuple[str, ...]
  picture_key: str
  licence: str
  counts: dict[str, tuple[int, int, int]]
  dropped: tuple[int, ...] = ()
  without_splits: str = ""
  path_parts: int = 0
  shares_ids: bool = False

  @property
  def option(self):
    """Configuration key for the path of the annotation file."""
    return f"config.data.{self.name}.annotations"

  @property
  def format(self):
    """The format of the annotation file, for error messages."""
    return f"{self.files[0]}'s format (split, id, captions, {self.picture_key})"


def published(data_set, split):
  """Returns the official sizes of a split: {"records", "persons"}, or {} if they are not known.

  A record is a pair of a picture and a caption.
  """
  if split not in data_set.counts:
    return {}
  _, persons, captions = data_set.counts[split]
  return {"records": captions, "persons": persons}


class Record(NamedTuple):
  """One object of the file.

  Attributes:
    split: "train", "val" or "test".
    pid: id of the person.
    name: path of the picture below the folder of the pictures.
    captions: texts, at least one.
  """

  split: str
  pid: int
  name: str
  captions: list[str]


def find(root, annotations, data_set):
  """Returns the path of the annotation file.

  Args:
    root: folder of the data set.
    annotations: path of the file relative to `root`. "": the first of the usual names that exists.
    data_set: DataSet.
  Raises:
    ValueError: if no file with a usual name exists. A path in `annotations` is not checked.
  """
  if annotations:
    return os.path.join(root, annotations)
  paths = [os.path.join(root, name) for name in data_set.files]
  for path in paths:
    if os.path.isfile(path):
      return path
  other, hint = data_set.without_splits, ""
  if other and os.path.isfile(os.path.join(root, other)):
    hint = (
      f"{other} is there, but it has no splits: copy {data_set.files[0]} of the same archive to this folder; "
    )
  raise ValueError(
    f"{root}: {' or '.join(data_set.files)} not found; {hint}set config.data.root to the folder that holds "
    f"it, or {data_set.option} to its path; {describe_folder(root)}"
  )


def read(path, data_set):
  """Reads and checks an annotation file.

  Args:
    path: the file.
    data_set: DataSet.
  Returns:
    (list of Record in the order of the file, notes).
  Raises:
    ValueError: if the format does not allow a value, if a picture has two persons or is in two splits, or if
      a person is in two splits. The message names the file and the record. Records are counted from 1.
  """
  stamp = os.stat(path) if os.path.isfile(path) else None
  records, notes = _read(path, data_set, stamp and (stamp.st_mtime_ns, stamp.st_size))
  return records, list(notes)


# Cached, because a run opens several splits of one file, and reading CUHK-PEDES' file takes two seconds.
@functools.lru_cache(maxsize=1)
def _read(path, data_set, stamp):
  """Reads an annotation file; see `read`. `stamp` changes if the file changes."""
  del stamp
  entries = json_entries.read(path, data_set.option, data_set.format)
  if not isinstance(entries, list) or not entries:
    found = json_entries.show(entries)
    raise ValueError(
      f"{path}: expected a list of objects in {data_set.format}, found {found} ({data_set.option})"
    )
  records = [_read_record(entry, f"{path}: record {k}", data_set) for k, entry in enumerate(entries, start=1)]
  names = [record.name for record in records]
  check_relative(names, lambda row: f"{path}: record {row + 1}")
  _check_utf8(names, path)
  # After this line, records of the same picture have the same name.
  records = [record._replace(name=posixpath.normpath(record.name)) for record in records]
  _check_pictures(records, path)
  return records, _check_people(records, path, data_set)


def _read_record(entry, where, data_set):
  json_entries.check_object(entry, where, data_set.format)
  if "split" not in entry:
    other = data_set.without_splits
    hint = f", because {other} has no splits" if other else ""
    raise ValueError(f'{where} has no key "split"; expected {data_set.files[0]}{hint} ({data_set.option})')
  split = json_entries.text(entry, "split", where).lower()
  if split not in SPLITS:
    found = json_entries.show(entry["split"])
    raise ValueError(f"{where} has {found} under split, expected {', '.join(SPLITS)}: correct the record")
  pid = json_entries.integer(entry, "id", where, 0, _MAX_ID)
  name = json_entries.text(entry, data_set.picture_key, where)
  if data_set.path_parts:
    name = "/".join(name.split("/")[-data_set.path_parts :])
  return Record(split, pid, name, _read_captions(entry, where))


def _read_captions(entry, where):
  captions = json_entries.get(entry, "captions", where)
  if not isinstance(captions, list) or not captions:
    found = json_entries.show(captions)
    raise ValueError(
      f"{where} has {found} under captions, expected a list of at least one text: add a caption or remove "
      "the record"
    )
  for number, caption in enumerate(captions, start=1):
    if not isinstance(caption, str):
      problem = f"{json_entries.show(caption)}, expected a text"
    elif not caption.strip():
      problem = "empty"
    elif len(caption) > MAX_TEXT_LENGTH or "\0" in caption or not _is_utf8(caption):
      problem = (
        f"{caption[:60]!a}, of {len(caption):,} characters; expected UTF-8 of at most {MAX_TEXT_LENGTH:,} "
        "characters without NUL"
      )
    else:
      continue
    raise ValueError(
      f"{where}: caption {number} is {problem}: correct the caption or remove it from the list"
    )
  return captions


def shown(name):
  """Returns the name of a picture for an error message, cut to 200 characters."""
  return printable(name)[:200]


def _is_utf8(text):
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True


def _check_utf8(names, path):
  if not _is_utf8("".join(names)):
    for row, name in enumerate(names):
      check_utf8(name, f"{path}: record {row + 1}")


def _check_pictures(records, path):
  """Raises ValueError if two records of the same picture have different persons or splits."""
  first = {}
  for row, record in enumerate(records):
    other = first.setdefault(record.name, row)
    for key, here, there in (
      ("ids", record.pid, records[other].pid),
      ("splits", record.split, records[other].split),
    ):
      if here != there:
        raise ValueError(
          f"{path}: records {other + 1} and {row + 1} name the picture {shown(record.name)} with "
          f"different {key}, {there} and {here}; expected one of them: correct or remove a record"
        )


def _check_people(records, path, data_set):
  """Returns notes on people that are in two splits. Raises ValueError if the data set does not allow them."""
  people = {split: {record.pid for record in records if record.split == split} for split in SPLITS}
  notes = []
  for one, other in itertools.combinations(SPLITS, 2):
    shared = sorted(people[one] & people[other])
    if not shared:
      continue
    found = f"{path}: {one} and {other} share {len(shared):,} of the ids ({first_five(shared)})"
    if not data_set.shares_ids:
      raise ValueError(
        f"{found}; expected different people: give each person one split, and each id one person"
      )
    notes.append(f"{found}; this is correct only if such an id means a different person in {other}")
  return notes
