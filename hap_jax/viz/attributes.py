"""Pictures of attributes: one bar per attribute with its base rate, and sheets of pictures with text."""

import cv2
import numpy as np

from hap_jax.viz import canvas

_BAR, _CHANCE, _BASE = (59, 110, 168), (158, 163, 168), (179, 71, 46)
_ROW, _TEXT, _NUMBER, _SCALE = 22, 14, 60, 360  # pixels
_MARGIN, _GAP, _LINE = 18, 10, 18


def attribute_bars(names, accuracy, base_rate, *, title=""):
  """Draws one bar per attribute, best first: its mA, with marks at chance and at its base rate.

  Args:
    names: A texts.
    accuracy: [A] mean accuracy, 0 to 1; 0.5 is chance.
    base_rate: [A] share of positives.
    title: a line at the top; "" for none.
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
  left = max(canvas.text_width(name, _TEXT) for name in names) + _GAP
  width = left + _SCALE + _NUMBER
  picture = canvas.blank(_ROW * len(names), width)
  for row, a in enumerate(np.argsort(-accuracy, kind="stable").tolist()):
    top, base_line = row * _ROW, row * _ROW + _TEXT + 1
    canvas.write(picture, names[a], (0, base_line), _TEXT)
    end = left + round(float(accuracy[a]) * _SCALE)
    picture[top + 3 : top + _ROW - 3, left:end] = _BAR
    mark = left + round(float(base_rate[a]) * (_SCALE - 1))
    picture[top + 1 : top + _ROW - 1, max(left, mark - 1) : mark + 2] = _BASE
    canvas.write(picture, f"{accuracy[a]:.3f}", (left + _SCALE + _GAP, base_line), _TEXT)
  picture[:, left + _SCALE // 2] = _CHANCE
  legend = canvas.swatches(
    [(_BAR, "mA"), (_CHANCE, "chance, 0.5"), (_BASE, "share of pictures that show it")], width, _TEXT
  )
  parts = [picture, legend]
  if title:
    parts.insert(0, canvas.paragraph(title, width, _TEXT + 4, 600))
  return canvas.frame(canvas.stack(parts, _GAP), _MARGIN)


def confident_mistakes(probability, labels, k):
  """Finds the wrong answers with the highest certainty.

  Args:
    probability: [N, A] float.
    labels: [N, A] bool.
    k: largest number of answers.
  Returns:
    list of (picture, attribute), the most certain first.
  """
  probability, labels = np.asarray(probability), np.asarray(labels, bool)
  distance = np.where(labels, 1 - probability, probability)  # from the true answer
  order = np.argsort(-distance, axis=None, kind="stable")[:k]
  pairs = np.stack(np.unravel_index(order, distance.shape), axis=1)
  return [(int(n), int(a)) for n, a in pairs if (probability[n, a] > 0.5) != labels[n, a]]


def labelled_sheet(pictures, texts, *, columns=6, title="", cell=(192, 144)):
  """Draws pictures in rows, with lines of text below each picture.

  Args:
    pictures: N pictures [H, W, 3] uint8 RGB, of any sizes.
    texts: N lists of lines; long lines are cut.
    columns: pictures in a row.
    title: a line at the top; "" for none.
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
  depth = max(map(len, texts))
  tiles = [_tile(picture, lines, depth, cell) for picture, lines in zip(pictures, texts, strict=True)]
  columns = min(columns, len(tiles))
  tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
  space = canvas.blank(tiles[0].shape[0], _GAP)
  rows = []
  for start in range(0, len(tiles), columns):
    parts = [part for tile in tiles[start : start + columns] for part in (space, tile)]
    rows.append(np.concatenate(parts[1:], axis=1))
  sheet = canvas.stack(rows, _GAP)
  if title:
    sheet = canvas.stack([canvas.paragraph(title, sheet.shape[1], _TEXT + 4, 600), sheet], _GAP)
  return canvas.frame(sheet, _MARGIN)


def _tile(picture, lines, depth, cell):
  height, width = cell
  scale = min(height / picture.shape[0], width / picture.shape[1])
  size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))  # OpenCV: (w, h)
  small = cv2.resize(
    np.ascontiguousarray(picture), size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
  )
  tile = canvas.blank(height + _LINE * depth, width)
  left = (width - size[0]) // 2
  tile[: size[1], left : left + size[0]] = small
  for i, line in enumerate(lines):
    line = line[:width]  # a character takes more than one pixel; measuring thousands of them is slow
    while len(line) > 1 and canvas.text_width(line, _TEXT - 2) > width:
      line = line[:-2].rstrip(".") + "."
    canvas.write(tile, line, (0, height + _LINE * i + _TEXT), _TEXT - 2)
  return tile
