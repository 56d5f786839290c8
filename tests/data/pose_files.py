"""Writes tiny data sets for 2D pose in the formats of COCO, AIC and MPII."""

import json

import numpy as np
import scipy.io
from PIL import Image

from hap_jax.data import mpii_truth
from hap_jax.data.skeletons import AIC14, COCO17, MPII16

SIZE = (40, 30)  # (H, W) of the pictures in pixels


def write_json(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(content), encoding="utf-8")


def write_picture(path, size=SIZE, **options):
  """Writes a picture of random pixels. `options` are the options of Pillow's `save`."""
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
  Image.fromarray(pixels).save(path, **options)


def make_person(number, skeleton=COCO17, **changes):
  """Returns an annotation. Joint j is at (5 + j, 10 + j). Joint 0 has no label, and joint 1 is hidden."""
  joints = [(5 + j, 10 + j, 2) for j in range(len(skeleton.joints))]
  joints[:2] = (0, 0, 0), (6, 11, 1)
  return {
    "id": number,
    "image_id": 1,
    "category_id": 1,
    "bbox": [4.5, 8, 20, 24],
    "keypoints": [value for joint in joints for value in joint],
    "num_keypoints": len(joints) - 1,
    "area": 300.5,
    "iscrowd": 0,
    **changes,
  }


def make_coco(*people, pictures=("one.jpg",), **more):
  """Returns the content of a file with pictures 1, 2, ... and with two people on the first picture."""
  height, width = SIZE
  return {
    "images": [
      {"id": k, "file_name": name, "height": height, "width": width}
      for k, name in enumerate(pictures, start=1)
    ],
    "annotations": list(people) or [make_person(7), make_person(9)],
    "categories": [{"id": 1, "name": "person"}],
    **more,
  }


def write_coco(root, content=None, split="val", pictures=("one.jpg",)):
  """Writes a split in COCO's layout. Returns `root`."""
  write_json(root / "annotations" / f"person_keypoints_{split}2017.json", content or make_coco())
  for name in pictures:
    write_picture(root / f"{split}2017" / name)
  return root


def make_aic_person(number, **changes):
  """Returns an annotation of AIC, which has no area and no iscrowd."""
  person = make_person(number, AIC14, **changes)
  return {key: value for key, value in person.items() if key not in ("area", "iscrowd")}


def write_aic(root, *, annotations, images, content=None):
  """Writes one split of AIC to the file `annotations` and the folder `images`. Returns `root`."""
  write_json(root / annotations, content or make_coco(make_aic_person(4), make_aic_person(5)))
  write_picture(root / images / "one.jpg")
  return root


def make_entries(count=3):
  """Returns entries of MPII. In entry k, joint k is not annotated, and joint j is at (6 + j + k, 11 + j)."""
  entries = []
  for k in range(count):
    joints = [[6.0 + j + k, 11.0 + j] for j in range(len(MPII16.joints))]
    joints[k] = [-1.0, -1.0]
    visible = [int(j != k) for j in range(len(joints))]
    entries.append(
      {
        "image": f"{k}.jpg",
        "center": [15.0 + k, 18.0],
        "scale": 0.1,
        "joints": joints,
        "joints_vis": visible,
      }
    )
  return entries


def make_truth(entries):
  """Returns the variables of mpii_gt_val.mat for entries."""
  missing = np.array([entry["joints_vis"] for entry in entries]).T == 0
  xy = np.array([entry["joints"] for entry in entries]).transpose(1, 2, 0)
  xy[np.repeat(missing[:, None], 2, axis=1)] = 0
  names = np.empty((1, len(mpii_truth.JOINTS)), object)
  names[0, :] = mpii_truth.JOINTS
  box = np.array([[10.0, 10.0], [14.0, 13.0]])  # the head box of everyone has a diagonal of 5 pixels
  return {
    "dataset_joints": names,
    "jnt_missing": missing.astype(np.uint8),
    "pos_gt_src": xy,
    "headboxes_src": np.repeat(box[..., None], len(entries), axis=2),
  }


def write_mpii(root, entries=None, truth=None, split="val"):
  """Writes a split in MPII's layout, with the variables `truth` in mpii_gt_val.mat. Returns `root`."""
  entries = make_entries() if entries is None else entries
  write_json(root / "annotations" / f"mpii_{split}.json", entries)
  if truth is not None:
    scipy.io.savemat(root / "annotations" / "mpii_gt_val.mat", truth)
  for k in range(3):
    write_picture(root / "images" / f"{k}.jpg")
  return root
