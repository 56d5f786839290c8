"""Source: people of COCO's keypoint annotations (arXiv 1405.0312), one record per annotated person.

An annotation becomes a record, except in these cases:
  crowd             `iscrowd` is 1
  other category    in the list `categories`, the name of its `category_id` is not "person"
  no joints         it has no key `keypoints`
  empty box         its box has no area inside the picture
  too few joints    it has fewer than `min_keypoints` visible joints
A logged note states how many annotations are left out for each reason. If a file has no `categories`, all
annotations are people.

The box is enlarged by `margin` and cut out of the picture. The joints are shifted with it. A joint is visible
if it is labelled (v = 1: hidden, or v = 2: visible) and lies inside the cut-out. The records are in the order
of the annotation file.

A value that COCO's format does not allow is an error. The error message names the file and the annotation.
"""

import collections
import dataclasses
import math
import os

import numpy as np
from absl import logging

from hap_jax.data import coco_annotations
from hap_jax.data.names import Names
from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources.base import (
  BadRecordError,
  SourceSpec,
  check_folder,
  check_root,
  check_utf8,
  held_out,
  read_image,
)

SPLITS = ("train", "val")
JOINTS = True
PLACES = ("annotations", "images")
_LICENCE = "COCO: annotations CC BY 4.0; each picture under the Flickr licence that its annotation file names"


def open_source(*, root, split, seed, annotations="", images="", margin=0.1, min_keypoints=1, num_val=0):
  """Opens the people of a COCO keypoint file.

  Args:
    root: COCO's folder (config.data.root).
    split: "train" or "val".
    seed: not used, because the order is the order of the file.
    annotations: path of the annotation file, relative to `root`. "": the file of the split,
      annotations/person_keypoints_{train,val}2017.json.
    images: folder of the pictures, relative to `root`. "": {train,val}2017/, or the folder of the annotation
      file if `annotations` is given.
    margin: distance by which each side of the box moves outwards, as a share of the width or height of the
      box.
    min_keypoints: smallest number of visible joints. A person with fewer joints is left out.
    num_val: number of people held out as "val" (config.data.num_val). If `annotations` is given, both splits
      come from that file, and its last num_val people are "val". Otherwise "val" is the last num_val people
      of val2017, or all of them for num_val=0.

  Returns:
    a source of person records (see `base.py`).

  Raises:
    ValueError: if a folder, file or key is missing, if COCO's format does not allow a value, or if an option
      is out of range.
  """
  check_root(
    root, "annotations/, train2017/ and val2017/, or config.data.coco_persons.annotations and its pictures"
  )
  if not 0 <= margin < math.inf:
    raise ValueError(f"config.data.coco_persons.margin={margin}: expected at least 0")
  if annotations:
    path = os.path.join(root, annotations)
    folder = os.path.join(root, images) if images else os.path.dirname(path)
  else:
    if split not in ("train", "val"):
      raise ValueError(f'split={split!r}: expected "train" or "val"')
    path = os.path.join(root, "annotations", f"person_keypoints_{split}2017.json")
    folder = os.path.join(root, images or f"{split}2017")
  check_folder(folder, "the pictures of COCO's annotations (config.data.coco_persons.images)")
  people, names, notes = _read_people(path, margin, min_keypoints)
  for note in notes:
    logging.warning("coco_persons: %s", note)
  if annotations or (split == "val" and num_val):
    start, stop = held_out(len(people["id"]), num_val, split)
    people = {key: values[start:stop] for key, values in people.items()}
  spec = SourceSpec("coco_persons", COCO17, _LICENCE, notes=tuple(notes))
  return _People(folder, path, names, spec, **people)


@dataclasses.dataclass(frozen=True, eq=False)
class _People:
  """A source of N people. All values are in arrays, so its pickle is small: COCO's 150,000 people take 36 MB.

  Attributes:
    folder: folder of the pictures.
    path: path of the annotation file.
    names: `Names` of the files of all pictures in the annotation file.
    spec: facts about the source.
    id: [N] int64, annotation ids.
    picture: [N] int32, index of the person's picture in `names`.
    image_size: [N, 2] int32, (H, W) of the picture.
    crop: [N, 4] int32, (top, left, bottom, right) of the enlarged box, inside the picture.
    keypoints: [N, 17, 3] float32: x, y in pixels of the picture, and COCO's flag v.
  """

  folder: str
  path: str
  names: Names
  spec: SourceSpec
  id: np.ndarray
  picture: np.ndarray
  image_size: np.ndarray
  crop: np.ndarray
  keypoints: np.ndarray

  def __len__(self):
    return len(self.id)

  def __getitem__(self, index):
    path = self._picture_path(index)
    check_utf8(self.names[self.picture[index]], f"{self.path}: annotation {self.id[index]}")
    image = read_image(path)
    # A different size means that the file is another version of the picture. The joints do not fit it.
    size = tuple(self.image_size[index].tolist())
    if image.shape[:2] != size:
      raise BadRecordError(f"{path}: {image.shape[:2]} pixels (H, W), but its annotation says {size}")
    top, left, bottom, right = self.crop[index]
    xy, visible = _move_joints(self.keypoints[index], self.crop[index])
    return {
      "image": np.ascontiguousarray(image[top:bottom, left:right]),
      "keypoints_xy": xy,
      "keypoints_visible": visible,
    }

  @property
  def columns(self):
    return {}

  def name(self, index):
    return f"{self._picture_path(index)} (annotation {self.id[index]})"

  def _picture_path(self, index):
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    return os.path.join(self.folder, self.names[self.picture[index]])


def _move_joints(keypoints, crop):
  """Shifts joints from a picture to a window that is cut out of the picture.

  Args:
    keypoints: [..., 17, 3] float32: x, y in pixels of the picture, and COCO's flag v.
    crop: [..., 4] int32, (top, left, bottom, right) of the window.
  Returns:
    (xy, visible). `xy` is [..., 17, 2] float32, in pixels of the window. `visible` is [..., 17] bool, True
    for a joint that is labelled and inside the window.
  """
  top, left, bottom, right = np.moveaxis(crop[..., None, :], -1, 0)
  xy = keypoints[..., :2] - np.stack((left, top), axis=-1).astype(np.float32)
  x, y = np.moveaxis(xy, -1, 0)
  inside = (x >= 0) & (x < right - left) & (y >= 0) & (y < bottom - top)
  return xy, inside & (keypoints[..., 2] > 0)


def _read_people(path, margin, min_keypoints):
  """Reads an annotation file. Returns ({attribute of `_People`: array}, `Names` of its pictures, notes)."""
  file = coco_annotations.read(path, "config.data.coco_persons.annotations")
  # Rows are collected in a plain list, which becomes arrays at the end.
  rows, left_out = [], collections.Counter()
  for annotation, annotation_id, picture, where in coco_annotations.entries(file):
    size = file.picture_size[picture].tolist()
    row = _read_annotation(annotation, size, file.person_ids, margin, where)
    if isinstance(row, str):
      left_out[row] += 1
    else:
      rows.append((annotation_id, picture, size, *row))
  people = _to_arrays(rows)
  # Joints inside the cut-outs are counted for all people at once, which is faster than one person at a time.
  is_enough = _move_joints(people["keypoints"], people["crop"])[1].sum(axis=1) >= min_keypoints
  if not is_enough.all():
    left_out[f"with fewer than {min_keypoints} joints inside the cut"] = int((~is_enough).sum())
    people = {key: values[is_enough] for key, values in people.items()}
  total = len(file.content["annotations"])
  notes = coco_annotations.note_left_out(
    path, len(people["id"]), total, left_out, file.person_ids is not None
  )
  return people, file.names, notes


def _to_arrays(rows):
  """Converts rows (id, picture, (H, W), crop, keypoints) to {attribute of `_People`: array}."""
  ids, pictures, sizes, crops, keypoints = zip(*rows, strict=True) if rows else ((),) * 5
  return {
    "id": np.array(ids, np.int64),
    "picture": np.array(pictures, np.int32),
    "image_size": np.array(sizes, np.int32).reshape(-1, 2),
    "crop": np.array(crops, np.int32).reshape(-1, 4),
    "keypoints": np.array(keypoints, np.float32).reshape(-1, len(COCO17.joints), 3),
  }


def _read_annotation(annotation, size, person_ids, margin, where):
  """Returns (crop, [51] keypoints) of an annotation, or the reason to leave it out, a text."""
  reason = coco_annotations.check_person(annotation, person_ids, where)
  if reason is not None:
    return reason
  keypoints = coco_annotations.read_keypoints(annotation, COCO17, where)
  crop = _cut_box(coco_annotations.read_box(annotation, where), size, margin)
  return coco_annotations.NO_AREA if crop is None else (crop, keypoints)


def _cut_box(box, size, margin):
  """Enlarges a COCO box (x, y, w, h) by the margin and clips it to the picture.

  Returns:
    (top, left, bottom, right) in whole pixels, or None if the box has no area inside the picture. The margin
    does not count for this check.
  """
  x, y, w, h = map(float, box)
  H, W = size
  if w <= 0 or h <= 0 or x >= W or y >= H or x + w <= 0 or y + h <= 0:
    return None
  dx, dy = margin * w, margin * h
  # The values are clipped before they are rounded, because a sum of huge values may be infinite, and Python
  # cannot round infinity.
  top, left = math.floor(max(0.0, y - dy)), math.floor(max(0.0, x - dx))
  bottom, right = math.ceil(min(H, y + h + dy)), math.ceil(min(W, x + w + dx))
  return (top, left, bottom, right) if top < bottom and left < right else None
