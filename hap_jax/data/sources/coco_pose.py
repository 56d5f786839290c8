"""Source: people of COCO's keypoint annotations (arXiv 1405.0312) on whole pictures, for 2D pose.

  <root>/annotations/person_keypoints_{train,val}2017.json
  <root>/{train,val}2017/*.jpg

`data/coco_people.py` explains which annotations become records. The boxes are cut at the border of the
picture. The records are in the order of the annotation file.

The official scores use boxes of a person detector. The option `detections` is the path of the file with these
boxes. Each detection of a person is then a record of the split "val". Its box is not changed, and its joints
are not known. A record of "train" is always an annotation.
"""

import os

import numpy as np

from hap_jax.data import coco_annotations, coco_people, json_entries, pose_people
from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources.base import check_folder, check_root

SPLITS = ("train", "val")
PLACES = ("train_annotations", "val_annotations", "train_images", "val_images", "detections")
_LICENCE = "COCO: annotations CC BY 4.0; each picture under the Flickr licence that its annotation file names"
_OFFICIAL = {"train": 149_813, "val": 6_352}  # numbers of people
_DETECTIONS = "detections of people in COCO's format for results"
_OPTION = "config.data.coco_pose"
_MAX_SIDE = 2**31 - 1  # pixels; a sum of larger values may be infinite in float32


def open_source(
  *,
  root,
  split,
  seed,
  train_annotations="",
  val_annotations="",
  train_images="",
  val_images="",
  detections="",
):
  """Opens the people of a COCO keypoint file on whole pictures.

  Args:
    root: COCO's folder (config.data.root).
    split: "train" or "val".
    seed: not used, because the order is the order of the file.
    train_annotations, val_annotations: path of the annotation file of a split, relative to `root`. "":
      annotations/person_keypoints_{train,val}2017.json.
    train_images, val_images: folder of the pictures of a split, relative to `root`. "": {train,val}2017.
    detections: path of a file with the boxes of a person detector for the split "val", relative to `root`,
      such as person_detection_results/COCO_val2017_detections_AP_H_56_person.json. "": the boxes of the
      annotation file.

  Returns:
    PosePeople with 17 joints. Its `truth()` is a CocoTruth.

  Raises:
    ValueError: if a folder, file or key is missing, if COCO's format does not allow a value, or if no person
      remains.
  """
  del seed
  check_root(root, "annotations/, train2017/ and val2017/")
  pose_people.check_split("coco_pose", split)
  annotations = {"train": train_annotations, "val": val_annotations}[split]
  images = {"train": train_images, "val": val_images}[split]
  option = f"{_OPTION}.{split}_annotations"
  path = os.path.join(root, annotations or f"annotations/person_keypoints_{split}2017.json")
  folder = os.path.join(root, images or f"{split}2017")
  check_folder(folder, f"the pictures of COCO's annotations ({_OPTION}.{split}_images)")
  file = coco_annotations.read(path, option)
  if detections and split == "val":
    kind = "detection"
    people, box_score, notes = _read_detections(os.path.join(root, detections), file)
  else:
    kind, (people, notes) = "annotation", coco_people.read(file, COCO17)
    box_score = np.ones(len(people["id"]), np.float32)
    if not annotations:
      notes += pose_people.note_count(path, len(box_score), _OFFICIAL[split])
  return pose_people.make(
    "coco_pose",
    COCO17,
    licence=_LICENCE,
    notes=notes,
    folder=folder,
    path=os.path.join(root, detections) if kind == "detection" else path,
    kind=kind,
    names=file.names,
    picture_size=file.picture_size,
    read_truth=coco_people.make_read_truth(
      file,
      option,
      COCO17,
      picture=people["picture"],
      box_score=box_score,
      person_id=people["id"] if kind == "annotation" else None,
    ),
    **people,
  )


def published(split, options):
  """Returns the sizes of the published data set, see `base.py`."""
  del options
  return {"records": _OFFICIAL[split], "joints": len(COCO17.joints)}


def _read_detections(path, file):
  """Reads the detections of people on the pictures of a CocoFile.

  Returns:
    ({attribute of `PosePeople`: array}, [N] float32 scores of the boxes, notes). The `id` is the
    position of the detection in its file, starting at 1.
  """
  entries = json_entries.read(path, f"{_OPTION}.detections", _DETECTIONS)
  if not isinstance(entries, list):
    raise ValueError(f"{path}: expected a list of {_DETECTIONS}, found {json_entries.show(entries)}")
  person, rows, left_out = coco_people.category_of(file), [], {}
  for number, entry in enumerate(entries, start=1):
    where = f"{path}: detection {number}"
    json_entries.check_object(entry, where, _DETECTIONS)
    picture = file.rows.get(json_entries.integer(entry, "image_id", where))
    category = json_entries.integer(entry, "category_id", where)
    box = coco_annotations.read_box(entry, where)
    score = json_entries.number(entry, "score", where)
    if max(map(abs, box)) > _MAX_SIDE:
      raise ValueError(
        f"{where} has {json_entries.show(box)} under bbox, expected at most {_MAX_SIDE} pixels"
      )
    if category != person:
      reason = coco_annotations.CATEGORY
    elif picture is None:
      reason = f"of pictures that are not in {file.path}"
    elif not _is_seen(box, file.picture_size[picture].tolist()):
      reason = coco_annotations.NO_AREA
    else:
      rows.append((number, picture, (box[0], box[1], box[0] + box[2], box[1] + box[3]), score))
      continue
    left_out.setdefault(reason, []).append(number)
  listed = ", ".join(
    f"{len(who):,} {reason} (detection {pose_people.first_five(who)})" for reason, who in left_out.items()
  )
  if not rows:
    raise ValueError(
      f"{path}: expected at least one detection of a person on the pictures of {file.path}, but all "
      f"{len(entries):,} are left out: {listed or 'none'}"
    )
  notes = [f"{path}: {len(rows):,} detections; left out of its {len(entries):,}: {listed}"] if listed else []
  numbers, pictures, boxes, scores = zip(*rows, strict=True)
  return _to_arrays(numbers, pictures, boxes), np.array(scores, np.float32), notes


def _to_arrays(numbers, pictures, boxes):
  """Returns {attribute of `PosePeople`: array} of detections. All joints are missing."""
  shape = (len(numbers), len(COCO17.joints))
  return {
    "id": np.array(numbers, np.int64),
    "picture": np.array(pictures, np.int32),
    "box": np.array(boxes, np.float32),
    "keypoints_xy": np.zeros((*shape, 2), np.float32),
    "keypoints_visible": np.zeros(shape, bool),
  }


def _is_seen(box, size):
  """Returns True if a box (x, y, width, height) has an area inside a picture of `size` (H, W)."""
  x, y, w, h = map(float, box)
  H, W = size
  return w > 0 and h > 0 and x < W and y < H and x + w > 0 and y + h > 0
