"""The interface of every source of records, and functions that list folders and read pictures.

A source is a sequence of records. It has `len(source)`, `source[i] -> record`, `source.spec`, and
`source.name(i) -> str`. `source.name(i)` is the name of record i for error messages, and does not read the
record. A source reads and decodes pictures. It does not augment pictures, make batches or compute scores.

Each file in this folder has a function `open_source(*, root, split, seed, <options>)`. The default value of
each option is a literal. Names and default values of the options become the keys and values of
`config.data.<file name>` in a configuration. If a source can hold out records as the split "val", its
function also has the argument `num_val`, the number of these records. A file may also have these constants
and functions:
  SPLITS  the splits that every copy of the data set has
  JOINTS  True if the records are single people with joints for masks of body parts
  PLACES  options that name a file or a folder, such as ("images",). Their values may change when a run
          resumes.
  published(split, options)  returns the sizes of a split of the published data set that are known without its
          files, a dict with some of the keys "records", "persons", "attributes" and "joints". `options` are
          the options of the source
  write_files(out, *, seed, workers, progress, ...)  only for drawn people: writes all splits as plain files,
          counts the pictures with `progress` (an `io.progress.Progress`), and returns
          {split: number of pictures}
  write_3dpw(out, *, seed, workers, progress, ...)  only for drawn people: writes the split "test" in the
          layout of 3DPW, and returns the same as `write_files`
  own_body()  only for drawn people: returns the `body_model.BodySet` for the fields smpl_pose, smpl_betas and
          smpl_translation of the records. An opened source has the method `body()`, which returns the same.

If the images of a source are whole picture files, it also has `source.file(i) -> str`, the path of the file
of record i. A packed data set then copies the bytes of the file. A source may also have
`source.fetch(i)`. It reads record i without decoding the picture. It returns a function that decodes the
picture and returns the record. Both `fetch` and this function may raise BadRecordError.

`source.columns` is {field: [N, ...] array of numbers or texts}, for all fields that are known without reading
a picture. Row i of a column equals the field of record i. It is {} if there is no such field.

A source that joins several data sets has the option `parts`, see `mixed.py`. In a configuration, its value is
the labels of the data sets. `open_source` gets pairs (label, opened source) instead. Such a source has
`source.sections`, a tuple with one `Section` per data set, and the field `dataset` in its records.

The loader sends a source to each worker process by pickle. So a source has no open files, and stores the data
of millions of records in a few arrays. Its pickle does not contain computed columns.

A person record holds
  image              [H, W, 3] uint8, RGB, any H and W
  keypoints_xy       [K, 2] float32, for K joints: (x, y) in pixels of this image, starting at 0
  keypoints_visible  [K] bool. False: the joint is missing, and its xy has no meaning.
and may hold more fields. If the skeleton in the source's spec is None, its records have no joints.

A record for 2D pose holds a whole picture and one person on it:
  image              [H, W, 3] uint8, RGB, any H and W. Several records may have the same picture.
  keypoints_xy       [K, 2] float32, for K joints: (x, y) in pixels of this picture, starting at 0
  keypoints_visible  [K] bool. True: the joint is labelled. It may be hidden or outside the picture.
  box                [4] float32, (left, top, right, bottom) of the person in pixels. It may reach outside the
                     picture.
If a box comes from a detector, all joints of its record are missing. Such a source has a method `truth()`. It
returns the correct joints of all records in the form that the score needs, a `pose_truth.CocoTruth` or a
`pose_truth.MpiiTruth`, or None if the split cannot be scored. The truth is read when the method is called,
and is not part of the pickle.

A record for re-identification holds image and
  pid    int32, id of the person in the data set
  camid  int32, id of the camera, starting at 0
Such a source has the columns `pid` and `camid`, [N] int32. Its splits are "train", "query" and "gallery". A
person has the same id in "query" and in "gallery".

A record for text ReID is a pair of a picture and a caption. It holds image and
  caption  str, a description of the person in natural language, unchanged
  pid      int32, id of the person in the data set
  picture  int32, id of the picture in the data set. Pairs with the same id have the same picture.
Such a source has caption, pid and picture as columns. Its splits are "train", "val" (not in all data sets),
"test" and "trainval" (train followed by val). Each split has two views, see `caption_views`:
  "<split>_pictures"  each picture of the split once: image and pid. The column is pid.
  "<split>_captions"  each caption of the split: caption, pid and picture. All fields are columns, and no
                      picture is read. Here `picture` is the row of the caption's picture in the view of
                      pictures. It is -1 if the caption describes a person, not a single picture.
For scores, the captions of a split are queries and its pictures the gallery, and the other way round. A
caption is a text of any length, so it cannot be a field of a batch: `Loader.fields` must leave it out.

A record with attributes holds image and
  attributes        [A] bool, for A attributes, in the order of the names in `spec.labels["attributes"]`
  attributes_known  [A] bool. False: the label is not known; the value in `attributes` is then False and has
                    no meaning. This field exists only if the data set has such labels.
Such a source has these fields as columns, [N, A] bool.
"""

import collections
import dataclasses
import os
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import simplejpeg

from hap_jax.data.skeletons import Skeleton
from hap_jax.io import picture_header, picture_orientation, regular_file

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# Endings of pictures that are not read. They are counted and logged, because a user may expect to use them.
_OTHER_ENDINGS = (
  *(".tif", ".tiff", ".gif", ".jfif", ".jpe", ".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl"),
  *(".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".psd"),
  *(".dng", ".raw", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),  # raw files of cameras
)
_DANGLING = "link to nothing"
APPLY, IGNORE = EXIF = ("apply", "ignore")  # whether to turn a picture as its EXIF header says
MAX_FILE_BYTES = 2**30  # limit of a picture file: more than 32 bits per pixel of the largest allowed picture
_MAX_DECODED_TWICE = 2**28  # pixels times scans of a JPEG file; decoding this takes about half a second
_JPEG_START = b"\xff\xd8"


class BadRecordError(ValueError):
  """A record that cannot be read. The message names its file and the cause."""


@dataclasses.dataclass(frozen=True)
class SourceSpec:
  """The description of a source.

  Attributes:
    name: name of the source, which is the name of its file.
    skeleton: the skeleton that the joints belong to. None: the records have no joints.
    licence: licence of the data.
    fields: names of the fields of a record.
    notes: sentences about the data that a user should know. They are also logged.
    labels: {field: names of the values of this field, in their order}, such as the names of the attributes.
    people: name of the numbering of `pid`, or "" if there is no `pid`. In two sources with equal `people`,
      the same id means the same person. In sources with different `people`, the same id may mean different
      persons.
    exif: "apply": the pictures are turned as the EXIF headers of their files say. "ignore": the pictures are
      not turned. Annotations such as joints fit only pictures that are not turned.
    parts: the specs of the data sets that the source joins. (): the source is one data set.
  """

  name: str
  skeleton: Skeleton | None
  licence: str
  fields: tuple[str, ...] = ("image", "keypoints_xy", "keypoints_visible")
  notes: tuple[str, ...] = ()
  labels: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
  people: str = ""
  exif: str = IGNORE
  parts: tuple["SourceSpec", ...] = ()


class Section(NamedTuple):
  """The records start, ..., stop - 1 of a source, which are one data set.

  Attributes:
    name: name of the data set for messages.
    start, stop: range of record indices.
  """

  name: str
  start: int
  stop: int

  @property
  def size(self):
    """Number of records."""
    return self.stop - self.start


class Source(Protocol):
  """The interface between a source and the loader."""

  spec: SourceSpec

  @property
  def columns(self) -> Mapping[str, np.ndarray]:
    """{field: array with one row per record}, for the fields that are known without reading a picture."""

  def __len__(self) -> int:
    """Returns the number of records."""

  def __getitem__(self, index: int) -> dict:
    """Reads one record. Raises BadRecordError if its files are missing or broken."""

  def name(self, index: int) -> str:
    """Returns the name of a record without reading it."""


def sections_of(source):
  """Returns the sections of a source, in the order of its records. Most sources have one section."""
  return getattr(source, "sections", None) or (Section(source.spec.name, 0, len(source)),)


def read_image(path, exif=IGNORE):
  """Reads a picture file into [H, W, 3] uint8 RGB.

  Args:
    path: path of the file.
    exif: see `decode_image`.
  Raises:
    BadRecordError: in the same cases as in `read_bytes` and `decode_image`.
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

  There are two decoders. A test checks that they return exactly the same pixels. For an animation, one
  picture is returned.

  Args:
    data: bytes of a JPEG, PNG, BMP or WebP file.
    name: name of the picture, for error messages.
    exif: "ignore": return the stored pixels, which annotations refer to. "apply": turn the picture as its
      EXIF header says. If this header is damaged, the picture is not turned.
  Raises:
    BadRecordError: if `data` is truncated, is not a picture, or is a picture of another format. Also if
      `picture_header.read_header` rejects its size. The size is checked before memory is allocated.
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
  # The faster decoder is tried first. If it fails on a damaged JPEG file, OpenCV decodes the file again. For
  # a large picture, two attempts take too long, so only OpenCV is used.
  if data.startswith(_JPEG_START) and height * width * scans <= _MAX_DECODED_TWICE:
    try:
      return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError:
      pass  # OpenCV below can decode some damaged files; if it fails, too, the record is bad
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
  """Raises ValueError if the value of the option `key` is neither "apply" nor "ignore"."""
  if value not in EXIF:
    raise ValueError(f'{key}={value!r}: expected "apply" or "ignore"')


def check_root(root, holds):
  """Raises ValueError if the folder `root` (config.data.root) is not set, missing or empty."""
  if not root:
    raise ValueError(
      f"config.data.root is empty: set it to the folder that holds {holds} (--config.data.root=DIR). "
      "For a run without data: `make demo`, or --config=configs/pretrain_demo.py"
    )
  check_folder(root, f"the folder with {holds} (config.data.root)")


def check_folder(path, what):
  """Raises ValueError if the folder `path` is missing or empty. `what` is the expected content."""
  if not os.path.isdir(path):
    raise ValueError(f"{path}: no such folder; expected {what}")
  with os.scandir(path) as entries:
    if next(entries, None) is None:
      raise ValueError(f"{path}: the folder is empty; expected {what}")


# All names are joined by NUL characters. If a name is bad, the joined text contains one of these strings. An
# empty name gives "\0\0", and an absolute path gives "\0/".
_SIGNS = ("\0\0", "\0/", "..", "\n", "\r")


def check_relative(names, where):
  """Checks that the names in a data file are paths below the folder of the data.

  Only the text of the names is checked: links in the folder may point anywhere. Paths that the user enters
  need no check.

  Args:
    names: sequence of str.
    where: function of the index of an entry. It returns the names of the file and the entry, for error
      messages.
  Raises:
    ValueError: for the first name that is empty, absolute, or has a part "..", a line break or a NUL
      character. Line breaks are rejected, because error messages must be one line.
  """
  # All names are joined to one text, because searching it is much faster than a loop over the names. LUPerson
  # has four million names, and bad names are rare.
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
  """Raises BadRecordError if `name` is not UTF-8. `where` is the entry with the name, for the message."""
  try:
    name.encode()
  except UnicodeEncodeError as error:
    raise BadRecordError(f"{where}: the file name {printable(name)} is not UTF-8: rename the file") from error


def printable(name):
  """Returns a file name for a message of one line. Characters that cannot be printed are escaped."""
  return name if name.isprintable() else repr(name)


def list_pictures(folder, left_out=None):
  """Returns the sorted names of the picture files in a folder, without hidden files.

  Args:
    folder: the folder.
    left_out: collections.Counter or None. Visible pictures of other formats and links to missing files are
      counted in it, in the form that `note_left_out` expects.
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
  """Returns a list with a note on files that a source does not read, or [] if there are none.

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
  """Returns the first five names in a folder as text for an error message."""
  names = sorted(os.listdir(folder))
  more = f" and {len(names) - 5} more" if len(names) > 5 else ""
  return f"found there: {', '.join(names[:5]) or 'nothing'}{more}"


def held_out(num_records, num_val, split):
  """Splits records into "train" and "val". The last `num_val` records are "val", the others are "train".

  Args:
    num_records: number of records.
    num_val: number of records that are held out as "val" (config.data.num_val).
    split: "train" or "val".

  Returns:
    (start, stop): the split has the records start, ..., stop - 1.

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
