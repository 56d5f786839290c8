"""Drawing many people in processes of their own."""

import multiprocessing
import os
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

from hap_jax.data import worker_process


def map_in_processes(function, chunks, workers=None):
  """Returns [function(chunk) for each chunk], worked off by processes; the results do not depend on them.

  Args:
    function: picklable, as its results. chunks: a list. workers: processes; None: one a core; 0: none.
  Raises:
    OSError: if one of the processes was ended from outside.
  """
  if workers == 0:
    return list(map(function, chunks))
  # Spawned, not forked: the parent may already run jax's threads.
  context = multiprocessing.get_context("spawn")
  others = set(multiprocessing.active_children())
  try:
    with ProcessPoolExecutor(workers or os.cpu_count(), mp_context=context) as pool:
      try:
        with worker_process.without_interrupts():
          futures = [pool.submit(function, chunk) for chunk in chunks]
        return [future.result() for future in futures]
      except BaseException:
        # Leaving the pool would wait until everything is drawn.
        for process in set(multiprocessing.active_children()) - others:
          process.kill()
        raise
  except BrokenProcessPool as error:
    raise OSError(
      "a process that draws people was ended from outside, by a signal or for want of memory; start again"
    ) from error
