"""Shows the progress of a long command and its remaining time on stderr."""

import os
import sys
import threading
import time

from hap_jax import distributed

_QUIET_SECONDS = 3  # a command that takes less time shows nothing
_LINE_SECONDS = 30  # time between two lines in a log file
_REDRAW_SECONDS = 0.25  # time between two versions of the line on a terminal
_CHECK_SECONDS = 1  # time between two checks whether a line is due, if stderr is not a terminal
_DEFAULT_COLUMNS = 80  # width of a terminal that does not report its width


class Progress:
  """Shows the progress of a command. It is a context manager.

      with Progress("predict") as progress:
        progress.stage("reading the checkpoint")
        ...
        progress.begin(4000, "pictures")
        for batch in batches:
          ...
          progress.add(len(batch))

      predict: 1,200 of 4,000 pictures, 30 %, 75 pictures/s, 00:00:37 left

  The clock starts when the context begins. On a terminal, one line is redrawn a few times per second, and
  removed when the context ends. Elsewhere, such as in a log file, a new line is printed every 30 seconds. The
  lines go to stderr, so the output of the command on stdout does not change. If there are several processes,
  only the first process writes.

  A thread writes the lines, and the methods only count. So the line is updated even while the command
  computes for minutes in one call.
  """

  def __init__(self, what, *, is_shown=True, stream=None, clock=time.monotonic, has_thread=True):
    """Makes an object whose clock does not run yet.

    Args:
      what: name of the command, the first word of the line.
      is_shown: False: never write anything.
      stream: text stream to write to. None: the value of sys.stderr when the `with` block begins.
      clock: function without arguments that returns the time in seconds.
      has_thread: False: there is no thread, and a line is only written when the caller calls `show`.
    """
    self._what = what
    self._is_shown = is_shown
    self._stream = stream
    self._clock = clock
    self._has_thread = has_thread
    self._thread, self._ended, self._lock = None, threading.Event(), threading.Lock()
    self._start = self._printed = clock()
    self._is_terminal, self._drawn = False, 0  # `_drawn` is the width of the line on the terminal
    self._done, self._total, self._unit, self._stage = 0, None, "", ""
    self._first = None  # (count, time) of the first `add`

  def __enter__(self):
    self._stream = self._stream or sys.stderr  # sys.stderr is None if the shell closed it
    self._is_shown = self._is_shown and self._stream is not None and distributed.is_first_process()
    if self._is_shown:
      self._is_terminal = self._stream.isatty()
      self._start = self._printed = self._clock()
    if self._is_shown and self._has_thread:
      self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
      self._thread.start()
    return self

  def __exit__(self, *_):
    self._ended.set()
    if self._thread is not None:
      self._thread.join()
    if self._drawn:
      self._write("\r" + " " * self._drawn + "\r")
      self._drawn = 0

  def begin(self, total, unit):
    """Starts to count.

    Args:
      total: number of things to do. None: not known.
      unit: name of the things, such as "pictures".
    """
    with self._lock:
      self._done, self._total, self._unit, self._stage, self._first = 0, total, unit, "", None

  def add(self, count):
    """Counts `count` more things as done."""
    with self._lock:
      self._done += count
      # Functions are compiled during the first batch, so the speed is measured from the end of this batch.
      if self._first is None:
        self._first = (self._done, self._clock())

  def stage(self, text, add=0):
    """Sets the name of the work that begins now, such as "scoring", and counts `add` more things as done."""
    if add:
      self.add(add)
    with self._lock:
      self._stage = text

  def show(self):
    """Writes the line if enough time has passed since the last one. The thread calls this method."""
    now = self._clock()
    if not self._is_shown or now - self._start < _QUIET_SECONDS:
      return
    if not self._is_terminal:
      if now - self._printed >= _LINE_SECONDS:
        self._printed = now
        self._write(self.line(now) + "\n")
      return
    text = self.line(now)[: _columns(self._stream) - 1]
    # The cursor goes back to the start of the line, so that another message on the terminal replaces it.
    self._write("\r" + text.ljust(self._drawn) + "\r")
    self._drawn = len(text)

  def line(self, now):
    """Returns the text of the line at the time `now`, without a line break."""
    with self._lock:
      done, total, unit, stage, first = self._done, self._total, self._unit, self._stage, self._first
    parts, rate = [], None
    if total is not None:
      parts += [f"{done:,} of {total:,} {unit}", f"{100 * done // max(total, 1)} %"]
    elif unit:
      parts.append(f"{done:,} {unit}")
    if first is not None and done > first[0] and now > first[1]:
      rate = (done - first[0]) / (now - first[1])
      if rate >= 0.1:  # a lower speed would be shown as 0.0; the remaining time is more useful
        parts.append(f"{rate:,.{0 if rate >= 10 else 1}f} {unit}/s")
    if rate is not None and total is not None and done < total:
      parts.append(f"{_clock_time((total - done) / rate)} left")
    else:
      parts.append(f"{_clock_time(now - self._start)} so far")
    return f"{self._what}: {', '.join(parts)}" + (f" ({stage})" if stage else "")

  def _run(self):
    while not self._ended.wait(_REDRAW_SECONDS if self._is_terminal else _CHECK_SECONDS):
      self.show()

  def _write(self, text):
    try:
      self._stream.write(text)
      self._stream.flush()
    except (OSError, ValueError):  # stderr is closed, and the command must continue without it
      self._is_shown = False


# Shows nothing. It is used for library calls, and for the training loop, which logs its own lines.
SILENT = Progress("", is_shown=False)


def _columns(stream):
  """Returns the width of a terminal in characters."""
  try:
    return os.get_terminal_size(stream.fileno()).columns or _DEFAULT_COLUMNS
  except (OSError, ValueError):  # the stream is not a file of the operating system
    return _DEFAULT_COLUMNS


def _clock_time(seconds):
  """Formats a duration as hours, minutes and seconds: 00:01:10."""
  minutes, seconds = divmod(round(seconds), 60)
  return f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"
