"""Files and folders that take their name only once they are whole.

Until then they lie beside it, hidden and named after this process: on the same disk, so that a rename ends
the work.
"""

import contextlib
import os
import shutil


def beside(path):
  """Returns the name under which something is made that `path` will name; a suffix stays the suffix."""
  return path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")


def check_new(path):
  """Raises ValueError if the folder `path` exists, or the folder that it is to lie in does not."""
  if os.path.lexists(path):
    raise ValueError(f"{path}: exists; expected a new folder: give another name, or move it away")
  if not path.parent.is_dir():
    raise ValueError(f"{path}: there is no folder {path.parent} to make it in")


@contextlib.contextmanager
def new_folder(path):
  """Makes a folder beside `path` and yields it; it is renamed at the end, or removed on any error.

  Raises:
    OSError: if it cannot be made, or something that is no empty folder has the name by then.
  """
  part = beside(path)
  part.mkdir()
  with removed_on_error(part):
    yield part
    part.rename(path)


@contextlib.contextmanager
def new_file(path):
  """Opens a binary file beside `path` for writing; it is renamed at the end, or removed on any error."""
  part = beside(path)
  with removed_on_error(part):
    with part.open("wb") as file:
      yield file
    part.rename(path)


@contextlib.contextmanager
def removed_on_error(path):
  """Removes a file or a folder if the block does not end well, an interrupt included."""
  try:
    yield
  except BaseException:
    with contextlib.suppress(OSError):  # what went wrong first is what has to be told
      remove(path)
    raise


def remove(path):
  """Removes a file, or a folder with all that is in it; neither need exist."""
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)
