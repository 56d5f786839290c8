"""Start and end of the worker processes that read data for the training process."""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading

import cv2

from hap_jax import malloc

_LAST_SECONDS = 3600  # time from SIGTERM to the end of a worker. Usually a launcher kills it much earlier


def prepare_reading():
  """Prepares a process that only reads pictures: OpenCV uses one thread, and freed memory is reused."""
  cv2.setNumThreads(1)  # a picture is too small for several threads, and the workers already run in parallel
  malloc.keep_freed()


def prepare(worker_index, worker_count):
  """Prepares a worker process of the loader. Grain calls this function in the worker."""
  del worker_index, worker_count
  prepare_reading()
  # Without this thread, Grain's workers would wait forever after a kill of the main process.
  threading.Thread(target=_exit_with_parent, daemon=True).start()
  # A launcher sends SIGTERM to all processes of a run. But the main process still needs its workers for its
  # last steps and while it saves. After that, it stops the workers. If this fails, a timer stops them.
  signal.signal(signal.SIGTERM, _exit_later)


@contextlib.contextmanager
def without_interrupts():
  """Context manager: processes that start inside it ignore Ctrl-C.

  After Ctrl-C, a terminal sends the signal SIGINT to all processes of a run. Only the main process may react:
  it saves with the help of its workers, then stops them. So SIGINT is blocked in this thread while the
  workers start. A new process inherits the blocked signals of the thread that starts it. So even its imports
  are not interrupted.

  A signal that arrives inside the context is handled at the end of the context. Otherwise it could interrupt
  the start of a worker, and this worker would wait forever for its first message.
  """
  is_main = threading.current_thread() is threading.main_thread()
  handler = signal.getsignal(signal.SIGINT) if is_main else None
  taken = []
  if callable(handler):
    signal.signal(signal.SIGINT, lambda *arguments: taken.append(arguments))
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    if callable(handler):
      signal.signal(signal.SIGINT, handler)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if taken:
      handler(*taken[0])


def release_shared_memory():
  """Frees the shared memory of the last batches. Without this call, Python warns about leaks when it exits.

  jax uses some arrays in place, and releases them only when the garbage collector runs. Grain frees released
  arrays in a thread, but this thread stops at the end of the process.
  """
  grain_module = sys.modules.get("grain._src.python.ipc.shared_memory_array")  # None if no worker ran
  arrays = getattr(grain_module, "SharedMemoryArray", None)
  pool = getattr(arrays, "_del_thread_pool", None)
  if pool is not None:
    arrays._del_thread_pool = None  # without the pool, Grain frees an array in the thread that deletes it
  gc.collect()
  if pool is not None:
    pool.close()
    pool.join()


def _exit_later(*_):
  timer = threading.Timer(_LAST_SECONDS, os._exit, (1,))
  timer.daemon = True
  timer.start()


def _exit_with_parent():
  multiprocessing.parent_process().join()
  os._exit(1)
