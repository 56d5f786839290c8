"""What the sources for re-identification share: how they are made, and notes on the pictures found."""

import collections
from typing import NamedTuple

import numpy as np

from hap_jax.data import picture_files

SPLITS = ("train", "query", "gallery")


class Picture(NamedTuple):
  """One picture of a listing: its path below the root, its person, its camera."""

  path: str
  pid: int
  camid: int


def make(root, pictures, name, licence, *, notes, people):
  """Makes the source of these pictures, with the columns `pid` and `camid`; logs the notes on them.

  Args:
    root: folder of the data set.
    pictures: Pictures, at least one.
    name, licence, notes, people: of its `SourceSpec`.
  Returns:
    PictureFiles.
  """
  paths, pids, camids = zip(*pictures, strict=True)
  columns = {"pid": np.array(pids, np.int32), "camid": np.array(camids, np.int32)}
  return picture_files.make(root, paths, columns, name, licence, notes=notes, people=people)


def check_split(name, split, num_val):
  """Raises ValueError for a split that source `name` lacks, and for records held out of its training set."""
  if split not in SPLITS:
    raise ValueError(f'split={split!r}: {name} has "train", "query" and "gallery"')
  if num_val:
    raise ValueError(
      f"config.data.num_val={num_val}: {name} is scored on its own query and gallery pictures; set it to 0"
    )


def check_apart(train, test, root, remedy):
  """Raises ValueError if the sets of training and test persons (numbers or names) share one."""
  shared = sorted(train & test)
  if shared:
    raise ValueError(
      f"{root}: {len(shared)} persons are in the training and in the test set ({_few(shared)}); expected "
      f"different persons: {remedy}"
    )


def note_counts(what, pictures, official):
  """Notes it if the pictures and persons are not as many as `official` (pictures, persons) says."""
  found = (len(pictures), len({picture.pid for picture in pictures}))
  if found == official:
    return []
  return [
    f"{what}: {found[0]:,} pictures of {found[1]:,} persons; official are {official[0]:,} of {official[1]:,}"
  ]


def note_single(pictures):
  """Notes training persons of whom there is one picture only."""
  counts = collections.Counter(picture.pid for picture in pictures)
  single = sorted(pid for pid, count in counts.items() if count == 1)
  if not single:
    return []
  return [
    f"{len(single):,} of {len(counts):,} training persons have one picture, which batches repeat "
    f"(pid {_few(single)})"
  ]


def note_unmatched(query, gallery):
  """Notes query pictures that cannot be scored, having no picture of their person by another camera."""
  cameras = collections.defaultdict(set)
  for picture in gallery:
    cameras[picture.pid].add(picture.camid)
  unmatched = [picture.path for picture in query if not cameras[picture.pid] - {picture.camid}]
  if not unmatched:
    return []
  return [
    f"{len(unmatched):,} of {len(query):,} query pictures are not scored, because the gallery has no picture "
    f"of their person by another camera ({_few(unmatched)})"
  ]


def _few(items):
  return ", ".join(map(str, items[:3])) + (", ..." if len(items) > 3 else "")
