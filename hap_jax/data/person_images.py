"""Makes a source for re-identification from a list of pictures, and notes on these pictures."""

import collections
from typing import NamedTuple

import numpy as np

from hap_jax.data import picture_files
from hap_jax.data.sources.base import IGNORE

SPLITS = ("train", "query", "gallery")


class Picture(NamedTuple):
  """One picture of a data set.

  Attributes:
    path: path of the picture below the root.
    pid: number of the person.
    camid: number of the camera.
  """

  path: str
  pid: int
  camid: int


def make(root, pictures, name, *, licence, notes, people, exif=IGNORE):
  """Makes the source of these pictures, with the columns `pid` and `camid`, and logs the notes.

  Args:
    root: folder of the data set.
    pictures: sequence of `Picture`, at least one.
    name, licence, notes, people, exif: values of the source's `SourceSpec`.
  Returns:
    PictureFiles.
  """
  paths, pids, camids = zip(*pictures, strict=True)
  columns = {"pid": np.array(pids, np.int32), "camid": np.array(camids, np.int32)}
  return picture_files.make(
    root, paths, columns, name, licence=licence, notes=notes, people=people, exif=exif
  )


def check_split(name, split):
  """Raises ValueError if source `name` has no such split."""
  if split not in SPLITS:
    raise ValueError(f'split={split!r}: {name} has "train", "query" and "gallery"')


def check_apart(train, test, root, remedy):
  """Raises ValueError if the sets of training and test persons (numbers or names) share a person."""
  shared = sorted(train & test)
  if shared:
    raise ValueError(
      f"{root}: {len(shared)} persons are in the training and in the test set ({few(shared)}); expected "
      f"different persons: {remedy}"
    )


def note_counts(what, pictures, official):
  """Returns a list with a note if the numbers of pictures and persons differ from `official`, else []."""
  found = (len(pictures), len({picture.pid for picture in pictures}))
  if found == official:
    return []
  return [
    f"{what}: {found[0]:,} pictures of {found[1]:,} persons; the official numbers are {official[0]:,} of "
    f"{official[1]:,}"
  ]


def note_single(pictures):
  """Returns a list with a note if training persons have only one picture, else []."""
  counts = collections.Counter(picture.pid for picture in pictures)
  single = sorted(pid for pid, count in counts.items() if count == 1)
  if not single:
    return []
  return [
    f"{len(single):,} of {len(counts):,} training persons have only one picture, which batches repeat "
    f"(pid {few(single)})"
  ]


def note_unmatched(query, gallery):
  """Returns a list with a note on the query pictures that cannot be scored, or [] if there are none.

  Such a query has no gallery picture of its person by another camera.
  """
  # Market-1501's rule: a picture by the query's own camera does not count as a match.
  cameras = collections.defaultdict(set)
  for picture in gallery:
    cameras[picture.pid].add(picture.camid)
  unmatched = [picture.path for picture in query if not cameras[picture.pid] - {picture.camid}]
  if not unmatched:
    return []
  return [
    f"{len(unmatched):,} of {len(query):,} query pictures are not scored, because the gallery has no picture "
    f"of their person by another camera ({few(unmatched)})"
  ]


def few(items):
  """Returns the first three items as text."""
  return ", ".join(map(str, items[:3])) + (", ..." if len(items) > 3 else "")
