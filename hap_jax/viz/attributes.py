"""Draws results of attribute recognition: a chart of all attributes, and sheets of labelled pictures."""

import numpy as np

from hap_jax.viz import canvas, figure, sheet

_WIDTH, _BAR_HEIGHT, _REST_HEIGHT = 6.0, 0.2, 1.0  # inches. `_REST_HEIGHT`: space for title, axis and legend
_NAME_LENGTH, _TITLE_LENGTH = 40, 70  # characters. The middle of a longer text is cut out
_LINE_TEXT = 12  # pixels


def attribute_bars(names, accuracy, base_rate, *, title=""):
  """Draws the mean accuracy (mA) of each attribute as a bar, the best first.

  A line marks the accuracy of chance. A mark on each bar shows the base rate of the attribute.

  Args:
    names: names of the A attributes.
    accuracy: [A] mean accuracy, 0 to 1. 0.5 is chance.
    base_rate: [A] share of the pictures that show the attribute.
    title: line at the top. "": no title.
  Returns:
    [h, w, 3] uint8.
  Raises:
    ValueError: if there are no attributes, or the lengths differ.
  """
  accuracy, base_rate = np.asarray(accuracy), np.asarray(base_rate)
  if not len(names) or not len(names) == len(accuracy) == len(base_rate):
    raise ValueError(
      f"{len(names)} names, {len(accuracy)} accuracies and {len(base_rate)} base rates; expected one of each "
      "per attribute, and at least one attribute"
    )
  order, place = np.argsort(-accuracy, kind="stable"), np.arange(len(names))
  chart = figure.new(_WIDTH, _BAR_HEIGHT * len(names) + _REST_HEIGHT, layout="constrained")
  axes = chart.subplots()
  bars = axes.barh(place, accuracy[order], height=0.75, color=figure.BLUE, label="mA")
  chance = axes.axvline(0.5, color=figure.GREY, linewidth=1, label="chance, 0.5")
  marks = axes.vlines(
    base_rate[order],
    place - 0.45,
    place + 0.45,
    color=figure.RED,
    linewidth=2.5,
    label="share of pictures that show it",
    clip_on=False,  # otherwise half of a mark at 0 or 1 would be cut off
  )
  axes.set_yticks(place, [_cut(names[a], _NAME_LENGTH) for a in order], fontsize=9, parse_math=False)
  for row, a in enumerate(order):
    axes.text(1.02, row, f"{accuracy[a]:.3f}", fontsize=9, va="center")
  axes.set(xlim=(0, 1), ylim=(len(names) - 0.4, -0.6))
  axes.tick_params(axis="y", length=0)
  axes.tick_params(axis="x", labelsize=8)
  axes.spines[["top", "right"]].set_visible(False)
  chart.legend(handles=[bars, chance, marks], loc="outside lower center", ncols=3, fontsize=9, frameon=False)
  if title:
    chart.suptitle(_cut(title, _TITLE_LENGTH), fontsize=11, fontweight="bold", parse_math=False)
  return figure.to_picture(chart)


def _cut(text, length):
  text = canvas.drawable(text)
  return text if len(text) <= length else f"{text[: length // 2]}…{text[-(length // 2) :]}"


def confident_mistakes(probability, labels, k, known=None):
  """Finds the wrong answers with the highest certainty of the model.

  Args:
    probability: [N, A] float, predicted probability of each attribute.
    labels: [N, A] bool, true attributes.
    k: largest number of answers to return.
    known: [N, A] bool, True where the label is known. Other answers are ignored. None: all labels are known.
  Returns:
    list of (picture, attribute), the most certain first.
  """
  probability, labels = np.asarray(probability), np.asarray(labels, bool)
  distance = np.where(labels, 1 - probability, probability)  # distance from the true answer
  if known is not None:
    distance = np.where(known, distance, 0)  # an unknown label is never a mistake
  order = np.argsort(-distance, axis=None, kind="stable")[:k]
  pairs = np.stack(np.unravel_index(order, distance.shape), axis=1)
  is_wrong = (probability > 0.5) != labels
  if known is not None:
    is_wrong &= known
  return [(int(n), int(a)) for n, a in pairs if is_wrong[n, a]]


def labelled_sheet(pictures, texts, *, columns=6, title="", cell=(192, 160)):
  """Draws a sheet of pictures with lines of text below each picture.

  Args:
    pictures: N pictures [H, W, 3] uint8 RGB, of any sizes.
    texts: N lists of lines. The middle of a long line is cut out.
    columns: pictures per row.
    title: line at the top. "": no title.
    cell: (height, width) of a picture in pixels.
  Returns:
    [h, w, 3] uint8.
  Raises:
    ValueError: if there are no pictures, or the numbers of pictures and texts differ.
  """
  if not len(pictures) or len(pictures) != len(texts):
    raise ValueError(
      f"{len(pictures)} pictures and {len(texts)} texts; expected equal numbers, and at least one picture"
    )
  tiles = [
    sheet.tile(picture, [sheet.Line(line, _LINE_TEXT) for line in lines], cell=cell)
    for picture, lines in zip(pictures, texts, strict=True)
  ]
  rows = [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
  return sheet.draw(rows, title=title)
