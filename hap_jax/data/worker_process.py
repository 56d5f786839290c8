"""Starts and ends the worker processes that read data for the training process."""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading

import cv2

from hap_jax import malloc

_LAST_SECONDS = 3600  # a worker process ends this long after SIGTERM; launchers kill much earlier


def prepare_reading():
  """Prepares a process that only reads pictures: one thread, and freed memory is kept for reuse."""
  cv2.setNumThreads(1)  # a picture is too small for several threads, and the workers already run in parallel
  malloc.keep_freed()


def prepare(worker_index, worker_count):
  """Prepares a worker process of the loader. Grain calls this function in the worker."""
  del worker_index, worker_count
  prepare_reading()
  # When the main process is killed, Grain's workers would wait for it without end.
  threading.Thread(target=_exit_with_parent, daemon=True).start()
  # Launchers send SIGTERM to all processes of a run. The main process still needs its workers while it makes
  # its last steps and saves. It then ends them itself. The timer is for the case that it fails to do so.
  signal.signal(signal.SIGTERM, _exit_later)


@contextlib.contextmanager
def without_interrupts():
  """Context manager: processes that start inside it ignore Ctrl-C.

  A terminal sends SIGINT to all processes of a run. Only the main process may act on it: it saves with the
  help of its workers, then ends them. A process inherits the blocked signals of the thread that starts it, so
  that not even an import in the new process is interrupted. If a signal arrives in the meantime, it is
  handled at the end of the context, because an interrupted start leaves a process that waits for its first
  message.
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
  """Frees the shared memory of the last batches. Without this call Python warns at its end about leaks.

  jax uses some arrays in place, and releases them only when the garbage collector runs. Grain frees them in a
  thread, which the end of the process would stop.
  """
  grain_module = sys.modules.get("grain._src.python.ipc.shared_memory_array")  # absent where no worker ran
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
