"""People of COCO's keypoint annotations (arXiv 1405.0312): one record per annotated person.

A person becomes a record if it is not a crowd (`iscrowd` 0 or absent), has at least `min_keypoints` labelled
joints, and its box, grown by `margin` and clipped to the picture, is not empty. The box is cut out and the
joints move along. A joint counts as visible if it is labelled at all (COCO's v = 1, hidden but labelled, or
v = 2) and lies inside the cut. Order: that of the annotation file.
"""

import dataclasses
import json
import os

import numpy as np
from absl import logging

from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources.base import (
  BadRecordError,
  SourceSpec,
  check_folder,
  check_root,
  held_out,
  read_image,
)
from hap_jax.io import regular_file

SPLITS = ("train", "val")
_SPEC = SourceSpec(
  "coco_persons",
  COCO17,
  licence="COCO: annotations CC BY 4.0; each picture under the Flickr licence that its annotation file names",
)


def open_source(*, root, split, seed, annotations="", images="", margin=0.1, min_keypoints=1, num_val=0):
  """Opens the people of a COCO keypoint file.

  Args:
    root: COCO's folder (config.data.root).
    split: "train" or "val".
    seed: not used; the order is the file's.
    annotations: annotation file, below `root`; empty: annotations/person_keypoints_{train,val}2017.json.
    images: folder of the pictures, below `root`; empty: {train,val}2017/, or, with `annotations` given, the
      folder of that file.
    margin: what is added to each side of a box, as a share of its width and height.
    min_keypoints: labelled joints that a person needs.
    num_val: with `annotations` given, both splits come from that file, and "val" is its last num_val people;
      else "val" is the last num_val people of val2017, 0: all (config.data.num_val).

  Returns:
    a source of person records (see `base.py`).

  Raises:
    ValueError: if a folder, file or key is missing, or an option is out of range.
  """
  check_root(
    root, "annotations/, train2017/ and val2017/, or config.data.coco_persons.annotations and its pictures"
  )
  if margin < 0:
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
  people = _read_people(path, margin, min_keypoints)
  if annotations or (split == "val" and num_val):
    start, stop = held_out(len(people["id"]), num_val, split)
    people = {key: values[start:stop] for key, values in people.items()}
  return _People(folder, **people)


@dataclasses.dataclass(frozen=True, eq=False)
class _People:
  """N people as arrays, which pickle small: COCO's 150,000 take 33 MB.

  Attributes:
    folder: of the pictures.
    id: [N] int64, annotation ids. file_name: [N] str. image_size: [N, 2] int32, (H, W).
    crop: [N, 4] int32, (top, left, bottom, right), inside the picture.
    keypoints: [N, 17, 3] float32: x, y in pixels of the picture, and v.
  """

  folder: str
  id: np.ndarray
  file_name: np.ndarray
  image_size: np.ndarray
  crop: np.ndarray
  keypoints: np.ndarray

  spec = _SPEC

  def __len__(self):
    return len(self.id)

  def __getitem__(self, index):
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    path = os.path.join(self.folder, str(self.file_name[index]))
    image = read_image(path)
    size = tuple(self.image_size[index].tolist())
    if image.shape[:2] != size:
      raise BadRecordError(f"{path}: {image.shape[:2]} pixels (H, W), annotated as {size}")
    top, left, bottom, right = self.crop[index]
    xy = self.keypoints[index, :, :2] - np.array((left, top), np.float32)
    inside = (xy[:, 0] >= 0) & (xy[:, 0] < right - left) & (xy[:, 1] >= 0) & (xy[:, 1] < bottom - top)
    return {
      "image": np.ascontiguousarray(image[top:bottom, left:right]),
      "keypoints_xy": xy,
      "keypoints_visible": inside & (self.keypoints[index, :, 2] > 0),
    }

  def name(self, index):
    return f"{os.path.join(self.folder, str(self.file_name[index]))} (annotation {self.id[index]})"


def _read_people(path, margin, min_keypoints):
  """Reads an annotation file into the arrays of `_People`."""
  coco = _read_json(path)
  images = {_get(image, "id", path, "image"): image for image in coco["images"]}
  rows, left_out = (
    [],
    {"crowds": 0, f"people with fewer than {min_keypoints} labelled joints": 0, "empty boxes": 0},
  )
  for annotation in coco["annotations"]:
    what = f"annotation {annotation.get('id', '(without id)')}"
    keypoints = np.asarray(_get(annotation, "keypoints", path, what), np.float32)
    if keypoints.shape != (3 * len(COCO17.joints),):
      raise ValueError(f"{path}: {what} has {keypoints.size} values under keypoints, expected 51 (17 joints)")
    keypoints = keypoints.reshape(-1, 3)
    image = images.get(_get(annotation, "image_id", path, what))
    if image is None:
      raise ValueError(f"{path}: {what} is of image {annotation['image_id']}, which is not under images")
    size = tuple(_get(image, key, path, f"image {image['id']}") for key in ("height", "width"))
    crop = _grow_box(_get(annotation, "bbox", path, what), size, margin)
    if annotation.get("iscrowd", 0):
      left_out["crowds"] += 1
    elif np.count_nonzero(keypoints[:, 2] > 0) < min_keypoints:
      left_out[f"people with fewer than {min_keypoints} labelled joints"] += 1
    elif crop[0] >= crop[2] or crop[1] >= crop[3]:
      left_out["empty boxes"] += 1
    else:
      file_name = _get(image, "file_name", path, f"image {image['id']}")
      rows.append((_get(annotation, "id", path, what), file_name, size, crop, keypoints))
  if not rows:
    raise ValueError(f"{path}: none of its {len(coco['annotations'])} annotations makes a record: {left_out}")
  logging.warning("%s: %d people; left out: %s", path, len(rows), dict(left_out) or "none")
  ids, file_names, sizes, crops, keypoints = zip(*rows, strict=True)
  return {
    "id": np.array(ids, np.int64),
    "file_name": np.array(file_names),
    "image_size": np.array(sizes, np.int32),
    "crop": np.array(crops, np.int32),
    "keypoints": np.array(keypoints),
  }


def _read_json(path):
  if not os.path.isfile(path):
    raise ValueError(
      f"{path}: no such file; expected COCO's keypoint annotations there, or name another file by "
      "config.data.coco_persons.annotations"
    )
  with regular_file.open_regular(path, "r", encoding="utf-8") as file:
    try:
      coco = json.load(file)
    except ValueError as error:
      raise ValueError(f"{path}: not a JSON file: {error}") from error
  for key in ("images", "annotations"):
    if not isinstance(coco, dict) or not isinstance(coco.get(key), list):
      raise ValueError(f'{path}: no list under the key "{key}"; expected COCO\'s keypoint annotations')
  return coco


def _get(entry, key, path, what):
  if key not in entry:
    raise ValueError(f'{path}: {what} has no key "{key}"; expected COCO\'s keypoint annotations')
  return entry[key]


def _grow_box(box, size, margin):
  """Grows a COCO box (x, y, w, h) and clips it to the picture: (top, left, bottom, right), whole pixels."""
  x, y, w, h = box
  (H, W), (dx, dy) = size, (margin * w, margin * h)
  top, left = max(0, int(np.floor(y - dy))), max(0, int(np.floor(x - dx)))
  return top, left, min(H, int(np.ceil(y + h + dy))), min(W, int(np.ceil(x + w + dx)))
