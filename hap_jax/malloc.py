"""What the C library does with freed memory, for processes that take and free the same amount all the time.

glibc hands large blocks back to the system when they are freed, and fetches them anew, page by page: XLA's
temporaries in every step on a CPU (half a million page faults a step of B/16 at batch 8, a tenth of its time
and more), and every picture in a loader's worker (50 faults).
"""

import ctypes
import importlib.metadata
import importlib.util
import os

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # options of glibc's mallopt; malloc.h


def keep_freed(threads=True):
  """Makes this process keep the memory that it frees, up to its peak; only glibc can be told, others are not.

  Args:
    threads: of all its threads that start later, which then share one heap, as each of several would have no
      room for large blocks; False: of the main thread alone. Sharing has its price: two threads that compile
      wait for each other, and compiling takes a quarter longer.
  """
  library = ctypes.CDLL(None)
  if hasattr(library, "mallopt"):
    library.mallopt(_MMAP_MAX, 0)  # large blocks come from the heap, too
    library.mallopt(_TRIM_THRESHOLD, -1)  # which never shrinks
    if threads:
      library.mallopt(_ARENA_MAX, 1)


def keep_freed_on_cpu():
  """Keeps what steps free in a process that will compute on a CPU; to be called before anything of jax.

  jax then runs programs in the thread that calls them, so that the main thread takes their memory. Other
  threads still read and decode meanwhile.
  """
  platforms = os.environ.get("JAX_PLATFORMS", "")
  has_plugin = importlib.util.find_spec("libtpu") or importlib.metadata.entry_points(group="jax_plugins")
  if platforms == "cpu" or not (platforms or has_plugin):
    keep_freed(threads=False)
    import jax  # here and not above: workers, which need `keep_freed` alone, do without it

    jax.config.update("jax_cpu_enable_async_dispatch", False)
