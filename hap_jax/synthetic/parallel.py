"""Runs a function on many chunks of work in worker processes."""

import multiprocessing
import os
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

from hap_jax.data import worker_process


def map_in_processes(function, chunks, workers=None, on_done=None):
  """Returns [function(chunk) for each chunk]; the results do not depend on the number of processes.

  Args:
    function: a picklable function with picklable results.
    chunks: list of its arguments.
    workers: number of processes. None starts one per core; 0 works in this process.
    on_done: called in this process with each chunk after its result, in the order of the chunks. None: not
      called.
  Raises:
    OSError: if something ended one of the processes from outside.
  """
  if workers == 0:
    return _collect(chunks, map(function, chunks), on_done)
  # Spawned, not forked: a fork is not safe when jax already runs threads in this process.
  context = multiprocessing.get_context("spawn")
  others = set(multiprocessing.active_children())
  try:
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context) as pool:
      try:
        with worker_process.without_interrupts():
          futures = [pool.submit(function, chunk) for chunk in chunks]
        return _collect(chunks, (future.result() for future in futures), on_done)
      except BaseException:
        # Without this, the end of the `with` block would wait until all chunks are done.
        for process in set(multiprocessing.active_children()) - others:
          process.kill()
        raise
  except BrokenProcessPool as error:
    raise OSError(
      "a process that draws people was ended from outside, by a signal or for lack of memory; start again"
    ) from error


def _collect(chunks, results, on_done):
  found = []
  for chunk, result in zip(chunks, results, strict=True):
    found.append(result)
    if on_done is not None:
      on_done(chunk)
  return found
