"""A file to which a program appends bytes. If the disk is full for a while, no bytes are lost."""

import errno
import os
import pathlib

_MOST_WAITING = 64 * 2**20  # bytes that are kept for later; a limit, because they are kept in memory


class AppendedFile:
  """Appends bytes to a file. Bytes that cannot be written now are kept and written by a later call.

  The bytes are written in the order of the calls. So the file never has a gap: only its end can be missing,
  if the program ends before all bytes are written. If the program is killed after a call, only the bytes that
  wait are lost.
  """

  def __init__(self, path, first=b""):
    """Records the path. The first call that writes opens the file.

    Args:
      path: the file. The file and its folder are created if they are missing.
      first: bytes that the first call writes before its own bytes.
    """
    self._path = pathlib.Path(path)
    self._waiting = first
    self._descriptor = None

  def append(self, data):
    """Writes bytes after all earlier bytes.

    Raises:
      OSError: if these bytes or earlier bytes cannot be written. They wait for the next call. If more than
        _MOST_WAITING bytes would wait, `data` is lost.
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
