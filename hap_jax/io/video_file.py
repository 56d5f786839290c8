"""Reads the frames of a video, which a child process decodes (`video_decoder.py`)."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from typing import NamedTuple

import numpy as np

from hap_jax.io import regular_file, video_decoder

_MEMORY_BYTES = 2**32
_PROGRAM = pathlib.Path(video_decoder.__file__)


class Frame(NamedTuple):
  """A frame of a video.

  Attributes:
    number: its number, from 0.
    image: [H, W, 3] uint8 RGB, turned as the video says. None: the frame cannot be decoded.
  """

  number: int
  image: np.ndarray | None


class Video:
  """An iterator over frames of a video, in their order. It is a context manager.

  The number of frames is known only at the end, because the number in the file may be wrong.

  Attributes:
    stated_frames: the number of frames that the file states. 0: it states none. Known after the first frame.
    num_frames: the number of frames of the video. None before its end.
  """

  def __init__(self, path, *, every=1, part_frames=1, skip=(), shard=(0, 1), memory_bytes=_MEMORY_BYTES):
    """Opens a video.

    Args:
      path: the file.
      every: N: every N-th frame is read, starting with frame 0.
      part_frames: number of frames of a part, for `skip` and `shard`.
      skip: numbers of the parts whose frames are not read.
      shard: (K, N): only the parts whose number divided by N leaves the rest K are read.
      memory_bytes: limit of the address space of the child process.
    Raises:
      OSError, ValueError: if there is no such file.
    """
    regular_file.open_regular(path).close()
    self.stated_frames, self.num_frames = 0, None
    self._path = path
    job = {
      "path": os.path.abspath(path),
      "every": every,
      "part_frames": part_frames,
      "skip": list(skip),
      "shard": list(shard),
      "memory_bytes": memory_bytes,
    }
    self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (`close` closes it)
    # -P: the folder of the program is not searched for modules. One thread: each thread reserves memory.
    self._process = subprocess.Popen(
      [sys.executable, "-P", str(_PROGRAM), json.dumps(job)],
      stdin=subprocess.DEVNULL,
      stdout=subprocess.PIPE,
      stderr=self._errors,
      env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    self._last = None

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()

  def __iter__(self):
    return self

  def __next__(self):
    """Returns the next `Frame`.

    Raises:
      ValueError: if the file is no video, or if its decoder failed. The message names the file.
    """
    while self.num_frames is None:
      kind, number, height, width = video_decoder.RECORD.unpack(self._read(video_decoder.RECORD.size))
      if kind == video_decoder.OPENED:
        self.stated_frames = number
      elif kind == video_decoder.END:
        self.num_frames = number
      elif kind == video_decoder.UNREADABLE:
        self._last = number
        return Frame(number, None)
      else:
        pixels = np.frombuffer(self._read(height * width * 3), np.uint8)
        self._last = number
        return Frame(number, pixels.reshape(height, width, 3))
    raise StopIteration

  def close(self):
    """Ends the child process."""
    if self._process.poll() is None:
      self._process.kill()
    self._process.stdout.close()
    self._process.wait()
    self._errors.close()

  def _read(self, size):
    data = self._process.stdout.read(size)
    if len(data) == size:
      return data
    code = self._process.wait()
    self._errors.seek(0)
    lines = self._errors.read().decode(errors="replace").splitlines()
    reason = lines[-1] if lines and code > 0 else f"its decoder ended with {_name_of(code)}"
    where = "" if self._last is None else f" after frame {self._last}"
    raise ValueError(f"{self._path}: not a video that can be read{where}: {reason}")


def _name_of(code):
  return signal.Signals(-code).name if code < 0 else f"exit code {code}"
