"""Source: people of AI Challenger's keypoint data set (AIC; arXiv 1711.06475) on whole pictures, for 2D pose.

The annotations must be converted to COCO's format. Users of this data set share such files. The original
release has another format, and is refused with a message. The files are in one of these layouts:

  annotations of "train"   <root>/annotations/aic_train.json
                           <root>/ai_challenger_keypoint_train_20170909/aic_train.json
                           <root>/ai_challenger_keypoint_train_20170902/aic_train.json
  pictures of "train"      <root>/ai_challenger_keypoint_train_20170909/keypoint_train_images_20170902/
                           <root>/ai_challenger_keypoint_train_20170902/keypoint_train_images_20170902/
  annotations of "val"     <root>/annotations/aic_val.json
                           <root>/ai_challenger_keypoint_validation_20170911/aic_val.json
  pictures of "val"        <root>/ai_challenger_keypoint_validation_20170911/
                             keypoint_validation_images_20170911/

`data/coco_people.py` explains which annotations become records. The records are in the order of the
annotation file.
"""

import os

import numpy as np

from hap_jax.data import coco_annotations, coco_people, pose_people
from hap_jax.data.skeletons import AIC14
from hap_jax.data.sources.base import check_folder, check_root

SPLITS = ("train", "val")
PLACES = ("train_annotations", "val_annotations", "train_images", "val_images")
_LICENCE = "AI Challenger: research use, on its terms"
_OPTION = "config.data.aic_pose"
_TRAIN = ("ai_challenger_keypoint_train_20170909", "ai_challenger_keypoint_train_20170902")
_VAL = ("ai_challenger_keypoint_validation_20170911",)
_FILES = {
  "train": ("annotations/aic_train.json", *(f"{folder}/aic_train.json" for folder in _TRAIN)),
  "val": ("annotations/aic_val.json", *(f"{folder}/aic_val.json" for folder in _VAL)),
}
_FOLDERS = {
  "train": tuple(f"{folder}/keypoint_train_images_20170902" for folder in _TRAIN),
  "val": tuple(f"{folder}/keypoint_validation_images_20170911" for folder in _VAL),
}
_ORIGINAL = (
  "found a list, as in the original release of AI Challenger: convert it to COCO's format. The visibility "
  "1, 2, 3 becomes 2, 1, 0, and a box of two corners becomes x, y, width, height"
)


def open_source(
  *, root, split, seed, train_annotations="", val_annotations="", train_images="", val_images=""
):
  """Opens the people of AIC on whole pictures. The annotations must be in COCO's format.

  Args:
    root: folder of the data set (config.data.root).
    split: "train" or "val".
    seed: not used, because the order is the order of the file.
    train_annotations, val_annotations: path of the annotation file of a split, relative to `root`. "": the
      first of the usual places that exists.
    train_images, val_images: folder of the pictures of a split, relative to `root`. "": the first of the
      usual places that exists.

  Returns:
    PosePeople with 14 joints. Its `truth()` is a CocoTruth.

  Raises:
    ValueError: if a folder, file or key is missing, if COCO's format does not allow a value, or if no person
      remains.
  """
  del seed
  check_root(root, f"{_FILES['train'][0]} and {_FOLDERS['train'][0]}/")
  pose_people.check_split("aic_pose", split)
  annotations = {"train": train_annotations, "val": val_annotations}[split]
  images = {"train": train_images, "val": val_images}[split]
  option, what = f"{_OPTION}.{split}_annotations", f"AIC's annotations of {split} in COCO's format"
  path = pose_people.find(root, (annotations,) if annotations else _FILES[split], option, what)
  option_of_images, what = f"{_OPTION}.{split}_images", f"AIC's pictures of {split}"
  choices = (images,) if images else _FOLDERS[split]
  folder = pose_people.find(root, choices, option_of_images, what, os.path.isdir)
  check_folder(folder, f"{what} ({option_of_images})")
  file = coco_annotations.read(path, option, _ORIGINAL)
  people, notes = coco_people.read(file, AIC14)
  return pose_people.make(
    "aic_pose",
    AIC14,
    licence=_LICENCE,
    notes=notes,
    folder=folder,
    path=path,
    kind="annotation",
    names=file.names,
    picture_size=file.picture_size,
    read_truth=coco_people.make_read_truth(
      file,
      option,
      AIC14,
      picture=people["picture"],
      box_score=np.ones(len(people["id"]), np.float32),
      person_id=people["id"],
    ),
    **people,
  )


def published(split, options):
  """Returns the sizes of the published data set, see `base.py`."""
  del split, options
  return {"joints": len(AIC14.joints)}
