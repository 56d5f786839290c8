"""A disk that is full, without filling one."""

import contextlib
import resource


@contextlib.contextmanager
def files_end_at(size):
  """The kernel refuses to write beyond so many bytes, as it does on a full disk."""
  old = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
