"""Source: people in a folder of pictures, with the joints that `hap extract_poses` or `hap crop` found.

There is one person per picture. `data/pose_parts.py` explains the folder of the joints. The records are in
the order of its parts. A joint is visible if it lies inside the picture, as in the source luperson. The
pictures are turned in the same way as for the search of the joints.
"""

import dataclasses
import os

import numpy as np
from absl import logging

from hap_jax.data import pose_parts
from hap_jax.data.pose_people import first_five
from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources import base, folder

SPLITS = ("train",)  # "val" exists only if num_val is above 0
JOINTS = True
PLACES = ("poses",)
_KEY = "config.data.posed_folder.poses"


def open_source(*, root, split, seed, poses="", num_val=0):
  """Opens a folder of pictures with a folder of poses.

  Args:
    root: folder of the pictures (config.data.root).
    split: "train" or "val".
    seed: not used, because the order is the order of the poses.
    poses: folder that `hap extract_poses` or `hap crop` wrote.
    num_val: number of records held out as "val" (config.data.num_val). They are the last records.
  Returns:
    a source of person records (see `base.py`).
  Raises:
    ValueError: if a folder is missing, if the poses are not complete or have another format, or if poses
      belong to pictures that are not in the folder.
  """
  del seed
  base.check_root(root, "the pictures of people")
  if not poses:
    raise ValueError(f"{_KEY} is empty: set it to the folder that hap extract_poses or hap crop wrote")
  found = pose_parts.open_poses(poses, _KEY)
  exif = found.summary.get("exif", base.IGNORE)
  base.check_exif(exif, f"{poses}/{pose_parts.SUMMARY_FILE}: exif")
  notes = _compare(root, found)
  for note in notes:
    logging.warning("posed_folder: %s", note)
  start, stop = base.held_out(len(found), num_val, split)
  licence = f"pictures: not known; joints: {found.summary.get('licence', 'not recorded')}"
  spec = base.SourceSpec("posed_folder", COCO17, licence, notes=tuple(notes), exif=exif)
  return _PosedFolder(str(root), found, start, stop, spec)


def _compare(root, poses):
  """Checks that every person of `poses` has a picture in the folder. Returns notes about other pictures.

  Raises:
    ValueError: if a picture is missing.
  """
  posed = set(poses.names)
  pictures = set(folder.open_source(root=root).paths)
  unposed = pictures - posed - set(poses.summary["unreadable"])
  counts = f"{len(posed & pictures):,} pictures of the folder {root} have poses"
  if unposed:
    counts += f", {len(unposed):,} have none ({first_five(sorted(unposed))})"
  missing = posed - pictures
  if missing:
    raise ValueError(
      f"{poses.folder}: {len(missing):,} of {len(posed):,} poses belong to pictures that are not in {root} "
      f"({first_five(sorted(missing))}); {counts}: set config.data.root to the folder of the pictures, or "
      f"{_KEY} to the poses of these pictures"
    )
  return [f"{counts} and are left out"] if unposed else []


@dataclasses.dataclass(frozen=True, eq=False)
class _PosedFolder:
  """The people start, ..., stop - 1 of `poses`. Their pictures are in the folder `root`."""

  root: str
  poses: pose_parts.Poses
  start: int
  stop: int
  spec: base.SourceSpec

  def __len__(self):
    return self.stop - self.start

  def __getitem__(self, index):
    path, row = self.file(index), self.start + index
    base.check_utf8(self.poses.names[row], self.poses.folder)
    image = base.read_image(path, self.spec.exif)
    size, known = image.shape[:2], self.poses.image_size[row : row + 1]
    if size != tuple(known[0].tolist()):
      raise base.BadRecordError(
        f"{path}: {size} pixels (H, W), but its joints were found in a picture of {tuple(known[0].tolist())}"
      )
    keypoints = self.poses.keypoints(row)
    return {
      "image": image,
      "keypoints_xy": np.ascontiguousarray(keypoints[:, :2]),
      "keypoints_visible": pose_parts.find_inside(keypoints[None], known)[0],
    }

  @property
  def columns(self):
    return {}

  def name(self, index):
    return self.file(index)

  def file(self, index):
    if not 0 <= index < len(self):
      raise IndexError(f"record {index} of {len(self)}")
    return os.path.join(self.root, self.poses.names[self.start + index])
