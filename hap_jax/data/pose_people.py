"""A source of people with joints on whole pictures, for 2D pose. The sources COCO, MPII and AIC use it."""

import dataclasses
import os
from collections.abc import Callable

from absl import logging

from hap_jax.data.picture_people import PicturePeople
from hap_jax.data.pose_truth import CocoTruth, MpiiTruth
from hap_jax.data.sources import base

SPLITS = ("train", "val")
FIELDS = ("image", "keypoints_xy", "keypoints_visible", "box")


@dataclasses.dataclass(frozen=True, eq=False)
class PosePeople(PicturePeople):
  """People with K joints on whole pictures.

  The columns are box [N, 4] float32 and keypoints_xy [N, K, 2] float32, both in pixels of the picture, and
  keypoints_visible [N, K] bool. It is True for a labelled joint, even if another object hides the joint.

  Attributes:
    read_truth: function without arguments that reads the result of `truth`. None: `truth` returns None.
  """

  read_truth: Callable[[], CocoTruth | MpiiTruth] | None

  def truth(self):
    """Returns the correct joints of all records, a `CocoTruth` or `MpiiTruth`. None: they are not known."""
    return None if self.read_truth is None else self.read_truth()


def make(name, skeleton, *, licence, notes, box, keypoints_xy, keypoints_visible, **facts):
  """Makes a source of people and logs the notes.

  Args:
    name: name of the source.
    skeleton: Skeleton of the joints.
    licence: licence of the data.
    notes: list of sentences about the split, which are also logged.
    box: [N, 4] float32, see `PosePeople`.
    keypoints_xy: [N, K, 2] float32, see `PosePeople`.
    keypoints_visible: [N, K] bool, see `PosePeople`.
    **facts: the other attributes of `PosePeople`.
  Returns:
    PosePeople.
  """
  for note in notes:
    logging.warning("%s: %s", name, note)
  spec = base.SourceSpec(name, skeleton, licence, fields=FIELDS, notes=tuple(notes))
  columns = {"keypoints_xy": keypoints_xy, "keypoints_visible": keypoints_visible, "box": box}
  return PosePeople(spec=spec, columns=columns, **facts)


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
    ValueError: if none of the choices exists. The message lists the choices.
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
