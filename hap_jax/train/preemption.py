"""A polite end: SIGTERM to any process of a run makes all of them save at the same step and leave."""

import signal
import threading

import jax
from jax.experimental import multihost_utils

# What a launcher takes as "start me again": see launch/.
EXIT_CODE = 42


class PreemptedError(RuntimeError):
  """The run was told to end, and its state is saved; started again, it goes on there."""


class Preemption:
  """Watches for SIGTERM while it is open; a context manager.

  With several processes jax's coordination service takes the signal, tells the others and finds a step that
  all of them still have before them. A process that is alone catches it here. Outside of the main thread,
  where Python allows no handler, nothing is watched.
  """

  def __init__(self):
    self._told, self._before = False, None

  def __enter__(self):
    if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
      self._before = signal.signal(signal.SIGTERM, self._note)
    return self

  def __exit__(self, *_):
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def reached(self, step):
    """Tells whether to save and end after this step; every process asks after each of its steps."""
    if jax.process_count() > 1:
      return multihost_utils.reached_preemption_sync_point(step)
    return self._told

  def _note(self, *_):
    self._told = True
