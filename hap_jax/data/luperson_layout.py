"""Writes joints in the layout of LUPerson, which `sources/luperson.py` and the official code read."""

import io
import pathlib
import pickle

import numpy as np

from hap_jax.data.pose_people import first_five
from hap_jax.data.sources import base, luperson
from hap_jax.io import unfinished


def check_names(names):
  """Checks that every picture gets a file of its own in the layout.

  Args:
    names: sequence of the names of the pictures.
  Raises:
    ValueError: if a name is not a path of a JPEG or PNG file below the folder, or if two names differ only in
      their endings, such as a.jpg and a.png.
  """
  base.check_relative(names, lambda i: f"picture {i + 1}")
  strange = [name for name in names if luperson.stem(name) == name]
  if strange:
    raise ValueError(
      f"--format=luperson: {len(strange):,} pictures do not end in {', '.join(luperson.EXTENSIONS)}, as this "
      f"layout requires ({first_five(strange)}): convert them"
    )
  first = {}
  for name in names:
    other = first.setdefault(luperson.stem(name), name)
    if other != name:
      raise ValueError(
        f"--format=luperson: {other} and {name} would both have the joints in {luperson.stem(name)}.npy: "
        "rename one of them"
      )


def write_joints(folder, names, keypoints):
  """Writes one .npy file per picture.

  A killed process may leave an incomplete file. It is written again with its part.

  Args:
    folder: folder of the data set.
    names: n names of pictures.
    keypoints: [n, 17, 3] float32.
  """
  for name, joints in zip(names, keypoints, strict=True):
    path = pathlib.Path(folder) / luperson.POSE_FOLDER / f"{luperson.stem(name)}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = io.BytesIO()
    # The official code reads pose[0][0]["keypoints"] of an array of Python objects.
    np.save(file, np.array([[{"keypoints": np.array(joints, np.float32)}]], object), allow_pickle=True)
    path.write_bytes(file.getvalue())


def write_list(folder, names):
  """Writes the list of the names. The official order is from the best picture to the worst."""
  unfinished.write(pathlib.Path(folder) / luperson.LIST_FILE, pickle.dumps(list(names)))
