"""Training curves as one picture: one panel per figure, from the rows of metrics.jsonl."""

import math

import numpy as np

from hap_jax.viz import canvas
from hap_jax.viz import figure as charts

_PANEL = (3.6, 2.5)  # inches (width, height)
_TITLE = 0.35  # inches
_COLUMNS = 3
_LEFT_OUT = ("step", "images_per_s", "data_wait")  # of the machine, not of the training
_OF_TRAINING = ("lr", "grad_norm")  # beside the losses


def curves(rows, select=None, title=""):
  """Draws losses, learning rate and scores over the steps.

  Losses, learning rate and gradient norm have a faint line through the logged steps, and a line of the
  running mean over a twentieth of these steps. All other metrics are scores, with a mark at each evaluation.
  The title of the selected score gives its best value.

  Args:
    rows: [{"step": ..., name: number}], ascending in step, the result of `report.read_metrics`. Some rows may
      not have all names.
    select: (metric, "max" or "min"), the rule that selects the best checkpoint, or None.
    title: a line at the top.
  Returns:
    [h, w, 3] uint8.
  Raises:
    ValueError: if there is nothing to draw.
  """
  columns = _columns(rows)
  if not columns:
    raise ValueError("nothing to draw: the rows have no finite number besides step and speed")
  num_lines = math.ceil(len(columns) / _COLUMNS)
  width, height = _COLUMNS * _PANEL[0], num_lines * _PANEL[1] + _TITLE
  figure = charts.new(width, height)
  # By hand: matplotlib's own layouts measure every label, which takes seconds.
  figure.subplots_adjust(
    left=0.6 / width,
    right=1 - 0.15 / width,
    top=1 - (_TITLE + 0.25) / height,
    bottom=0.45 / height,
    wspace=0.22,
    hspace=0.42,
  )
  panels = figure.subplots(num_lines, _COLUMNS, squeeze=False).ravel()
  for panel, (name, (steps, values)) in zip(panels, columns.items(), strict=False):
    text = name
    if _is_of_training(name):
      _draw_line(panel, steps, values)
    else:
      panel.plot(steps, values, color=charts.RED, linewidth=1.2, marker="o", markersize=3)
      if select and select[0] == name:
        best = int(np.argmax(values) if select[1] == "max" else np.argmin(values))
        panel.plot(steps[best], values[best], color=charts.RED, marker="o", markersize=7, fillstyle="none")
        text += f", best {values[best]:.4f} at step {steps[best]:.0f}"
    panel.set_title(text, fontsize=9, loc="left")
    panel.set_xlabel("step", fontsize=7)
    panel.tick_params(labelsize=7)
    panel.grid(color=charts.GRID, linewidth=0.6)
  for panel in panels[len(columns) :]:
    panel.set_axis_off()
  if title:
    figure.suptitle(
      canvas.drawable(title), fontsize=10, y=1 - 0.5 * _TITLE / height, va="center", parse_math=False
    )
  return charts.to_picture(figure)


def _columns(rows):
  """Returns {name: (steps, values)} of the finite numbers; losses first, then `_OF_TRAINING`, then scores."""
  found = {}
  for row in rows:
    for name, value in row.items():
      if name not in _LEFT_OUT and math.isfinite(value):
        found.setdefault(name, []).append((row["step"], value))

  def place(name):
    return (not name.startswith("loss"), not _is_of_training(name), -len(found[name]))

  return {name: tuple(np.array(found[name], np.float64).T) for name in sorted(found, key=place)}


def _is_of_training(name):
  return name.startswith("loss") or name in _OF_TRAINING


def _draw_line(panel, steps, values):
  window = max(len(values) // 20, 1)
  if window == 1:
    panel.plot(steps, values, color=charts.BLUE, linewidth=1.2)
    return
  panel.plot(steps, values, color=charts.BLUE, linewidth=0.6, alpha=0.35)
  smooth = np.convolve(values, np.full(window, 1 / window), "valid")
  panel.plot(steps[window - 1 :], smooth, color=charts.BLUE, linewidth=1.4)
