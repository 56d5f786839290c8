"""Draws training curves as one picture, with one panel per metric, from the rows of metrics.jsonl."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from hap_jax.viz import canvas
from hap_jax.viz import figure as charts

_PANEL = (3.6, 2.75)  # inches (width, height)
_TITLE = 0.35  # inches
_COLUMNS = 3
_MOST_TICKS = 5  # marks on the x axis, so that steps of seven digits do not overlap
_LEFT_OUT = ("step", "images_per_s", "data_wait")  # metrics of the machine, not of the training
_OF_TRAINING = ("lr", "grad_norm")  # metrics of the training that are not losses


class Mark(NamedTuple):
  """A value of a score, drawn as a dashed line.

  Attributes:
    name: short text next to the line, such as "position mean".
    value: value of the score, which sets the height of the line.
  """

  name: str
  value: float


@dataclasses.dataclass(frozen=True)
class Guide:
  """The values that show whether a score is good.

  Attributes:
    baseline: the score of a method that learns nothing from the pictures, or None.
    goal: the score that a good run reaches, or None.
  """

  baseline: Mark | None = None
  goal: Mark | None = None


def curves(rows, select=None, title="", guides=None):
  """Draws losses, learning rate and scores over the steps.

  Losses, learning rate and gradient norm have two lines: a faint line through the logged steps, and the
  running mean over a twentieth of these steps. All other metrics are scores, with a mark at each evaluation.
  The title of the selected score gives its best value. The panel of a score with a guide shows its baseline
  and its goal as dashed lines.

  Args:
    rows: [{"step": ..., name: number}] in ascending order of the steps, the result of `report.read_metrics`.
      Rows may have different names.
    select: (metric, "max" or "min"): the metric that selects the best checkpoint. None: there is no such
      metric.
    title: line at the top. "": no title.
    guides: {metric: Guide}, or None. Metrics that are not in `rows` are ignored.
  Returns:
    [h, w, 3] uint8.
  Raises:
    ValueError: if there is nothing to draw.
  """
  return charts.to_picture(make_figure(rows, select, title, guides))


def make_figure(rows, select=None, title="", guides=None):
  """Returns the matplotlib Figure that `curves` draws. The arguments and errors are the same."""
  columns = _columns(rows)
  if not columns:
    raise ValueError("nothing to draw: the rows have no finite number besides step and speed")
  num_lines = math.ceil(len(columns) / _COLUMNS)
  width, height = _COLUMNS * _PANEL[0], num_lines * _PANEL[1] + _TITLE
  figure = charts.new(width, height)
  # The margins are set here, because matplotlib's own layouts measure every label, which takes seconds.
  figure.subplots_adjust(
    left=0.6 / width,
    right=1 - 0.15 / width,
    top=1 - (_TITLE + 0.45) / height,
    bottom=0.45 / height,
    wspace=0.22,
    hspace=0.52,
  )
  panels = figure.subplots(num_lines, _COLUMNS, squeeze=False).ravel()
  for panel, (name, (steps, values)) in zip(panels, columns.items(), strict=False):
    text = name
    if _is_of_training(name):
      _draw_line(panel, steps, values)
    else:
      text += _draw_score(panel, steps, values, select[1] if select and select[0] == name else None)
      _draw_guide(panel, (guides or {}).get(name, Guide()))
    _finish(panel, text)
  for panel in panels[len(columns) :]:
    panel.set_axis_off()
  if title:
    figure.suptitle(
      canvas.drawable(title), fontsize=10, y=1 - 0.5 * _TITLE / height, va="center", parse_math=False
    )
  return figure


def _columns(rows):
  """Returns {name: (steps, values)} of the finite values: first losses, then `_OF_TRAINING`, then scores."""
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
    marker = "o" if len(values) == 1 else None  # a line of one point would be invisible
    style = {"marker": marker, "markersize": 3, "linewidth": 1.2}
    panel.plot(steps, values, color=charts.BLUE, label="logged step", **style)
    return
  panel.plot(steps, values, color=charts.BLUE, linewidth=0.6, alpha=0.35, label="logged step")
  smooth = np.convolve(values, np.full(window, 1 / window), "valid")
  label = f"mean of {window} logged steps"
  panel.plot(steps[window - 1 :], smooth, color=charts.BLUE, linewidth=1.4, label=label)


def _draw_score(panel, steps, values, mode):
  """Draws a score. Returns a text about its best value.

  Args:
    panel: the matplotlib Axes.
    steps: [n].
    values: [n] values of the score.
    mode: "max" or "min": the direction of better values. None: no best value is marked, and the text is "".
  """
  panel.plot(steps, values, color=charts.RED, linewidth=1.2, marker="o", markersize=3, label="recorded value")
  if mode is None:
    return ""
  best = int(np.argmax(values) if mode == "max" else np.argmin(values))
  style = {"linestyle": "none", "marker": "o", "markersize": 7, "fillstyle": "none"}
  panel.plot(steps[best], values[best], color=charts.RED, label="best", **style)
  return f", best {values[best]:.4f} at step {steps[best]:,.0f}"


def _draw_guide(panel, guide):
  """Draws the dashed lines of a Guide, each with its name."""
  # The left end of a curve is near the baseline, and its right end is near the goal. So the name of the
  # baseline is at the right and the name of the goal at the left, away from the curve.
  for mark, kind, color, place, side in (
    (guide.baseline, "baseline", charts.GREY, 0.98, "right"),
    (guide.goal, "goal", charts.GREEN, 0.02, "left"),
  ):
    if mark is None:
      continue
    label = f"{kind}: {mark.name} {mark.value:.4g}"
    panel.axhline(mark.value, color=color, linewidth=1.1, linestyle="--", label=label)
    panel.annotate(
      canvas.drawable(label),
      (place, mark.value),
      xycoords=panel.get_yaxis_transform(),  # x from 0 to 1 across the panel, y in units of the score
      xytext=(0, 1.5),
      textcoords="offset points",
      ha=side,
      va="bottom",
      fontsize=6.5,
      color=charts.TEXT,
      parse_math=False,
      bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.3},  # readable on a curve
    )


def _finish(panel, title):
  """Adds title, legend, grid and axis labels to a panel."""
  from matplotlib.ticker import MaxNLocator, StrMethodFormatter

  # Without `y`, matplotlib measures all labels of the panel to find the height of the title.
  panel.set_title(title, fontsize=9, loc="left", pad=14, y=1)
  # The legend leaves out the dashed lines, because their names are written next to them.
  lines = [line for line in panel.get_lines() if line.get_linestyle() != "--"]
  panel.legend(
    handles=lines,
    loc="lower left",
    bbox_to_anchor=(0, 1),
    ncols=len(lines),
    fontsize=6.5,
    frameon=False,
    borderaxespad=0.2,
    borderpad=0,
    handlelength=1.6,
    columnspacing=1.2,
  )
  panel.set_xlabel("step", fontsize=7)
  # In a run of a few steps, the axis must not have marks between the steps.
  panel.xaxis.set_major_locator(MaxNLocator(_MOST_TICKS, integer=True, min_n_ticks=1))
  panel.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
  # By default, matplotlib writes a common factor of the axis, such as 1e-5, over the legend.
  panel.yaxis.set_major_formatter(StrMethodFormatter("{x:.4g}"))
  panel.margins(y=0.1)  # room for the name of a dashed line
  panel.tick_params(labelsize=7)
  panel.grid(color=charts.GRID, linewidth=0.6)
