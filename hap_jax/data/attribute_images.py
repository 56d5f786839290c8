"""Opens and checks a split of a published data set of pedestrian attributes: PETA, RAP or PA-100K.

A record contains `image` [H, W, 3] uint8 RGB and `attributes` [A] bool, for A attributes. A source of N
records has the column `attributes`, [N, A] bool. The names of the attributes are in the source's spec, in the
same order.

The annotations come from the .mat file of a data set, or from a file `dataset_all.pkl`, which users of HAP's
official code share. The .pkl file has the same content, but no ids of persons. It is read as plain data: no
class that the file refers to is imported.
"""

import dataclasses
import os
from collections.abc import Callable

import numpy as np

from hap_jax.data import division, picture_files
from hap_jax.data.sources.base import check_relative, check_root, describe_folder
from hap_jax.io import mat_file, plain_data, restricted_pickle

PICKLE = "dataset_all.pkl"
_UNCERTAIN = 2  # value of a label in the annotation files


@dataclasses.dataclass(frozen=True)
class Annotations:
  """The content of an annotation file, for all N pictures of a data set.

  Attributes:
    path: path of the file.
    images: [N] names of the picture files.
    labels: [N, C] int. 1: present, 0: absent, 2: uncertain.
    names: [C] names of the columns of `labels`.
    rows: {split: [n] int64}, the rows of each official split, starting at 0. The splits are "train", "test"
      and, in some data sets, "val".
    pids: [N] int64, the id of the person on each picture. A negative id: the person is not known. None: the
      file has no ids of persons.
  """

  path: str
  images: list[str]
  labels: np.ndarray
  names: list[str]
  rows: dict[str, np.ndarray]
  pids: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class DataSet:
  """Facts about a data set of pedestrian attributes.

  Attributes:
    name: name of the source.
    licence: licence of the data.
    read_mat: function that reads the .mat file: path -> Annotations.
    files: possible paths of the .mat file, relative to the root.
    folders: possible paths of the folder of the pictures, relative to the root.
    attributes: names of the scored attributes, in the order of the outputs of the official classifier.
    counts: {split: number of pictures}. The splits are "train", "test" and, in some data sets, "val".
  """

  name: str
  licence: str
  read_mat: Callable[[str], Annotations]
  files: tuple[str, ...]
  folders: tuple[str, ...]
  attributes: tuple[str, ...]
  counts: dict[str, int]


def open_split(data_set, root, split, identity_disjoint, split_seed, annotations, images):
  """Opens a split of a data set, in the order of its annotation file.

  Args:
    data_set: DataSet.
    root: folder that contains the annotation file and the folder of pictures (config.data.root).
    split: name of a split of the data set, or "trainval": the training and the validation split together.
    identity_disjoint: True: random splits without shared persons replace the official splits. This needs an
      annotation file with ids of persons.
    split_seed: seed for drawing the persons of each split, if `identity_disjoint` is True. It is independent
      of the seed of the run.
    annotations: path of the annotation file, absolute or relative to root. "": the usual place in the data
      set.
    images: folder of the pictures, absolute or relative to root. "": the usual place in the data set.

  Returns:
    PictureFiles with the column `attributes`, [N, A] bool, in the order of the official classifier's outputs.

  Raises:
    ValueError: if a file is missing or damaged, or if an option has a wrong value.
  """
  _check_split(data_set, split)
  check_root(root, f"{data_set.files[0]} or {PICKLE}, and the pictures in {data_set.folders[0]}/")
  found = _read(data_set, _find_file(data_set, root, annotations))
  # The files may contain more attributes than the scored attributes, and in another order.
  labels, notes = _select(found, data_set.attributes)
  _check_rows(found)
  rows = found.rows
  if identity_disjoint:
    rows, note = _divide_persons(data_set, found, split_seed)
    notes.append(note)
  else:
    notes += [*_note_counts(data_set, found), _note_shared(data_set, found)]
  parts = [name for name in ("train", "val") if name in rows] if split == "trainval" else [split]
  chosen = np.concatenate([rows[name] for name in parts])
  if not len(chosen):
    raise ValueError(f"{found.path}: no pictures in split {split!r}; there are {_sizes(rows)}")
  folder = _find_folder(data_set, root, images)
  names = [found.images[row] for row in chosen.tolist()]
  _check_pictures(folder, names, found.path)
  return picture_files.make(
    folder,
    names,
    {"attributes": labels[chosen]},
    data_set.name,
    licence=data_set.licence,
    notes=notes,
    labels={"attributes": data_set.attributes},
  )


def published(data_set, split):
  """Returns the official sizes of a split: {"records", "attributes"}. "trainval" is train and val."""
  parts = [name for name in ("train", "val") if name in data_set.counts] if split == "trainval" else [split]
  records = sum(data_set.counts[name] for name in parts)
  return {"records": records, "attributes": len(data_set.attributes)}


def first_draw(cell, names, where):
  """Returns the first of several random divisions into splits as {name: [n] int64 rows}, starting at 0.

  Args:
    cell: object array of structs, one per division. Their rows start at 1.
    names: names of the members of a struct, one per split.
    where: name of the cell, for error messages.
  Raises:
    ValueError: if `cell` is not a cell of such structs.
  """
  if not isinstance(cell, np.ndarray) or not cell.size:
    raise ValueError(f"{where}: expected a cell of splits, found {mat_file.describe(cell)}")
  first = mat_file.fields(cell.reshape(-1)[0], where)
  members = mat_file.pick(first, names, where)
  return {name: mat_file.integers(value, f"{where}.{name}", 1) - 1 for name, value in members.items()}


def _check_split(data_set, split):
  splits = (*data_set.counts, "trainval")
  if split not in splits:
    hint = "; it has no validation split: train and trainval are the same" if split == "val" else ""
    raise ValueError(f"split={split!r}: {data_set.name} has {', '.join(splits)}{hint}")


def _find_file(data_set, root, annotations):
  choices = (annotations,) if annotations else (*data_set.files, PICKLE)
  key = f"config.data.{data_set.name}.annotations"
  problem = f"none of {', '.join(choices)}; expected the annotation file there, or its path in {key}"
  return _find(root, choices, os.path.isfile, problem)


def _find_folder(data_set, root, images):
  choices = (images,) if images else data_set.folders
  key = f"config.data.{data_set.name}.images"
  problem = f"no folder {', '.join(choices)}; expected the pictures there, or their folder in {key}"
  return _find(root, choices, os.path.isdir, problem)


def _find(root, choices, is_there, problem):
  """Returns the first path that exists. Raises ValueError with the message `problem` if none exists."""
  paths = [os.path.join(root, choice) for choice in choices]
  found = next(filter(is_there, paths), None)
  if found is None:
    raise ValueError(f"{root}: {problem}; {describe_folder(root)}")
  return found


def _read(data_set, path):
  found = _read_pickle(path, "val" in data_set.counts) if path.endswith(".pkl") else data_set.read_mat(path)
  check_relative(found.images, lambda i: f"{path}: picture {i + 1}")
  N, C = len(found.images), len(found.names)
  if found.labels.shape != (N, C):
    raise ValueError(
      f"{path}: labels of shape {found.labels.shape}, but {N} pictures and {C} names of attributes; expected "
      f"({N}, {C})"
    )
  return found


def _read_pickle(path, has_val):
  """Reads `dataset_all.pkl`.

  In this file, rows are counted from 0. The value of a split is an array of rows, or a list of such arrays,
  one per random division.

  Args:
    path: the file.
    has_val: True if the data set has a validation split.
  Returns:
    Annotations without ids of persons.
  Raises:
    ValueError: if the file cannot be read or has another content.
  """
  data = restricted_pickle.load(path)
  if not isinstance(data, dict):
    raise ValueError(f"{path}: expected a dict of annotations, found a {type(data).__name__}")
  data = mat_file.pick(data, ("image_name", "label", "attr_name", "partition"), path)
  partition, labels = data["partition"], _array(data["label"], f"{path}: label")
  if not isinstance(partition, dict) or labels.ndim != 2 or labels.dtype.kind not in "biuf":
    raise ValueError(
      f"{path}: expected a dict under partition, and an array (pictures, attributes) of numbers under label"
    )
  names = ("train", "val", "test") if has_val else ("trainval", "test")
  rows = {}
  for name, value in mat_file.pick(partition, names, f"{path}: partition").items():
    # PETA and RAP have several random divisions. As in the official code, the first division is used.
    is_list = isinstance(value, (list, tuple)) and len(value)
    first = value[0] if is_list and isinstance(value[0], (list, tuple, range, np.ndarray)) else value
    first = _array(first, f"{path}: partition.{name}")
    first = first[0] if first.ndim == 2 else first
    if first.ndim != 1 or (len(first) and first.dtype.kind not in "iu"):
      raise ValueError(f"{path}: partition.{name}: expected row numbers, found {mat_file.describe(first)}")
    rows["train" if name == "trainval" else name] = first.astype(np.int64)
  texts = {}
  for key in ("image_name", "attr_name"):
    texts[key] = _array(data[key], f"{path}: {key}", object).reshape(-1).tolist()
    wrong = [text for text in texts[key] if not isinstance(text, str) or not text]
    if wrong:
      raise ValueError(f"{path}: {key}: expected texts, found {mat_file.describe(wrong[0])}")
  return Annotations(path, texts["image_name"], labels, texts["attr_name"], rows)


def _array(value, where, dtype=None):
  try:
    return plain_data.as_array(value, dtype)
  except ValueError as error:
    raise ValueError(f"{where}: expected an array: {error}") from error


def _select(found, attributes):
  """Selects the columns of the labels by the names in `attributes`. Returns ([N, A] bool, notes)."""
  columns = {}
  for column, name in enumerate(found.names):
    columns.setdefault(name, []).append(column)
  missing = [name for name in attributes if len(columns.get(name, ())) != 1]
  if missing:
    raise ValueError(
      f"{found.path}: expected each of the {len(attributes)} scored attributes exactly once; "
      f"{len(missing)} of them are missing or repeated: {', '.join(missing[:5])}"
      f"{', ...' if len(missing) > 5 else ''}; "
      f"found {len(found.names)} names: "
      f"{', '.join(found.names[:60])}"
    )
  labels = found.labels[:, [columns[name][0] for name in attributes]]
  # Values are checked after the selection, because columns that are not selected may have other values.
  values = np.unique(labels)
  if not np.isin(values, (0, 1, _UNCERTAIN)).all():
    raise ValueError(
      f"{found.path}: labels {', '.join(map(str, values[:8].tolist()))}; expected 0, 1 or {_UNCERTAIN}"
    )
  uncertain = int((labels == _UNCERTAIN).sum())
  notes = [f"{uncertain:,} labels are {_UNCERTAIN} (uncertain), read as absent"] if uncertain else []
  return labels == 1, notes


def _check_rows(found):
  """Raises ValueError if the splits list a row that does not exist, or list a row more than once."""
  N, rows = len(found.images), np.concatenate(list(found.rows.values()))
  outside = rows[(rows < 0) | (rows >= N)]
  if len(outside):
    raise ValueError(
      f"{found.path}: the splits list picture {outside[0] + 1}, counted from 1; expected 1 to {N}"
    )
  _, counts = np.unique(rows, return_counts=True)
  if (counts > 1).any():
    raise ValueError(
      f"{found.path}: {int((counts > 1).sum())} pictures are listed twice in one split or in two splits of "
      f"{_sizes(found.rows)}; expected each picture once"
    )


def _divide_persons(data_set, found, split_seed):
  """Divides the persons at random into splits that are about as large as the official splits.

  Returns:
    ({split: [n] rows}, a note that describes the division).
  """
  option = f"config.data.{data_set.name}.identity_disjoint"
  if found.pids is None:
    raise ValueError(
      f"{option}: {found.path} does not state who is on a picture; expected a .mat file with ids of persons "
      "(the .mat files of PETA and RAP have them; the file of PA-100K and dataset_all.pkl do not)"
    )
  known = np.flatnonzero(found.pids >= 0)
  num_persons = len(np.unique(found.pids[known]))
  ends = np.cumsum([len(rows) for rows in found.rows.values()]) / sum(map(len, found.rows.values()))
  part = division.divide(found.pids[known], ends, split_seed)
  rows = {name: known[part == k] for k, name in enumerate(found.rows)}
  if not all(map(len, rows.values())):
    raise ValueError(
      f"{option}: {num_persons} persons are too few to divide like the official splits: {_sizes(rows)}; "
      "expected at least one picture per split"
    )
  left_out = len(found.pids) - len(known)
  return rows, (
    "splits without shared persons, not the official splits (identity_disjoint=True, "
    f"split_seed={split_seed}): {num_persons:,} persons, {_sizes(rows)} pictures"
    + (f"; {left_out:,} pictures of persons without an id are left out" if left_out else "")
  )


def _note_counts(data_set, found):
  if {name: len(rows) for name, rows in found.rows.items()} == data_set.counts:
    return []
  official = ", ".join(f"{count:,} {name}" for name, count in data_set.counts.items())
  return [f"{found.path}: {_sizes(found.rows)} pictures; the official numbers are {official}"]


def _note_shared(data_set, found):
  if found.pids is None:
    return f"{found.path} has no ids of persons; train and test may share persons"
  # Validation pictures are treated as training pictures, because the split "trainval" includes them.
  train = np.concatenate([rows for name, rows in found.rows.items() if name != "test"])
  persons = found.pids[train]
  is_shared = np.isin(found.pids[found.rows["test"]], persons[persons >= 0])
  return (
    f"the standard splits share persons: {int(is_shared.sum()):,} of {len(is_shared):,} test pictures show "
    f"a person of the training set (config.data.{data_set.name}.identity_disjoint keeps persons apart)"
  )


def _check_pictures(folder, names, path):
  """Raises ValueError if pictures are missing. Lists the folder once, and opens no picture."""
  there = set(os.listdir(folder))
  missing = [name for name in names if name not in there]
  if missing:
    raise ValueError(
      f"{folder}: {len(missing):,} of {len(names):,} pictures listed in {path} are missing, the first is "
      f"{missing[0]}; {describe_folder(folder)}"
    )


def _sizes(rows):
  return ", ".join(f"{len(value):,} {name}" for name, value in rows.items())
