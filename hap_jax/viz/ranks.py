"""Draws rank lists: each query with the closest gallery entries and their verdicts."""

import cv2
import numpy as np

from hap_jax.metrics.retrieval import VERDICTS
from hap_jax.viz import canvas

# Colours of frames by verdict. Some people cannot distinguish green and red: a tick or a cross helps them.
COLORS = {
  "match": (0, 146, 98),
  "wrong": (204, 51, 34),
  "same camera": (158, 163, 168),
  "junk": (158, 163, 168),
}

_UNCOUNTED = ("same camera", "junk")
_BACKGROUND = (236, 238, 240)  # around a picture that is narrower or lower than its cell
_FRAME = 5
_GAP, _QUERY_GAP, _ROW_GAP, _MARGIN = 8, 26, 14, 18
_TEXT, _LEAST_TEXT = 15, 12
_LINE = 19
_INKS = (canvas.INK, canvas.INK, canvas.FAINT)  # colours of the lines below a picture


def rank_sheet(
  queries,
  galleries,
  distance,
  verdict=None,
  *,
  query_labels=None,
  gallery_labels=None,
  title="",
  cell=(192, 96),
):
  """Draws one row per query: the query at the left, then the gallery entries, closest first.

  A match has a green frame and a tick. Another identity has a red frame and a cross. Two kinds of entries do
  not count: junk, and the query's identity under its own camera. They are grey and have no rank number.

  Args:
    queries: N pictures [H, W, 3] uint8 RGB, of any sizes.
    galleries: N lists of pictures, of any lengths.
    distance: N lists of numbers, written below the pictures.
    verdict: N lists of words in `metrics.retrieval.VERDICTS`; None if the identities are not known.
    query_labels: N texts, one line below each query; long lines are cut.
    gallery_labels: N lists of texts, one line below each gallery entry; long lines are cut.
    title: a line at the top; "" for none.
    cell: (height, width) of a picture in pixels.
  Returns:
    [h, w, 3] uint8.
  Raises:
    ValueError: if a picture is not [H, W, 3] uint8, the lists differ in length, or a verdict is unknown.
  """
  verdict = [[None] * len(row) for row in galleries] if verdict is None else verdict
  query_labels = [""] * len(queries) if query_labels is None else query_labels
  gallery_labels = [[""] * len(row) for row in galleries] if gallery_labels is None else gallery_labels
  _check(queries, galleries, distance, verdict, query_labels, gallery_labels)
  has_labels = any(map(any, gallery_labels))
  columns = max(map(len, galleries))
  rows = []
  for n, query in enumerate(queries):
    tile = _draw_tile(query, canvas.INK, ("query", query_labels[n], ""), cell, has_labels)
    tiles, rank = [], 0
    for picture, number, word, label in zip(
      galleries[n], distance[n], verdict[n], gallery_labels[n], strict=True
    ):
      rank += word not in _UNCOUNTED
      lines = (word if word in _UNCOUNTED else f"rank {rank}", f"{number:.3f}", label)
      tiles.append(_draw_entry(picture, word, lines, cell, has_labels))
    rows.append(_place(tile, tiles, columns))
  sheet = canvas.stack(rows, _ROW_GAP)
  parts = [sheet, _draw_foot(sheet.shape[1], verdict)]
  if title:
    parts.insert(0, canvas.paragraph(title, sheet.shape[1], _TEXT + 4, 600))
  return canvas.frame(canvas.stack(parts, 10), _MARGIN)


def _draw_entry(picture, verdict, lines, cell, has_labels):
  """Draws a gallery entry with the mark of its verdict."""
  tile = _draw_tile(picture, COLORS.get(verdict, canvas.FAINT), lines, cell, has_labels)
  if verdict in _UNCOUNTED:
    inside = tile[_FRAME : _FRAME + cell[0], _FRAME : _FRAME + cell[1]]
    grey = cv2.cvtColor(inside, cv2.COLOR_RGB2GRAY)[..., None]
    inside[:] = np.round(0.45 * grey + 0.55 * 255).astype(np.uint8)
  elif verdict is not None:
    _draw_badge(tile, verdict == "match", COLORS[verdict])
  return tile


def _draw_tile(picture, color, lines, cell, has_labels):
  """Draws a framed picture with two lines of text below it, or three if any tile of the sheet has a label."""
  height, width = cell[0] + 2 * _FRAME, cell[1] + 2 * _FRAME
  tile = canvas.blank(height + _LINE * (2 + has_labels) + 4, width)
  tile[:height] = color
  tile[_FRAME : _FRAME + cell[0], _FRAME : _FRAME + cell[1]] = _fit(picture, cell)
  for k, (text, weight, ink) in enumerate(zip(lines, (600, 400, 400), _INKS, strict=True)):
    if text:
      size = max(canvas.fit_size([text], width, _TEXT, weight), _LEAST_TEXT)
      text = _shorten(text, width, size, weight)
      canvas.write_centered(tile, text, width // 2, height + _LINE * (k + 1) - 2, size, weight, ink)
  return tile


def _draw_badge(tile, is_match, color):
  """Draws a tick or a cross on a disc in the upper right corner."""
  x, y = tile.shape[1] - 15, 15
  cv2.circle(tile, (x, y), 11, canvas.PAPER, cv2.FILLED, cv2.LINE_AA)
  cv2.circle(tile, (x, y), 10, color, cv2.FILLED, cv2.LINE_AA)
  strokes = [[(-5, 0), (-2, 4), (5, -4)]] if is_match else [[(-4, -4), (4, 4)], [(-4, 4), (4, -4)]]
  for stroke in strokes:
    points = np.add(stroke, (x, y)).astype(np.int32)
    cv2.polylines(tile, [points], False, canvas.PAPER, 2, cv2.LINE_AA)


def _fit(picture, cell):
  """Scales a picture until it fills its cell in one direction, and centres it; keeps its proportions."""
  height, width = picture.shape[:2]
  scale = min(cell[0] / height, cell[1] / width)
  size = (max(1, round(height * scale)), max(1, round(width * scale)))
  kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
  scaled = cv2.resize(np.ascontiguousarray(picture), size[::-1], interpolation=kernel)
  top, left = (cell[0] - size[0]) // 2, (cell[1] - size[1]) // 2
  result = np.full((*cell, 3), _BACKGROUND, np.uint8)
  result[top : top + size[0], left : left + size[1]] = scaled
  return result


def _shorten(text, width, size, weight):
  """Cuts text in the middle to fit, because the ends of file names say more."""
  if len(text) > width:  # a character takes more than one pixel; measuring thousands of them is slow
    text = f"{text[: width // 2]}…{text[-(width - width // 2) :]}"
  keep = len(text)
  while keep > 2 and canvas.text_width(text, size, weight) > width:
    keep -= 1
    text = f"{text[: keep // 2]}…{text[-(keep - keep // 2) :]}"
  return text


def _place(query, tiles, columns):
  """Puts the tiles of a query and of its list side by side; a shorter list leaves white space."""
  height, width = query.shape[:2]
  row = canvas.blank(height, width + _QUERY_GAP + columns * (width + _GAP) - _GAP)
  row[:, :width] = query
  for k, tile in enumerate(tiles):
    left = width + _QUERY_GAP + k * (width + _GAP)
    row[:, left : left + width] = tile
  return row


def _draw_foot(width, verdict):
  """Draws the legend of the frames that occur, and a note about the numbers."""
  words = {
    "match": "the query's identity",
    "wrong": "another identity",
    "same camera": "the query's identity under its own camera: not counted",
    "junk": "junk: not counted",
  }
  seen = {word for row in verdict for word in row}
  parts = [canvas.swatches([(COLORS[word], words[word]) for word in VERDICTS if word in seen], width, _TEXT)]
  parts = parts if seen - {None} else []
  note = "Beneath: squared Euclidean distance of unit features, 0 to 4."
  return canvas.stack([*parts, canvas.paragraph(note, width, _TEXT, 400, canvas.FAINT)], 2)


def _check(queries, galleries, distance, verdict, query_labels, gallery_labels):
  if not len(queries) or not any(map(len, galleries)):
    raise ValueError("a rank sheet needs at least one query and one gallery entry")
  for name, rows in (("galleries", galleries), ("distance", distance), ("verdict", verdict)):
    if list(map(len, rows)) != list(map(len, galleries)) or len(rows) != len(queries):
      raise ValueError(
        f"{name} has rows of {list(map(len, rows))}; expected {len(queries)} rows, one per query, "
        f"of {list(map(len, galleries))}"
      )
  if len(query_labels) != len(queries) or list(map(len, gallery_labels)) != list(map(len, galleries)):
    raise ValueError("expected one label for each query and one for each gallery entry")
  for picture in (*queries, *(picture for row in galleries for picture in row)):
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
      raise ValueError(f"a picture is {picture.dtype} {list(picture.shape)}; expected uint8 [H, W, 3]")
  unknown = {word for row in verdict for word in row} - {None, *VERDICTS}
  if unknown:
    raise ValueError(f"verdicts {sorted(map(str, unknown))} are unknown; known are {VERDICTS}")
