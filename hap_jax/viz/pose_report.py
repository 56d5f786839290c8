"""Draws the results of 2D pose: a chart of the score of each joint, and a sheet of people."""

import dataclasses
import math

import cv2
import numpy as np

from hap_jax.data.skeletons import Skeleton
from hap_jax.viz import canvas, figure, sheet
from hap_jax.viz.pose import SIDE_COLORS, draw_sides

_WIDTH, _BAR_HEIGHT, _REST_HEIGHT = 9.0, 0.21, 1.0  # inches. `_REST_HEIGHT`: title and axes
_LEAST_HEIGHT = 3.4  # inches
_CELL = (184, 138)  # (height, width) of a picture of a person in pixels
_COLUMNS = 4  # people per row of the sheet
_PAIR_GAP = 3  # pixels between the two pictures of a person
_OUTSIDE = (236, 238, 240)  # colour outside the picture
_FARTHEST = 2.0**20  # pixels; the distance of joints is clipped to this value


@dataclasses.dataclass(frozen=True, eq=False)
class ShownPerson:
  """One person on the sheet.

  Attributes:
    image: [H, W, 3] uint8, the whole picture.
    region: [4], (centre x, centre y, width, height) in pixels, the part of the picture that is shown.
    truth_xy: [K, 2], true joints in pixels of the picture.
    is_labelled: [K] bool, True for the joints that are annotated.
    xy: [K, 2], predicted joints. NaN: there is no prediction.
    title: text below the pictures, such as "OKS 0.52".
    name: text in small print below the title, such as the name of the record.
  """

  image: np.ndarray
  region: np.ndarray
  truth_xy: np.ndarray
  is_labelled: np.ndarray
  xy: np.ndarray
  title: str
  name: str = ""


def accuracy_chart(joints, shares, thresholds, curve, *, score, marks, unit, full, title=""):
  """Draws one bar per joint, and a curve of the score over the threshold.

  Args:
    joints: K names.
    shares: [K] score of each joint, 0 to `full`. NaN: the joint is never labelled, and gets no bar.
    thresholds: [T] ascending, the thresholds of the curve.
    curve: [T] score of all joints at each threshold.
    score: name of the score.
    marks: [(threshold, name)], dashed lines at thresholds of the curve.
    unit: name of the length by which errors are divided, such as the size of the head.
    full: the score if all joints are right, such as 1 or 100.
    title: line at the top. "": no title.
  Returns:
    [h, w, 3] uint8.
  """
  height = max(_BAR_HEIGHT * len(joints) + _REST_HEIGHT, _LEAST_HEIGHT)
  chart = figure.new(_WIDTH, height)
  # The margins are set here, because matplotlib's own layouts measure every label, which takes seconds.
  chart.subplots_adjust(
    left=1.35 / _WIDTH,
    right=1 - 0.2 / _WIDTH,
    top=1 - 0.6 / height,
    bottom=0.5 / height,
    wspace=0.32,
  )
  bars, line = chart.subplots(1, 2)
  _draw_bars(bars, joints, np.asarray(shares, np.float64), score, full)
  _draw_curve(line, thresholds, curve, score, marks, unit, full)
  if title:
    place = {"y": 1 - 0.2 / height, "va": "center"}
    chart.suptitle(canvas.drawable(title), fontsize=10.5, fontweight="bold", parse_math=False, **place)
  return figure.to_picture(chart)


def _draw_bars(panel, joints, shares, score, full):
  place = np.arange(len(joints))
  panel.barh(place, np.nan_to_num(shares), height=0.75, color=figure.BLUE)
  for row, value in enumerate(shares.tolist()):
    text = "no truth" if math.isnan(value) else f"{value:.3f}" if full == 1 else f"{value:.1f}"
    panel.text(1.015 * full, row, text, fontsize=7.5, va="center")
  panel.set_yticks(place, [joint.replace("_", " ") for joint in joints], fontsize=8, parse_math=False)
  panel.set(xlim=(0, full), ylim=(len(joints) - 0.4, -0.6))
  panel.set_title(f"{score} of each joint", fontsize=9, loc="left", parse_math=False)
  panel.tick_params(axis="y", length=0)
  panel.tick_params(axis="x", labelsize=7)
  panel.spines[["top", "right"]].set_visible(False)


def _draw_curve(panel, thresholds, curve, score, marks, unit, full):
  panel.plot(thresholds, curve, color=figure.BLUE, linewidth=1.6)
  for threshold, name in marks:
    value = float(np.interp(threshold, thresholds, curve))
    panel.axvline(threshold, color=figure.GREY, linewidth=1, linestyle="--")
    panel.plot([threshold], [value], color=figure.RED, marker="o", markersize=4)
    text = f"{name} {value:.3f}" if full == 1 else f"{name} {value:.1f}"
    # In the upper half, the text is below its point, because the curve rises further above the point.
    panel.annotate(
      text,
      (threshold, value),
      xytext=(5, -10 if value > full / 2 else 5),
      textcoords="offset points",
      fontsize=7.5,
      parse_math=False,
      bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.3},
    )
  panel.set(xlim=(0, thresholds[-1]), ylim=(0, 1.02 * full))
  panel.set_title(f"{score.partition('@')[0]} of all joints", fontsize=9, loc="left", parse_math=False)
  panel.set_xlabel(f"largest error of a right joint / {unit}", fontsize=8)
  panel.tick_params(labelsize=7)
  panel.grid(color=figure.GRID, linewidth=0.6)
  panel.spines[["top", "right"]].set_visible(False)


def people_sheet(people, skeleton: Skeleton, *, title="", note=""):
  """Draws a sheet of people. Each person has the truth at the left and the prediction at the right.

  Args:
    people: list of `ShownPerson`, at least one.
    skeleton: the `Skeleton` of the joints.
    title: line at the top.
    note: sentences at the bottom, after the explanation of the colours.
  Returns:
    [h, w, 3] uint8.
  """
  tiles = [_draw_person(person, skeleton) for person in people]
  rows = [tiles[start : start + _COLUMNS] for start in range(0, len(tiles), _COLUMNS)]
  return sheet.draw(
    rows,
    gaps=16,
    title=title,
    legends=[[(color, f"{side} joints") for side, color in SIDE_COLORS.items()]],
    note="Left picture: truth. Right picture: prediction. Left and right joints are the person's own. A "
    f"predicted joint with a white centre is not annotated and does not count. {note}".strip(),
  )


def _draw_person(person, skeleton):
  """Draws the two pictures of a person side by side, with the texts below them."""
  picture, matrix = cut_out(person.image, person.region, _CELL)
  has_prediction = np.isfinite(person.xy).all(axis=-1)
  nothing = np.zeros(len(skeleton.joints), bool)
  truth = draw_sides(picture, _move(person.truth_xy, matrix), person.is_labelled, nothing, skeleton)
  found = draw_sides(picture, _move(person.xy, matrix), has_prediction, ~person.is_labelled, skeleton)
  pair = np.concatenate([truth, canvas.blank(_CELL[0], _PAIR_GAP), found], axis=1)
  lines = [sheet.Line(person.title, weight=600)]
  if person.name:
    lines.append(sheet.Line(person.name, size=12, color=canvas.FAINT))
  return sheet.tile(pair, lines, cell=pair.shape[:2])


def _move(xy, matrix):
  xy = np.clip(np.nan_to_num(np.asarray(xy, np.float64)), -_FARTHEST, _FARTHEST)
  return xy @ matrix[:, :2].T + matrix[:, 2]


def cut_out(image, region, size):
  """Cuts a region out of a picture, scales it without distortion, and centres it in a new picture.

  Args:
    image: [H, W, 3] uint8.
    region: [4], (centre x, centre y, width, height) in pixels.
    size: (h, w) of the result in pixels.
  Returns:
    ([h, w, 3] uint8, [2, 3] float64 matrix that moves pixels of `image` to pixels of the result).
  """
  (H, W), (h, w) = image.shape[:2], size
  x, y, width, height = (float(value) for value in region)
  scale = min(h / height, w / width)
  # The cut-out has the proportions of the result, so it may be wider or higher than the region.
  left, top = x - w / scale / 2, y - h / scale / 2
  matrix = np.array([[scale, 0, (0.5 - left) * scale - 0.5], [0, scale, (0.5 - top) * scale - 0.5]])
  x0, y0 = max(math.floor(left), 0), max(math.floor(top), 0)
  x1, y1 = min(math.ceil(left + w / scale), W), min(math.ceil(top + h / scale), H)
  if x1 <= x0 or y1 <= y0:
    return np.full((h, w, 3), _OUTSIDE, np.uint8), matrix
  part = np.ascontiguousarray(image[y0:y1, x0:x1])
  if scale < 1:
    # A linear warp of a large picture would skip pixels. So the cut-out is first reduced to its final scale.
    reduced = [max(1, round(side * scale)) for side in part.shape[1::-1]]
    part = cv2.resize(part, reduced, interpolation=cv2.INTER_AREA)
  # The scaling keeps pixel edges, as `matrix` does.
  step_x, step_y = (x1 - x0) * scale / part.shape[1], (y1 - y0) * scale / part.shape[0]
  edge_x, edge_y = (x0 - left) * scale, (y0 - top) * scale
  move = np.array([[step_x, 0, edge_x + 0.5 * step_x - 0.5], [0, step_y, edge_y + 0.5 * step_y - 0.5]])
  kernel = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR
  result = cv2.warpAffine(part, move, (w, h), flags=kernel, borderMode=cv2.BORDER_REPLICATE)
  result[: max(0, round(edge_y))] = result[max(0, round(edge_y + (y1 - y0) * scale)) :] = _OUTSIDE
  result[:, : max(0, round(edge_x))] = result[:, max(0, round(edge_x + (x1 - x0) * scale)) :] = _OUTSIDE
  return result, matrix
