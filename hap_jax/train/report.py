"""Reports of a run: metrics.jsonl, TensorBoard events, picture panels, and the progress line."""

import contextlib
import io
import json
import math
import os
import pathlib
import secrets
import socket
import time

import numpy as np
from absl import logging
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

from hap_jax.io import picture_file
from hap_jax.io.appended_file import AppendedFile
from hap_jax.viz import curves

METRICS_FILE = "metrics.jsonl"
CURVES_FILE = "curves.png"
EVENTS = "tensorboard"  # folder in a workdir
PICTURES = "panels"  # folder in a workdir


class MetricWriter:
  """Writes the metrics and pictures of a run into its workdir.

  The methods have the names of clu's metric writers. Those writers need TensorFlow, so this class writes the
  events with tensorboard. Values must be on the host (NumPy or Python numbers). These files are written:

  * metrics.jsonl: each call of `write_scalars` appends one JSON object as a line. After the call, a kill of
    the process does not lose this line. A number that is not finite is written as null. A step may have one
    line with its loss and one with its scores. If a resumed run repeats a step, it appends the lines of this
    step again. `read_metrics` merges all lines of a step.
  * tensorboard/: the same scalars and pictures. Each start of the run adds a new file.
  * panels/<name>_<step, 8 digits>.png: the pictures. If a resumed run draws a picture again, the new file
    replaces the old file in one move. So a reader never sees an incomplete file.
  * curves.png: the curves of all numbers in metrics.jsonl. Each call of `write_curves` replaces the file.

  A file that cannot be written or read never ends a run. The first error of each of these four items is
  logged. Rows and events that cannot be written are written later, when the disk has space again.
  """

  def __init__(self, workdir):
    """Prepares to append to the files in `workdir`."""
    self._workdir = pathlib.Path(workdir)
    self._reported = set()
    path = self._workdir / METRICS_FILE
    # After a kill that left an incomplete line, the next row must start on a new line.
    self._rows = AppendedFile(path, b"\n" if _ends_within_a_line(path) else b"")
    name = (
      f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}"
    )
    self._events = AppendedFile(self._workdir / EVENTS / name)
    self._add_event(wall_time=time.time(), file_version="brain.Event:2")

  def write_scalars(self, step, scalars):
    """Appends {name: number} of a step as one line.

    Raises:
      ValueError: if a scalar has the name "step", because each row uses this key for the step number.
    """
    if "step" in scalars:
      raise ValueError(
        'a scalar has the name "step", but metrics.jsonl uses this key for the step number: rename the scalar'
      )
    scalars = {name: float(value) for name, value in scalars.items()}
    row = {"step": int(step)} | {
      name: value if math.isfinite(value) else None for name, value in scalars.items()
    }
    with self._never_fatal(METRICS_FILE):
      self._rows.append(json.dumps(row, allow_nan=False).encode() + b"\n")
    self._add(step, [summary_pb2.Summary.Value(tag=name, simple_value=x) for name, x in scalars.items()])

  def write_images(self, step, images):
    """Writes {name: picture [H, W, 3] or pictures [N, H, W, 3], uint8 RGB} as PNG files and as events.

    A batch of N > 1 pictures becomes N files with the names <name>_0, <name>_1 and so on. A slash in a name
    makes a sub-folder.

    Raises:
      ValueError: if an array has another shape or dtype.
    """
    values = []
    for name, array in images.items():
      for tag, picture in _name_pictures(name, array):
        path = self._workdir / PICTURES / f"{tag}_{step:08d}.png"
        with self._never_fatal(PICTURES):
          path.parent.mkdir(parents=True, exist_ok=True)
          png = picture_file.write(path, picture)
          height, width = picture.shape[:2]
          image = summary_pb2.Summary.Image(
            height=height, width=width, colorspace=3, encoded_image_string=png
          )
          values.append(summary_pb2.Summary.Value(tag=tag, image=image))
    self._add(step, values)

  def write_curves(self, select=None, guides=None):
    """Draws all metrics of metrics.jsonl into <workdir>/curves.png, see `viz.curves.curves`."""
    with self._never_fatal(CURVES_FILE):
      bad = []
      rows, title = _merge(_read_lines(self._workdir, bad)), self._workdir.resolve().name
      if any(row.keys() - {"step"} for row in rows):  # there are no rows if the disk is full
        picture = curves.curves(rows, select, title=title, guides=guides)
        picture_file.write(self._workdir / CURVES_FILE, picture)
      if bad:
        self._report("lines", f"{bad[0]}. The curves leave it out")

  def close(self):
    """Closes the files."""
    for kind, file in ((METRICS_FILE, self._rows), (EVENTS, self._events)):
      with self._never_fatal(kind):
        file.close()

  def _add(self, step, values):
    self._add_event(wall_time=time.time(), step=int(step), summary=summary_pb2.Summary(value=values))

  def _add_event(self, **fields):
    record = io.BytesIO()
    RecordWriter(record).write(event_pb2.Event(**fields).SerializeToString())
    with self._never_fatal(EVENTS):
      self._events.append(record.getvalue())

  @contextlib.contextmanager
  def _never_fatal(self, kind):
    """Context manager: catches OSError and ValueError. Logs the first error of each kind of file."""
    try:
      yield
    except (OSError, ValueError) as error:
      self._report(kind, f"{self._workdir / kind} cannot be written: {error}. The run goes on without it")

  def _report(self, kind, text):
    if kind not in self._reported:
      self._reported.add(kind)
      logging.warning("%s. Further errors of this kind are not reported", text)


class SilentWriter:
  """Has the methods of MetricWriter but writes nothing. All processes except the first one use it."""

  def write_scalars(self, step, scalars):
    """Does nothing."""

  def write_images(self, step, images):
    """Does nothing."""

  def write_curves(self, select=None, guides=None):
    """Does nothing."""

  def close(self):
    """Does nothing."""


def open_writer(workdir, process_index):
  """Returns the MetricWriter of a workdir in the first process, a SilentWriter in the others."""
  return MetricWriter(workdir) if process_index == 0 else SilentWriter()


def read_metrics(path):
  """Reads a metrics.jsonl.

  Args:
    path: the file, or the workdir that contains it.
  Returns:
    List of rows {name: number} in ascending order of `step`, one row per step. The lines of a step (one with
    its loss, one with its scores) are merged. If a name occurs twice, the later value is used. A null is read
    as nan. A line that does not end in "}" was cut off by a kill of the process, so it is skipped.
  Raises:
    ValueError: if any other line is not a JSON object with a "step". The message names file and line.
  """
  bad = []
  rows = _merge(_read_lines(path, bad))
  if bad:
    raise ValueError(bad[0])
  return rows


def _merge(lines):
  rows = {}
  for line in lines:
    rows.setdefault(line["step"], {}).update(line)
  return [rows[step] for step in sorted(rows)]


def has_scores(workdir, step):
  """Returns True if metrics.jsonl has a line with the scores of a step.

  A line with scores has no loss. Older versions wrote loss and scores into one line, and this function
  ignores such lines. If the file is missing or cannot be read, it returns False. Damaged lines are left out.
  """
  path = pathlib.Path(workdir) / METRICS_FILE
  try:
    lines = _read_lines(path, []) if path.is_file() else []
  except OSError:
    return False
  return any(line["step"] == step and "loss" not in line for line in lines)


def _read_lines(path, bad):
  """Returns the lines of a metrics.jsonl as dicts, see `read_metrics`.

  Args:
    path: the file, or the workdir that contains it.
    bad: list. An error message is added for each line that is not a row. Such a line is left out.
  """
  path = pathlib.Path(path)
  path = path / METRICS_FILE if path.is_dir() else path
  lines = []
  for number, line in enumerate(path.read_bytes().splitlines(), 1):
    # A kill leaves an incomplete line, and a resumed run appends lines after it. So an incomplete line may be
    # anywhere in the file.
    if not line.endswith(b"}"):
      continue
    row = _parse_row(line)
    if row is None:
      bad.append(f'{path}, line {number}: expected a JSON object of numbers with a "step"; remove the line')
    else:
      lines.append(row)
  return lines


def _parse_row(line):
  """Returns a line of metrics.jsonl as {name: number}, or None if it is not a row."""
  try:
    row = json.loads(line)
  except (ValueError, RecursionError):
    return None
  if not isinstance(row, dict) or type(row.get("step")) is not int:
    return None
  row = {name: math.nan if value is None else value for name, value in row.items()}
  return row if all(isinstance(value, int | float) for value in row.values()) else None


class Progress:
  """Measures the time of the steps of a run and formats its progress line.

  The loop calls `waited` once per step, when it has the batch of the step. It calls `report` after it fetched
  the metrics of a step, because then the devices have finished the step. Work that is not training runs
  inside `paused`. The speed and the estimate of the remaining time (ETA) do not include the first step,
  because this step includes the compilation.
  """

  def __init__(self, total_steps, batch_size, start_step=0, clock=time.perf_counter):
    """Starts the clock.

    Args:
      total_steps: steps of the whole run.
      batch_size: images per step.
      start_step: number of steps made before this start, by this run or by a run that it continues.
      clock: returns the time in seconds.
    """
    self._total_steps = total_steps
    self._batch_size = batch_size
    self._start_step = start_step
    self._clock = clock
    self._start_time = clock()
    self._num_begun = 0
    self._origin = None  # (step, time) at the end of the first step
    self._mark = None  # (step, time) of the last report
    # Seconds of waiting and of pauses since the last report.
    self._waited = self._paused = 0.0

  def waited(self, seconds):
    """Records the time that the loop waited for the batch of a step. Call it once per step."""
    # The compilation ends before the loop asks for the second batch. So the measurement starts at this point.
    self._num_begun += 1
    if self._num_begun == 2:
      self._origin = self._mark = (self._start_step + 1, self._clock() - seconds)
      self._waited = self._paused = 0.0
    self._waited += seconds

  @contextlib.contextmanager
  def paused(self):
    """Excludes the time inside this context from images/s and from `data_wait`. The ETA includes it."""
    before = self._clock()
    try:
      yield
    finally:
      self._paused += self._clock() - before

  def report(self, step, metrics):
    """Formats the progress line of the steps since the last report.

    Args:
      step: number of steps made in the whole run.
      metrics: {name: number} of the last step. The line shows them in this order.
    Returns:
      (line, row). `line` is one line for a terminal or a log file. `row` contains the metrics and two more
      numbers, `images_per_s` and `data_wait`. `data_wait` is the share of the time in which the loop waited
      for data, from 0 to 1. Both numbers are nan for the first step.
    """
    images_per_s, data_wait, eta = self._measure(step)
    if self._mark is None:
      speed = [f"first step {self._clock() - self._start_time:.1f} s"]
    else:
      digits = 1 if images_per_s < 100 else 0
      speed = [
        f"{images_per_s:.{digits}f} images/s",
        f"data wait {data_wait:.0%}",
        f"ETA {format_seconds(eta)}",
      ]
    width = len(str(self._total_steps))
    terms = [f"{name} {_format_number(name, value)}" for name, value in metrics.items()]
    line = "  ".join([f"step {step:{width}d}/{self._total_steps}", *terms, *speed])
    return line, dict(metrics) | {"images_per_s": images_per_s, "data_wait": data_wait}

  def _measure(self, step):
    """Returns (images/s, `data_wait`, remaining seconds). All are nan if no step was measured yet."""
    if self._mark is None or step <= self._mark[0]:
      return math.nan, math.nan, math.nan
    now = self._clock()
    (mark_step, mark_time), (origin_step, origin_time) = self._mark, self._origin
    # The lower bound avoids a division by zero on clocks with a low resolution.
    seconds = max(now - mark_time - self._paused, 1e-9)
    images_per_s = (step - mark_step) * self._batch_size / seconds
    data_wait = min(self._waited / seconds, 1.0)
    eta = (now - origin_time) / (step - origin_step) * (self._total_steps - step)
    self._mark = (step, now)
    self._waited = self._paused = 0.0
    return images_per_s, data_wait, eta


def format_seconds(seconds):
  """Formats a duration with its two largest units, such as 3d 04h, 1h 02m, 4m 12s or 7s; "?" if unknown."""
  if not math.isfinite(seconds):
    return "?"
  seconds = round(seconds)
  for unit, name, part, part_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
    if seconds >= unit:
      return f"{seconds // unit}{name} {seconds % unit // part:02d}{part_name}"
  return f"{seconds}s"


def _format_number(name, value):
  # Learning rates are small and change by factors, so they always use the exponent format.
  is_plain = name != "lr" and (value == 0 or 1e-3 <= abs(value) < 1e5 or not math.isfinite(value))
  return f"{value:.4f}" if is_plain else f"{value:.2e}"


def _ends_within_a_line(path):
  try:
    if not path.is_file() or path.stat().st_size == 0:
      return False
    with path.open("rb") as file:
      file.seek(-1, os.SEEK_END)
      return file.read(1) != b"\n"
  except OSError:
    return True  # an empty line does no harm


def _name_pictures(name, array):
  """Returns a list of (tag, [H, W, 3] picture) for one picture or for a batch of pictures."""
  array = np.asarray(array)
  if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3 or 0 in array.shape:
    raise ValueError(
      f"image {name!r} is {array.dtype} {list(array.shape)}; expected uint8 [H, W, 3] or [N, H, W, 3]"
    )
  if array.ndim == 3:
    return [(name, array)]
  return [(name if len(array) == 1 else f"{name}_{i}", picture) for i, picture in enumerate(array)]
