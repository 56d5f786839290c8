"""The signals that stop a run: SIGTERM from a launcher, SIGINT from Ctrl-C.

Before the first step of a process there is nothing to save, so the process ends at once. After it, the loop
saves a checkpoint first. Only the standard library is imported at the top, because `main` installs the
handlers before its other imports, which can take minutes on a shared disk.
"""

import _thread
import contextlib
import os
import signal
import sys
import threading

EXIT_PREEMPTED = 42  # SIGTERM: launchers start the run again, see launch/
EXIT_INTERRUPTED = 130  # SIGINT: nothing starts the run again; shells report Ctrl-C by this number

# Python runs a handler only between two instructions of the main thread. A compilation may hold it for
# minutes; a process that has nothing to save then ends after this time.
_PATIENCE_SECONDS = 5.0
_RETRY_SECONDS = 0.05

_watch = None  # the watch of this process, because signal handlers belong to the process


class StopRequestedError(RuntimeError):
  """A signal asks the run to stop."""


class StoppedError(RuntimeError):
  """The run was stopped by a signal, and its state is saved.

  Attributes:
    exit_code: EXIT_PREEMPTED or EXIT_INTERRUPTED.
  """

  def __init__(self, message, exit_code):
    super().__init__(message)
    self.exit_code = exit_code


class StopSignals:
  """Knows whether a signal asked this run to stop.

  A process on its own handles SIGTERM and SIGINT here. With several processes, jax's coordination service
  handles SIGTERM: it informs all processes and finds a point that all of them have still to reach. SIGINT is
  passed on as SIGTERM there.
  """

  def __init__(self):
    self.has_trained = False
    self._received = []
    self._asked = 0

  def began(self):
    """Notes that this process finished a step: from now on the loop saves before the run stops."""
    self.has_trained = True

  def reached(self):
    """Returns whether to save and stop now.

    With several processes, all of them must call it equally often: after each step and before each batch of
    an evaluation. The coordination service then answers alike in all of them.
    """
    if _process_count() > 1:
      from jax.experimental import multihost_utils  # here and not above: see the module's docstring

      self._asked += 1  # the service accepts each number once
      return multihost_utils.reached_preemption_sync_point(self._asked)
    return bool(self._received)

  def check(self):
    """Raises StopRequestedError if `reached`."""
    if self.reached():
      raise StopRequestedError

  def error(self, step):
    """Returns the StoppedError of a run whose state after `step` is saved."""
    code, name = self._cause()
    return StoppedError(f"stopped by {name}: step {step} is saved; the same --workdir continues it", code)

  def handle(self, signum, frame=None):
    """Handles a signal; the second SIGINT ends the process without a save."""
    del frame
    is_second = signum == signal.SIGINT and signal.SIGINT in self._received
    self._received.append(signum)
    if is_second:
      self.interrupt()
    elif signum == signal.SIGINT and _process_count() > 1:
      os.kill(os.getpid(), signal.SIGTERM)

  def interrupt(self):
    """Ends what runs now: a caller of the library gets KeyboardInterrupt."""
    raise KeyboardInterrupt

  def _cause(self):
    """Returns (exit code, name) of the signal; Ctrl-C decides, because a person wants the run to end."""
    if signal.SIGINT in self._received:
      return EXIT_INTERRUPTED, "Ctrl-C"
    return EXIT_PREEMPTED, "SIGTERM"


class _ProgramSignals(StopSignals):
  """Ends the process by itself where the loop does not: before the first step, and at the second Ctrl-C."""

  def __init__(self):
    super().__init__()
    self._printing = threading.Lock()
    self._report_ignored = sys.unraisablehook
    sys.unraisablehook = self._retry

  def handle(self, signum, frame=None):
    super().handle(signum, frame)
    if not self.has_trained:
      raise SystemExit(self._explain())

  def interrupt(self):
    self._print("stopped by a second Ctrl-C: the last checkpoint stays")
    os._exit(EXIT_INTERRUPTED)

  def listen(self, pipe):
    """Handles signals while the main thread cannot; runs in a thread of its own.

    Args:
      pipe: file descriptor from which the number of each signal is read, one byte each.
    """
    interrupts = 0
    while True:
      for number in os.read(pipe, 16):
        interrupts += number == signal.SIGINT
        if interrupts > 1:
          self.interrupt()
        if not self.has_trained:
          timer = threading.Timer(_PATIENCE_SECONDS, self._give_up, [number])
          timer.daemon = True
          timer.start()

  def _retry(self, ignored):
    """Exits a little later where Python ignores exceptions, as in a callback of its garbage collector."""
    if ignored.exc_type is SystemExit and self._received and not self.has_trained:
      timer = threading.Timer(_RETRY_SECONDS, _thread.interrupt_main, [signal.SIGTERM])
      timer.daemon = True
      timer.start()
    else:
      self._report_ignored(ignored)

  def _give_up(self, signum):
    if not self.has_trained:
      self._received.append(signum)
      os._exit(self._explain())

  def _explain(self):
    """Prints why the process ends before its first step; returns its exit code."""
    code, name = self._cause()
    self._print(f"stopped by {name} before the first step: there was nothing to save")
    return code

  def _print(self, line):
    """Prints the line that explains the end, once: two threads may come here."""
    if self._printing.acquire(blocking=False):
      with contextlib.suppress(OSError):
        os.write(sys.stderr.fileno(), f"{line}\n".encode())  # not print(), which a handler may interrupt


def install():
  """Makes signals stop this program, from now to its end; `main` calls it first, in the main thread.

  A SIGINT that the parent process has switched off, as shells do for background jobs, stays off.
  """
  global _watch
  _watch = _ProgramSignals()
  reading, writing = os.pipe()
  os.set_blocking(writing, False)
  signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
  threading.Thread(target=_watch.listen, args=[reading], daemon=True).start()
  _set_handlers(_watch)


@contextlib.contextmanager
def watch():
  """Context of the loop: yields the StopSignals of the program, or new ones of a caller of the library.

  Outside of the main thread, where Python allows no handler, SIGTERM and SIGINT keep their handlers.
  """
  if _watch is not None:
    yield _watch
    return
  signals = StopSignals()
  is_main = threading.current_thread() is threading.main_thread()
  before = _set_handlers(signals) if is_main else {}
  try:
    yield signals
  finally:
    for signum, handler in before.items():
      signal.signal(signum, handler)


def _set_handlers(signals):
  """Sets the handlers of these signals; returns {signal: handler before}."""
  numbers = [signal.SIGINT]
  if _process_count() == 1:
    numbers.append(signal.SIGTERM)
  before = {}
  for number in numbers:
    handler = signal.getsignal(number)
    if handler not in (signal.SIG_IGN, None):  # None: a handler that is not Python's
      before[number] = handler
      signal.signal(number, signals.handle)
  return before


def _process_count():
  jax = sys.modules.get("jax")  # without it there is one process
  is_several = jax is not None and hasattr(jax, "distributed") and jax.distributed.is_initialized()
  return jax.process_count() if is_several else 1
