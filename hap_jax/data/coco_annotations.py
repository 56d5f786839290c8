"""Reads files in COCO's keypoint format (arXiv 1405.0312) and checks their values.

A value that the format does not allow is an error. The message names the file and the annotation.
"""

import dataclasses
from typing import Any

import numpy as np

from hap_jax.data import json_entries
from hap_jax.data.names import Names
from hap_jax.data.skeletons import Skeleton
from hap_jax.data.sources.base import check_relative

FORMAT = "COCO's keypoint annotations"
PERSON = "person"  # name of the category
CROWD, CATEGORY, NO_KEYPOINTS, NO_AREA = (
  "crowds",
  f"of a category other than {PERSON}",
  "without keypoints",
  "with a box without area in the picture",
)
_MAX_SIDE = 2**31 - 1  # pixels; the sides of pictures are stored as int32


@dataclasses.dataclass(frozen=True, eq=False)
class CocoFile:
  """A file in COCO's keypoint format with P pictures.

  Attributes:
    path: path of the file.
    content: the parsed file.
    rows: {id of a picture: its row, starting at 0}.
    picture_id: [P] int64, ids of the pictures in the file.
    picture_size: [P, 2] int32, (H, W) of the pictures in pixels.
    names: `Names` of the P picture files.
    person_ids: ids of the categories with the name "person". None: the file has no categories, so all
      annotations are people.
  """

  path: str
  content: dict[str, Any]
  rows: dict[int, int]
  picture_id: np.ndarray
  picture_size: np.ndarray
  names: Names
  person_ids: set[int] | None


def read(path, option, if_list=""):
  """Reads a file in COCO's keypoint format, and checks its lists of pictures and categories.

  Args:
    path: the file.
    option: configuration key that names the file, for error messages.
    if_list: remark for the error message about a file whose outermost value is a list.
  Returns:
    CocoFile. `entries` checks and returns its annotations.
  Raises:
    ValueError: if the file is missing or has another format.
  """
  content = _read_content(path, option, if_list)
  rows, picture_id, picture_size, names = _read_pictures(content["images"], path)
  return CocoFile(path, content, rows, picture_id, picture_size, names, _read_person_ids(content, path))


def _read_content(path, option, if_list):
  """Returns the parsed file, an object with the lists "images" and "annotations"."""
  content = json_entries.read(path, option, FORMAT)
  for key in ("images", "annotations"):
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
      remark = f"; {if_list}" if if_list and isinstance(content, list) else ""
      raise ValueError(f'{path}: no list under the key "{key}"; expected {FORMAT}{remark}')
  return content


def entries(file):
  """Yields (annotation, id, row of the picture, name for error messages) for all annotations of a CocoFile.

  Raises:
    ValueError: if an annotation has no id, or if its picture is not in the list of pictures.
  """
  for number, annotation in enumerate(file.content["annotations"], start=1):
    where = f"{file.path}: annotation number {number} of the list"
    json_entries.check_object(annotation, where, FORMAT)
    annotation_id = json_entries.integer(annotation, "id", where)
    where = f"{file.path}: annotation {annotation_id}"
    row = file.rows.get(json_entries.integer(annotation, "image_id", where))
    if row is None:
      raise ValueError(f"{where}: its image_id is {annotation['image_id']}, which is not in the list images")
    yield annotation, annotation_id, row, where


def check_person(annotation, person_ids, where):
  """Returns the reason to leave out an annotation, or None if it shows a person with joints.

  Args:
    annotation: the annotation.
    person_ids: see `CocoFile`.
    where: name of the annotation, for error messages.
  Returns:
    CROWD, CATEGORY, NO_KEYPOINTS or None.
  Raises:
    ValueError: if the format does not allow a value.
  """
  if json_entries.flag(annotation.get("iscrowd", 0), where, "iscrowd"):
    return CROWD
  if person_ids is not None and json_entries.integer(annotation, "category_id", where) not in person_ids:
    return CATEGORY
  return None if "keypoints" in annotation else NO_KEYPOINTS


def read_keypoints(annotation, skeleton: Skeleton, where):
  """Returns the joints of an annotation: 3 * K numbers, (x, y, v) of each joint.

  Raises:
    ValueError: if a value is not a finite number, or if the number of values does not fit the skeleton.
  """
  num_joints, values = len(skeleton.joints), annotation["keypoints"]
  what = f"{num_joints} joints: x, y, v"
  if isinstance(values, list) and len(values) != 3 * num_joints:
    is_whole = values and len(values) % 3 == 0
    both = f": it has {len(values) // 3} joints, but {skeleton.name} has {num_joints}" if is_whole else ""
    raise ValueError(
      f"{where} has {len(values)} values under keypoints, expected {3 * num_joints} ({what}){both}"
    )
  return json_entries.numbers(annotation, "keypoints", where, 3 * num_joints, what)


def read_box(entry, where):
  """Returns the box (x, y, width, height) of an annotation or a detection, four finite numbers."""
  return json_entries.numbers(entry, "bbox", where, 4, "x, y, width, height")


def note_left_out(path, num_people, total, reasons, has_categories):
  """Returns notes on the annotations that are left out.

  Args:
    path: the file.
    num_people: number of people that are used.
    total: number of annotations in the file.
    reasons: {reason: number of annotations that are left out for this reason}.
    has_categories: False: all annotations are read as people.
  Raises:
    ValueError: if no annotation is left.
  """
  listed = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
  if not num_people:
    raise ValueError(
      f"{path}: expected at least one annotation of a person, but all {total} are left out: "
      f"{listed or 'none'}"
    )
  notes = []
  if listed:
    notes.append(f"{path}: {num_people:,} people; left out of its {total:,} annotations: {listed}")
  if not has_categories:
    notes.append(f"{path}: it has no categories, so all of its annotations are read as people")
  return notes


def _read_pictures(images, path):
  """Reads the list `images`. Returns rows, picture_id, picture_size and names, see `CocoFile`."""
  rows, sizes, names = {}, [], []
  for number, image in enumerate(images, start=1):
    where = f"{path}: image number {number} of the list"
    json_entries.check_object(image, where, FORMAT)
    image_id = json_entries.integer(image, "id", where)
    where = f"{path}: image {image_id}"
    if image_id in rows:
      raise ValueError(f"{where} occurs twice in the list images; expected one entry per id")
    sizes.append([json_entries.integer(image, key, where, 1, _MAX_SIDE) for key in ("height", "width")])
    rows[image_id] = len(names)
    names.append(json_entries.text(image, "file_name", where))
  ids = list(rows)
  check_relative(names, lambda i: f"{path}: image {ids[i]}")
  return rows, np.array(ids, np.int64), np.array(sizes, np.int32).reshape(-1, 2), Names.of(names)


def _read_person_ids(content, path):
  """Returns the ids of the categories with the name "person", or None if the file has no categories."""
  categories = content.get("categories", [])
  if categories == []:
    return None
  if not isinstance(categories, list):
    raise ValueError(f"{path}: found {json_entries.show(categories)} under categories, expected a list")
  names = {}
  for number, category in enumerate(categories, start=1):
    where = f"{path}: category number {number} of the list"
    json_entries.check_object(category, where, FORMAT)
    category_id = json_entries.integer(category, "id", where)
    name = json_entries.text(category, "name", where)
    if names.setdefault(category_id, name) != name:
      raise ValueError(f"{where} has the id {category_id} of another category; expected one name per id")
  person_ids = {number for number, name in names.items() if name.strip().lower() == PERSON}
  if not person_ids:
    found = json_entries.show(list(names.values()))
    raise ValueError(f'{path}: no category is named "{PERSON}"; found {found} under categories')
  return person_ids
