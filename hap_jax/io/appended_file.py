"""A file to which a program appends, also after a disk was full for a while."""

import errno
import os
import pathlib

_MOST_WAITING = 64 * 2**20  # bytes that are kept for later. The program must not fill its memory


class AppendedFile:
  """Appends bytes to a file. Bytes that cannot be written now are kept and written by a later call.

  The bytes of all calls come in their order. So the file is never damaged in its middle, unless the program
  ends before all bytes are written. After a call, a kill of the program loses only the bytes that wait.
  """

  def __init__(self, path, first=b""):
    """Opens nothing yet.

    Args:
      path: the file. The file and its folder are created if they are missing.
      first: bytes that the first call writes before its own.
    """
    self._path = pathlib.Path(path)
    self._waiting = first
    self._descriptor = None

  def append(self, data):
    """Writes bytes after all earlier ones.

    Raises:
      OSError: if they, or earlier ones, cannot be written. They wait for the next call. If too many bytes
        wait already, `data` is lost.
    """
    if len(self._waiting) + len(data) > _MOST_WAITING:
      self.flush()  # usually raises the error that made the bytes wait
    if len(self._waiting) + len(data) > _MOST_WAITING:
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
    self._waiting += data
    self.flush()

  def flush(self):
    """Writes the bytes that wait. Raises OSError if that is not possible."""
    try:
      if self._descriptor is None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o666)
      while self._waiting:
        self._waiting = self._waiting[os.write(self._descriptor, self._waiting) :]
    except OSError as error:
      error.filename = str(self._path)  # Python names no file if a disk is full
      raise

  def close(self):
    """Writes the bytes that wait, and closes the file. Raises OSError if bytes are lost."""
    try:
      if self._waiting:
        self.flush()
    finally:
      descriptor, self._descriptor = self._descriptor, None
      if descriptor is not None:
        os.close(descriptor)
