"""Settings of the C library for freed memory. Only glibc offers them; elsewhere these functions do nothing.

glibc returns large blocks to the system when they are freed, and fetches them again, page by page: every
picture in a loader's worker costs 50 page faults.
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # options of glibc's mallopt, from malloc.h


def keep_freed():
  """Makes this process keep the memory that it frees, up to its peak.

  All threads that start later share one heap, because one of several heaps has no space for large blocks.
  """
  library = ctypes.CDLL(None)
  if hasattr(library, "mallopt"):
    library.mallopt(_MMAP_MAX, 0)  # large blocks come from the heap, too
    library.mallopt(_TRIM_THRESHOLD, -1)  # which never shrinks
    library.mallopt(_ARENA_MAX, 1)


def return_freed():
  """Returns freed memory to the system; after Orbax's threads, glibc keeps as much as the weights take."""
  library = ctypes.CDLL(None)
  if hasattr(library, "malloc_trim"):
    library.malloc_trim(0)
