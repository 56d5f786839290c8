"""Runs a function on many chunks of work in worker processes."""

import multiprocessing
import os
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

from hap_jax.data import worker_process


def map_in_processes(function, chunks, workers=None, on_done=None):
  """Returns [function(chunk) for chunk in chunks]. The result does not depend on the number of processes.

  Args:
    function: a picklable function with picklable results.
    chunks: list of arguments, one per call.
    workers: number of processes. None: one process per core. 0: the function runs in this process.
    on_done: function(chunk) or None. Called in this process when a chunk is done, in the order of the chunks.
  Raises:
    OSError: if a worker process was killed by a signal, for example because memory was full.
  """
  if workers == 0:
    return _collect(chunks, map(function, chunks), on_done)
  # The method is "spawn" and not "fork", because a fork is not safe after jax has started threads.
  context = multiprocessing.get_context("spawn")
  others = set(multiprocessing.active_children())
  try:
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context) as pool:
      try:
        with worker_process.without_interrupts():
          futures = [pool.submit(function, chunk) for chunk in chunks]
        return _collect(chunks, (future.result() for future in futures), on_done)
      except BaseException:
        # Otherwise the end of the `with` block would wait until all chunks are done.
        for process in set(multiprocessing.active_children()) - others:
          process.kill()
        raise
  except BrokenProcessPool as error:
    raise OSError(
      "a process that draws people was ended by a signal or because memory was full: start the command again"
    ) from error


def _collect(chunks, results, on_done):
  found = []
  for chunk, result in zip(chunks, results, strict=True):
    found.append(result)
    if on_done is not None:
      on_done(chunk)
  return found
