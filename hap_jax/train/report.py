"""Reports of a run: metrics.jsonl, TensorBoard events, picture panels, and the progress line."""

import contextlib
import json
import math
import os
import pathlib
import time

import numpy as np
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from hap_jax.io import picture_file
from hap_jax.viz import curves

METRICS_FILE = "metrics.jsonl"
CURVES_FILE = "curves.png"
PICTURES = "panels"  # folder in a workdir
# A kill of the process may lose this many seconds of TensorBoard events. metrics.jsonl loses no line.
_FLUSH_SECONDS = 20


class MetricWriter:
  """Writes the metrics and pictures of a run into its workdir.

  The methods have the names of clu's metric writers. Those writers need TensorFlow, so this class uses the
  event writer of tensorboard. Values must be on the host (NumPy or Python numbers). These files are written:

  * metrics.jsonl: each call of `write_scalars` appends one JSON object as a line. After the call, a kill of
    the process does not lose this line. A number that is not finite is written as null. A step may have one
    line with its loss and one with its scores. If a resumed run repeats a step, it appends the lines of this
    step again. `read_metrics` merges all lines of a step.
  * tensorboard/: the same scalars and pictures. Each start of the run adds a new file.
  * panels/<name>_<step, 8 digits>.png: the pictures. If a resumed run draws a picture again, the new file
    replaces the old file in one move. So a reader never sees an incomplete file.
  * curves.png: the curves of all numbers in metrics.jsonl. Each call of `write_curves` replaces the file.
  """

  def __init__(self, workdir):
    """Opens the files in `workdir` for appending. Creates the folder if it is missing."""
    self._workdir = pathlib.Path(workdir)
    self._workdir.mkdir(parents=True, exist_ok=True)
    path = self._workdir / METRICS_FILE
    is_torn = _ends_within_a_line(path)
    self._rows = path.open("a", encoding="utf-8")
    if is_torn:  # a kill left an incomplete line, but the next row must start on a new line
      self._rows.write("\n")
    self._events = EventFileWriter(str(self._workdir / "tensorboard"), flush_secs=_FLUSH_SECONDS)

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
    self._rows.write(json.dumps(row, allow_nan=False) + "\n")
    self._rows.flush()
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
        path.parent.mkdir(parents=True, exist_ok=True)
        png = picture_file.write(path, picture)
        height, width = picture.shape[:2]
        image = summary_pb2.Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        values.append(summary_pb2.Summary.Value(tag=tag, image=image))
    self._add(step, values)

  def write_curves(self, select=None, guides=None):
    """Draws all metrics of metrics.jsonl into <workdir>/curves.png, see `viz.curves`."""
    rows, title = read_metrics(self._workdir), self._workdir.resolve().name
    picture = curves.curves(rows, select, title=title, guides=guides)
    picture_file.write(self._workdir / CURVES_FILE, picture)

  def flush(self):
    """Writes all buffered rows and events to disk."""
    self._rows.flush()
    self._events.flush()

  def close(self):
    """Flushes and closes the files."""
    self._rows.close()
    self._events.close()

  def _add(self, step, values):
    summary = summary_pb2.Summary(value=values)
    self._events.add_event(event_pb2.Event(wall_time=time.time(), step=int(step), summary=summary))


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
    path: the file, or the workdir that holds it.
  Returns:
    List of rows in ascending order of `step`, one row per step. The lines of a step (one with its loss, one
    with its scores) are merged. If a name occurs twice, the later value is used. A null is read as nan. A
    line that does not end in "}" was cut off by a kill of the process, so it is skipped.
  Raises:
    ValueError: if any other line is not a JSON object with a "step". The message names file and line.
  """
  rows = {}
  for line in _read_lines(path):
    rows.setdefault(line["step"], {}).update(line)
  return [rows[step] for step in sorted(rows)]


def has_scores(workdir, step):
  """Returns True if metrics.jsonl has a line with the scores of a step.

  Such a line has no loss. Older versions wrote loss and scores into one line. For such a line this function
  returns False.
  """
  path = pathlib.Path(workdir) / METRICS_FILE
  return path.is_file() and any(line["step"] == step and "loss" not in line for line in _read_lines(path))


def _read_lines(path):
  """Returns the lines of a metrics.jsonl as dicts, see `read_metrics`."""
  path = pathlib.Path(path)
  path = path / METRICS_FILE if path.is_dir() else path
  lines = []
  for number, line in enumerate(path.read_bytes().splitlines(), 1):
    # A kill leaves an incomplete line, and a resumed run appends lines after it. So it may be anywhere.
    if not line.endswith(b"}"):
      continue
    try:
      row = json.loads(line)
      lines.append({"step": row["step"]} | {k: math.nan if v is None else v for k, v in row.items()})
    except (ValueError, KeyError) as error:
      raise ValueError(
        f'{path}, line {number}: expected a JSON object with a "step"; remove the line'
      ) from error
  return lines


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
      start_step: number of steps that earlier starts of the run made.
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
      (line, row). `line` is one line for a terminal or a log file. `row` holds the metrics and two more
      numbers, `images_per_s` and `data_wait`. `data_wait` is the share of the time that the loop waited for
      data, from 0 to 1. Both numbers are nan for the first step.
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
  if not path.is_file() or path.stat().st_size == 0:
    return False
  with path.open("rb") as file:
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


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
