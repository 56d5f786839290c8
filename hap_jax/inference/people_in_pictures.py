"""Opens people in pictures: from a file of boxes, from a file of joints, or one person per picture."""

import collections
import dataclasses
import functools
import os
import re

import numpy as np

from hap_jax.data import json_entries
from hap_jax.data.pose_people import first_five
from hap_jax.data.sources import base, folder
from hap_jax.io import picture_header, picture_orientation

_FORMAT = "a list of people in COCO's format for results"
_PERSON = 1  # COCO's id of the category "person"
_MAX_SIDE = 2**31 - 1  # pixels; a sum of larger values may be infinite in float32
_MAX_ID = 2**63 - 1  # ids are stored as int64
_MIN_SCORE = 0.3  # joints with a lower score are not used for the box of a person
_JOINTS_PADDING = 1.2  # factor for the tight box of the joints, as in the official code for 3DPW
_NO_PICTURE = "of pictures that are not in the folder"
_NO_PERSON = f"of another category (category_id is not {_PERSON})"
_NO_AREA = "without area in the picture"
_NO_JOINTS = f"with fewer than two joints of a score of at least {_MIN_SCORE}"


@dataclasses.dataclass(frozen=True, eq=False)
class People:
  """A source of N people in the pictures of a folder.

  A record has image [H, W, 3] uint8, the whole picture, and box [4] float32, (left, top, right, bottom) in
  pixels of the picture as a viewer shows it.

  Attributes:
    pictures: the `folder.FolderSource`.
    picture: [N] int32, index of each person's picture.
    box: [N, 4] float32. None: the box of a person is the whole picture.
    image_id: [N] int64, the image_id of each person in the file. Without it, the number of the picture, see
      `picture_numbers`.
    score: [N] float32, confidence of each box in the file. Without it, 1.
    notes: lines of text about people that were left out.
  """

  pictures: folder.FolderSource
  picture: np.ndarray
  box: np.ndarray | None
  image_id: np.ndarray
  score: np.ndarray
  notes: tuple[str, ...] = ()

  @property
  def spec(self):
    return dataclasses.replace(self.pictures.spec, fields=("image", "box"))

  @property
  def columns(self):
    return {}

  def __len__(self):
    return len(self.picture)

  def __getitem__(self, i):
    record = self.pictures[int(self.picture[i])]
    H, W = record["image"].shape[:2]
    box = np.array((0, 0, W, H), np.float32) if self.box is None else self.box[i]
    return record | {"box": box}

  def name(self, i):
    return self.file(i)

  def file(self, i):
    """Returns the path of the picture of person i, relative to the folder."""
    return self.pictures.paths[self.picture[i]]


def add_arguments(parser):
  """Adds the arguments for `open_people` and for the loader of people to a parser."""
  parser.add_argument(
    "pictures", metavar="PICTURES", help="folder of pictures, including sub-folders; or one picture"
  )
  parser.add_argument(
    "--boxes",
    metavar="FILE",
    help="boxes of people in COCO's format for detections (default: each whole picture is a box)",
  )
  parser.add_argument(
    "--exif",
    choices=base.EXIF,
    default=base.APPLY,
    help="apply: turn pictures as their EXIF headers say | ignore: use the stored pixels (default: apply)",
  )
  parser.add_argument("--batch_size", type=int, default=64, help="people per batch (default: %(default)s)")
  parser.add_argument("--workers", type=int, default=0, help="processes that read pictures (default: none)")


def open_people(pictures, *, boxes=None, joints=None, exif=base.APPLY, find_problem=None):
  """Opens the `People` of a folder of pictures, or of one picture.

  Args:
    pictures: the folder or the picture.
    boxes: file of boxes, see `in_boxes`.
    joints: file of joints, see `around_joints`. If neither file is given, each whole picture is a box.
    exif: see `folder.open_source`.
    find_problem: a function (box, (H, W) of its picture) -> words that say why the task cannot use the box of
      a file, such as "with a small box", or None. People with such a box are left out with a note.
  Raises:
    ValueError: if both files are given, or if a file is wrong.
  """
  if boxes is not None and joints is not None:
    raise ValueError("--boxes and --poses both give the boxes of people: remove one of them")
  if os.path.isfile(pictures):
    source = folder.open_file(pictures, exif=exif)
  else:
    source = folder.open_source(root=pictures, exif=exif)
  if boxes is not None:
    return in_boxes(source, boxes, find_problem)
  return whole_pictures(source) if joints is None else around_joints(source, joints, find_problem)


def whole_pictures(pictures):
  """Returns People with one person per picture of a `folder.FolderSource`. The box is the whole picture."""
  rows = np.arange(len(pictures), dtype=np.int32)
  return People(pictures, rows, None, picture_numbers(pictures), np.ones(len(rows), np.float32))


def picture_numbers(pictures):
  """Returns [P] int64, a different number for each picture of a `folder.FolderSource`.

  The number is the last number in the file name: 000000000785.jpg is 785. If a name has no number, or if two
  names have the same number, all pictures are numbered from 1 in the order of their paths.
  """
  numbers = [_number_in(name) for name in pictures.paths]
  if None in numbers or len(set(numbers)) < len(numbers):
    numbers = range(1, len(pictures) + 1)
  return np.array(numbers, np.int64)


def _number_in(path):
  """Returns the last number in the name of a file, or None if there is none."""
  digits = re.findall(r"\d+", os.path.splitext(os.path.basename(path))[0])
  number = int(digits[-1]) if digits else None
  return number if number is None or number <= _MAX_ID else None


def in_boxes(pictures, path, find_problem=None):
  """Returns People for the boxes of a file in COCO's format for detections.

  The file_name of a box, a path below the folder, states its picture. Without file_name, the image_id is
  compared with the last number in the file names: 000000000785.jpg is 785. These boxes are left out with a
  note: boxes without area inside their picture, boxes without a picture, and boxes of a category other than 1
  (person).

  Args:
    pictures: the `folder.FolderSource`.
    path: the file, a list of {"bbox": [x, y, width, height], "file_name" or "image_id"}. An entry may also
      have "score" and "category_id".
    find_problem: see `open_people`.
  Raises:
    ValueError: if the file has another format, if an image_id fits several pictures, or if no person remains.
  """

  def read(entry, where):
    x, y, width, height = json_entries.numbers(entry, "bbox", where, 4, "x, y, width, height")
    return (x, y, x + width, y + height), _NO_AREA

  return _read(pictures, path, "--boxes", read, find_problem)


def around_joints(pictures, path, find_problem=None):
  """Returns People for the joints of a file in COCO's format for results, which 2D pose also writes.

  The box of a person is the tight box of the joints with a score of at least 0.3, enlarged by 1.2.

  Args:
    pictures, path, find_problem: same as in `in_boxes`. An entry has "keypoints": x, y and score of each
      joint.
  Raises:
    ValueError: in the same cases as `in_boxes`.
  """

  def read(entry, where):
    values = json_entries.get(entry, "keypoints", where)
    if not isinstance(values, list) or not values or len(values) % 3:
      raise ValueError(
        f"{where} has {json_entries.show(values)} under keypoints, expected x, y and score of each joint"
      )
    joints = json_entries.numbers(entry, "keypoints", where, len(values), "x, y and score of each joint")
    x, y, score = np.array(joints, np.float64).reshape(-1, 3).T
    used = score >= _MIN_SCORE
    if used.sum() < 2:
      return None, _NO_JOINTS
    low, high = np.array((x[used].min(), y[used].min())), np.array((x[used].max(), y[used].max()))
    margin = (_JOINTS_PADDING - 1) / 2 * (high - low)
    return (*(low - margin).tolist(), *(high + margin).tolist()), _NO_AREA

  return _read(pictures, path, "--poses", read, find_problem)


def _read(pictures, path, option, read_box, find_problem):
  entries = json_entries.read(path, option, _FORMAT)
  if not isinstance(entries, list):
    raise ValueError(f"{path}: found {json_entries.show(entries)}, expected {_FORMAT}")
  find, size_of = _make_find(pictures), functools.cache(functools.partial(_size, pictures))
  rows, left_out = [], collections.defaultdict(list)
  for number, entry in enumerate(entries, start=1):
    where = f"{path}: entry {number}"
    json_entries.check_object(entry, where, _FORMAT)
    row, image_id = find(entry, where)
    box, problem = read_box(entry, where)
    score = json_entries.number(entry, "score", where) if "score" in entry else 1.0
    if "category_id" in entry and json_entries.integer(entry, "category_id", where) != _PERSON:
      reason = _NO_PERSON
    elif row is None:
      reason = _NO_PICTURE
    elif box is None or not _is_seen(box := _to_float32(box, where), size_of(row)):
      reason = problem
    else:
      reason = find_problem and find_problem(box, size_of(row))
    if reason:
      left_out[reason].append(number)
    else:
      rows.append((row, box, image_id, score))
  notes = [
    f"{path}: {len(numbers):,} people {reason} are left out (entry {first_five(numbers)})"
    for reason, numbers in left_out.items()
  ]
  if not rows:
    raise ValueError("; ".join(notes) or f"{path}: the list is empty, expected {_FORMAT}")
  picture, box, image_id, score = zip(*rows, strict=True)
  return People(
    pictures,
    np.array(picture, np.int32),
    np.array(box, np.float32),
    np.array(image_id, np.int64),
    np.array(score, np.float32),
    tuple(notes),
  )


def _make_find(pictures):
  """Returns a function (entry, its name) -> (row of its picture or None, its image_id).

  The row is None if the folder does not have the picture.
  """
  of_path = {name: row for row, name in enumerate(pictures.paths)}
  numbers, of_number = picture_numbers(pictures), collections.defaultdict(list)
  for row, name in enumerate(pictures.paths):
    of_number[_number_in(name)].append(row)

  def find(entry, where):
    if "image_id" not in entry and "file_name" not in entry:
      raise ValueError(f"{where} has no file_name and no image_id, expected one of them for its picture")
    image_id = json_entries.integer(entry, "image_id", where) if "image_id" in entry else None
    if "file_name" in entry:
      row = of_path.get(os.path.normpath(json_entries.text(entry, "file_name", where)))
      return row, numbers[row] if image_id is None and row is not None else image_id
    rows = of_number.get(image_id, [])
    if len(rows) > 1:
      raise ValueError(
        f"{where} has the image_id {image_id}, which fits {len(rows)} pictures, such as "
        f"{base.printable(pictures.paths[rows[0]])} and {base.printable(pictures.paths[rows[1]])}: state the "
        "picture with file_name"
      )
    return (rows[0] if rows else None), image_id

  return find


def _size(pictures, row):
  """Returns the size (H, W) of a picture as a viewer shows it. Only the header is decoded."""
  path = pictures.file(row)
  data = base.read_bytes(path)
  try:
    size = picture_header.read_header(data)[:2]
  except ValueError as error:
    raise ValueError(f"{path}: {len(data)} bytes cannot be decoded as a picture: {error}") from error
  is_turned = pictures.spec.exif == base.APPLY and picture_orientation.is_sideways(data)
  return size[::-1] if is_turned else size


def _to_float32(box, where):
  """Returns a box (left, top, right, bottom) rounded to float32, the type in a record."""
  farthest = max(map(abs, box))
  if farthest > _MAX_SIDE:
    raise ValueError(f"{where} has a box that reaches to {farthest:g} pixels, expected at most {_MAX_SIDE}")
  return np.float32(box).tolist()


def _is_seen(box, size):
  """Returns True if a box (left, top, right, bottom) has an area inside a picture of `size` (H, W)."""
  left, top, right, bottom = box
  H, W = size
  return min(right, W) > max(left, 0) and min(bottom, H) > max(top, 0)
