"""Folders of poses: the joints of people, one person per picture, in parts that are written one by one.

  <folder>/settings.json             the settings that all parts share. It is written first
  <folder>/poses-00012-of-00840.npz  a part of a list of pictures. Parts are numbered from 00000
  <folder>/poses-f00012000.npz       a part of a video: the frames from number 12000 on
  <folder>/poses.json                the summary, see `write_summary`. It is written when all parts are there

A part has these plain arrays, without compression:
  name        [n] texts, the paths of the pictures below the folder of the pictures
  keypoints   [n, 17, 3] float32, x and y in pixels of the picture and the score of each joint of COCO. Pixel
              centres are at whole numbers. x = y = -1: the joint is missing
  image_size  [n, 2] int32, (H, W) of the pictures
  unreadable  [m] texts, the names of the pictures or frames of this part that cannot be read
and it may have further arrays with n rows. A part gets its name when it is complete, so a part that exists is
whole. Texts may hold lone surrogates, which file names have if they are not UTF-8.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re

import numpy as np

from hap_jax.data import json_entries
from hap_jax.data.names import Names
from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources import base
from hap_jax.io import npz_file, regular_file, unfinished

FORMAT = 1  # it grows when programs for the previous format cannot read the new format
SETTINGS_FILE, SUMMARY_FILE = "settings.json", "poses.json"
MISSING = -1.0  # x and y of a missing joint
_NUM_JOINTS = len(COCO17.joints)
_ROW_BYTES = 4 * 3 * _NUM_JOINTS  # bytes of a row of `keypoints`
_KINDS = {"name": ("U", 1), "keypoints": ("f", 3), "image_size": ("i", 2), "unreadable": ("U", 1)}
_PART_NAME = re.compile(r"poses-(?:\d{5,}-of-\d{5,}|f\d{8,})\.npz")
_WHAT = "a folder that hap extract_poses or hap crop wrote"


def part_of_pictures(number, count):
  """Returns the file name of a part of a list of pictures."""
  return f"poses-{number:05d}-of-{count:05d}.npz"


def part_of_video(frame):
  """Returns the file name of the part of a video that begins with the frame of this number."""
  return f"poses-f{frame:08d}.npz"


def start(folder, settings):
  """Makes a folder of poses, or checks that an existing one was started with the same settings.

  Args:
    folder: pathlib.Path of the folder. Its parent folder must exist.
    settings: {name: plain JSON value}.
  Raises:
    ValueError: if the folder has other settings, or if it holds something else.
  """
  path, settings = folder / SETTINGS_FILE, {"format": FORMAT, **settings}
  if not folder.parent.is_dir():
    raise ValueError(f"{folder}: the folder {folder.parent} does not exist: create it first")
  if not path.exists():
    # Another process may be about to write the settings.
    if folder.exists() and not all(map(unfinished.is_hidden_path, folder.iterdir())):
      raise ValueError(f"{folder}: exists, but has no {SETTINGS_FILE}; give another --out")
    folder.mkdir(exist_ok=True)
    unfinished.write(path, json.dumps(settings, indent=2))
  found = json_entries.read(path, "--out", "the settings of poses")
  json_entries.check_object(found, str(path), "settings")
  for key in [*settings, *found]:
    if found.get(key) != (value := settings.get(key)):
      raise ValueError(
        f"{folder}: it was started with {key}={json_entries.show(found.get(key))}, but this command has "
        f"{key}={json_entries.show(value)}: give another --out, or the earlier settings"
      )


def write_part(path, *, name, keypoints, image_size, unreadable=(), **others):
  """Writes a part of poses. The file gets its name when it is complete.

  Args:
    path: pathlib.Path of the file.
    name, keypoints, image_size, unreadable: the arrays, or lists, see the top of this file.
    **others: further arrays with n rows.
  Raises:
    ValueError: if a joint is not finite.
  """
  arrays = {
    "name": texts(name),
    "keypoints": np.asarray(keypoints, np.float32).reshape(-1, _NUM_JOINTS, 3),
    "image_size": np.asarray(image_size, np.int32).reshape(-1, 2),
    "unreadable": texts(unreadable),
    **others,
  }
  if not np.isfinite(arrays["keypoints"]).all():
    raise ValueError(f"{path}: the model found joints that are not finite numbers: check its weights")
  try:
    with unfinished.named_at_end(path) as part:
      np.savez(part, **arrays)
  except FileNotFoundError:
    # Another process may have done the same part, and removed the rests of killed processes.
    if not path.exists():
      raise


def remove_rests(folder):
  """Removes the incomplete parts that killed processes left behind. Call it when all parts are complete."""
  for path in folder.glob(".poses-*.part.npz"):
    if unfinished.is_hidden_path(path):
      with contextlib.suppress(FileNotFoundError):
        path.unlink()


def read_part(path, **others):
  """Reads a part.

  Args:
    path: the file.
    **others: {name: (kind, dimensions)} of further arrays, as for `npz_file.read_stored`.
  Returns:
    {name: array}, see the top of this file.
  Raises:
    ValueError: if the file is damaged or has another format. The message names the file.
  """
  kinds = _KINDS | others
  try:
    part = npz_file.read_stored(path, kinds)
    if missing := [name for name in kinds if name not in part]:
      raise ValueError(f"it has no array {', '.join(missing)}")
    _check_shapes(part["keypoints"].shape, [len(part[name]) for name in ("name", "image_size", *others)])
  except (OSError, ValueError) as error:
    raise ValueError(f"{path}: not a part of poses: {error}") from error
  return part


def summarize(folder, parts):
  """Returns the facts about a folder whose parts are all complete, plain JSON values.

  Args:
    folder: pathlib.Path of the folder.
    parts: file names of all parts, in their order.
  Returns:
    {"joints": the names of the joints,
    "counts": {"people": sum of n, "unreadable": number of unreadable pictures},
    "statistics": {"joints_inside": share of the joints that are inside their picture, "mean_score": mean
    score of these joints, "joints_per_picture": their mean number, "pictures_by_joints": [18] numbers of the
    pictures with 0, 1, ..., 17 such joints},
    "unreadable": names of the unreadable pictures,
    "parts": [[file name, n], ...]}.
  """
  rows, unreadable = [], []
  by_joints, score = np.zeros(_NUM_JOINTS + 1, np.int64), 0.0
  for name in parts:
    part = read_part(folder / name)
    rows.append([name, len(part["name"])])
    unreadable += part["unreadable"].tolist()
    is_inside = find_inside(part["keypoints"], part["image_size"])
    by_joints += np.bincount(is_inside.sum(axis=1), minlength=_NUM_JOINTS + 1)
    score += float(part["keypoints"][is_inside, 2].sum(dtype=np.float64))
  inside, people = int(by_joints @ np.arange(_NUM_JOINTS + 1)), int(by_joints.sum())
  return {
    "joints": list(COCO17.joints),
    "counts": {"people": people, "unreadable": len(unreadable)},
    "statistics": {
      "joints_inside": inside / max(people * _NUM_JOINTS, 1),
      "mean_score": score / max(inside, 1),
      "joints_per_picture": inside / max(people, 1),
      "pictures_by_joints": by_joints.tolist(),
    },
    "unreadable": unreadable,
    "parts": rows,
  }


def write_summary(folder, facts):
  """Writes the summary of a folder. With it, the folder is complete.

  Args:
    folder: pathlib.Path of the folder.
    facts: the result of `summarize`, and further plain JSON values, such as the model and its licence.
  """
  unfinished.write(folder / SUMMARY_FILE, json.dumps({"format": FORMAT, **facts}, indent=2))


def find_inside(keypoints, image_size):
  """Returns [n, 17] bool, True for the joints [n, 17, 3] that are inside their pictures of `image_size`."""
  x, y = keypoints[..., 0], keypoints[..., 1]
  H, W = image_size[:, :1], image_size[:, 1:]
  return (x >= 0) & (x < W) & (y >= 0) & (y < H)


@dataclasses.dataclass(frozen=True, eq=False)
class Poses:
  """The people of a folder of poses. The joints stay in the files, so four million people take 150 MB.

  Attributes:
    folder: the folder.
    parts: file names of the parts.
    ends: [P] int64, the number of people in the parts up to each part.
    positions: [P] int64, place of the first joint in the file of each part, in bytes.
    names: `Names` of the N pictures.
    image_size: [N, 2] int32, (H, W) of the pictures.
    summary: content of the summary.
  """

  folder: str
  parts: tuple[str, ...]
  ends: np.ndarray
  positions: np.ndarray
  names: Names
  image_size: np.ndarray
  summary: dict

  def __len__(self):
    return len(self.names)

  def keypoints(self, i):
    """Reads the joints of person i, [17, 3] float32.

    Raises:
      BadRecordError: if they cannot be read, or are not finite.
    """
    part = int(np.searchsorted(self.ends, i, side="right"))
    row = i - (int(self.ends[part - 1]) if part else 0)
    path = os.path.join(self.folder, self.parts[part])
    try:
      with regular_file.open_regular(path) as file:
        file.seek(int(self.positions[part]) + row * _ROW_BYTES)
        found = np.frombuffer(file.read(_ROW_BYTES), "<f4")
    except (OSError, ValueError) as error:
      raise base.BadRecordError(f"{path}: row {row} cannot be read: {error}") from error
    if len(found) != 3 * _NUM_JOINTS or not np.isfinite(found).all():
      raise base.BadRecordError(f"{path}: row {row} has no finite joints: write this part again")
    return found.reshape(_NUM_JOINTS, 3).astype(np.float32)


def open_poses(folder, option):
  """Opens a complete folder of poses.

  Args:
    folder: the folder.
    option: configuration key that names the folder, for error messages.
  Raises:
    ValueError: if the folder is missing or incomplete, has another format, or if a part is damaged.
  """
  summary = _read_summary(pathlib.Path(folder), option)
  names, sizes, positions, ends = [], [], [], []
  for file_name, num_rows in summary["parts"]:
    path = pathlib.Path(folder) / file_name
    try:
      part = npz_file.read_stored(path, {name: _KINDS[name] for name in ("name", "image_size")})
      position, dtype, shape = npz_file.find_stored(path, "keypoints")
      _check_shapes(shape, [num_rows, *(len(part.get(name, ())) for name in ("name", "image_size"))])
      if dtype != np.dtype("<f4"):
        raise ValueError(f"keypoints of type {dtype}, expected float32")
    except (OSError, ValueError) as error:
      raise ValueError(f"{path}: not a part of these poses: {error}") from error
    names += part["name"].tolist()
    sizes.append(part["image_size"].astype(np.int32))
    positions.append(position)
    ends.append(len(names))
  base.check_relative(names, lambda i: f"{folder}: picture {i + 1}")
  if len(set(names)) < len(names):
    raise ValueError(f"{folder}: several people have the same picture; expected one person per picture")
  if not names:
    raise ValueError(f"{folder}: it has no people")
  parts = tuple(name for name, _ in summary["parts"])
  arrays = np.array(ends, np.int64), np.array(positions, np.int64)
  return Poses(str(folder), parts, *arrays, Names.of(names), np.concatenate(sizes), summary)


def _read_summary(folder, option):
  """Reads and checks the summary of a folder. For the arguments and errors, see `open_poses`."""
  base.check_folder(folder, f"{_WHAT} ({option})")
  path = folder / SUMMARY_FILE
  if not path.exists() and (folder / SETTINGS_FILE).exists():
    raise ValueError(
      f"{folder}: it has no {SUMMARY_FILE}, so its poses are not complete: start the command that wrote "
      "them again"
    )
  summary = json_entries.read(path, option, "the summary of poses")
  json_entries.check_object(summary, str(path), "poses")
  if summary.get("format") != FORMAT:
    raise ValueError(
      f"{path}: format {json_entries.show(summary.get('format'))}, expected format {FORMAT} of {_WHAT}"
    )
  parts = json_entries.get(summary, "parts", str(path))
  for part in parts if isinstance(parts, list) else [parts]:
    is_part = isinstance(part, list) and len(part) == 2 and isinstance(part[0], str) and type(part[1]) is int
    if not is_part or not _PART_NAME.fullmatch(part[0]):
      raise ValueError(f"{path}: {json_entries.show(part)} under parts, expected [name of a part, number]")
  return summary


def _check_shapes(shape, counts):
  if shape[1:] != (_NUM_JOINTS, 3) or any(count != shape[0] for count in counts):
    raise ValueError(
      f"keypoints of shape {shape} with {', '.join(map(str, counts))} names and sizes, expected (n, "
      f"{_NUM_JOINTS}, 3) and n of each"
    )


def texts(values):
  """Returns texts as an array. NumPy would make an array of floats of an empty list."""
  return np.array(list(values), np.str_) if len(values) else np.zeros(0, "<U1")
