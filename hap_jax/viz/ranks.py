"""Draws rank lists: each query (a picture or a text), its closest gallery entries, and whether they match."""

import cv2
import numpy as np

from hap_jax.metrics.identities import VERDICTS
from hap_jax.viz import canvas
from hap_jax.viz import sheet as layout

_PASSES, _BELOW = "passes", "below"  # verdicts of a calibration, if identities are not known
# {verdict: colour of the frame}. Entries also have a tick or a cross, because some people cannot distinguish
# green and red.
COLORS = {
  "match": (0, 146, 98),
  "wrong": (204, 51, 34),
  "same camera": (158, 163, 168),
  "junk": (158, 163, 168),
  _PASSES: (38, 104, 190),
  _BELOW: canvas.FAINT,
}

_WORDS = {
  "match": "the query's identity",
  "wrong": "another identity",
  "same camera": "the query's identity under its own camera: not counted",
  "junk": "junk: not counted",
  _PASSES: "passes the threshold of the calibration",
  _BELOW: "below the threshold of the calibration",
}
_UNCOUNTED = ("same camera", "junk")
_QUERY_GAP = 26
_TEXT_ROW_GAP = 24
_LABEL_TEXT = 12
_NOTE = "Below each picture: squared Euclidean distance of unit features, 0 to 4."


def rank_sheet(
  queries,
  galleries,
  distance,
  verdict=None,
  *,
  passes=None,
  query_labels=None,
  gallery_labels=None,
  title="",
  cell=(192, 96),
):
  """Draws one row per query: the query, then the gallery entries, the closest first.

  A picture query is at the left of its row. A text query is above its row, in as many lines as necessary.

  A match has a green frame and a tick. Another identity has a red frame and a cross. Two kinds of entries do
  not count: junk, and pictures of the same identity by the same camera as the query. They have a grey frame
  and no rank number. Without verdicts, entries that pass a threshold have a blue frame.

  Args:
    queries: N pictures [H, W, 3] uint8 RGB of any sizes, or N texts.
    galleries: N lists of pictures, one list per query. The lists may have different lengths.
    distance: N lists of numbers, shown below the pictures.
    verdict: N lists of values from `metrics.identities.VERDICTS`. None: identities are not known.
    passes: N lists of bool, True for entries that pass the threshold of a calibration. None: no threshold is
      known. It cannot be combined with `verdict`.
    query_labels: N texts. The label of a picture is one line below it, and the middle of a long line is cut
      out. The label of a text query is below the text, in as many lines as necessary.
    gallery_labels: N lists of texts. Each text is one line below its picture.
    title: line at the top. "": no title.
    cell: (height, width) of a picture in pixels.
  Returns:
    [h, w, 3] uint8.
  Raises:
    ValueError: if a picture is not [H, W, 3] uint8, the lists differ in length, a verdict is unknown, or only
      some queries are texts.
  """
  if passes is not None:
    verdict = [[_PASSES if is_passing else _BELOW for is_passing in row] for row in passes]
  verdict = [[None] * len(row) for row in galleries] if verdict is None else verdict
  query_labels = [""] * len(queries) if query_labels is None else query_labels
  gallery_labels = [[""] * len(row) for row in galleries] if gallery_labels is None else gallery_labels
  _check(queries, galleries, distance, verdict, query_labels, gallery_labels)
  is_text = isinstance(queries[0], str)
  rows = []
  for n, query in enumerate(queries):
    lines = _lines("query", "", query_labels[n], canvas.INK)
    tiles = [] if is_text else [layout.tile(query, lines, cell=cell, frame=canvas.INK)]
    rows.append(tiles + _draw_entries(galleries[n], distance[n], verdict[n], gallery_labels[n], cell))
  seen = {word for row in verdict for word in row}
  legend = [(COLORS[word], _WORDS[word]) for word in (*VERDICTS, _PASSES, _BELOW) if word in seen]
  legends = [legend] if legend else []
  if is_text:
    heads = list(zip(queries, query_labels, strict=True))
    return layout.draw(rows, row_heads=heads, row_gap=_TEXT_ROW_GAP, title=title, legends=legends, note=_NOTE)
  gaps = [_QUERY_GAP] + [layout.GAP] * max(map(len, galleries))
  return layout.draw(rows, gaps=gaps, title=title, legends=legends, note=_NOTE)


def _lines(head, number, label, label_color):
  lines = (
    layout.Line(head, weight=600),
    layout.Line(number),
    layout.Line(label, _LABEL_TEXT, color=label_color),
  )
  return [line for line in lines if line.text]


def _draw_entries(pictures, distance, verdict, labels, cell):
  """Draws the gallery entries of one query. Returns a list of tiles."""
  tiles, rank = [], 0
  for picture, number, word, label in zip(pictures, distance, verdict, labels, strict=True):
    rank += word not in _UNCOUNTED
    lines = _lines(word if word in _UNCOUNTED else f"rank {rank}", f"{number:.3f}", label, canvas.FAINT)
    tiles.append(_draw_entry(picture, word, lines, cell))
  return tiles


def _draw_entry(picture, verdict, lines, cell):
  """Draws a gallery entry in the style of its verdict."""
  tile = layout.tile(picture, lines, cell=cell, frame=COLORS.get(verdict, canvas.FAINT))
  if verdict in _UNCOUNTED:
    inside = tile[layout.FRAME : layout.FRAME + cell[0], layout.FRAME : layout.FRAME + cell[1]]
    grey = cv2.cvtColor(inside, cv2.COLOR_RGB2GRAY)[..., None]
    inside[:] = np.round(0.45 * grey + 0.55 * 255).astype(np.uint8)
  elif verdict in ("match", "wrong"):
    _draw_badge(tile, verdict == "match", COLORS[verdict])
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


def _check(queries, galleries, distance, verdict, query_labels, gallery_labels):
  if not len(queries) or not any(map(len, galleries)):
    raise ValueError("expected at least one query and one gallery entry")
  for name, rows in (("galleries", galleries), ("distance", distance), ("verdict", verdict)):
    if list(map(len, rows)) != list(map(len, galleries)) or len(rows) != len(queries):
      raise ValueError(
        f"{name} has row lengths {list(map(len, rows))}; expected {len(queries)} rows (one per query) "
        f"with lengths {list(map(len, galleries))}"
      )
  if len(query_labels) != len(queries) or list(map(len, gallery_labels)) != list(map(len, galleries)):
    raise ValueError("expected one label for each query and one for each gallery entry")
  is_text = [isinstance(query, str) for query in queries]
  if any(is_text) and not all(is_text):
    raise ValueError(
      f"{sum(is_text)} of {len(queries)} queries are texts: draw texts and pictures on two sheets"
    )
  shown = () if any(is_text) else queries
  for picture in (*shown, *(picture for row in galleries for picture in row)):
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
      raise ValueError(f"a picture is {picture.dtype} {list(picture.shape)}; expected uint8 [H, W, 3]")
  unknown = {word for row in verdict for word in row} - {None, *COLORS}
  if unknown:
    raise ValueError(f"verdicts {sorted(map(str, unknown))} are unknown; known are {VERDICTS}")
