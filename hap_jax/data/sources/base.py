"""What every source of records promises, and how sources look through folders and read pictures.

A source is a sequence of records: `len(source)`, `source[i] -> record` and `source.name(i) -> str`, which
names record i for error messages without reading it, and `source.spec`. It reads and decodes; it does not
augment, batch or score.

Each file here offers `open_source(*, root, split, seed, num_val, <options>)`. The options, each with a
literal as its default, are the keys of `config.data.<file name>`; a configuration takes them from the
signature. A file may have these constants and functions, too:
  SPLITS  the splits that every copy of its data set has
  PLACES  options that name a file or a folder, such as ("images",): a run may go on with other values
  write_files(out, *, seed, workers, ...)  for people who are drawn: writes them as plain files, all splits;
          returns {split: number of pictures}

A source whose images are whole picture files also has `source.file(i) -> str`, the path of record i's, so
that a packed data set can take its bytes as they are. A source may offer `source.fetch(i)`, which reads
record i but for its pixels and returns the function that decodes them and returns the record; either may
raise BadRecordError.

What is known of all records without reading a picture is in `source.columns`, {field: [N, ...] array of
numbers or texts}: row i equals the field of record i. It is {} where nothing is known.

A source travels to each of the loader's worker processes by pickle: it holds no open files, and what it must
hold of millions of records it holds in a few arrays. It does not send its columns besides those arrays.

A person record holds
  image              [H, W, 3] uint8, RGB, any H and W
  keypoints_xy       [K, 2] float32, pixels of this image, 0-based, (x, y)
  keypoints_visible  [K] bool; False: missing, its xy means nothing
and may hold more fields; a source whose spec names no skeleton has no joints.

A record for re-identification holds image and
  pid    int32, the person, in the data set's own numbers
  camid  int32, the camera, the data set's number made 0-based
Such a source has the columns `pid` and `camid`, [N] int32. Its splits are "train", "query" and "gallery"; a
person has one number in both of the last two.

A record with attributes holds image and
  attributes  [A] bool, in the order of the names in `spec.labels["attributes"]`
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Protocol

import cv2
import numpy as np
import simplejpeg

from hap_jax.data.skeletons import Skeleton
from hap_jax.io import picture_header, regular_file

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MAX_FILE_BYTES = 2**30  # of a picture: more than 32 bits for each pixel of the largest picture that is read
_MAX_DECODED_TWICE = 2**28  # pixels in all scans: half a second or so
_JPEG_START = b"\xff\xd8"


class BadRecordError(ValueError):
  """A record that cannot be read; the message names its file and what is wrong with it."""


@dataclasses.dataclass(frozen=True)
class SourceSpec:
  """Facts about a source.

  Attributes:
    name: of its file. skeleton: its joints; None: it has none. licence: of its data.
    fields: the array fields of its records.
    notes: what is worth knowing about the data found, one sentence each; they were logged, too.
    labels: {field: names of the values inside it, in their order}, such as the names of the attributes.
    people: whose person numbers `pid` holds, "" if there are none. Sources with equal `people` use one number
      for one person; with different `people` they may use one number for two persons.
  """

  name: str
  skeleton: Skeleton | None
  licence: str
  fields: tuple[str, ...] = ("image", "keypoints_xy", "keypoints_visible")
  notes: tuple[str, ...] = ()
  labels: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
  people: str = ""


class Source(Protocol):
  """What the loader asks of a source."""

  spec: SourceSpec

  @property
  def columns(self) -> Mapping[str, np.ndarray]:
    """{field: array with one row per record}, known without reading a picture."""

  def __len__(self) -> int:
    """Number of records."""

  def __getitem__(self, index: int) -> dict:
    """Reads one record; raises BadRecordError if its files are missing or broken."""

  def name(self, index: int) -> str:
    """Names a record without reading it."""


def read_image(path):
  """Reads a picture file into [H, W, 3] uint8 RGB.

  Raises:
    BadRecordError: as `read_bytes` and `decode_image`.
  """
  return decode_image(read_bytes(path), path)


def read_bytes(path):
  """Returns the bytes of a regular file, or of one that a link points at.

  Raises:
    BadRecordError: if the file is missing, cannot be read, is a FIFO or a device, or has more than
      MAX_FILE_BYTES bytes.
  """
  try:
    return regular_file.read_bytes(path, MAX_FILE_BYTES)
  except OSError as error:
    raise BadRecordError(f"{path}: cannot be read: {error.strerror or error}") from error
  except ValueError as error:
    raise BadRecordError(str(error)) from error


def decode_image(data, name):
  """Decodes the bytes of a picture file into [H, W, 3] uint8 RGB.

  Pixels come as stored: a rotation in the EXIF header is not applied, because annotations are made on stored
  pixels. The two decoders give the same bits (a test compares them). Of an animation, one picture is decoded.

  Args:
    data: bytes of a JPEG, PNG, BMP or WebP file.
    name: of the picture, for error messages.
  Raises:
    BadRecordError: if they are truncated, no picture, a picture of another format, or one of a size that
      `picture_header.read_header` refuses. Nothing is allocated before the size is read.
  """
  try:
    height, width, scans = picture_header.read_header(data)
    encoded = picture_header.only_pixels(data)
  except ValueError as error:
    raise BadRecordError(f"{name}: {len(data)} bytes that are no picture to decode: {error}") from error
  # A damaged JPEG file is decoded twice, which takes too long if it is large.
  if data.startswith(_JPEG_START) and height * width * scans <= _MAX_DECODED_TWICE:
    try:
      return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
      pass  # damaged in a way that OpenCV may repair, or not at all: it decides, as for all other files
  try:
    image = cv2.imdecode(
      np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    )
  except cv2.error as error:
    raise BadRecordError(f"{name}: OpenCV cannot decode it: {' '.join(str(error).split())}") from error
  if image is None:
    raise BadRecordError(f"{name}: {len(data)} bytes that are no whole picture (truncated or damaged)")
  return image


def check_root(root, holds):
  """Raises ValueError if `root`, the folder named by config.data.root, is unset, missing or empty."""
  if not root:
    raise ValueError(
      f"config.data.root is empty: set it to the folder that holds {holds} (--config.data.root=DIR). "
      "A run that needs no data: `make demo`, or --config=configs/pretrain_demo.py"
    )
  check_folder(root, f"the folder with {holds} (config.data.root)")


def check_folder(path, what):
  """Raises ValueError if the folder `path` is missing or empty; `what` says in words what it should be."""
  if not os.path.isdir(path):
    raise ValueError(f"{path}: no such folder; expected {what}")
  with os.scandir(path) as entries:
    if next(entries, None) is None:
      raise ValueError(f"{path}: the folder is empty; expected {what}")


_SIGNS = ("\0\0", "\0/", "..", "\n", "\r")  # of bad names that stand between NUL characters


def check_relative(names, where):
  """Checks that names which come from a data file stay below the folder that they are joined to.

  Only the text counts: links below the folder may point anywhere. Paths that the user gives need no check.

  Args:
    names: sequence of str.
    where: entry number, from 0 -> text that names the file and the entry, for the error message.
  Raises:
    ValueError: for the first name that is empty or absolute, or has a part "..", a line break or a NUL
      character. A message that names the file must stay one line.
  """
  # A few searches in one text, because LUPerson has four million names and almost no list has a bad one.
  text = "\0".join(["", *names, ""])
  if text.count("\0") == len(names) + 1 and not any(sign in text for sign in _SIGNS):
    return
  for i, name in enumerate(names):
    is_odd = any(sign in name for sign in "\0\n\r")
    if not name or name.startswith("/") or is_odd or ".." in name.split("/"):
      raise ValueError(
        f"{where(i)}: the file name is {name[:200]!r}; expected a path below the folder of the "
        'data: not empty, not absolute, without a part "..", line breaks and NUL characters'
      )


def check_utf8(name, where):
  """Raises BadRecordError if `name`, from a data file, is not UTF-8; `where` names the file and the entry."""
  try:
    name.encode()
  except UnicodeEncodeError as error:
    raise BadRecordError(f"{where}: the file name {printable(name)} is not UTF-8: rename the file") from error


def printable(name):
  """Returns a file name for a message of one line: quoted, with escapes, if it has unusual characters."""
  return name if name.isprintable() else repr(name)


def list_pictures(folder):
  """Lists the names of the picture files in a folder, sorted; hidden files are left out."""
  with os.scandir(folder) as entries:
    return sorted(
      entry.name
      for entry in entries
      if entry.name.lower().endswith(PICTURE_ENDINGS) and not entry.name.startswith(".") and entry.is_file()
    )


def list_folders(folder):
  """Lists the names of the folders in a folder, sorted, hidden ones left out."""
  with os.scandir(folder) as entries:
    return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def describe_folder(folder):
  """Says for an error message what a folder holds: the first of its names."""
  names = sorted(os.listdir(folder))
  more = f" and {len(names) - 5} more" if len(names) > 5 else ""
  return f"found there: {', '.join(names[:5]) or 'nothing'}{more}"


def held_out(num_records, num_val, split):
  """Splits 0 .. num_records - 1: "val" is the last `num_val` of them, "train" the others.

  Args:
    num_records: records in all.
    num_val: how many are held out (config.data.num_val); 0: none.
    split: "train" or "val".

  Returns:
    (start, stop) of the split.

  Raises:
    ValueError: on another split, a number out of range, or a split left without records.
  """
  if split not in ("train", "val"):
    raise ValueError(f'split={split!r}: expected "train" or "val"')
  if not 0 <= num_val <= num_records:
    raise ValueError(f"config.data.num_val={num_val}: expected 0 to {num_records}, the number of records")
  start, stop = (0, num_records - num_val) if split == "train" else (num_records - num_val, num_records)
  if start == stop:
    raise ValueError(
      f'config.data.num_val={num_val} of {num_records} records leaves none for split "{split}"'
    )
  return start, stop
