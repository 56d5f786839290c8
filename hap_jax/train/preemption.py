"""The signals that stop a run: SIGTERM from a launcher, SIGINT from Ctrl-C.

Before the first step of a process there is nothing to save, so the process ends at once. After the first
step, the loop saves a checkpoint before the process ends. This module imports only the standard library at
the top, because `main` installs the handlers before its other imports. Those imports can take minutes on a
shared disk.
"""

import _thread
import contextlib
import os
import signal
import sys
import threading

EXIT_PREEMPTED = 42  # after SIGTERM: launchers start the run again, see launch/
EXIT_INTERRUPTED = 130  # after SIGINT: no launcher starts the run again; shells use this number for Ctrl-C

# Python runs a handler only between two instructions of the main thread. A compilation may block the main
# thread for minutes. So if the process has no step to save, another thread ends it after this time.
_PATIENCE_SECONDS = 5.0
_RETRY_SECONDS = 0.05

_watch = None  # the StopSignals of this program; one object, because a process has one set of signal handlers


class StopRequestedError(RuntimeError):
  """Raised when a signal requests that the run stops."""


class StoppedError(RuntimeError):
  """Raised after a signal stopped the run and its state was saved.

  Attributes:
    exit_code: EXIT_PREEMPTED or EXIT_INTERRUPTED.
  """

  def __init__(self, message, exit_code):
    super().__init__(message)
    self.exit_code = exit_code


class StopSignals:
  """Records whether a signal requested that this run stops.

  If the run has one process, this class handles SIGTERM and SIGINT. If it has several processes, the
  coordination service of jax handles SIGTERM. The service informs all processes and chooses a later step at
  which all of them stop. In such a run, this class answers SIGINT by sending SIGTERM to its own process.
  """

  def __init__(self):
    self.has_trained = False
    self._received = []
    self._asked = 0

  def began(self):
    """Records that this process finished a step. From now on the loop saves before the run stops."""
    self.has_trained = True

  def reached(self):
    """Returns True if the run must save and stop now.

    With several processes, all of them must call this method the same number of times: after each step and
    before each batch of an evaluation. Then the coordination service gives all of them the same answer.
    """
    if _process_count() > 1:
      from jax.experimental import multihost_utils  # imported late: see the docstring of this module

      self._asked += 1  # the service accepts each number only once
      return multihost_utils.reached_preemption_sync_point(self._asked)
    return bool(self._received)

  def check(self):
    """Raises StopRequestedError if `reached` returns True."""
    if self.reached():
      raise StopRequestedError

  def error(self, step):
    """Returns the StoppedError to raise when the state after `step` is saved."""
    code, name = self._cause()
    message = f"stopped by {name}: step {step} is saved; to continue, start again with the same --workdir"
    return StoppedError(message, code)

  def handle(self, signum, frame=None):
    """Handles a signal. The second SIGINT calls `interrupt`, so nothing is saved."""
    del frame
    is_second = signum == signal.SIGINT and signal.SIGINT in self._received
    self._received.append(signum)
    if is_second:
      self.interrupt()
    elif signum == signal.SIGINT and _process_count() > 1:
      os.kill(os.getpid(), signal.SIGTERM)

  def interrupt(self):
    """Raises KeyboardInterrupt, for a program that calls the loop as a library."""
    raise KeyboardInterrupt

  def _cause(self):
    """Returns (exit code, name) of the signal. Ctrl-C wins over SIGTERM, because a user sent it."""
    if signal.SIGINT in self._received:
      return EXIT_INTERRUPTED, "Ctrl-C"
    return EXIT_PREEMPTED, "SIGTERM"


class _ProgramSignals(StopSignals):
  """The StopSignals of `main`. It ends the process in the two cases in which the loop cannot end it.

  These cases are a signal before the end of the first step, and a second Ctrl-C.
  """

  def __init__(self):
    super().__init__()
    self._printing = threading.Lock()
    # Python calls this hook for an exception that it must ignore.
    self._report_ignored = sys.unraisablehook
    sys.unraisablehook = self._retry

  def handle(self, signum, frame=None):
    super().handle(signum, frame)
    if not self.has_trained:
      raise SystemExit(self._explain())

  def interrupt(self):
    self._print("stopped by a second Ctrl-C: the last checkpoint is kept")
    os._exit(EXIT_INTERRUPTED)

  def listen(self, pipe):
    """Handles signals while the main thread is blocked. Runs in its own thread.

    Args:
      pipe: file descriptor that delivers the number of each signal as one byte.
    """
    interrupts = 0
    while True:
      for number in os.read(pipe, 16):
        # This thread sees a second Ctrl-C even while the main thread is blocked in a compilation.
        interrupts += number == signal.SIGINT
        if interrupts > 1:
          self.interrupt()
        if not self.has_trained:
          timer = threading.Timer(_PATIENCE_SECONDS, self._give_up, [number])
          timer.daemon = True
          timer.start()

  def _retry(self, ignored):
    """Tries again to end the process, _RETRY_SECONDS later.

    Python ignores exceptions in some places, such as callbacks of the garbage collector. A SystemExit that is
    raised there does not end the process.

    Args:
      ignored: the argument that Python passes to `sys.unraisablehook`.
    """
    if ignored.exc_type is SystemExit and self._received and not self.has_trained:
      timer = threading.Timer(_RETRY_SECONDS, _thread.interrupt_main, [signal.SIGTERM])
      timer.daemon = True
      timer.start()
    else:
      self._report_ignored(ignored)

  def _give_up(self, signum):
    if not self.has_trained:
      self._received.append(signum)
      # A normal exit would wait for the blocked main thread.
      os._exit(self._explain())

  def _explain(self):
    """Prints why the process ends before its first step. Returns the exit code."""
    code, name = self._cause()
    self._print(f"stopped by {name} before the first step: there was nothing to save")
    return code

  def _print(self, line):
    """Prints why the process ends. Two threads may call this method, and only the first call prints."""
    if self._printing.acquire(blocking=False):
      with contextlib.suppress(OSError):
        # print() is not safe here, because a signal handler may interrupt it.
        os.write(sys.stderr.fileno(), f"{line}\n".encode())


def install():
  """Installs the signal handlers of this program. `main` calls this function first, in the main thread.

  Shells start background jobs with SIGINT ignored. In such a process, SIGINT stays ignored.
  """
  global _watch
  _watch = _ProgramSignals()
  reading, writing = os.pipe()
  # A signal handler must never block, so a full pipe drops the byte.
  os.set_blocking(writing, False)
  signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
  threading.Thread(target=_watch.listen, args=[reading], daemon=True).start()
  _set_handlers(_watch)


@contextlib.contextmanager
def watch():
  """Yields the StopSignals of the program. If the loop is called as a library, yields a new StopSignals.

  Python allows new handlers only in the main thread. If another thread calls this function, SIGTERM and
  SIGINT keep their handlers.
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
  """Sets the handlers of SIGINT and SIGTERM. Returns {signal: earlier handler}."""
  numbers = [signal.SIGINT]
  if _process_count() == 1:
    numbers.append(signal.SIGTERM)
  before = {}
  for number in numbers:
    handler = signal.getsignal(number)
    if handler not in (signal.SIG_IGN, None):  # None: a handler that code outside Python installed
      before[number] = handler
      signal.signal(number, signals.handle)
  return before


def _process_count():
  jax = sys.modules.get("jax")  # if jax is not imported yet, there is one process
  is_several = jax is not None and hasattr(jax, "distributed") and jax.distributed.is_initialized()
  return jax.process_count() if is_several else 1
