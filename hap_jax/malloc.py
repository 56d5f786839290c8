"""Settings for freed memory in the C library glibc. With another C library, these functions do nothing.

When a large block is freed, glibc returns it to the system, and requests the next large block from the system
page by page. So every picture costs 50 page faults in a worker process of the loader.
"""

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # options of glibc's mallopt, from malloc.h


def keep_freed():
  """Makes this process keep the memory that it frees, up to its peak.

  All threads that start later share one heap. If each thread had its own heap, large blocks would not fit in
  the heap of a thread.
  """
  library = ctypes.CDLL(None)
  if hasattr(library, "mallopt"):
    library.mallopt(_MMAP_MAX, 0)  # large blocks are also taken from the heap
    library.mallopt(_TRIM_THRESHOLD, -1)  # the heap never shrinks
    library.mallopt(_ARENA_MAX, 1)


def return_freed():
  """Returns freed memory to the system.

  Without this call, glibc keeps the memory that the threads of Orbax freed. This memory is as large as the
  weights.
  """
  library = ctypes.CDLL(None)
  if hasattr(library, "malloc_trim"):
    library.malloc_trim(0)
