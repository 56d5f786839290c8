"""The interface of every source of records, and functions that list folders and read pictures.

A source is a sequence of records. It has `len(source)`, `source[i] -> record`, `source.spec`, and
`source.name(i) -> str`, a name of record i for error messages that needs no reading. A source reads and
decodes. It does not augment, batch or score.

Each file in this folder has a function `open_source(*, root, split, seed, <options>)`. The default of each
option is a literal. The options are the keys of `config.data.<file name>`: a configuration takes them from
the signature. A source that can hold out the records of a split "val" also has the argument `num_val`, their
number. A file may also have these constants and functions:
  SPLITS  the splits that every copy of its data set has
  JOINTS  True: its records have joints
  PLACES  options that name a file or a folder, such as ("images",). A run may resume with other values.
  write_files(out, *, seed, workers, progress, ...)  only for drawn people: writes all splits as plain files,
          counts the pictures with `progress` (an `io.progress.Progress`), and returns
          {split: number of pictures}

A source whose images are whole picture files also has `source.file(i) -> str`, the path of the file of record
i. A packed data set then takes the bytes of the file unchanged. A source may have `source.fetch(i)`. It reads
record i without decoding the pixels, and returns a function that decodes them and returns the record. Both
may raise BadRecordError.

`source.columns` holds all fields that are known without reading a picture: {field: [N, ...] array of numbers
or texts}. Row i equals the field of record i. It is {} if no field is known.

The loader sends a source to each of its worker processes by pickle. So a source holds no open files, and
keeps its data on millions of records in a few arrays. Its pickle does not contain computed columns.

A person record holds
  image              [H, W, 3] uint8, RGB, any H and W
  keypoints_xy       [K, 2] float32, pixels of this image, 0-based, (x, y)
  keypoints_visible  [K] bool. False: the joint is missing, and its xy has no meaning.
and may hold more fields. If the skeleton in the source's spec is None, its records have no joints.

A record for re-identification holds image and
  pid    int32, the number of the person in the data set
  camid  int32, the number of the camera in the data set, made 0-based
Such a source has the columns `pid` and `camid`, [N] int32. Its splits are "train", "query" and "gallery". A
person has the same number in "query" and in "gallery".

A record with attributes holds image and
  attributes        [A] bool, in the order of the names in `spec.labels["attributes"]`
  attributes_known  [A] bool, only in a source with labels that are not known. False: the label is not known,
                    and the value in `attributes` is False and has no meaning.
Such a source has these fields as columns, [N, A] bool.
"""

import collections
import dataclasses
import os
from collections.abc import Mapping
from typing import Protocol

import cv2
import numpy as np
import simplejpeg

from hap_jax.data.skeletons import Skeleton
from hap_jax.io import picture_header, picture_orientation, regular_file

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# Pictures that are not read. They are counted, because a user may expect to find them in a folder source.
_OTHER_ENDINGS = (
  *(".tif", ".tiff", ".gif", ".jfif", ".jpe", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl"),
  *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".psd"),
  *(".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),  # of cameras
)
_DANGLING = "link to nothing"
APPLY, IGNORE = EXIF = ("apply", "ignore")  # what to do with the orientation in the EXIF header of a picture
MAX_FILE_BYTES = 2**30  # of a picture file; more than 32 bits per pixel of the largest allowed picture
_MAX_DECODED_TWICE = 2**28  # pixels in all scans of a JPEG file; decoding them takes about half a second
_JPEG_START = b"\xff\xd8"


class BadRecordError(ValueError):
  """A record that cannot be read. The message names its file and the cause."""


@dataclasses.dataclass(frozen=True)
class SourceSpec:
  """Facts about a source.

  Attributes:
    name: name of the source, which is the name of its file.
    skeleton: the joints of its records. None: it has no joints.
    licence: licence of its data.
    fields: names of the array fields of its records.
    notes: sentences about the data that a user should know. They were also logged.
    labels: {field: names of the values of this field, in their order}, such as the names of the attributes.
    people: text that says whose person numbers `pid` holds; "" if there is no `pid`. Two sources with equal
      `people` use the same number for the same person. Two sources with different `people` may use the same
      number for different persons.
    exif: "apply": the pictures are turned as the EXIF headers of their files say. "ignore": the pictures have
      the stored pixels, to which annotations refer.
  """

  name: str
  skeleton: Skeleton | None
  licence: str
  fields: tuple[str, ...] = ("image", "keypoints_xy", "keypoints_visible")
  notes: tuple[str, ...] = ()
  labels: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
  people: str = ""
  exif: str = IGNORE


class Source(Protocol):
  """Interface of a source, which the loader uses."""

  spec: SourceSpec

  @property
  def columns(self) -> Mapping[str, np.ndarray]:
    """The fields that are known without reading a picture: {field: array with one row per record}."""

  def __len__(self) -> int:
    """Returns the number of records."""

  def __getitem__(self, index: int) -> dict:
    """Reads one record. Raises BadRecordError if its files are missing or broken."""

  def name(self, index: int) -> str:
    """Returns the name of a record without reading it."""


def read_image(path, exif=IGNORE):
  """Reads a picture file into [H, W, 3] uint8 RGB.

  Args:
    path: path of the file.
    exif: see `decode_image`.
  Raises:
    BadRecordError: as `read_bytes` and `decode_image`.
  """
  return decode_image(read_bytes(path), path, exif)


def read_bytes(path):
  """Returns the bytes of a regular file, or of the regular file that a link points to.

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


def decode_image(data, name, exif=IGNORE):
  """Decodes the bytes of a picture file into [H, W, 3] uint8 RGB.

  Two decoders are used, which return the same bits (a test compares them). An animation gives one picture.

  Args:
    data: bytes of a JPEG, PNG, BMP or WebP file.
    name: name of the picture, for error messages.
    exif: "ignore": return the stored pixels, to which annotations refer. "apply": turn them as the EXIF
      header says. A damaged EXIF header turns nothing.
  Raises:
    BadRecordError: if `data` is truncated, is no picture, or is a picture of another format. Also if
      `picture_header.read_header` rejects its size. The size is read before any memory is allocated.
  """
  image = _decode_stored(data, name)
  if exif == IGNORE:
    return image
  return picture_orientation.turn_upright(image, picture_orientation.read_orientation(data))


def _decode_stored(data, name):
  try:
    height, width, scans = picture_header.read_header(data)
    encoded = picture_header.only_pixels(data)
  except ValueError as error:
    raise BadRecordError(f"{name}: {len(data)} bytes cannot be decoded as a picture: {error}") from error
  # The faster decoder comes first. A damaged JPEG file is then decoded twice, which takes too long for a
  # large one.
  if data.startswith(_JPEG_START) and height * width * scans <= _MAX_DECODED_TWICE:
    try:
      return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
      pass  # the file may be damaged; OpenCV below repairs some damage and decides for all formats
  try:
    image = cv2.imdecode(
      np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    )
  except cv2.error as error:
    raise BadRecordError(f"{name}: OpenCV cannot decode it: {' '.join(str(error).split())}") from error
  if image is None:
    raise BadRecordError(f"{name}: {len(data)} bytes are not a whole picture (truncated or damaged)")
  return image


def check_exif(value, key):
  """Raises ValueError if `value`, the value of the option `key`, is neither "apply" nor "ignore"."""
  if value not in EXIF:
    raise ValueError(f'{key}={value!r}: expected "apply" or "ignore"')


def check_root(root, holds):
  """Raises ValueError if `root`, the folder named by config.data.root, is unset, missing or empty."""
  if not root:
    raise ValueError(
      f"config.data.root is empty: set it to the folder that holds {holds} (--config.data.root=DIR). "
      "For a run without data: `make demo`, or --config=configs/pretrain_demo.py"
    )
  check_folder(root, f"the folder with {holds} (config.data.root)")


def check_folder(path, what):
  """Raises ValueError if the folder `path` is missing or empty. The message says that `what` was expected."""
  if not os.path.isdir(path):
    raise ValueError(f"{path}: no such folder; expected {what}")
  with os.scandir(path) as entries:
    if next(entries, None) is None:
      raise ValueError(f"{path}: the folder is empty; expected {what}")


_SIGNS = ("\0\0", "\0/", "..", "\n", "\r")  # they appear in a NUL-separated list only if a name is bad


def check_relative(names, where):
  """Checks that the names in a data file are paths below the folder of the data.

  Only the text is checked: links below the folder may point anywhere. Paths from the user need no check.

  Args:
    names: sequence of str.
    where: function from an entry number, starting at 0, to a text that names the file and the entry. The
      error message uses it.
  Raises:
    ValueError: for the first name that is empty, absolute, or has a part "..", a line break or a NUL
      character. Line breaks are rejected because an error message with the name must stay one line.
  """
  # A few searches in one joined text are fast: LUPerson has four million names, and bad names are rare.
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
  """Raises BadRecordError if `name` is not UTF-8. `where` names the data file and the entry it comes from."""
  try:
    name.encode()
  except UnicodeEncodeError as error:
    raise BadRecordError(f"{where}: the file name {printable(name)} is not UTF-8: rename the file") from error


def printable(name):
  """Returns a file name for a message of one line. A name with unusual characters is quoted and escaped."""
  return name if name.isprintable() else repr(name)


def list_pictures(folder, left_out=None):
  """Returns the sorted names of the picture files in a folder, without hidden files.

  Args:
    folder: the folder.
    left_out: collections.Counter or None. The visible pictures of other formats and the links to nothing are
      added to it, as `note_left_out` expects it.
  """
  names, left_out = [], collections.Counter() if left_out is None else left_out
  with os.scandir(folder) as entries:
    for entry in entries:
      ending = os.path.splitext(entry.name)[1].lower()
      if entry.name.startswith("."):
        continue
      if entry.is_symlink() and not os.path.exists(entry.path):
        left_out[_DANGLING] += 1
      elif ending in PICTURE_ENDINGS and entry.is_file():
        names.append(entry.name)
      elif ending in _OTHER_ENDINGS and entry.is_file():
        left_out[ending] += 1
  return sorted(names)


def note_left_out(left_out):
  """Returns a list with a note on the files that a source leaves out, or [] if there are none.

  Args:
    left_out: {ending or "link to nothing": number of files}, from `list_pictures`.
  """
  if not left_out:
    return []
  endings = sorted(left_out.keys() - {_DANGLING})
  parts, remedies = [f"{left_out[ending]:,} {ending}" for ending in endings], []
  if endings:
    remedies.append(
      "convert them to JPEG or PNG" if len(endings) == len(left_out) else "convert pictures to JPEG or PNG"
    )
  if links := left_out.get(_DANGLING, 0):
    parts.append(f"{links:,} {_DANGLING if links == 1 else 'links to nothing'}")
    remedies.append("repair or delete links")
  total = sum(left_out.values())
  return [
    f"{total:,} {'file' if total == 1 else 'files'} left out: {', '.join(parts)}; {', '.join(remedies)}"
  ]


def list_folders(folder):
  """Returns the sorted names of the folders in a folder, without hidden folders."""
  with os.scandir(folder) as entries:
    # For a link that points to itself, entry.is_dir() raises OSError and os.path.isdir returns False.
    return sorted(
      entry.name
      for entry in entries
      if not entry.name.startswith(".")
      and (os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir())
    )


def describe_folder(folder):
  """Returns the first names in a folder as text for an error message."""
  names = sorted(os.listdir(folder))
  more = f" and {len(names) - 5} more" if len(names) > 5 else ""
  return f"found there: {', '.join(names[:5]) or 'nothing'}{more}"


def held_out(num_records, num_val, split):
  """Splits the records 0 .. num_records - 1: the last `num_val` records are "val", the others are "train".

  Args:
    num_records: number of records.
    num_val: number of records that are held out (config.data.num_val). 0: none.
    split: "train" or "val".

  Returns:
    (start, stop) of the split.

  Raises:
    ValueError: if the split is unknown, `num_val` is out of range, or the split has no records.
  """
  if split not in ("train", "val"):
    raise ValueError(f'split={split!r}: expected "train" or "val"')
  if not 0 <= num_val <= num_records:
    raise ValueError(f"config.data.num_val={num_val}: expected 0 to {num_records}, the number of records")
  start, stop = (0, num_records - num_val) if split == "train" else (num_records - num_val, num_records)
  if start == stop:
    raise ValueError(
      f'config.data.num_val={num_val} of {num_records} records leaves no records for split "{split}"'
    )
  return start, stop
