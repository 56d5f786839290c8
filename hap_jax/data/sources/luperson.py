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
import pickle

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
from hap_jax.io import picture_file, restricted_pickle
from hap_jax.io.plain_data import UnsafePickleError, as_array

IMAGE_FOLDER, POSE_FOLDER, LIST_FILE = "LUPerson-data", "LUPerson-pose", "cfs_list.pkl"
NUM_LUPERSON = 4_180_243  # names in the published list

SPLITS = ("train",)  # "val" is there if num_val says so
_SPEC = SourceSpec("luperson", COCO17, licence="LUPerson: research use, on the terms of its authors")
_EXTENSIONS = (".jpg", ".jpeg", ".png")
_MISSING = -10_000.0  # x, y and confidence of a joint that was not found
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


def write_luperson(root, records, quality=95):
  """Writes person records in LUPerson's layout, so that `open_source` reads them back.

  Joints come back exactly, images within JPEG's error; a joint that is not visible is written as missing.

  Args:
    root: folder; made if it does not exist.
    records: person records, in the order of the list.
    quality: of the JPEG files, 1 to 100.

  Returns:
    number of records written.

  Raises:
    ValueError: if `root` holds a list already; nothing is overwritten.
  """
  list_path = os.path.join(root, LIST_FILE)
  if os.path.exists(list_path):
    raise ValueError(f"{list_path} exists already: choose another folder, nothing is overwritten")
  for folder in (IMAGE_FOLDER, POSE_FOLDER):
    os.makedirs(os.path.join(root, folder), exist_ok=True)
  names = []
  for i, record in enumerate(records):
    name = f"{i:07d}"
    picture_file.write(os.path.join(root, IMAGE_FOLDER, name + ".jpg"), record["image"], quality=quality)
    keypoints = np.full((len(record["keypoints_xy"]), 3), _MISSING, np.float32)
    visible = record["keypoints_visible"]
    keypoints[visible, :2], keypoints[visible, 2] = record["keypoints_xy"][visible], 1
    pose = np.array([[{"keypoints": keypoints}]], dtype=object)
    np.save(os.path.join(root, POSE_FOLDER, name + ".npy"), pose, allow_pickle=True)
    names.append(name + ".jpg")
  with open(list_path, "wb") as file:
    pickle.dump(names, file)
  return len(names)


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
  layout = _LAYOUTS.get(len(data))
  keypoints = layout.read(data) if layout else None
  if keypoints is not None:
    return keypoints
  try:
    pose = restricted_pickle.load_npy(path)
  except UnsafePickleError:
    raise  # not a damaged file but code that somebody put there: the run stops
  except (OSError, ValueError) as error:
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
  if len(_LAYOUTS) < _MAX_LAYOUTS:
    _LAYOUTS.setdefault(len(data), _find_layout(data, pose[0][0], keypoints))
  return result


@dataclasses.dataclass(frozen=True)
class _PoseLayout:
  """Where the numbers lie in pose files of one length that one program wrote; all other bytes are equal.

  The unpickler takes half as long as decoding the image. A file that equals an earlier, fully read one in
  every byte outside its arrays has the same structure, so its numbers are taken from where they lie.
  """

  fixed: tuple[tuple[int, bytes], ...]  # (position, bytes) outside the arrays
  position: int  # of the keypoints
  dtype: np.dtype

  def read(self, data):
    """Returns [17, 3] float32, or None if the file is laid out otherwise."""
    if not all(data.startswith(piece, start) for start, piece in self.fixed):
      return None
    numbers = np.frombuffer(data, self.dtype, 3 * len(COCO17.joints), self.position)
    return numbers.reshape(-1, 3).astype(np.float32)


# Length of a file -> its layout, None where none was found. It saves time; no number depends on it.
_LAYOUTS = {}
_MAX_LAYOUTS = 64


def _find_layout(data, pose, keypoints):
  """Returns the _PoseLayout of a file that was read to the dict `pose`, or None if it has none."""
  spans = []
  for array in pose.values():
    # Only long contents: a few bytes may occur by chance, and it must be certain which ones are numbers.
    if isinstance(array, np.ndarray) and array.dtype.kind in "iuf" and array.flags.c_contiguous:
      content = array.tobytes()
      position = data.find(content)
      if len(content) >= 16 and position >= 0 and data.find(content, position + 1) < 0:
        spans.append((position, position + len(content), array is keypoints))
  spans.sort()
  ends = [0, *(end for _, end, _ in spans)]
  starts = [*(start for start, _, _ in spans), len(data)]
  position = [start for start, _, is_keypoints in spans if is_keypoints]
  if not position or any(start < end for end, start in zip(ends, starts, strict=True)):
    return None
  return _PoseLayout(
    tuple((end, data[end:start]) for end, start in zip(ends, starts, strict=True)),
    position[0],
    keypoints.dtype,
  )
