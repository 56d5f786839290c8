"""Files and folders that get their name only when they are complete.

Until then they have a hidden name in the same folder, which no other process uses. They are on the same disk,
so one rename ends the work. A reader sees the old content or the new content, never a part.
"""

import contextlib
import os
import pathlib
import secrets
import shutil


@contextlib.contextmanager
def named_at_end(path, *, replace=False):
  """Yields a temporary name in the folder of `path`; the file or folder is renamed at the end.

  It is removed on any error. Several processes, on one machine or on several, may write the same `path`: the
  last one to end wins.

  Args:
    path: pathlib.Path of the result. The temporary name has the same suffix.
    replace: whether to replace a folder at `path`, even if it is not empty. A file is always replaced.
  Raises:
    OSError: if the rename fails, also because a folder that is not empty has the name by then.
  """
  part = path.with_name(f".{path.stem}.{secrets.token_hex(8)}.part{path.suffix}")
  try:
    yield part
    if replace and path.is_dir():
      _replace_folder(part, path)
    else:
      part.rename(path)
  except BaseException:  # an interrupt included
    with contextlib.suppress(OSError):  # the first error is the one to report
      _remove(part)
    raise


def check_new(path):
  """Raises ValueError if the folder `path` exists, or if its parent folder does not exist."""
  if os.path.lexists(path):
    raise ValueError(f"{path}: exists; expected a new folder: give another name, or move it away")
  if not path.parent.is_dir():
    raise ValueError(f"{path}: the folder {path.parent} does not exist: make it first")


@contextlib.contextmanager
def new_folder(path):
  """Makes a folder under the temporary name of `named_at_end` and yields it."""
  with named_at_end(path) as part:
    part.mkdir()
    yield part


@contextlib.contextmanager
def new_file(path):
  """Opens a binary file under the temporary name of `named_at_end` and yields it; replaces an older file."""
  with named_at_end(path) as part, part.open("wb") as file:
    yield file


def write(path, data):
  """Writes bytes, or text as UTF-8, as a complete file; replaces an older file."""
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
