"""Draws a verification: the scores of both kinds of pairs, the ROC, and the reliability of probabilities."""

import numpy as np

from hap_jax.viz import canvas, figure

_WIDTH, _HEIGHT = 12.0, 3.9  # inches
_BINS = 120  # of the scores
_EXTREMES = 1e-5  # share of the pairs that may be outside the axis on each side
_MOST_POINTS = 2000  # of the ROC
_LEAST_FAR = 1e-6  # left end of the ROC
_MOST_TICKS = 5  # marks on the axis of the scores, so that scores of many digits do not overlap
_PAPER = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.3}  # readable on a curve


def draw(verification, calibration=None, *, title=""):
  """Draws the scores of both kinds of pairs, the ROC with its thresholds, and the reliability curve.

  Args:
    verification: a `metrics.verification.Verification`.
    calibration: a `metrics.calibration.Calibration`. None: there is no reliability curve.
    title: line at the top. "": no title.
  Returns:
    [h, w, 3] uint8.
  """
  chart = figure.new(_WIDTH, _HEIGHT)
  # The margins are set here, because matplotlib's own layouts measure every label, which takes seconds.
  chart.subplots_adjust(left=0.05, right=0.985, top=0.8, bottom=0.13, wspace=0.2)
  scores, curve, reliability = chart.subplots(1, 3)
  points = [at for at in verification.points.values() if at is not None]
  _draw_scores(scores, verification.pairs, points)
  _draw_roc(curve, verification, points)
  _draw_reliability(reliability, calibration)
  for panel in (scores, curve, reliability):
    panel.tick_params(labelsize=7)
    panel.grid(color=figure.GRID, linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
  if title:
    chart.suptitle(canvas.drawable(title), fontsize=10.5, fontweight="bold", y=0.97, parse_math=False)
  return figure.to_picture(chart)


def _draw_scores(panel, pairs, points):
  """Draws the share of both kinds of pairs in each range of scores, with dashed lines at the thresholds."""
  from matplotlib.ticker import MaxNLocator

  sides = [("two persons", pairs.impostor, figure.RED), ("one person", pairs.genuine, figure.BLUE)]
  ends = np.array([_ends(pairs.score, counts.sum(axis=0)) for _, counts, _ in sides])
  low, high = ends[:, 0].min(), ends[:, 1].max()
  edges = np.linspace(low, high + 1e-9, _BINS + 1)
  for name, counts, color in sides:
    counts = counts.sum(axis=0)
    share = np.histogram(pairs.score, edges, weights=counts)[0] / counts.sum()
    panel.stairs(share, edges, color=color, fill=True, alpha=0.3)
    panel.stairs(share, edges, color=color, linewidth=1.2, label=f"{name}: {counts.sum():,} pairs")
  for k, at in enumerate(points):
    panel.axvline(at.threshold, color=figure.GREY, linewidth=1, linestyle="--")
    # Neighbouring thresholds are near each other, so their names have different heights.
    panel.annotate(
      f"FAR {at.goal:g}: {at.threshold:.5g}",
      (at.threshold, 0.98 - 0.07 * k),
      xycoords=panel.get_xaxis_transform(),  # x in units of the score, y from 0 to 1 over the panel
      xytext=(-3, 0),
      textcoords="offset points",
      ha="right",
      va="top",
      fontsize=6.5,
      bbox=_PAPER,
    )
  panel.set(xlim=(low, high), ylim=(0, None))
  panel.set_xlabel("score (cosine similarity)", fontsize=8)
  panel.xaxis.set_major_locator(MaxNLocator(_MOST_TICKS))
  _finish(panel, "share of the pairs")


def _ends(score, counts):
  """Returns (low, high) scores between which nearly all counted pairs are. The scores descend."""
  passed = np.cumsum(counts) / counts.sum()
  first, last = np.searchsorted(passed, [_EXTREMES, 1 - _EXTREMES])
  return score[min(last, len(score) - 1)], score[first]


def _draw_roc(panel, verification, points):
  """Draws TAR over FAR on a logarithmic axis, with the intervals at the measured FARs."""
  roc = verification.roc
  left = max(_LEAST_FAR, 1 / roc.num_impostor)
  first = int(np.searchsorted(roc.far, left))
  # The curve rises in steps. Of points that would be drawn at the same place, only the last is kept.
  place = np.unique(np.searchsorted(roc.far, np.geomspace(left, 1, _MOST_POINTS), "right") - 1)
  place = place[place >= max(first - 1, 0)]
  panel.plot(
    np.maximum(roc.far[place], left), roc.tar[place], color=figure.BLUE, linewidth=1.5, drawstyle="steps-post"
  )
  panel.set_xscale("log")
  for at in points:
    errors = [[max(at.tar.value - at.tar.low, 0)], [max(at.tar.high - at.tar.value, 0)]]
    style = {"color": figure.RED, "fmt": "o", "markersize": 4, "capsize": 3, "linewidth": 1}
    panel.errorbar([at.goal], [at.tar.value], yerr=np.nan_to_num(errors), **style)
    panel.annotate(
      f"{at.tar.value:.3f}",
      (at.goal, at.tar.value),
      xytext=(-6, 6),
      textcoords="offset points",
      ha="right",
      fontsize=6.5,
      bbox=_PAPER,
    )
  panel.set(xlim=(left, 1), ylim=(0, 1.02))
  panel.set_xlabel("FAR: share of pairs of two persons that pass", fontsize=8)
  eer = verification.eer
  _finish(panel, f"TAR: share of pairs of one person that pass (EER {eer.value:.3f})", has_legend=False)


def _draw_reliability(panel, calibration):
  """Draws the share of pairs of one person over the computed probability."""
  panel.plot([0, 1], [0, 1], color=figure.GREY, linewidth=1, linestyle="--")
  panel.set(xlim=(0, 1), ylim=(0, 1))
  panel.set_xlabel("computed probability of one person", fontsize=8)
  if calibration is None:
    panel.text(0.5, 0.5, "no calibration: too few persons", ha="center", fontsize=8)
    _finish(panel, "share of pairs of one person", has_legend=False)
    return
  bins = calibration.reliability
  x, y = [one.probability for one in bins], [one.share for one in bins]
  label = f"persons that were not fitted ({calibration.curve.method})"
  panel.plot(x, y, color=figure.BLUE, linewidth=1.4, marker="o", markersize=4, label=label)
  _finish(panel, f"share of pairs of one person, at prior {calibration.prior:g}")


def _finish(panel, title, has_legend=True):
  panel.set_title(title, fontsize=9, loc="left", pad=14 if has_legend else 6, y=1)
  if has_legend:
    panel.legend(
      loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=6.5, frameon=False, borderaxespad=0.1
    )
