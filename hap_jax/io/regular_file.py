"""Opens files that come with a data set, and nothing that is not a file."""

import os
import stat


def open_regular(path):
  """Opens a regular file for reading bytes.

  A FIFO or a device under the name of a data file would block the run or never end. A link may point
  anywhere.

  Raises:
    OSError: if the file is missing or cannot be opened.
    ValueError: if `path` is not a regular file.
  """
  number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
  if not stat.S_ISREG(os.fstat(number).st_mode):
    os.close(number)
    raise ValueError(f"{path}: expected a regular file, found a folder, a FIFO or a device")
  return os.fdopen(number, "rb")
