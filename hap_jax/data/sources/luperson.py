"""Source: LUPerson (arXiv 2012.03753), person crops with stored joints, in HAP's layout on disk.

  <root>/LUPerson-data/<name>.jpg   person crops
  <root>/LUPerson-pose/<name>.npy   pickled object array; [0][0]["keypoints"] is 17 x 3: x, y, confidence
  <root>/cfs_list.pkl               pickled list of the names of the crops, the best-ranked name first

An entry of the list is a path relative to LUPerson-data/, with or without a sub-folder. If it has no
extension, .jpg is added. A crop whose name is not UTF-8 is a bad record. `hap_jax.io.restricted_pickle` reads
the pickles. A pickle with anything except plain data may be an attack. So it is not a bad record, but stops
the run.

Parity: as in the official code, a joint is visible if it lies inside the picture. The confidence of a joint
has no effect, so it is not part of a record.
"""

import dataclasses
import functools
import os

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
  read_bytes,
  read_image,
)
from hap_jax.io import restricted_pickle
from hap_jax.io.plain_data import UnsafePickleError, as_array

IMAGE_FOLDER, POSE_FOLDER, LIST_FILE = "LUPerson-data", "LUPerson-pose", "cfs_list.pkl"
NUM_LUPERSON = 4_180_243  # names in the published list

SPLITS = ("train",)  # "val" exists only if num_val is above 0
JOINTS = True
_SPEC = SourceSpec("luperson", COCO17, licence="LUPerson: research use, on the terms of its authors")
EXTENSIONS = (".jpg", ".jpeg", ".png")
_HALF_STREAM = 2  # last number of the seed of the random half; the loader never uses such a seed


def open_source(*, root, split, seed, subset="first_half", num_val=0):
  """Opens LUPerson, or another data set in its layout.

  Args:
    root: folder that holds the two folders and the list (config.data.root).
    split: "train" or "val".
    seed: seed of the random half, used only for subset="random_half".
    subset: "first_half" (the better-ranked half, which HAP uses), "random_half" or "all".
    num_val: number of records held out as "val" (config.data.num_val). They are the last records of the
      subset.

  Returns:
    a source of person records (see `base.py`).

  Raises:
    ValueError: if a folder or the list is missing or empty, if a name in the list is not a path below
      LUPerson-data/, or if an option is out of range.
    UnsafePickleError: if the list holds anything except plain data.
  """
  check_root(root, f"{IMAGE_FOLDER}/, {POSE_FOLDER}/ and {LIST_FILE}")
  check_folder(os.path.join(root, IMAGE_FOLDER), "LUPerson's person crops, <name>.jpg")
  check_folder(os.path.join(root, POSE_FOLDER), "the joints of LUPerson's crops, <name>.npy")
  if subset not in ("first_half", "random_half", "all"):
    raise ValueError(f'config.data.luperson.subset={subset!r}: expected "first_half", "random_half" or "all"')
  path = os.path.join(root, LIST_FILE)
  names = _read_list(path)
  if len(names) != NUM_LUPERSON:
    logging.warning(
      "%s has %d names, but LUPerson's own list has %d; config.data.luperson.subset=%s uses this file",
      path,
      len(names),
      NUM_LUPERSON,
      subset,
    )
  if subset == "random_half":
    rows = np.random.default_rng((seed, 0, 0, _HALF_STREAM)).permutation(len(names))[: len(names) // 2]
  else:
    rows = range(len(names) if subset == "all" else len(names) // 2)
  if not len(rows):
    raise ValueError(
      f"{root}: {len(names)} names are too few for subset={subset!r}: set config.data.luperson.subset to all"
    )
  start, stop = held_out(len(rows), num_val, split)
  return _LUPerson(root, Names.of([names[row] for row in rows[start:stop]]))


@dataclasses.dataclass(frozen=True, eq=False)
class _LUPerson:
  """A source with one record per name in `names`. The files are in the folder `root`."""

  root: str
  names: Names

  spec = _SPEC

  def __len__(self):
    return len(self.names)

  def __getitem__(self, index):
    entry = self.names[index]
    check_utf8(entry, f"{self.root}/{LIST_FILE}")
    image = read_image(self._image_path(entry))
    keypoints = _read_pose(f"{self.root}/{POSE_FOLDER}/{stem(entry)}.npy")
    xy = np.ascontiguousarray(keypoints[:, :2])
    H, W = image.shape[:2]
    inside = (xy[:, 0] >= 0) & (xy[:, 0] < W) & (xy[:, 1] >= 0) & (xy[:, 1] < H)
    return {"image": image, "keypoints_xy": xy, "keypoints_visible": inside}

  @property
  def columns(self):
    return {}

  def name(self, index):
    return self._image_path(self.names[index])

  def file(self, index):
    return self.name(index)

  def _image_path(self, entry):
    return f"{self.root}/{IMAGE_FOLDER}/{entry if entry.lower().endswith(EXTENSIONS) else entry + '.jpg'}"


@functools.lru_cache(maxsize=1)
def _read_list(path):
  """Reads the list of names. The result is cached, because it takes seconds to read four million names."""
  if not os.path.isfile(path):
    raise ValueError(
      f"{path}: no such file; expected the pickled list of LUPerson's image names in ranked order (from "
      f"TransReID-SSL); for other pictures, write a pickled list of their names"
    )
  names = restricted_pickle.load(path)
  if isinstance(names, np.ndarray):
    names = names.tolist()
  if not isinstance(names, list | tuple):
    raise ValueError(f"{path}: holds a {type(names).__name__}, expected a list of image names, each a string")
  # In a pickle of Python 2, names are bytes if they are not ASCII.
  names = [os.fsdecode(name) if isinstance(name, bytes) else name for name in names]
  for i, name in enumerate(names):
    if not isinstance(name, str):
      raise ValueError(
        f"{path}: entry {i + 1} is a {type(name).__name__}, expected a list of image names, each a string"
      )
  if len(names) == 0:
    raise ValueError(f"{path}: the list of image names is empty")
  check_relative(names, lambda i: f"{path}: entry {i + 1}")
  return Names.of(names)


def stem(entry):
  return entry.rsplit(".", 1)[0] if entry.lower().endswith(EXTENSIONS) else entry


def _is_number(value):
  return isinstance(value, int | float | np.integer | np.floating)


def _read_pose(path):
  """Reads a pose file into [17, 3] float32.

  Raises:
    BadRecordError: if the file is missing, broken or has another shape.
    UnsafePickleError: if the file contains code.
  """
  try:
    data = read_bytes(path)
  except BadRecordError as error:
    if not os.path.exists(path):
      raise BadRecordError(f"{path}: the pose file of this image is missing") from error
    raise
  try:
    pose = restricted_pickle.load_npy(data, path)
  except UnsafePickleError:
    raise  # the file contains code. This is an attack, not a damaged file, so the run stops
  except ValueError as error:
    raise BadRecordError(f"{path}: not a readable .npy file: {error}") from error
  try:
    keypoints = as_array(pose[0][0]["keypoints"])
    is_numeric = keypoints.dtype.kind in "iuf" or all(map(_is_number, keypoints.flat))
    if not is_numeric:  # NumPy would convert texts to numbers and None to NaN
      raise TypeError(f"an array of {keypoints.dtype}")
    # A value too large for float32 becomes infinite, so the joint is outside the picture.
    with np.errstate(all="ignore"):
      result = keypoints.astype(np.float32)
  except (ArithmeticError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
    raise BadRecordError(f'{path}: no numbers at [0][0]["keypoints"]; expected an array (17, 3)') from error
  if result.shape != (len(COCO17.joints), 3):
    raise BadRecordError(f"{path}: keypoints of shape {result.shape}, expected (17, 3)")
  return result
