"""The whole pictures in which `hap crop` finds people: the frames of a video, or the pictures of a folder.

Both classes have the same methods. Pictures and frames belong to parts, and a part is read as a whole or not
at all.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import os
from typing import NamedTuple

import numpy as np
from absl import logging

from hap_jax.data import pose_parts, read_again
from hap_jax.data.names import Names
from hap_jax.data.sources import base
from hap_jax.inference import pose_folder
from hap_jax.io import regular_file, video_file

PART_SIZE = 4096  # pictures of a part
PART_FRAMES = 1000  # frames of a part, of which every N-th is read
_DIGEST_BYTES = 2**20
_AHEAD = 16  # pictures that are read ahead
_THREADS = 2


class Item(NamedTuple):
  """A picture or a frame.

  Attributes:
    part: number of its part.
    name: its path below the folder, or "f" and the number of the frame.
    image: [H, W, 3] uint8. None: it cannot be read.
  """

  part: int
  name: str
  image: np.ndarray | None


class VideoFrames:
  """Every N-th frame of a video.

  Attributes:
    unit: the word for the items.
    is_square: False: all items have the same size, so the network gets pictures of this shape.
  """

  unit, is_square = "frames", False

  def __init__(self, path, every=1):
    """Takes the path of the file. Every `every`-th frame is read, starting with frame 0."""
    if every < 1:
      raise ValueError(f"--every={every}: expected at least 1")
    self.path, self.every = path, every
    self._num_frames = self._stated = None

  def facts(self):
    """Returns the facts that must stay the same when the command is started again, plain JSON values."""
    with regular_file.open_regular(self.path) as file:
      size = os.fstat(file.fileno()).st_size
      start = hashlib.sha256(file.read(_DIGEST_BYTES)).hexdigest()
    return {"video": {"bytes": size, "start": start}, "every": self.every, "part_frames": PART_FRAMES}

  @contextlib.contextmanager
  def open(self, out, shard, say, progress):
    """Context manager: yields an iterator over the items of the parts that a process has to do."""
    done = {int(path.stem.removeprefix("poses-f")) // PART_FRAMES for path in out.glob("poses-f*.npz")}
    if done:
      say(f"kept from an earlier start: {len(done):,} parts")
    with video_file.Video(
      self.path, every=self.every, part_frames=PART_FRAMES, skip=sorted(done), shard=shard
    ) as video:
      yield self._items(video, progress)

  def _items(self, video, progress):
    for k, frame in enumerate(video):
      if not k:
        progress.begin(-(-video.stated_frames // self.every) or None, self.unit)
      if frame.image is None:
        logging.warning("%s: frame %d cannot be decoded", self.path, frame.number)
      yield Item(frame.number // PART_FRAMES, f"f{frame.number:08d}", frame.image)
    self._num_frames, self._stated = video.num_frames, video.stated_frames

  def part_name(self, part):
    """Returns the file name of a part."""
    return pose_parts.part_of_video(part * PART_FRAMES)

  def parts(self):
    """Returns the file names of all parts. Call it after all items were read."""
    numbers = sorted({number // PART_FRAMES for number in range(0, self._num_frames, self.every)})
    return [self.part_name(number) for number in numbers]

  def num_items(self):
    """Returns the number of items of all parts. None: it is not known before all items were read."""
    if self._num_frames is None:
      return None
    if not self._num_frames:
      raise ValueError(f"{self.path}: not a video that can be read: no frame can be decoded")
    return -(-self._num_frames // self.every)

  def remarks(self):
    """Returns lines about the video. Call it after all items were read."""
    if self._stated in (0, self._num_frames):
      return []
    return [f"{self.path}: the file states {self._stated:,} frames, but {self._num_frames:,} were decoded"]

  def columns(self, names):
    """Returns the column of a part that names the frames of its people."""
    return {"frame": np.array([int(name.removeprefix("f")) for name in names], np.int64)}


class FolderPictures:
  """All pictures of a `folder.FolderSource`; see `VideoFrames` for attributes and methods."""

  unit, is_square = "pictures", True

  def __init__(self, source):
    self._names = Names.of(source.paths)
    self._source = dataclasses.replace(source, paths=self._names)

  def facts(self):
    digest = hashlib.sha256(self._names.text).hexdigest()
    return {
      "pictures": {"count": len(self._names), "names": digest, "exif": self._source.spec.exif},
      "part_size": PART_SIZE,
    }

  @contextlib.contextmanager
  def open(self, out, shard, say, progress):
    todo = pose_folder.find_todo(out, self.parts(), shard, say)
    rows = [i for part in todo for i in range(part * PART_SIZE, self._end(part))]
    progress.begin(len(rows), self.unit)
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
      yield self._items(pool, rows)

  def _end(self, part):
    return min((part + 1) * PART_SIZE, len(self._names))

  def _items(self, pool, rows):
    left, running = iter(rows), collections.deque()
    while True:
      while len(running) < _AHEAD and (i := next(left, None)) is not None:
        running.append((i, pool.submit(self._read, i)))
      if not running:
        return
      i, image = running.popleft()
      yield Item(i // PART_SIZE, self._names[i], image.result())

  def _read(self, i):
    read = functools.partial(self._source.__getitem__, i)
    try:
      return read_again.Reader().read(i, read, read)["image"]
    except base.BadRecordError as error:
      logging.warning("left out: %s", error)
      return None

  def part_name(self, part):
    return self.parts()[part]

  def parts(self):
    count = -(-len(self._names) // PART_SIZE)
    return [pose_parts.part_of_pictures(number, count) for number in range(count)]

  def num_items(self):
    return len(self._names)

  def remarks(self):
    return []

  def columns(self, names):
    return {"picture": pose_parts.texts(names)}
