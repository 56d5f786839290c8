"""Simulates a full disk without filling one."""

import contextlib
import resource


@contextlib.contextmanager
def files_end_at(size):
  """Makes the kernel refuse to write files beyond this number of bytes, as on a full disk."""
  old = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, old)
