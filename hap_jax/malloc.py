"""Settings of the C library's memory allocator, for processes that often allocate and free the same amount.

By default, glibc returns large freed blocks to the system and then requests them again page by page. In a
worker of the loader, this costs 50 page faults per picture.
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # options of glibc's mallopt, from malloc.h


def keep_freed():
  """Makes this process keep its freed memory for later use. Has an effect only with glibc.

  All threads that start later share one heap, because one of several heaps has no space for large blocks.
  """
  library = ctypes.CDLL(None)
  if hasattr(library, "mallopt"):
    library.mallopt(_MMAP_MAX, 0)  # large blocks also come from the heap
    library.mallopt(_TRIM_THRESHOLD, -1)  # the heap never shrinks
    library.mallopt(_ARENA_MAX, 1)  # one heap for all threads
