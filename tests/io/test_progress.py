"""The progress of a long command: a line that is redrawn on a terminal, and a line every 30 s elsewhere."""

import io
import re
import threading

import pytest

from hap_jax.io.progress import SILENT, Progress


class Stream(io.StringIO):
  """A text stream that may claim to be a terminal. `written` is set by each write."""

  def __init__(self, is_terminal):
    super().__init__()
    self._is_terminal = is_terminal
    self.written = threading.Event()

  def isatty(self):
    return self._is_terminal

  def write(self, text):
    self.written.set()
    return super().write(text)


class Case:
  """A started Progress without a thread, on a clock that the test sets."""

  def __init__(self, is_terminal=False, what="predict"):
    self.now = 100.0
    self.stream = Stream(is_terminal)
    self.progress = Progress(what, stream=self.stream, clock=lambda: self.now, has_thread=False)
    self.progress.__enter__()

  def after(self, seconds):
    """Returns the text that the thread would write at its next call, `seconds` later."""
    self.now += seconds
    before = len(self.stream.getvalue())
    self.progress.show()
    return self.stream.getvalue()[before:]


def test_a_log_file_gets_a_line_every_30_seconds_with_count_speed_and_time_left():
  case = Case()
  case.progress.begin(4000, "pictures")
  case.now += 5  # the first batch compiles, so the speed does not include it
  case.progress.add(64)
  assert case.after(24) == ""
  case.progress.add(1136)
  assert case.after(1) == "predict: 1,200 of 4,000 pictures, 30 %, 45 pictures/s, 00:01:02 left\n"
  case.progress.add(800)
  assert case.after(29) == ""
  assert case.after(1) == "predict: 2,000 of 4,000 pictures, 50 %, 35 pictures/s, 00:00:57 left\n"
  written = case.stream.getvalue()
  case.progress.__exit__(None, None, None)
  assert case.stream.getvalue() == written  # nothing is cleared in a log file


def test_a_terminal_gets_one_line_that_is_redrawn_and_cleared_at_the_end():
  case = Case(is_terminal=True)
  case.progress.begin(1000, "pictures")
  case.progress.add(10)
  case.progress.stage("a long name of some work")
  assert case.after(2.5) == ""  # short work shows nothing
  first = case.after(1)
  assert first == "\rpredict: 10 of 1,000 pictures, 1 %, 00:00:04 so far (a long name of some work)\r"
  case.progress.stage("")
  second = case.after(0.25)
  assert second.startswith("\rpredict: 10 of 1,000 pictures, 1 %, 00:00:04 so far  ")
  assert len(second) == len(first)  # spaces overwrite the rest of the longer line
  case.progress.__exit__(None, None, None)
  last = case.stream.getvalue().split(second)[1]
  assert re.fullmatch(r"\r +\r", last)
  assert "\n" not in case.stream.getvalue()


def test_a_line_is_cut_at_the_width_of_the_terminal():
  case = Case(is_terminal=True)
  case.progress.stage("x" * 200)
  assert len(case.after(10).strip("\r")) == 79  # the stream is not a real terminal, so 80 columns are assumed


def test_short_work_writes_nothing():
  for is_terminal in (False, True):
    case = Case(is_terminal)
    case.progress.begin(10, "pictures")
    case.progress.add(10)
    assert case.after(2.9) == ""
    case.progress.__exit__(None, None, None)
    assert case.stream.getvalue() == ""


def test_an_unknown_total_shows_count_and_speed():
  case = Case(what="prepare")
  case.progress.begin(None, "records")
  case.progress.add(1)
  case.progress.add(300)
  assert case.after(60) == "prepare: 301 records, 5.0 records/s, 00:01:00 so far\n"


def test_a_stage_without_a_count_shows_the_time_since_the_start():
  case = Case(what="evaluate")
  case.progress.stage("opening the data")
  assert case.after(3723) == "evaluate: 01:02:03 so far (opening the data)\n"


def test_steps_of_unknown_length_show_a_percentage_and_an_estimate():
  case = Case(what="convert")
  case.progress.begin(5, "steps")
  case.progress.stage("reading")
  case.now += 10
  case.progress.stage("writing", add=1)
  case.now += 20
  case.progress.stage("comparing", add=1)
  assert case.after(0) == "convert: 2 of 5 steps, 40 %, 00:01:00 left (comparing)\n"


def test_finished_counts_are_shown_until_the_next_begin():
  case = Case(what="evaluate")
  case.progress.begin(8, "pictures")
  case.progress.add(8)
  case.progress.stage("scoring")
  assert case.after(40) == "evaluate: 8 of 8 pictures, 100 %, 00:00:40 so far (scoring)\n"
  case.progress.begin(2, "pictures")
  assert case.after(30) == "evaluate: 0 of 2 pictures, 0 %, 00:01:10 so far\n"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_the_thread_writes_while_the_command_computes(is_terminal):
  stream = Stream(is_terminal)
  times = iter(range(0, 10**6, 40))
  with Progress("predict", stream=stream, clock=lambda: next(times)) as progress:
    progress.begin(10, "pictures")
    assert stream.written.wait(30)
  assert "predict: 0 of 10 pictures, 0 %" in stream.getvalue()
  assert not any(thread.name == "progress" for thread in threading.enumerate())


def test_the_thread_ends_after_an_error(capsys):
  with pytest.raises(ValueError, match="bad"), Progress("predict"):
    raise ValueError("bad")
  assert not any(thread.name == "progress" for thread in threading.enumerate())
  assert capsys.readouterr() == ("", "")


def test_the_work_continues_if_stderr_is_closed():
  case = Case()
  case.stream.close()
  case.progress.begin(10, "pictures")
  case.now += 40
  case.progress.show()
  case.progress.add(5)
  case.progress.__exit__(None, None, None)


def test_the_silent_progress_starts_no_thread(capsys):
  with SILENT as progress:
    progress.begin(3, "pictures")
    progress.add(3)
    progress.show()
    assert not any(thread.name == "progress" for thread in threading.enumerate())
  assert capsys.readouterr() == ("", "")
