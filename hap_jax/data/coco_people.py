"""Reads the people of a file in COCO's keypoint format, for 2D pose.

An annotation becomes a record, except in these cases:
  crowd             `iscrowd` is 1
  other category    in the list `categories`, the name of its `category_id` is not "person"
  no joints         it has no key `keypoints`, none of its joints is labelled, or `num_keypoints` is 0
  no area           it has an `area` that is not above 0
  empty box         its box is at most one pixel wide or high after it was cut at the border of the picture
For each reason, a note gives the number of annotations that are left out. It lists the first annotations with
a wrong box or area.
"""

import collections
import functools

import numpy as np

from hap_jax.data import coco_annotations, json_entries, pose_people
from hap_jax.data.pose_truth import CocoTruth

_NO_JOINTS = "without a labelled joint"
_BAD_AREA = "with an area that is not above 0"
_WRONG = (_BAD_AREA, coco_annotations.NO_AREA)  # the note lists the first entries for these reasons


def read(file, skeleton):
  """Reads the people of a file.

  Args:
    file: CocoFile.
    skeleton: Skeleton of the joints.
  Returns:
    ({attribute of `PosePeople`: array} with `id`, `picture`, `box`, `keypoints_xy` and `keypoints_visible`,
    notes).
  Raises:
    ValueError: if the format does not allow a value, or if no person remains.
  """
  # Rows are collected in a plain list, which becomes arrays at the end.
  rows, left_out, ids = [], collections.defaultdict(list), set()
  for annotation, annotation_id, picture, where in coco_annotations.entries(file):
    if annotation_id in ids:
      raise ValueError(f"{where} occurs twice in the list annotations; expected one entry per id")
    ids.add(annotation_id)
    size = file.picture_size[picture].tolist()
    row = _read_annotation(annotation, size, file.person_ids, skeleton, where)
    if isinstance(row, str):
      left_out[row].append(annotation_id)
    else:
      rows.append((annotation_id, picture, *row))
  reasons = {
    f"{reason} (annotation {pose_people.first_five(who)})" if reason in _WRONG else reason: len(who)
    for reason, who in left_out.items()
  }
  has_categories = file.person_ids is not None
  notes = coco_annotations.note_left_out(file.path, len(rows), len(ids), reasons, has_categories)
  numbers, pictures, boxes, keypoints = zip(*rows, strict=True)
  joints = np.array(keypoints, np.float32).reshape(len(rows), -1, 3)
  return {
    "id": np.array(numbers, np.int64),
    "picture": np.array(pictures, np.int32),
    "box": np.array(boxes, np.float32),
    "keypoints_xy": np.ascontiguousarray(joints[..., :2]),
    "keypoints_visible": joints[..., 2] > 0,
  }, notes


def make_read_truth(file, option, skeleton, *, picture, box_score, person_id):
  """Returns a function without arguments that reads the CocoTruth of N records.

  Args:
    file: CocoFile. The returned function reads it again, because its content is too large for worker
      processes.
    option: configuration key that names the file.
    skeleton: Skeleton of the joints.
    picture: [N] row of the picture of each record in `file`.
    box_score: same as in `CocoTruth`.
    person_id: same as in `CocoTruth`.
  """
  image_id = file.picture_id[picture]
  return functools.partial(_read_truth, file.path, option, skeleton, image_id, box_score, person_id)


def _read_truth(path, option, skeleton, image_id, box_score, person_id):
  file = coco_annotations.read(path, option)
  if skeleton.area_per_box is None:
    no_area = [entry["id"] for entry in file.content["annotations"] if "area" not in entry]
    if no_area:
      raise ValueError(
        f"{path}: {len(no_area):,} annotations have no area ({pose_people.first_five(no_area)}), but the "
        "average precision needs it; expected the area of the person in pixels under the key area"
      )
  _check_scored(file, skeleton)
  return CocoTruth(file.content, category_of(file), image_id, box_score, person_id)


def _check_scored(file, skeleton):
  """Raises ValueError if an annotation has a value that the average precision cannot use.

  Crowds and people without joints are not records, so `read` does not check all of their values. But the
  score uses them. Without this check, a wrong value would stop a run at its first evaluation.
  """
  for annotation, _, _, where in coco_annotations.entries(file):
    ids = file.person_ids
    if ids is not None and json_entries.integer(annotation, "category_id", where) not in ids:
      continue
    coco_annotations.read_box(annotation, where)
    if "keypoints" in annotation:
      coco_annotations.read_keypoints(annotation, skeleton, where)
    if skeleton.area_per_box is None:
      json_entries.number(annotation, "area", where)


def category_of(file):
  """Returns the id of the category "person" in a CocoFile.

  If the file has no list of categories, the annotations give the id. If they have none, the id is 1.

  Raises:
    ValueError: if people have several category ids, because a score needs a single id.
  """
  ids = file.person_ids
  if ids is None:
    ids = {
      json_entries.integer(annotation, "category_id", where)
      for annotation, _, _, where in coco_annotations.entries(file)
      if "category_id" in annotation
    } or {1}
  if len(ids) > 1:
    raise ValueError(
      f"{file.path}: people have the category ids {pose_people.first_five(sorted(ids))}; expected one "
      f'category with the name "{coco_annotations.PERSON}", because the score needs one'
    )
  return next(iter(ids))


def _read_annotation(annotation, size, person_ids, skeleton, where):
  """Returns (box, keypoints) of an annotation. If it is left out, returns the reason as a text."""
  reason = coco_annotations.check_person(annotation, person_ids, where)
  if reason is not None:
    return reason
  keypoints = coco_annotations.read_keypoints(annotation, skeleton, where)
  box = coco_annotations.read_box(annotation, where)
  if not any(v > 0 for v in keypoints[2::3]):
    return _NO_JOINTS
  if "num_keypoints" in annotation and json_entries.integer(annotation, "num_keypoints", where) == 0:
    return _NO_JOINTS
  if "area" in annotation and json_entries.number(annotation, "area", where) <= 0:
    return _BAD_AREA
  clean = clean_box(box, size)
  return coco_annotations.NO_AREA if clean is None else (clean, keypoints)


def clean_box(box, size):
  """Cuts a box of COCO at the border of the picture, as the reference does.

  Args:
    box: (x, y, width, height) in pixels.
    size: (H, W) of the picture.
  Returns:
    (left, top, right, bottom) in pixels, or None if the box has no area after the cut.
  """
  x, y, w, h = map(float, box)
  H, W = size
  left, top = max(0.0, x), max(0.0, y)
  # Parity: the reference subtracts one pixel from width and height, and limits the box to W - 1 and H - 1.
  right, bottom = min(W - 1.0, left + max(0.0, w - 1)), min(H - 1.0, top + max(0.0, h - 1))
  return (left, top, right, bottom) if right > left and bottom > top else None
