"""The pictures whose joints `hap extract_poses` finds: one person per picture of any source of pictures."""

import collections
import dataclasses
import hashlib
import os
from typing import Any

import numpy as np
from absl import logging

from hap_jax.data import json_entries, read_again
from hap_jax.data.names import Names
from hap_jax.data.pose_people import first_five
from hap_jax.data.sources import base, folder

_BOXES = "boxes {picture: [x, y, width, height]}"


@dataclasses.dataclass(frozen=True, eq=False)
class PosedPictures:
  """A source with one person per picture, in which unreadable pictures are blank.

  A record has image [H, W, 3] uint8, box [4] float32 (left, top, right, bottom) in pixels, size [2] int32
  (H, W), and is_read, a bool. If is_read is False, the picture cannot be read, and the other fields have no
  meaning. The reason is logged.

  Attributes:
    pictures: the source of the N pictures.
    names: `Names` of the pictures.
    boxes: [N, 4] float32. None: the box is the whole picture.
  """

  pictures: Any
  names: Names
  boxes: np.ndarray | None

  @property
  def spec(self):
    return dataclasses.replace(self.pictures.spec, fields=("image", "box", "size", "is_read"))

  @property
  def columns(self):
    return {}

  def __len__(self):
    return len(self.names)

  def __getitem__(self, i):
    try:
      image = self.pictures[i]["image"]
      H, W = image.shape[:2]
      box = np.array((0, 0, W, H), np.float32) if self.boxes is None else self.boxes[i]
      if min(box[2], W) <= max(box[0], 0) or min(box[3], H) <= max(box[1], 0):
        raise base.BadRecordError(f"{self.name(i)}: its box {box.tolist()} has no area in the picture")
    except base.BadRecordError as error:
      if read_again.is_momentary(error):
        raise  # the loader tries again
      logging.warning("left out: %s", error)
      blank = np.zeros((8, 8, 3), np.uint8)
      return {"image": blank, "box": np.float32((0, 0, 8, 8)), "size": np.int32((8, 8)), "is_read": False}
    return {"image": image, "box": box, "size": np.int32((H, W)), "is_read": True}

  def name(self, i):
    return self.names[i]

  def digest(self):
    """Returns the SHA-256 of the names, as a text."""
    return hashlib.sha256(self.names.text).hexdigest()


def of_source(pictures, root, boxes=None):
  """Returns the PosedPictures of a source.

  If the pictures are files below `root`, their names are the paths below it. Otherwise, they are the names
  that the source has for them.

  Args:
    pictures: a source whose records have the field "image", with one person per picture.
    root: folder of the source, or "".
    boxes: file of boxes, see `read_boxes`. None: the box is the whole picture.
  Raises:
    ValueError: if there are no pictures or several people in a picture, or if the boxes are wrong.
  """
  if "image" not in pictures.spec.fields:
    raise ValueError(f"the records of {pictures.spec.name} have no pictures: expected pictures of people")
  if isinstance(pictures, folder.FolderSource):
    names = Names.of(pictures.paths)
    pictures = dataclasses.replace(pictures, paths=names)  # the names need not be there twice
  else:
    names = Names.of([_name_of(pictures, i, root) for i in range(len(pictures))])
    _check_one_person(pictures.spec.name, names)
  return PosedPictures(pictures, names, None if boxes is None else read_boxes(boxes, names))


def _name_of(pictures, i, root):
  if not hasattr(pictures, "file"):
    return pictures.name(i)
  return pictures.file(i).removeprefix(os.path.join(root, "")) if root else pictures.file(i)


def _check_one_person(source_name, names):
  several = [name for name, count in collections.Counter(names).items() if count > 1]
  if several:
    raise ValueError(
      f"{source_name} has several people in the picture {base.printable(several[0])}, and in "
      f"{len(several) - 1:,} others; expected one person per picture: make such pictures with hap crop"
    )


def read_boxes(path, names):
  """Reads the box of every picture from a JSON file {picture: [x, y, width, height]}, in pixels.

  Args:
    path: the file. A picture is named by its path below the folder.
    names: `Names` of the N pictures.
  Returns:
    [N, 4] float32, (left, top, right, bottom).
  Raises:
    ValueError: if the file has another format, or not exactly one box per picture.
  """
  content = json_entries.read(path, "--boxes", _BOXES)
  json_entries.check_object(content, path, _BOXES)
  boxes, missing, used = np.zeros((len(names), 4), np.float32), [], 0
  for i, name in enumerate(names):
    if name not in content:
      missing.append(name)
      continue
    x, y, width, height = json_entries.numbers(content, name, path, 4, "x, y, width, height")
    if width <= 0 or height <= 0:
      raise ValueError(f"{path}: {base.printable(name)} has a box without area, {content[name]}")
    boxes[i], used = (x, y, x + width, y + height), used + 1
  if missing or used < len(content):
    strange = sorted(set(content) - set(names))
    raise ValueError(
      f"{path}: expected one box for each of the {len(names):,} pictures; {len(missing):,} have no box"
      f"{_listed(missing)}, and {len(strange):,} boxes have no picture{_listed(strange)}"
    )
  return boxes


def _listed(names):
  return f" ({first_five([base.printable(name) for name in names])})" if names else ""
