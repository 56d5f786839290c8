"""Worker processes: how they start and end beside the process that trains."""

import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import threading

import cv2

from hap_jax import malloc

_LAST_SECONDS = 3600  # of a worker process after SIGTERM, more than any launcher leaves


def prepare_reading():
  """Prepares a process that only reads pictures: one thread, and freed memory is kept."""
  cv2.setNumThreads(1)  # a picture is too small to share among threads; the workers are the parallel part
  malloc.keep_freed()


def prepare(worker_index, worker_count):
  """Prepares a worker process of the loader; Grain calls it there."""
  del worker_index, worker_count
  prepare_reading()
  # Grain's workers outlive a main process that is killed, waiting for it for ever.
  threading.Thread(target=_exit_with_parent, daemon=True).start()
  # Launchers send SIGTERM to all processes of a run; while the main one makes its last steps and saves, it
  # still needs its workers. It ends them itself; the time is for one that forgets to.
  signal.signal(signal.SIGTERM, _exit_later)


@contextlib.contextmanager
def without_interrupts():
  """Context in which processes are started that Ctrl-C does not reach.

  A terminal sends SIGINT to all processes of a run. Only the main one may act on it: it saves with the help
  of its workers, then ends them. A process inherits the blocked signals of the thread that starts it, so even
  an import in a new process is not interrupted. A signal that another thread takes meanwhile is handled at
  the end, because an interrupted start leaves a process that waits for its first message.
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
  """Frees the shared memory of the last batches; without it, Python warns at its end that they are leaked.

  jax gives back the arrays that it used in place only when the garbage collector runs. Grain frees them in a
  thread, which the end of the process would stop.
  """
  grain_module = sys.modules.get("grain._src.python.ipc.shared_memory_array")  # absent where no worker ran
  arrays = getattr(grain_module, "SharedMemoryArray", None)
  pool = getattr(arrays, "_del_thread_pool", None)
  if pool is not None:
    arrays._del_thread_pool = None  # from now on they are freed where they are deleted
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
