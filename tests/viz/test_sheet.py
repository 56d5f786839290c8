"""Sheets: the positions of tiles, and texts that the edge does not cut off."""

import numpy as np
import pytest

from hap_jax.viz import canvas, sheet


def plain(height, width, color=(200, 30, 30)):
  return np.full((height, width, 3), color, np.uint8)


def place_of(picture, color):
  """Returns (top, left, height, width) of the box around a colour."""
  rows, columns = np.nonzero((picture == color).all(axis=-1))
  return rows.min(), columns.min(), np.ptp(rows) + 1, np.ptp(columns) + 1


def test_tiles_are_in_columns_and_rows_with_their_gaps():
  colors = [(200, 30, 30), (30, 200, 30), (30, 30, 200), (90, 90, 30)]
  sizes = [(20, 10), (30, 40), (8, 12), (9, 5)]
  tiles = [plain(*size, color) for size, color in zip(sizes, colors, strict=True)]
  picture = sheet.draw([tiles[:3], tiles[3:]], gaps=[7, 3], row_gap=6)
  places = [place_of(picture, color) for color in colors]
  origins = [(18, 18), (18, 18 + 10 + 7), (18, 18 + 10 + 7 + 40 + 3), (18 + 30 + 6, 18)]
  assert places == [(*origin, *size) for origin, size in zip(origins, sizes, strict=True)]
  assert picture.shape == (18 + 30 + 6 + 9 + 18, 18 + 10 + 7 + 40 + 3 + 12 + 18, 3)


def test_heads_and_groups_are_centred_on_their_columns():
  tiles = [plain(20, 100)] * 3
  bare = sheet.draw([tiles], heads=[("", "")] * 3)
  named = sheet.draw([tiles], heads=[("", ""), ("name", ""), ("", "")])
  columns = np.nonzero((bare != named).any(axis=(0, 2)))[0]
  assert (columns[0] + columns[-1]) / 2 == pytest.approx(18 + 108 + 50, abs=2)
  grouped = sheet.draw([tiles], heads=[("", "")] * 3, groups=[("", 1, 2)])
  _, left, height, width = place_of(grouped, canvas.FAINT)
  assert (left, height, width) == (18 + 108, 1, 208)


def test_texts_of_a_narrow_sheet_have_enough_space():
  legend = [((9, 200, 9), "a word"), ((9, 9, 200), "x" * 300)]
  picture = sheet.draw([[plain(20, 10)]], title="t" * 300, legends=[legend], note="some words " * 20)
  assert picture.shape[1] > 400
  assert all((edge == 255).all() for edge in (picture[:18], picture[-18:], picture[:, :18], picture[:, -16:]))
  for color, _ in legend:
    assert (picture == color).all(axis=-1).sum() == sheet.TEXT**2


def test_tile_has_its_picture_in_the_middle_of_its_cell_and_its_lines_below():
  bare = sheet.tile(plain(40, 10), [], cell=(60, 80), frame=(1, 2, 3))
  border = sheet.FRAME
  assert bare.shape == (60 + 2 * border, 80 + 2 * border, 3)
  assert place_of(bare, (200, 30, 30)) == (border, border + 32, 60, 15)
  assert (bare[0] == (1, 2, 3)).all()
  lines = [sheet.Line("one"), sheet.Line("a much longer line than the tile is wide")]
  labelled = sheet.tile(plain(40, 10), lines, cell=(60, 80), frame=(1, 2, 3))
  np.testing.assert_array_equal(labelled[: len(bare)], bare)
  assert (labelled[len(bare) :] < 128).any()
  assert (labelled[len(bare) :, -1] == 255).all()
