"""Writes people in LUPerson's layout, for tests that read this layout."""

import os
import pickle

import numpy as np

from hap_jax.data.sources.luperson import IMAGE_FOLDER, LIST_FILE, POSE_FOLDER
from hap_jax.io import picture_file

MISSING = -10_000.0  # x, y and confidence of a missing joint


def write(root, records):
  """Writes person records in LUPerson's layout, which `sources/luperson.py` reads.

  Joints are read back exactly, and images within the error of JPEG. A joint that is not visible is written as
  missing.

  Args:
    root: folder of the data set. It is made if it does not exist.
    records: person records, in the order of the list.

  Returns:
    number of records written.
  """
  for folder in (IMAGE_FOLDER, POSE_FOLDER):
    os.makedirs(os.path.join(root, folder), exist_ok=True)
  names = []
  for i, record in enumerate(records):
    name = f"{i:07d}"
    picture_file.write(os.path.join(root, IMAGE_FOLDER, name + ".jpg"), record["image"])
    keypoints = np.full((len(record["keypoints_xy"]), 3), MISSING, np.float32)
    visible = record["keypoints_visible"]
    keypoints[visible, :2], keypoints[visible, 2] = record["keypoints_xy"][visible], 1
    pose = np.array([[{"keypoints": keypoints}]], dtype=object)
    np.save(os.path.join(root, POSE_FOLDER, name + ".npy"), pose, allow_pickle=True)
    names.append(name + ".jpg")
  with open(os.path.join(root, LIST_FILE), "wb") as file:
    pickle.dump(names, file)
  return len(names)
