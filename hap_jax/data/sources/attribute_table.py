"""Source: pictures with a table of their attributes, such as a user's own collection.

  <root>/attributes.csv         a CSV file in UTF-8. Its first line names the columns:

    file,split,person,hat,bag
    pictures/0001.jpg,train,anna,1,0
    pictures/0002.jpg,train,anna,1,       the last cell is empty: bag is not known

The column `file` holds paths relative to the root. The columns `split` (train, val or test) and `person` (any
text) may be missing. Every other column is an attribute: 1 means present, 0 means absent. `hap prepare
synthetic` writes such a file.

A record holds `image` and `attributes`. If an attribute has an empty cell anywhere in the table, all records
also hold `attributes_known` (see `base.py`). Both fields are columns, too.
"""

import collections
import csv
import io
import itertools
import os
import posixpath
from typing import NamedTuple

import numpy as np

from hap_jax.data import division, picture_files
from hap_jax.data.sources.base import check_relative, check_root, describe_folder
from hap_jax.io import regular_file

PLACES = ("file",)
SPLITS = ("train", "val", "test")
_FACTS = ("file", "split", "person")  # columns that are not attributes
_MAX_BYTES = 2**30  # largest size of the table
_UNKNOWN, _WRONG = -1, -2
_ANSWERS = {"0": 0, "1": 1, "": _UNKNOWN}


class _Table(NamedTuple):
  """The content of the CSV file, with N rows and A attributes.

  Attributes:
    path: path of the file.
    names: [A] names of the attributes.
    lines: [N] first line of each row in the file, counted from 1.
    files: [N] paths of the pictures, relative to the root.
    answers: [N, A] int8: 1, 0 or _UNKNOWN.
    splits: [N] names of splits. None: there is no column `split`.
    persons: [N] names of persons, "" if not known. None: there is no column `person`.
  """

  path: str
  names: list[str]
  lines: list[int]
  files: list[str]
  answers: np.ndarray
  splits: list[str] | None
  persons: list[str] | None


def open_source(*, root, split, seed, file="attributes.csv", val_share=0.1, test_share=0.2, split_seed=0):
  """Opens a split of a table of attributes.

  Args:
    root: folder that contains the pictures, also in sub-folders (config.data.root).
    split: "train", "val", "test" or "trainval", which is "train" followed by "val".
    seed: not used, because the splits must not change with the seed of a run.
    file: path of the table, absolute or relative to root.
    val_share: share of the pictures in "val". It is used only if the table has no column `split`. The persons
      are then divided at random, so that no two splits share a person. Without the column `person`, the
      pictures are divided.
    test_share: share of the pictures in "test". It is used only if the table has no column `split`.
    split_seed: seed of the random division. The division does not depend on the order of the rows.

  Returns:
    PictureFiles, with the rows in the order of the table.

  Raises:
    ValueError: if the table or a picture is missing, if a cell has a wrong value, or if the split has no
      pictures. If a line of the table is wrong, the message has the line number.
  """
  del seed
  _check_options(split, val_share, test_share, split_seed)
  check_root(root, f"the table {file} and its pictures")
  table = _read(os.path.join(root, file))
  if table.splits is None:
    rows, note = _divide(table, val_share, test_share, split_seed)
  else:
    splits = np.array(table.splits)
    rows = {name: np.flatnonzero(splits == name) for name in SPLITS}
    note = _note_shared(table, rows)
  chosen = np.concatenate([rows[name] for name in (("train", "val") if split == "trainval" else (split,))])
  if not len(chosen):
    raise ValueError(
      f"{table.path}: no pictures in split {split!r}; there are {_sizes(rows)}: use other splits, or correct "
      "or remove the column 'split' (without this column, the splits are drawn at random, with "
      "config.data.attribute_table.val_share and test_share)"
    )
  _check_pictures(root, table, chosen)
  answers = table.answers[chosen]
  columns, notes = {"attributes": answers == 1}, [note]
  # The whole table is tested, because `prepare` needs the same columns in all splits.
  if (table.answers == _UNKNOWN).any():
    columns["attributes_known"] = answers != _UNKNOWN
    notes.append(f"{int((answers == _UNKNOWN).sum()):,} of {answers.size:,} labels of {split} are not known")
  return picture_files.make(
    root,
    [table.files[row] for row in chosen.tolist()],
    columns,
    "attribute_table",
    licence="not known",
    notes=notes,
    labels={"attributes": tuple(table.names)},
  )


def _check_options(split, val_share, test_share, split_seed):
  if split not in (*SPLITS, "trainval"):
    raise ValueError(f"split={split!r}: attribute_table has {', '.join(SPLITS)}, trainval")
  if split_seed < 0:
    raise ValueError(f"config.data.attribute_table.split_seed={split_seed}: expected at least 0")
  if not (val_share >= 0 and test_share >= 0 and val_share + test_share < 1):
    raise ValueError(
      f"config.data.attribute_table.val_share={val_share}, test_share={test_share}: expected at least 0, and "
      "a sum below 1"
    )


def _read(path):
  """Returns the `_Table` of a file."""
  rows = _rows(path)
  line, header = next(rows, (1, []))
  header = [name.strip() for name in header]
  _check_header(path, line, header)
  names = [name for name in header if name not in _FACTS]
  places = [k for k, name in enumerate(header) if name not in _FACTS]
  lines, cells, answers = [], {name: [] for name in _FACTS if name in header}, []
  for line, row in rows:
    if len(row) != len(header):
      raise ValueError(
        f"{path}: line {line} has {len(row)} cells; expected {len(header)}, one per name in the first line: "
        "correct its commas, and put a cell that holds a comma in quotes"
      )
    lines.append(line)
    for name, values in cells.items():
      values.append(row[header.index(name)].strip())
    answers.append([_ANSWERS.get(row[k].strip(), _WRONG) for k in places])
    if _WRONG in answers[-1]:
      a = answers[-1].index(_WRONG)
      raise ValueError(
        f"{path}: line {line}, column {names[a]}: found {row[places[a]][:40]!r}; expected 0, 1 or an empty "
        "cell (not known): correct the cell, or remove the column if it is not an attribute"
      )
  if not lines:
    raise ValueError(f"{path}: no rows below the first line; expected one row per picture: add rows")
  table = _Table(
    path,
    names,
    lines,
    cells["file"],
    np.array(answers, np.int8),
    splits=cells.get("split"),
    persons=cells.get("person"),
  )
  _check_rows(table)
  return table


def _rows(path):
  """Yields (first line, cells) of each row of a CSV file. Skips empty lines."""
  try:
    data = regular_file.read_bytes(path, _MAX_BYTES)
  except OSError as error:
    raise ValueError(
      f"{path}: cannot be read: {error.strerror or error}; expected a CSV file with the column file "
      "(config.data.attribute_table.file)"
    ) from error
  try:
    text = data.decode("utf-8-sig")  # drops the byte order mark that some programs write at the start
  except UnicodeDecodeError as error:
    line = data.count(b"\n", 0, error.start) + 1
    raise ValueError(f"{path}: line {line} is not UTF-8: save the file as CSV in UTF-8") from error
  reader, first = csv.reader(io.StringIO(text, newline=""), strict=True), 1
  try:
    for row in reader:
      if row:
        yield first, row
      first = reader.line_num + 1
  except csv.Error as error:
    raise ValueError(f"{path}: line {first}: {error}; expected cells separated by commas") from error


def _check_header(path, line, header):
  """Raises ValueError if the first line has a wrong name, no column `file`, or no attribute."""
  found = f"found the columns {', '.join(header)[:400]!r}"
  # This check comes first, because a table with another separator has a single column.
  if "file" not in header:
    raise ValueError(
      f"{path}: line {line}: no column file; expected names separated by commas, with file for the paths of "
      f"the pictures; {found}"
    )
  for k, name in enumerate(header):
    if not name or not name.isprintable():
      raise ValueError(f"{path}: line {line}: column {k + 1} is named {name[:40]!r}; expected a name: add it")
    if name in header[:k]:
      raise ValueError(f"{path}: line {line}: two columns are named {name}; expected each once: rename one")
  if not set(header) - set(_FACTS):
    raise ValueError(
      f"{path}: line {line}: no attribute; expected a column of 0 and 1 for each attribute besides "
      f"{', '.join(_FACTS)}; {found}"
    )


def _check_rows(table):
  """Raises ValueError if a file name or a split is wrong, or if a picture is listed twice."""
  check_relative(table.files, lambda row: f"{table.path}: line {table.lines[row]}")
  first = {}
  for line, file in zip(table.lines, table.files, strict=True):
    before = first.setdefault(posixpath.normpath(file), line)
    if before != line:
      raise ValueError(
        f"{table.path}: line {line}: {file} is also in line {before}; expected each picture once: remove one"
      )
  for row, split in enumerate(table.splits or ()):
    if split not in SPLITS:
      raise ValueError(
        f"{table.path}: line {table.lines[row]}: split {split[:40]!r}; expected train, val or test: correct "
        "the cell, or remove the column split from the whole table"
      )


def _divide(table, val_share, test_share, split_seed):
  """Divides persons into splits at random. Without a column `person`, it divides the pictures.

  Returns:
    ({split: [n] int64 rows}, a note that describes the division).
  """
  if table.persons is None:
    groups, what = [posixpath.normpath(file) for file in table.files], "pictures"
  else:
    groups, what = table.persons, "persons"
    if "" in groups:
      raise ValueError(
        f"{table.path}: line {table.lines[groups.index('')]}: no person; expected a name in each row, "
        "because persons are divided into splits: fill it in, remove the column person, or add a column split"
      )
  shares = {"train": 1 - val_share - test_share, "val": val_share, "test": test_share}
  part = division.divide(groups, np.cumsum(list(shares.values())), split_seed)
  rows = {name: np.flatnonzero(part == k) for k, name in enumerate(shares)}
  if any(shares[name] and not len(found) for name, found in rows.items()):
    raise ValueError(
      f"{table.path}: {len(set(groups))} {what} are too few to divide: {_sizes(rows)} pictures; expected at "
      "least one picture per split: add rows or a column split, or change "
      "config.data.attribute_table.val_share, test_share or split_seed"
    )
  return rows, f"{len(set(groups)):,} {what} divided by split_seed={split_seed}: {_sizes(rows)} pictures"


def _note_shared(table, rows):
  """Returns a note on persons that are in more than one split."""
  if table.persons is None:
    return f"{table.path} has no column person; train and test may share persons"
  people = {name: {table.persons[row] for row in found.tolist()} - {""} for name, found in rows.items()}
  several = sum(count > 1 for count in collections.Counter(itertools.chain(*people.values())).values())
  # Validation pictures count as training pictures, because "trainval" trains on them.
  train = people["train"] | people["val"]
  shared = sum(table.persons[row] in train for row in rows["test"].tolist())
  total = len(set().union(*people.values()))
  return (
    f"{several:,} of {total:,} persons are in more than one split; {shared:,} of {len(rows['test']):,} test "
    "pictures show a person of train or val"
  )


def _check_pictures(root, table, chosen):
  """Raises ValueError if pictures are missing. Lists each folder once, and opens no picture."""
  folders = collections.defaultdict(list)
  for row in chosen.tolist():
    folders[posixpath.dirname(table.files[row])].append(row)
  missing = []
  for folder, rows in folders.items():
    path = os.path.join(root, folder)
    there = set(os.listdir(path)) if os.path.isdir(path) else set()
    missing += [row for row in rows if posixpath.basename(table.files[row]) not in there]
  if missing:
    first = min(missing)
    raise ValueError(
      f"{table.path}: line {table.lines[first]}: the picture {table.files[first]} is missing, and "
      f"{len(missing):,} of {len(chosen):,} in all; expected paths below {root} (config.data.root): add the "
      f"pictures or remove the rows; {describe_folder(root)}"
    )


def _sizes(rows):
  return ", ".join(f"{len(value):,} {name}" for name, value in rows.items())
