"""Files and folders that get their name only when they are complete.

Until then they lie beside it, hidden and under a name that no other process has: on the same disk, so that a
rename ends the work. A reader sees the old content or the new one, never a part.
"""

import contextlib
import os
import pathlib
import secrets
import shutil


@contextlib.contextmanager
def named_at_end(path, *, replace=False):
  """Yields a name beside `path` for a file or folder; it is renamed at the end, or removed on any error.

  Several processes, on one machine or on several, may write the same `path`: the last one to end wins.

  Args:
    path: pathlib.Path that the result gets; a suffix stays the suffix of the name that is yielded.
    replace: whether a folder at `path` is replaced, even if it holds something. A file always is.
  Raises:
    OSError: if it cannot be renamed, also because a folder that is not empty has the name by then.
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
  """Raises ValueError if the folder `path` exists, or the folder that it is to lie in does not."""
  if os.path.lexists(path):
    raise ValueError(f"{path}: exists; expected a new folder: give another name, or move it away")
  if not path.parent.is_dir():
    raise ValueError(f"{path}: there is no folder {path.parent} to make it in")


@contextlib.contextmanager
def new_folder(path):
  """Makes a folder as `named_at_end` does and yields it."""
  with named_at_end(path) as part:
    part.mkdir()
    yield part


@contextlib.contextmanager
def new_file(path):
  """Opens a binary file for writing as `named_at_end` does and yields it; an older file is replaced."""
  with named_at_end(path) as part, part.open("wb") as file:
    yield file


def write(path, data):
  """Writes bytes, or text as UTF-8, as a whole file; an older file is replaced."""
  with new_file(pathlib.Path(path)) as file:
    file.write(data.encode() if isinstance(data, str) else data)


def _replace_folder(part, path):
  """Renames `part` to `path`; the folder that has this name goes once the new one is in its place."""
  old = part.with_name(f"{part.name}.old")
  path.rename(old)
  try:
    part.rename(path)
  except BaseException:
    old.rename(path)
    raise
  _remove(old)


def _remove(path):
  """Removes a file, or a folder with all that is in it; neither need exist."""
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)
