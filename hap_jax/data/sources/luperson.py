"""LUPerson (arXiv 2012.03753): person crops with joints found beforehand, in HAP's layout on disk.

  <root>/LUPerson-data/<name>.jpg   person crops
  <root>/LUPerson-pose/<name>.npy   pickled object array; [0][0]["keypoints"] is 17 x 3: x, y, confidence
  <root>/cfs_list.pkl               pickled list of names, best first

An entry of the list is a name below LUPerson-data/, with or without sub-folder and with or without extension
(.jpg is added). A name that is not UTF-8 is a bad record. Pickles are read by
`hap_jax.io.restricted_pickle`; one that holds anything but plain data is an error that stops the run, not a
bad record. As in the official code a joint is used if it lies inside the picture, whatever its confidence, so
the third column is not part of a record.
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

SPLITS = ("train",)  # "val" is there if num_val says so
_SPEC = SourceSpec("luperson", COCO17, licence="LUPerson: research use, on the terms of its authors")
_EXTENSIONS = (".jpg", ".jpeg", ".png")
_HALF_STREAM = 2  # keeps the draw of the random half apart from the loader's generators of the same seed


def open_source(*, root, split, seed, subset="first_half", num_val=0):
  """Opens LUPerson, or anything written in its layout.

  Args:
    root: folder that holds the two folders and the list (config.data.root).
    split: "train" or "val".
    seed: draws the random half.
    subset: "first_half" (the better-ranked half, HAP's choice), "random_half" or "all".
    num_val: how many of the subset's last records are held out as "val" (config.data.num_val).

  Returns:
    a source of person records (see `base.py`).

  Raises:
    ValueError: if a folder or the list is missing or empty, a name of the list is not below the folder, or an
      option is out of range.
    UnsafePickleError: if the list holds anything but plain data.
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
      "%s has %d names, LUPerson's own list %d; config.data.luperson.subset=%s takes its share of them",
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
      f"{root}: {len(names)} names leave none for subset={subset!r}: set config.data.luperson.subset to all"
    )
  start, stop = held_out(len(rows), num_val, split)
  return _LUPerson(root, Names.of([names[row] for row in rows[start:stop]]))


@dataclasses.dataclass(frozen=True, eq=False)
class _LUPerson:
  """One record for each name below `root`."""

  root: str
  names: Names

  spec = _SPEC

  def __len__(self):
    return len(self.names)

  def __getitem__(self, index):
    entry = self.names[index]
    check_utf8(entry, f"{self.root}/{LIST_FILE}")
    image = read_image(self._image_path(entry))
    keypoints = _read_pose(f"{self.root}/{POSE_FOLDER}/{_stem(entry)}.npy")
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
    return f"{self.root}/{IMAGE_FOLDER}/{entry if entry.lower().endswith(_EXTENSIONS) else entry + '.jpg'}"


@functools.lru_cache(maxsize=1)
def _read_list(path):
  """Reads the list of names; kept, because four million take seconds and every split asks for them."""
  if not os.path.isfile(path):
    raise ValueError(
      f"{path}: no such file; expected the pickled list of image names that ranks LUPerson (TransReID-SSL's "
      f"{LIST_FILE}); for another collection, pickle a list of its names"
    )
  names = restricted_pickle.load(path)
  if isinstance(names, np.ndarray):
    names = names.tolist()
  if not isinstance(names, list | tuple):
    raise ValueError(f"{path}: holds a {type(names).__name__}, expected a list of image names, each a string")
  # Names that are not ASCII are bytes in pickles of Python 2.
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


def _stem(entry):
  return entry.rsplit(".", 1)[0] if entry.lower().endswith(_EXTENSIONS) else entry


def _is_number(value):
  return isinstance(value, int | float | np.integer | np.floating)


def _read_pose(path):
  """Reads a pose file into [17, 3] float32; BadRecordError if it is missing, broken or of another shape."""
  try:
    data = read_bytes(path)
  except BadRecordError as error:
    if not os.path.exists(path):
      raise BadRecordError(f"{path}: the pose file of this image is missing") from error
    raise
  try:
    pose = restricted_pickle.load_npy(data, path)
  except UnsafePickleError:
    raise  # not a damaged file but code that somebody put there: the run stops
  except ValueError as error:
    raise BadRecordError(f"{path}: not a readable .npy file: {error}") from error
  try:
    keypoints = as_array(pose[0][0]["keypoints"])
    is_numeric = keypoints.dtype.kind in "iuf" or all(map(_is_number, keypoints.flat))
    if not is_numeric:  # NumPy would read numbers from texts, and None as NaN
      raise TypeError(f"an array of {keypoints.dtype}")
    with np.errstate(all="ignore"):  # a number beyond float32 is infinite: its joint is outside the picture
      result = keypoints.astype(np.float32)
  except (ArithmeticError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
    raise BadRecordError(f'{path}: holds no numbers at [0][0]["keypoints"]') from error
  if result.shape != (len(COCO17.joints), 3):
    raise BadRecordError(f"{path}: keypoints of shape {result.shape}, expected (17, 3)")
  return result
