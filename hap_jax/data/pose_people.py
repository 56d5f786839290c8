"""A source of people on whole pictures, for 2D pose. The sources COCO, MPII and AIC use it."""

import dataclasses
import os
from collections.abc import Callable

import numpy as np
from absl import logging

from hap_jax.data.names import Names
from hap_jax.data.pose_truth import CocoTruth, MpiiTruth
from hap_jax.data.sources import base
from hap_jax.io import picture_orientation

SPLITS = ("train", "val")
FIELDS = ("image", "keypoints_xy", "keypoints_visible", "box")
_FIRST_SIDEWAYS = 5  # orientations from this number on exchange the height and the width of a picture


@dataclasses.dataclass(frozen=True, eq=False)
class PosePeople:
  """A source of N people with K joints on P pictures. A record holds a whole picture and one person.

  All values are in arrays, so the pickle is small: COCO's 150,000 people take 40 MB.

  Attributes:
    folder: folder of the pictures.
    path: path of the annotation file.
    kind: word for an entry of the file, such as "annotation".
    names: `Names` of the P picture files.
    picture_size: [P, 2] int32, (H, W) of the pictures as the file states them. None: it does not state them.
    id: [N] int64, number of the person's entry in the file.
    picture: [N] int32, index of the person's picture in `names`.
    box: [N, 4] float32, (left, top, right, bottom) of the person in pixels of the picture.
    keypoints_xy: [N, K, 2] float32, in pixels of the picture.
    keypoints_visible: [N, K] bool, True for a joint that is labelled. It may be hidden.
    spec: facts about the source.
    read_truth: function without arguments that reads what `truth` returns. None: `truth` returns None.
  """

  folder: str
  path: str
  kind: str
  names: Names
  picture_size: np.ndarray | None
  id: np.ndarray
  picture: np.ndarray
  box: np.ndarray
  keypoints_xy: np.ndarray
  keypoints_visible: np.ndarray
  spec: base.SourceSpec
  read_truth: Callable[[], CocoTruth | MpiiTruth] | None

  def __len__(self):
    return len(self.id)

  def __getitem__(self, index):
    path = self.file(index)
    base.check_utf8(self.names[self.picture[index]], f"{self.path}: {self.kind} {self.id[index]}")
    data = base.read_bytes(path)
    image = base.decode_image(data, path)
    self._check_size(index, image.shape[:2], data)
    return {"image": image} | {field: column[index] for field, column in self.columns.items()}

  @property
  def columns(self):
    return {
      "keypoints_xy": self.keypoints_xy,
      "keypoints_visible": self.keypoints_visible,
      "box": self.box,
    }

  def name(self, index):
    return f"{self.file(index)} ({self.kind} {self.id[index]})"

  def file(self, index):
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    return os.path.join(self.folder, self.names[self.picture[index]])

  def truth(self):
    """Returns the correct joints of all records, as the score needs them. None: they are not known."""
    return None if self.read_truth is None else self.read_truth()

  def _check_size(self, index, found, data):
    """Raises BadRecordError if the joints or the box do not fit a picture of the size `found`, (H, W)."""
    path, entry = self.file(index), f"{self.kind} {self.id[index]}"
    if self.picture_size is None:
      left, top, right, bottom = self.box[index].tolist()
      if left >= found[1] or top >= found[0] or right <= 0 or bottom <= 0:
        raise base.BadRecordError(
          f"{path}: the picture of {found} pixels (H, W) does not contain any part of the box of {entry} in "
          f"{self.path}"
        )
      return
    # If the size differs, the file is another version of the picture, and the joints do not fit it.
    size = tuple(self.picture_size[self.picture[index]].tolist())
    if found == size:
      return
    problem = f"{path}: {found} pixels (H, W), but the annotation file states {size}"
    if found != size[::-1]:
      raise base.BadRecordError(f"{problem}: the file is another version of the picture")
    is_turned = picture_orientation.read_orientation(data) >= _FIRST_SIDEWAYS
    cause = (
      "the EXIF header of the picture turns it, but the pixels are read as they are stored"
      if is_turned
      else "the picture was turned and saved again"
    )
    raise base.BadRecordError(f"{problem}: height and width are exchanged, because {cause}")


def make(name, skeleton, *, licence, notes, **facts):
  """Makes a source of people and logs the notes.

  Args:
    name: name of the source.
    skeleton: Skeleton of the joints.
    licence, notes: values of the source's `SourceSpec`.
    **facts: the other attributes of `PosePeople`.
  Returns:
    PosePeople.
  """
  for note in notes:
    logging.warning("%s: %s", name, note)
  spec = base.SourceSpec(name, skeleton, licence, fields=FIELDS, notes=tuple(notes))
  return PosePeople(spec=spec, **facts)


def check_split(name, split):
  """Raises ValueError if `split` is neither "train" nor "val". `name` is the name of the source."""
  if split not in SPLITS:
    raise ValueError(f'split={split!r}: {name} has "train" and "val"')


def find(root, choices, option, what, is_there=os.path.isfile):
  """Returns the path of the first file or folder that exists.

  Args:
    root: folder of the data set.
    choices: possible paths, relative to `root`.
    option: configuration key that may name another path, for the error message.
    what: the expected content, for the error message.
    is_there: os.path.isfile, or os.path.isdir for a folder.
  Raises:
    ValueError: if none of the choices exists. The message lists them.
  """
  for choice in choices:
    path = os.path.join(root, choice)
    if is_there(path):
      return path
  raise ValueError(
    f"{root}: {what} not found; tried {', '.join(choices)}; set {option} to their path; "
    f"{base.describe_folder(root)}"
  )


def note_count(what, found, official):
  """Compares the number of people with the official number. Returns a list with a note, or []."""
  return [] if found == official else [f"{what}: {found:,} people; the official number is {official:,}"]


def first_five(items):
  """Returns the first five items as text, with "..." after them if there are more."""
  return ", ".join(map(str, items[:5])) + (", ..." if len(items) > 5 else "")
