"""Source: people of COCO's keypoint annotations (arXiv 1405.0312), one record per annotated person.

An annotation becomes a record, except in these cases:
  crowd             `iscrowd` is 1
  other category    in the list `categories`, the name of its `category_id` is not "person"
  no joints         it has no key `keypoints`
  empty box         its box has no area inside the picture
  too few joints    it has fewer than `min_keypoints` visible joints
A note gives the number of annotations left out for each reason, and is logged. If a file has no `categories`,
all annotations are people.

The box is enlarged by `margin` and cut out of the picture. The joints are shifted with it. A joint is visible
if COCO labels it (v = 1: labelled but hidden, or v = 2: labelled and visible) and if it lies inside the cut
picture. The records are in the order of the annotation file.

A value that COCO's format does not allow is an error. The error message names the file and the annotation.
"""

import collections
import dataclasses
import json
import math
import os
import reprlib

import numpy as np
from absl import logging

from hap_jax.data.names import Names
from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources.base import (
  BadRecordError,
  SourceSpec,
  check_folder,
  check_relative,
  check_root,
  check_utf8,
  held_out,
  read_image,
)
from hap_jax.io import regular_file

SPLITS = ("train", "val")
JOINTS = True
PLACES = ("annotations", "images")
_LICENCE = "COCO: annotations CC BY 4.0; each picture under the Flickr licence that its annotation file names"
_PERSON = "person"  # name of the category
_MAX_SIDE = 2**31 - 1  # pixels; the sides of pictures are stored as int32
_MAX_NUMBER = float(np.finfo(np.float32).max)  # joints are stored as float32
_CROWD, _CATEGORY, _NO_KEYPOINTS, _NO_AREA = (
  "crowds",
  f"of a category other than {_PERSON}",
  "without keypoints",
  "with a box without area in the picture",
)


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
    margin: by how much each side of the box moves outwards, as a share of the width or height of the box.
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
    keypoints: [N, 17, 3] float32: x, y in pixels of the picture, and COCO's v.
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
    # If the size differs, the file is another version of the picture, and the joints do not fit it.
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
    keypoints: [..., 17, 3] float32: x, y in pixels of the picture, and COCO's v.
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
  coco = _read_json(path)
  pictures, names = _read_pictures(coco["images"], path)
  person_ids = _read_person_ids(coco, path)
  # Rows are collected in a plain list. The arrays are made from it at the end.
  rows, left_out = [], collections.Counter()
  for number, annotation in enumerate(coco["annotations"], start=1):
    where = f"{path}: annotation number {number} of the list"
    _check_object(annotation, where)
    annotation_id = _integer(annotation, "id", where)
    where = f"{path}: annotation {annotation_id}"
    picture = pictures.get(_integer(annotation, "image_id", where))
    if picture is None:
      raise ValueError(f"{where}: its image_id is {annotation['image_id']}, which is not in the list images")
    row = _read_annotation(annotation, picture[1:], person_ids, margin, where)
    if isinstance(row, str):
      left_out[row] += 1
    else:
      rows.append((annotation_id, *picture, *row))
  people = _to_arrays(rows)
  # Joints inside the cut are counted here, for all people at once, which is faster than once per person.
  is_enough = _move_joints(people["keypoints"], people["crop"])[1].sum(axis=1) >= min_keypoints
  if not is_enough.all():
    left_out[f"with fewer than {min_keypoints} joints inside the cut"] = int((~is_enough).sum())
    people = {key: values[is_enough] for key, values in people.items()}
  return people, names, _note(path, len(people["id"]), coco, left_out)


def _to_arrays(rows):
  """Converts rows (id, picture, H, W, crop, keypoints) to {attribute of `_People`: array}."""
  ids, pictures, heights, widths, crops, keypoints = zip(*rows, strict=True) if rows else ((),) * 6
  return {
    "id": np.array(ids, np.int64),
    "picture": np.array(pictures, np.int32),
    "image_size": np.array((heights, widths), np.int32).T,
    "crop": np.array(crops, np.int32).reshape(-1, 4),
    "keypoints": np.array(keypoints, np.float32).reshape(-1, len(COCO17.joints), 3),
  }


def _note(path, num_people, coco, left_out):
  """Returns notes on the annotations that are left out. Raises ValueError if no annotation is left."""
  reasons = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
  total = len(coco["annotations"])
  if not num_people:
    raise ValueError(
      f"{path}: expected at least one annotation of a person, but all {total} are left out: "
      f"{reasons or 'none'}"
    )
  notes = []
  if reasons:
    notes.append(f"{path}: {num_people:,} people; left out of its {total:,} annotations: {reasons}")
  if not coco.get("categories"):
    notes.append(f"{path}: it has no categories, so all of its annotations are read as people")
  return notes


def _read_json(path):
  if not os.path.isfile(path):
    raise ValueError(
      f"{path}: no such file; expected COCO's keypoint annotations there, or set "
      "config.data.coco_persons.annotations to another file"
    )
  with regular_file.open_regular(path, "r", encoding="utf-8") as file:
    try:
      coco = json.load(file)
    except RecursionError as error:
      raise ValueError(f"{path}: its lists or objects are nested too deeply to be read") from error
    except ValueError as error:
      raise ValueError(f"{path}: not a JSON file: {error}") from error
  for key in ("images", "annotations"):
    if not isinstance(coco, dict) or not isinstance(coco.get(key), list):
      raise ValueError(f'{path}: no list under the key "{key}"; expected COCO\'s keypoint annotations')
  return coco


def _read_pictures(images, path):
  """Reads the list `images` of the file. Returns ({image id: (index in the names, H, W)}, `Names`)."""
  pictures, names = {}, []
  for number, image in enumerate(images, start=1):
    where = f"{path}: image number {number} of the list"
    _check_object(image, where)
    image_id = _integer(image, "id", where)
    where = f"{path}: image {image_id}"
    if image_id in pictures:
      raise ValueError(f"{where} is twice in the list images; expected one entry per id")
    height, width = (_integer(image, key, where, 1, _MAX_SIDE) for key in ("height", "width"))
    pictures[image_id] = len(names), height, width
    names.append(_text(image, "file_name", where))
  ids = list(pictures)
  check_relative(names, lambda i: f"{path}: image {ids[i]}")
  return pictures, Names.of(names)


def _read_person_ids(coco, path):
  """Returns the ids of the categories with the name "person", or None if the file has no categories."""
  categories = coco.get("categories", [])
  if categories == []:
    return None
  if not isinstance(categories, list):
    raise ValueError(f"{path}: {_show(categories)} under categories, expected a list")
  names = {}
  for number, category in enumerate(categories, start=1):
    where = f"{path}: category number {number} of the list"
    _check_object(category, where)
    category_id, name = _integer(category, "id", where), _text(category, "name", where)
    if names.setdefault(category_id, name) != name:
      raise ValueError(f"{where} has the id {category_id} of another category; expected one name per id")
  person_ids = {number for number, name in names.items() if name.strip().lower() == _PERSON}
  if not person_ids:
    found = _show(list(names.values()))
    raise ValueError(f'{path}: no category is named "{_PERSON}"; found {found} under categories')
  return person_ids


def _read_annotation(annotation, size, person_ids, margin, where):
  """Returns (crop, [51] keypoints) of an annotation, or a text with the reason why it is left out."""
  crowd = annotation.get("iscrowd", 0)
  if not isinstance(crowd, int | float) or crowd not in (0, 1):
    raise ValueError(f"{where} has {_show(crowd)} under iscrowd, expected 0 or 1")
  if crowd:
    return _CROWD
  if person_ids is not None and _integer(annotation, "category_id", where) not in person_ids:
    return _CATEGORY
  if "keypoints" not in annotation:
    return _NO_KEYPOINTS
  keypoints = _numbers(annotation, "keypoints", where, 3 * len(COCO17.joints), "17 joints: x, y, v")
  box = _numbers(annotation, "bbox", where, 4, "x, y, width, height")
  crop = _cut_box(box, size, margin)
  return _NO_AREA if crop is None else (crop, keypoints)


def _cut_box(box, size, margin):
  """Enlarges a COCO box (x, y, w, h) by the margin and clips it to the picture.

  Returns:
    (top, left, bottom, right) in whole pixels. None if the box without margin has no area inside the picture.
  """
  x, y, w, h = map(float, box)
  H, W = size
  if w <= 0 or h <= 0 or x >= W or y >= H or x + w <= 0 or y + h <= 0:
    return None
  dx, dy = margin * w, margin * h
  # The numbers are clipped before they are rounded. A sum of huge numbers may be infinite, and Python cannot
  # round infinity.
  top, left = math.floor(max(0.0, y - dy)), math.floor(max(0.0, x - dx))
  bottom, right = math.ceil(min(H, y + h + dy)), math.ceil(min(W, x + w + dx))
  return (top, left, bottom, right) if top < bottom and left < right else None


def _check_object(entry, where):
  if not isinstance(entry, dict):
    raise ValueError(f"{where} is {_show(entry)}; expected an object of COCO's keypoint annotations")


def _get(entry, key, where):
  if key not in entry:
    raise ValueError(f'{where} has no key "{key}"; expected COCO\'s keypoint annotations')
  return entry[key]


def _text(entry, key, where):
  value = _get(entry, key, where)
  if not isinstance(value, str):
    raise ValueError(f"{where} has {_show(value)} under {key}, expected a text")
  return value


def _integer(entry, key, where, low=-(2**63), high=2**63 - 1):
  """Returns the whole number under a key. Raises ValueError if it is not one, or not in [low, high]."""
  value = _get(entry, key, where)
  # Some annotation tools write 7.0 for 7. A bool is not accepted, although it is an int in Python.
  number = int(value) if type(value) is float and value.is_integer() else value
  if type(number) is not int or not low <= number <= high:
    raise ValueError(f"{where} has {_show(value)} under {key}, expected a whole number from {low} to {high}")
  return number


def _numbers(entry, key, where, count, what):
  """Returns the list of `count` finite numbers under a key. Raises ValueError for any other value."""
  values = _get(entry, key, where)
  if not isinstance(values, list):
    raise ValueError(f"{where} has {_show(values)} under {key}, expected {count} numbers ({what})")
  if len(values) != count:
    raise ValueError(f"{where} has {len(values)} values under {key}, expected {count} ({what})")
  for value in values:
    if type(value) not in (int, float) or not -_MAX_NUMBER <= value <= _MAX_NUMBER:
      raise ValueError(
        f"{where} has {_show(value)} among the values under {key}, expected {count} finite numbers ({what})"
      )
  return values


def _show(value):
  """Returns a JSON value as a short text. Nested lists and long texts are shortened."""
  return "null" if value is None else reprlib.repr(value)
