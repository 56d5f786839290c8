"""Files and folders that get their final name only when they are complete.

Before that, they have a temporary, hidden name in the same folder, which no other process uses. Because both
names are on the same disk, a single rename completes the work. So another program sees the old content or the
new content, but never a part of the new content.
"""

import contextlib
import errno
import os
import pathlib
import re
import secrets
import shutil

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # full disk, full quota, file above the largest size


@contextlib.contextmanager
def named_at_end(path, *, replace=False):
  """Context manager: yields a temporary path in the folder of `path`. Its exit renames it to `path`.

  The caller makes a file or a folder at the temporary path. After any error, this file or folder is removed.
  Several processes, also on different machines, may write the same `path`. The result of the process that
  ends last remains.

  Args:
    path: pathlib.Path of the result. The temporary path has the same suffix.
    replace: True: a folder that exists at `path` is replaced, even if it is not empty. A file is always
      replaced.
  Raises:
    OSError: if the rename fails. One possible reason is that a folder at `path` is not empty.
  """
  part = hidden_path(path)
  try:
    yield part
    if replace and path.is_dir():
      _replace_folder(part, path)
    else:
      part.rename(path)
  except BaseException as error:  # also a KeyboardInterrupt
    # Python names no file if a disk is full, so the message would not say which disk.
    if isinstance(error, OSError) and error.errno in _FULL and error.filename is None:
      error.filename = str(path)
    with contextlib.suppress(OSError):  # the caller must see the first error, not an error of the removal
      _remove(part)
    raise


def hidden_path(path):
  """Returns a new temporary path in the folder of `path`, with the same suffix."""
  return path.with_name(f".{path.stem}.{secrets.token_hex(8)}.part{path.suffix}")


def is_hidden_path(path):
  """Returns True if the name of a path is a temporary name of this module."""
  return re.fullmatch(r"\..*\.[0-9a-f]{16}\.part.*", path.name) is not None


def check_new(path):
  """Raises ValueError if the folder `path` exists, or if its parent folder does not exist."""
  if os.path.lexists(path):
    raise ValueError(
      f"{path}: already exists; expected a new folder: choose another name, or move this one away"
    )
  if not path.parent.is_dir():
    raise ValueError(f"{path}: the folder {path.parent} does not exist: create it first")


@contextlib.contextmanager
def new_folder(path):
  """Context manager: makes a folder at a temporary path and yields it. The exit renames it to `path`."""
  with named_at_end(path) as part:
    part.mkdir()
    yield part


@contextlib.contextmanager
def new_file(path):
  """Context manager: yields a binary file, open for writing. At the end, the file gets the name `path`."""
  with named_at_end(path) as part, part.open("wb") as file:
    yield file


def write(path, data):
  """Writes bytes, or text as UTF-8, to the file `path`. It replaces an older file in one step."""
  with new_file(pathlib.Path(path)) as file:
    file.write(data.encode() if isinstance(data, str) else data)


def _replace_folder(part, path):
  """Renames `part` to `path`, and removes the folder that had this name before."""
  old = part.with_name(f"{part.name}.old")
  path.rename(old)
  try:
    part.rename(path)
  except BaseException:
    old.rename(path)
    raise
  _remove(old)


def _remove(path):
  """Removes a file, or a folder with its content, if it exists."""
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)
