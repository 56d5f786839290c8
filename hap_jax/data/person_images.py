"""Makes a source for re-identification from a list of pictures, and writes notes about these pictures."""

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
    pid: id of the person.
    camid: id of the camera.
  """

  path: str
  pid: int
  camid: int


def make(root, pictures, name, *, licence, notes, people, exif=IGNORE):
  """Makes a source of pictures with the columns `pid` and `camid`, and logs the notes.

  Args:
    root: folder of the data set.
    pictures: sequence of `Picture`, at least one.
    name: name of the source.
    licence: licence of the data.
    notes: list of sentences about the split, which are also logged.
    people: name of the numbering of the persons, see `SourceSpec`.
    exif: "apply" or "ignore" the EXIF headers of the pictures.
  Returns:
    PictureFiles.
  """
  paths, pids, camids = zip(*pictures, strict=True)
  columns = {"pid": np.array(pids, np.int32), "camid": np.array(camids, np.int32)}
  return picture_files.make(
    root, paths, columns, name, licence=licence, notes=notes, people=people, exif=exif
  )


def check_split(name, split):
  """Raises ValueError if `split` is not "train", "query" or "gallery". `name` is the name of the source."""
  if split not in SPLITS:
    raise ValueError(f'split={split!r}: {name} has "train", "query" and "gallery"')


def check_apart(train, test, root, remedy):
  """Raises ValueError if a person is in both sets.

  Args:
    train: set of the training persons, as numbers or names.
    test: set of the test persons, as numbers or names.
    root: folder of the data set, for the error message.
    remedy: advice for the user, for the error message.
  """
  shared = sorted(train & test)
  if shared:
    raise ValueError(
      f"{root}: {len(shared)} persons are in the training and in the test set ({few(shared)}); expected "
      f"different persons: {remedy}"
    )


def note_counts(what, pictures, official):
  """Compares numbers of pictures and persons with the official numbers. Returns a list with a note, or [].

  Args:
    what: name of the split, for the note.
    pictures: sequence of `Picture`.
    official: (number of pictures, number of persons).
  """
  found = (len(pictures), len({picture.pid for picture in pictures}))
  if found == official:
    return []
  return [
    f"{what}: {found[0]:,} pictures of {found[1]:,} persons; the official numbers are {official[0]:,} of "
    f"{official[1]:,}"
  ]


def note_single(pictures):
  """Returns a list with a note on training persons with only one picture, or [] if there are none."""
  counts = collections.Counter(picture.pid for picture in pictures)
  single = sorted(pid for pid, count in counts.items() if count == 1)
  if not single:
    return []
  return [
    f"{len(single):,} of {len(counts):,} training persons have only one picture, which batches repeat "
    f"(pid {few(single)})"
  ]


def note_unmatched(query, gallery):
  """Returns a list with a note on query pictures that cannot be scored, or [] if there are none.

  A query cannot be scored if the gallery has no picture of the same person by another camera.
  """
  # The rule of Market-1501: a picture by the same camera as the query is not a match.
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
  """Returns the first three items as text, with "..." after them if there are more."""
  return ", ".join(map(str, items[:3])) + (", ..." if len(items) > 3 else "")
