"""A source of people with captions, for text ReID. CUHK-PEDES, ICFG-PEDES and RSTPReid use it."""

import collections
import dataclasses
import functools
import os

import numpy as np
from absl import logging

from hap_jax.data import caption_views, text_records
from hap_jax.data.columns import LazyColumns
from hap_jax.data.names import Names
from hap_jax.data.pose_people import first_five
from hap_jax.data.sources import base


@dataclasses.dataclass(frozen=True, eq=False)
class CaptionedPeople:
  """A source of N pairs of picture and caption, with P pictures. All pairs of a picture are consecutive.

  All values are in arrays, so the pickle is small: the 68,000 pairs of CUHK-PEDES take 12 MB.

  Attributes:
    folder: folder of the pictures.
    names: `Names` of the P picture files.
    captions: `Names` with the N captions.
    row: [N] int32, index of the pair's picture in `names`.
    picture: [N] int32, id of the picture: index of its first record in the annotation file.
    pid: [N] int32, id of the person.
    spec: facts about the source.
  """

  folder: str
  names: Names
  captions: Names
  row: np.ndarray
  picture: np.ndarray
  pid: np.ndarray
  spec: base.SourceSpec

  def __len__(self):
    return len(self.pid)

  def __getitem__(self, index):
    return {
      "image": base.read_image(self.file(index)),
      "caption": self.captions[index],
      "pid": self.pid[index],
      "picture": self.picture[index],
    }

  @functools.cached_property
  def columns(self):
    """`caption`, [N] str; `pid` and `picture`, [N] int32. The texts are unpacked at the first use."""
    return LazyColumns({"caption": self._texts, "pid": lambda: self.pid, "picture": lambda: self.picture})

  def __getstate__(self):
    return {name: value for name, value in self.__dict__.items() if name != "columns"}

  def name(self, index):
    return self.file(index)

  def file(self, index):
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    return os.path.join(self.folder, self.names[self.row[index]])

  def _texts(self):
    # In NumPy's unicode type, every row is as long as the longest caption: 200 MB for CUHK-PEDES.
    return np.array([self.captions[index] for index in range(len(self))], object)


def open_split(data_set, *, root, split, annotations, drop_ids=()):
  """Opens a split of a data set.

  Args:
    data_set: `text_records.DataSet`.
    root: folder of the data set.
    split: "train", "val", "test", "trainval" (train followed by val), or a view of one of them (see
      `caption_views`).
    annotations: path of the annotation file relative to `root`. "": the usual names are tried.
    drop_ids: ids of persons whose records in "train" are left out.
  Returns:
    CaptionedPeople, or a view of it.
  Raises:
    ValueError: in the same cases as `text_records.read`, if the split is empty, or if a picture is missing.
  """
  # In a data set without a split "val", the split "trainval" is equal to "train".
  part, view = caption_views.check_split(data_set.name, split, (*data_set.splits, "trainval"))
  base.check_root(root, f"{data_set.files[0]} and the pictures of {data_set.name}")
  path = text_records.find(root, annotations, data_set)
  records, notes = text_records.read(path, data_set)
  rows = _rows(records, part, path)
  rows, dropped = _drop(records, rows, drop_ids, path, data_set)
  # The official numbers of "train" do not include the persons that the official preparation drops.
  if not annotations and ("train" not in part or tuple(drop_ids) == data_set.dropped):
    notes += _note_counts(f"{part} in {path}", records, rows, data_set.counts.get(part))
  notes += dropped
  folder = root if view == caption_views.CAPTIONS else _find_pictures(root, path, records, rows, part)
  # Both views of a split have the same notes, so they are logged once.
  for note in notes if view != caption_views.CAPTIONS else ():
    logging.warning("%s: %s", data_set.name, note)
  people = data_set.name
  if data_set.shares_ids and part != "train":
    people += ", test"
  spec = base.SourceSpec(
    data_set.name,
    None,
    data_set.licence,
    fields=caption_views.FIELDS,
    notes=tuple(notes),
    people=people,
  )
  return caption_views.make(_make_pairs(folder, records, rows, spec), view)


def _rows(records, part, path):
  """Returns the indices of the records of a split. "trainval" is train followed by val."""
  parts = ("train", "val") if part == "trainval" else (part,)
  rows = [row for name in parts for row, record in enumerate(records) if record.split == name]
  if not rows:
    counts = collections.Counter(record.split for record in records)
    found = ", ".join(f"{count:,} of {name}" for name, count in sorted(counts.items()))
    raise ValueError(
      f"{path}: no records of {part}, but {found}; expected at least one: choose another split"
    )
  return rows


def _drop(records, rows, drop_ids, path, data_set):
  """Leaves out the records of "train" whose person is in `drop_ids`.

  Args:
    records: all records of the file.
    rows: indices of the records of the split.
    drop_ids: ids of persons.
    path: path of the file, for messages.
    data_set: `text_records.DataSet`.
  Returns:
    (indices of the remaining records, notes).
  Raises:
    ValueError: if no record remains.
  """
  chosen = set(drop_ids)
  gone = [row for row in rows if records[row].split == "train" and records[row].pid in chosen]
  if not gone:
    return rows, []
  option = f"config.data.{data_set.name}.drop_ids"
  if len(gone) == len(rows):
    raise ValueError(f"{path}: {option}={tuple(drop_ids)} leaves no record: give other ids or an empty tuple")
  ids = sorted({records[row].pid for row in gone})
  pictures, people, captions = _count(records, gone)
  note = (
    f"{path}: {pictures:,} pictures and {captions:,} captions of {people:,} persons are left out "
    f"of training by {option} (id {first_five(ids)})"
  )
  is_gone = set(gone)
  return [row for row in rows if row not in is_gone], [note]


def _count(records, rows):
  """Returns (number of pictures, number of people, number of captions) of some records."""
  chosen = [records[row] for row in rows]
  return (
    len({record.name for record in chosen}),
    len({record.pid for record in chosen}),
    sum(len(record.captions) for record in chosen),
  )


def _note_counts(what, records, rows, official):
  """Compares the counts of a split with the official counts. Returns a list with a note, or []."""
  found = _count(records, rows)
  if official is None or found == official:
    return []
  words = [
    f"{counts[0]:,} pictures, {counts[1]:,} persons, {counts[2]:,} captions" for counts in (found, official)
  ]
  return [f"{what}: {words[0]}; the official numbers are {words[1]}"]


def _find_pictures(root, path, records, rows, part):
  """Returns the folder of the pictures, <root>/imgs or <root>. Raises ValueError if pictures are missing."""
  folders = [folder for folder in (os.path.join(root, "imgs"), root) if os.path.isdir(folder)]
  missing = {folder: _find_missing(folder, records, rows) for folder in folders}
  folder = min(folders, key=lambda folder: len(missing[folder]))
  if gone := missing[folder]:
    listed = first_five([f"record {row + 1} {text_records.shown(records[row].name)}" for row in gone[:6]])
    raise ValueError(
      f"{path}: the pictures of {len(gone):,} of the {len(rows):,} records of {part} are missing ({listed}); "
      f"expected them in {' or '.join(folders)}: add the pictures or remove the records"
    )
  return folder


def _find_missing(folder, records, rows):
  """Returns the indices of the records whose picture is missing. Lists each folder only once."""
  known = {}
  missing = []
  for row in rows:
    place, name = os.path.split(records[row].name)
    if place not in known:
      known[place] = _list(os.path.join(folder, place))
    if name not in known[place]:
      missing.append(row)
  return missing


def _list(folder):
  try:
    return set(os.listdir(folder))
  except OSError:  # there is no such folder
    return set()


def _make_pairs(folder, records, rows, spec):
  """Makes the source of the pairs of some records."""
  by_picture = {}
  for row in rows:
    by_picture.setdefault(records[row].name, []).append(row)
  captions, pairs = [], []
  for k, same_picture in enumerate(by_picture.values()):
    for row in same_picture:
      captions += records[row].captions
      pairs += [(k, same_picture[0], records[row].pid)] * len(records[row].captions)
  row, picture, pid = np.array(pairs, np.int32).T.copy()
  return CaptionedPeople(folder, Names.of(by_picture), Names.of(captions), row, picture, pid, spec)
