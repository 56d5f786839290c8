"""Source: people of MPII Human Pose (Andriluka et al., CVPR 2014) on whole pictures, for 2D pose.

  <root>/annotations/mpii_train.json, mpii_val.json   lists of people, in the format of HRNet's release
  <root>/annotations/mpii_gt_val.mat                  the correct joints of "val" and the boxes of the heads
  <root>/images/*.jpg

An entry of the lists has
  image               name of the picture file
  center, scale       position (x, y) of the person in pixels, and height of the person divided by 200 pixels
  joints, joints_vis  16 joints (x, y) in pixels, and 1 for each joint that is annotated
In these files, pixels are counted from 1. In the records, they are counted from 0. The box of a record is a
square with sides of 200 * scale. Its centre is `center`, moved down by 15 * scale as in the reference.

Entries of "train" without an annotated joint are left out. "val" keeps them, because mpii_gt_val.mat has the
same people in the same order. The entries are compared with this file when "val" is opened.
"""

import functools
import os

import numpy as np

from hap_jax.data import json_entries, mpii_truth, pose_people
from hap_jax.data.names import Names
from hap_jax.data.skeletons import MPII16
from hap_jax.data.sources.base import check_folder, check_relative, check_root

SPLITS = ("train", "val")
PLACES = ("train_annotations", "val_annotations", "train_images", "val_images", "truth")
_LICENCE = "MPII Human Pose: annotations BSD; pictures for research use, on the terms of its authors"
_OFFICIAL = {"train": 22_246, "val": 2_958}  # numbers of people
_FORMAT = "MPII's annotations in the format of HRNet's release"
_TRUTH = "annotations/mpii_gt_val.mat"
_OPTION = "config.data.mpii_pose"
_LARGEST = 10**6  # largest value of center and scale
_TOLERANCE = 0.01  # pixels; largest difference between the joints of the two files


def open_source(
  *, root, split, seed, train_annotations="", val_annotations="", train_images="", val_images="", truth=""
):
  """Opens the people of MPII on whole pictures.

  Args:
    root: folder of the data set (config.data.root).
    split: "train" or "val".
    seed: not used, because the order is the order of the file.
    train_annotations, val_annotations: path of the annotation file of a split, relative to `root`. "":
      annotations/mpii_{train,val}.json.
    train_images, val_images: folder of the pictures of a split, relative to `root`. "": images.
    truth: path of mpii_gt_val.mat, relative to `root`. It must have the people of "val" in the same order.
      "": annotations/mpii_gt_val.mat. Without this file, the split "val" cannot be scored.

  Returns:
    PosePeople with 16 joints. Its `truth()` is an MpiiTruth, or None if it cannot be scored.

  Raises:
    ValueError: if a folder, file or key is missing, if the format does not allow a value, if no person
      remains, or if the annotations and mpii_gt_val.mat differ.
  """
  del seed
  check_root(root, f"annotations/mpii_train.json, annotations/mpii_val.json, {_TRUTH} and images/")
  pose_people.check_split("mpii_pose", split)
  annotations = {"train": train_annotations, "val": val_annotations}[split]
  images = {"train": train_images, "val": val_images}[split]
  path = os.path.join(root, annotations or f"annotations/mpii_{split}.json")
  folder = os.path.join(root, images or "images")
  check_folder(folder, f"the pictures of MPII ({_OPTION}.{split}_images)")
  people, names = _read_people(path, f"{_OPTION}.{split}_annotations")
  notes = [] if annotations else pose_people.note_count(path, len(people["id"]), _OFFICIAL[split])
  read_truth = None
  if split == "train":
    people, left_out = _with_joints(people, path)
    notes += left_out
  else:
    read_truth, no_truth = _find_truth(root, truth, path, people, names)
    notes += no_truth
  return pose_people.make(
    "mpii_pose",
    MPII16,
    licence=_LICENCE,
    notes=notes,
    folder=folder,
    path=path,
    kind="entry",
    names=Names.of(names),
    picture_size=None,
    read_truth=read_truth,
    **people,
  )


def published(split, options):
  """Returns the sizes of the published data set, see `base.py`."""
  del options
  return {"records": _OFFICIAL[split], "joints": len(MPII16.joints)}


def _read_people(path, option):
  """Reads an annotation file. Returns ({attribute of `PosePeople`: array}, names of the pictures)."""
  entries = json_entries.read(path, option, _FORMAT)
  if not isinstance(entries, list) or not entries:
    raise ValueError(f"{path}: expected a list of {_FORMAT}, found {json_entries.show(entries)}")
  rows = [_read_entry(entry, f"{path}: entry {number}") for number, entry in enumerate(entries, start=1)]
  files, centers, scales, joints, visible = zip(*rows, strict=True)
  names = {name: k for k, name in enumerate(dict.fromkeys(files))}
  check_relative(list(names), lambda i: f"{path}: entry {files.index(list(names)[i]) + 1}")
  people = {
    "id": np.arange(1, len(rows) + 1),
    "picture": np.array([names[file] for file in files], np.int32),
    "box": squares(np.array(centers, float), np.array(scales, float)),
    # In the file, pixels are counted from 1.
    "keypoints_xy": (np.array(joints, float) - 1).astype(np.float32),
    "keypoints_visible": np.array(visible, bool),
  }
  if not people["keypoints_visible"].any():
    raise ValueError(f"{path}: no annotated joint in its {len(rows):,} entries; expected at least one")
  return people, list(names)


def _read_entry(entry, where):
  """Returns (file name, center, scale, joints, whether each joint is annotated) of an entry."""
  json_entries.check_object(entry, where, _FORMAT)
  K = len(MPII16.joints)
  file = json_entries.text(entry, "image", where)
  center = json_entries.numbers(entry, "center", where, 2, "x, y")
  scale = json_entries.number(entry, "scale", where)
  if not 0 < scale <= _LARGEST or max(map(abs, center)) > _LARGEST:
    raise ValueError(
      f"{where} has {center} under center and {scale} under scale; expected a scale above 0 and numbers up "
      f"to {_LARGEST:,}"
    )
  what = f"joints of {MPII16.name}"
  for key in ("joints", "joints_vis"):
    json_entries.list_of(entry, key, where, K, what)
  joints = [json_entries.numbers({"joints": xy}, "joints", where, 2, "x, y") for xy in entry["joints"]]
  visible = [json_entries.flag(value, where, "joints_vis") for value in entry["joints_vis"]]
  return file, center, scale, joints, visible


def squares(center, scale):
  """Returns the boxes of people, squares in pixels.

  The reference enlarges this square by 1.25 to get the region that the network sees.

  Args:
    center: [N, 2] (x, y) in pixels, counted from 1.
    scale: [N] height of the person divided by 200 pixels.
  Returns:
    [N, 4] float32, (left, top, right, bottom) in pixels, counted from 0.
  """
  # Parity: where x is -1, the reference neither moves the center nor enlarges the square by 1.25.
  is_given = center[:, 0] != -1
  x, y = center[:, 0] - 1, center[:, 1] + np.where(is_given, 15 * scale, 0) - 1
  half = np.where(is_given, 100 * scale, 100 * scale / 1.25)
  return np.stack([x - half, y - half, x + half, y + half], axis=1).astype(np.float32)


def _with_joints(people, path):
  """Returns the people with at least one annotated joint, and notes on people that are left out."""
  has_joints = people["keypoints_visible"].any(axis=1)
  if has_joints.all():
    return people, []
  others = people["id"][~has_joints].tolist()
  note = (
    f"{path}: {len(others):,} of {len(has_joints):,} entries are left out, because they have no annotated "
    f"joint (entry {pose_people.first_five(others)})"
  )
  return {key: values[has_joints] for key, values in people.items()}, [note]


def _find_truth(root, truth, path, people, names):
  """Finds mpii_gt_val.mat and compares it with the entries of "val".

  Returns:
    (function that reads the MpiiTruth, []), or (None, notes) if there is no such file.
  """
  option, place = f"{_OPTION}.truth", os.path.join(root, truth or _TRUTH)
  if not os.path.isfile(place):
    if truth:
      raise ValueError(f"{place}: no such file; expected mpii_gt_val.mat there ({option})")
    return None, [f"{place} does not exist, so this run cannot be scored: set {option} to mpii_gt_val.mat"]
  _check_same(path, people, names, place, mpii_truth.read_mpii_truth(place))
  return functools.partial(mpii_truth.read_mpii_truth, place), []


def _check_same(path, people, names, place, truth):
  """Raises ValueError if the entries of "val" and the people of mpii_gt_val.mat are not the same."""
  remedy = f"expected the people of {path} in the same order (config.data.mpii_pose.truth)"
  xy, visible = people["keypoints_xy"], people["keypoints_visible"]
  if len(xy) != len(truth.xy_one_based):
    raise ValueError(
      f"{place}: {len(truth.xy_one_based):,} people, but {path} has {len(xy):,} entries; {remedy}"
    )
  is_near = (np.abs(xy - (truth.xy_one_based - 1)) <= _TOLERANCE).all(axis=2)
  differ = np.flatnonzero((visible & (truth.is_missing | ~is_near)).any(axis=1))
  if len(differ):
    listed = [f"{people['id'][k]} {names[people['picture'][k]]}" for k in differ.tolist()]
    raise ValueError(
      f"{place}: the joints of {len(differ):,} people differ from {path} by more than {_TOLERANCE} "
      f"pixels (entry {pose_people.first_five(listed)}); {remedy}"
    )
