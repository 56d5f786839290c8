"""Files and folders that get their name only when they are complete.

Before that they have a hidden name with the number of this process, in the same folder. The final rename then
stays on one disk and is a single step.
"""

import contextlib
import os
import shutil


def beside(path):
  """Returns the temporary path for something that will be renamed to `path`. The suffix stays the same."""
  return path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")


@contextlib.contextmanager
def new_folder(path):
  """Makes a folder next to `path` and yields it. The end of the block renames it, an error removes it.

  Raises:
    OSError: if the folder cannot be made, or if at the end `path` is anything but an empty folder.
  """
  part = beside(path)
  part.mkdir()
  with removed_on_error(part):
    yield part
    part.rename(path)


@contextlib.contextmanager
def new_file(path):
  """Opens a binary file next to `path` for writing. The end of the block renames it, an error removes it."""
  part = beside(path)
  with removed_on_error(part):
    with part.open("wb") as file:
      yield file
    part.rename(path)


@contextlib.contextmanager
def removed_on_error(path):
  """Removes a file or a folder if the block raises anything, also KeyboardInterrupt."""
  try:
    yield
  except BaseException:
    with contextlib.suppress(OSError):  # the first error is the useful one, so this one must not replace it
      remove(path)
    raise


def remove(path):
  """Removes a file, or a folder with its content. A missing path is not an error."""
  if path.is_dir():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)
