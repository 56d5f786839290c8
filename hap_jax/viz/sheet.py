"""Draws sheets: tiles in rows and columns, with a title, names above the columns and a note below."""

import itertools
import typing

import cv2
import numpy as np

from hap_jax.viz import canvas

GAP, ROW_GAP = 8, 14  # pixels between columns and between rows
TEXT = 15  # height of the text in pixels
FRAME = 5  # thickness of a tile's frame
_MARGIN, _PART_GAP, _HEAD_GAP = 18, 10, 6
_LEAST_TEXT = 12
_LEAST_WIDTH = 420  # pixels, for a sheet with text. In a narrower sheet, the text would have too many lines
_LINE = 19  # pixels between lines of text below a picture
_BACKGROUND = (236, 238, 240)  # colour of a cell where the picture does not fill it


class Line(typing.NamedTuple):
  """One line of text below a picture."""

  text: str
  size: int = TEXT
  weight: int = 400
  color: tuple[int, int, int] = canvas.INK


def draw(
  rows,
  *,
  gaps=GAP,
  row_gap=ROW_GAP,
  title="",
  heads=(),
  groups=(),
  row_heads=(),
  legends=(),
  note="",
  size=TEXT,
):
  """Draws a sheet.

  A column is as wide as its widest tile. A row is as high as its highest tile. A smaller tile is at the upper
  left of its place, and the rest of the place is white.

  Args:
    rows: lists of tiles [h, w, 3] uint8. The lists may have different lengths.
    gaps: pixels between neighbouring columns: one number for all, or one number per gap.
    row_gap: pixels between rows.
    title: line at the top. "": no title.
    heads: one (name, note) per column, drawn above the column. Both may be "". (): no heads.
    groups: one (name, first column, last column) per group of columns. The name is drawn above the heads,
      with a line from the first to the last column.
    row_heads: one (text, note) per row, drawn above the row over the full width. Long texts have several
      lines. The note may be "". (): no row heads.
    legends: lists of (color, text). Each list is drawn below the tiles.
    note: sentences at the bottom. "": no note.
    size: height of the text in pixels.
  Returns:
    [h, w, 3] uint8.
  """
  columns = _place_columns(rows, gaps)
  width = columns[-1][1]
  if title or row_heads or legends or note:
    width = max(width, _LEAST_WIDTH)
  tiles = [_draw_row(row, columns) for row in rows]
  if row_heads:
    tiles = [_put_head(head, row, width, size) for head, row in zip(row_heads, tiles, strict=True)]
  parts = [canvas.stack(tiles, row_gap)]
  if heads:
    parts.insert(0, _draw_heads(heads, groups, columns, size))
  if title:
    parts.insert(0, canvas.paragraph(title, width, size + 4, 600))
  parts += [canvas.swatches(entries, width, size) for entries in legends]
  if note:
    parts.append(canvas.paragraph(note, width, size, color=canvas.FAINT))
  return canvas.frame(canvas.stack([_widen(part, width) for part in parts], _PART_GAP), _MARGIN)


def tile(picture, lines, *, cell, frame=None):
  """Draws a picture in a cell, with centred lines of text below it.

  If a line is too wide, its font is reduced to at least 12 pixels. If it is still too wide, its middle is cut
  out.

  Args:
    picture: [H, W, 3] uint8 RGB of any size. It keeps its proportions and fills the cell in height or width.
    lines: list of `Line`. The number of lines determines the height of the tile.
    cell: (height, width) in pixels.
    frame: colour of a frame around the cell. None: no frame.
  Returns:
    [h, w, 3] uint8.
  """
  border = 0 if frame is None else FRAME
  height, width = cell[0] + 2 * border, cell[1] + 2 * border
  result = canvas.blank(height + _LINE * len(lines) + 4 * bool(lines), width)
  if frame is not None:
    result[:height] = frame
  result[border : border + cell[0], border : border + cell[1]] = _fit(picture, cell)
  for k, (text, size, weight, color) in enumerate(lines):
    # The font is reduced before the text is cut, because a whole name in small print is more useful than a
    # part of the name.
    size = canvas.fit_size(text, width, size, weight, least=_LEAST_TEXT)
    text = canvas.shorten(text, width, size, weight)
    canvas.write_centered(result, text, width // 2, height + _LINE * (k + 1) - 2, size, weight, color)
  return result


def _fit(picture, cell):
  """Scales a picture until it fills its cell in height or width, and centres it in the cell."""
  height, width = picture.shape[:2]
  scale = min(cell[0] / height, cell[1] / width)
  size = (max(1, round(height * scale)), max(1, round(width * scale)))
  kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
  scaled = cv2.resize(np.ascontiguousarray(picture), size[::-1], interpolation=kernel)
  top, left = (cell[0] - size[0]) // 2, (cell[1] - size[1]) // 2
  result = np.full((*cell, 3), _BACKGROUND, np.uint8)
  result[top : top + size[0], left : left + size[1]] = scaled
  return result


def _place_columns(rows, gaps):
  """Returns (left, right) of every column."""
  widths = [
    max(tile.shape[1] for tile in column if tile is not None) for column in itertools.zip_longest(*rows)
  ]
  gaps = [gaps] * (len(widths) - 1) if isinstance(gaps, int) else gaps
  lefts = [0, *itertools.accumulate(width + gap for width, gap in zip(widths[:-1], gaps, strict=False))]
  return [(left, left + width) for left, width in zip(lefts, widths, strict=True)]


def _draw_row(row, columns):
  result = canvas.blank(max((tile.shape[0] for tile in row), default=0), columns[-1][1])
  for tile, (left, _) in zip(row, columns, strict=False):
    result[: tile.shape[0], left : left + tile.shape[1]] = tile
  return result


def _put_head(head, row, width, size):
  """Puts the head of a row (text and note) above the row."""
  text, note = head
  parts = [canvas.paragraph(text, width, size, 600)]
  if note:
    parts.append(canvas.paragraph(note, width, size - 2, color=canvas.FAINT))
  return canvas.stack([canvas.stack(parts, 0), _widen(row, width)], _HEAD_GAP)


def _draw_heads(heads, groups, columns, size):
  """Draws the names of columns and of groups of columns."""
  # All names have the same font size: the largest size at which every name fits its column. All notes share
  # a font size in the same way.
  name_size = min(
    canvas.fit_size(name, right - left, size, 600)
    for (name, _), (left, right) in zip(heads, columns, strict=True)
  )
  note_size = min(
    canvas.fit_size(note, right - left, size - 2)
    for (_, note), (left, right) in zip(heads, columns, strict=True)
  )
  pitch = round(1.3 * size)
  top = round(1.7 * size) if groups else 0
  result = canvas.blank(top + pitch * (2 if any(note for _, note in heads) else 1) + 2, columns[-1][1])
  for name, first, last in groups:
    left, right = columns[first][0], columns[last][1]
    canvas.write_centered(result, name, (left + right) // 2, size - 1, size, 600, canvas.FAINT)
    result[top - 3, left:right] = canvas.FAINT
  for (name, note), (left, right) in zip(heads, columns, strict=True):
    center = (left + right) // 2
    canvas.write_centered(result, name, center, top + size, name_size, 600)
    canvas.write_centered(result, note, center, top + pitch + size, note_size, 400, canvas.FAINT)
  return result


def _widen(picture, width):
  """Adds white paper on the right of a picture up to `width` pixels."""
  result = canvas.blank(picture.shape[0], width)
  result[:, : picture.shape[1]] = picture
  return result
