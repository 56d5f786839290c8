"""What a run tells: metrics.jsonl, TensorBoard events, picture panels, and the line that a person watches."""

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
_FLUSH_SECONDS = 20  # TensorBoard's file may lose this much to a kill; metrics.jsonl loses nothing


class MetricWriter:
  """Writes a run's figures and pictures into its workdir.

  The methods are those of clu's metric writers, which need TensorFlow; here tensorboard's own event writer
  does the work. Values are host values (NumPy or Python numbers). Files:

  * metrics.jsonl: one JSON object a `write_scalars`, out of the process when the call returns. A number that
    is not finite is null. A step has a line with its loss and one with its scores; steps repeated after a
    resume are appended. `read_metrics` merges the lines of a step.
  * tensorboard/: the same scalars and pictures; a new file each start.
  * panels/<name>_<step, 8 digits>.png: a picture that a resumed run draws again replaces the old one of the
    same name and step in one move, so that a reader sees the old file or the new one.
  * curves.png: all of metrics.jsonl as curves, replaced by each `write_curves`.
  """

  def __init__(self, workdir):
    """Opens the files in `workdir` for appending; creates the folder if need be."""
    self._workdir = pathlib.Path(workdir)
    self._workdir.mkdir(parents=True, exist_ok=True)
    path = self._workdir / METRICS_FILE
    is_torn = _ends_within_a_line(path)
    self._rows = path.open("a", encoding="utf-8")
    if is_torn:  # a kill in the middle of a row: the next row must not become its end
      self._rows.write("\n")
    self._events = EventFileWriter(str(self._workdir / "tensorboard"), flush_secs=_FLUSH_SECONDS)

  def write_scalars(self, step, scalars):
    """Appends {name: number} of a step as one line.

    Raises:
      ValueError: for a name "step", which the row needs itself.
    """
    if "step" in scalars:
      raise ValueError('a scalar is named "step", which names the row in metrics.jsonl: rename it')
    scalars = {name: float(value) for name, value in scalars.items()}
    row = {"step": int(step)} | {
      name: value if math.isfinite(value) else None for name, value in scalars.items()
    }
    self._rows.write(json.dumps(row, allow_nan=False) + "\n")
    self._rows.flush()
    self._add(step, [summary_pb2.Summary.Value(tag=name, simple_value=x) for name, x in scalars.items()])

  def write_images(self, step, images):
    """Writes {name: picture [H, W, 3] or pictures [N, H, W, 3], uint8 RGB} as PNG files and as events.

    A batch of N > 1 pictures becomes N of them, <name>_0 and so on. A slash in a name makes a sub-folder.

    Raises:
      ValueError: for another shape or dtype.
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

  def write_curves(self, select=None):
    """Draws all that metrics.jsonl holds into <workdir>/curves.png, see `viz.curves`."""
    picture = curves.curves(read_metrics(self._workdir), select, title=self._workdir.resolve().name)
    picture_file.write(self._workdir / CURVES_FILE, picture)

  def flush(self):
    """Puts all that was written on disk."""
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
  """Takes what a MetricWriter takes and writes nothing: for all processes but the first."""

  def write_scalars(self, step, scalars):
    """Does nothing."""

  def write_images(self, step, images):
    """Does nothing."""

  def write_curves(self, select=None):
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
    List of rows, ascending in `step`, one per step. A step may have several lines, one with its loss and one
    with its scores: they are merged, and of two values of a name the later one holds. A null is read as nan.
    A line that does not end in "}" was torn by a kill and is left out.
  Raises:
    ValueError: for any other line that is no row, naming file and line.
  """
  rows = {}
  for line in _read_lines(path):
    rows.setdefault(line["step"], {}).update(line)
  return [rows[step] for step in sorted(rows)]


def has_scores(workdir, step):
  """Returns whether metrics.jsonl has a line with the scores of a step.

  Such a line has no loss. Older versions wrote loss and scores as one line; their steps count as not scored.
  """
  path = pathlib.Path(workdir) / METRICS_FILE
  return path.is_file() and any(line["step"] == step and "loss" not in line for line in _read_lines(path))


def _read_lines(path):
  """Returns the lines of a metrics.jsonl as dicts, see `read_metrics`."""
  path = pathlib.Path(path)
  path = path / METRICS_FILE if path.is_dir() else path
  lines = []
  for number, line in enumerate(path.read_bytes().splitlines(), 1):
    if not line.endswith(b"}"):
      continue
    try:
      row = json.loads(line)
      lines.append({"step": row["step"]} | {k: math.nan if v is None else v for k, v in row.items()})
    except (ValueError, KeyError) as error:
      raise ValueError(f'{path}, line {number}: no JSON object with a "step"; remove the line') from error
  return lines


class Progress:
  """Times the steps of a run and words its progress line.

  The loop calls `waited` once a step, when it has its batch, and `report` when it has looked at a step's
  metrics, so that the step is over; what is not training it does inside `paused`. The first step, which
  compiles, counts in no speed and no estimate.
  """

  def __init__(self, total_steps, batch_size, start_step=0, clock=time.perf_counter):
    """Starts at `start_step` of `total_steps` steps of `batch_size` images in all; `clock` gives seconds."""
    self._total_steps = total_steps
    self._batch_size = batch_size
    self._start_step = start_step
    self._clock = clock
    self._start_time = clock()
    self._num_begun = 0
    self._origin = None  # (step, time) at which the first step was over
    self._mark = None  # (step, time) since which waiting and pauses add up
    self._waited = self._paused = 0.0

  def waited(self, seconds):
    """Tells how long the loop stood waiting for a step's batch; call it once a step."""
    self._num_begun += 1
    if self._num_begun == 2:
      self._origin = self._mark = (self._start_step + 1, self._clock() - seconds)
      self._waited = self._paused = 0.0
    self._waited += seconds

  @contextlib.contextmanager
  def paused(self):
    """Keeps the time spent inside out of images/s and of the share of waiting; the ETA includes it."""
    before = self._clock()
    try:
      yield
    finally:
      self._paused += self._clock() - before

  def report(self, step, metrics):
    """Words the progress of the steps since the last report.

    Args:
      step: steps done in the whole run. metrics: {name: number} of the last one, shown in this order.
    Returns:
      (line, row): one line for a terminal or a log file, and the metrics with `images_per_s` and `data_wait`
      (share of the time spent waiting for data, 0 to 1) added; these two are nan for the first step.
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
    """Returns images/s, share of waiting and seconds to go; nan where nothing was timed yet."""
    if self._mark is None or step <= self._mark[0]:
      return math.nan, math.nan, math.nan
    now = self._clock()
    (mark_step, mark_time), (origin_step, origin_time) = self._mark, self._origin
    seconds = max(now - mark_time - self._paused, 1e-9)
    images_per_s = (step - mark_step) * self._batch_size / seconds
    data_wait = min(self._waited / seconds, 1.0)
    eta = (now - origin_time) / (step - origin_step) * (self._total_steps - step)
    self._mark = (step, now)
    self._waited = self._paused = 0.0
    return images_per_s, data_wait, eta


def format_seconds(seconds):
  """Words a duration by its two largest units: 3d 04h, 1h 02m, 4m 12s, 7s; "?" if it is not known."""
  if not math.isfinite(seconds):
    return "?"
  seconds = round(seconds)
  for unit, name, part, part_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
    if seconds >= unit:
      return f"{seconds // unit}{name} {seconds % unit // part:02d}{part_name}"
  return f"{seconds}s"


def _format_number(name, value):
  is_plain = name != "lr" and (value == 0 or 1e-3 <= abs(value) < 1e5 or not math.isfinite(value))
  return f"{value:.4f}" if is_plain else f"{value:.2e}"


def _ends_within_a_line(path):
  if not path.is_file() or path.stat().st_size == 0:
    return False
  with path.open("rb") as file:
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def _name_pictures(name, array):
  """Returns [(tag, [H, W, 3])] of one picture or of a batch."""
  array = np.asarray(array)
  if array.dtype != np.uint8 or array.ndim not in (3, 4) or array.shape[-1] != 3 or 0 in array.shape:
    raise ValueError(
      f"image {name!r} is {array.dtype} {list(array.shape)}; expected uint8 [H, W, 3] or [N, H, W, 3]"
    )
  if array.ndim == 3:
    return [(name, array)]
  return [(name if len(array) == 1 else f"{name}_{i}", picture) for i, picture in enumerate(array)]
