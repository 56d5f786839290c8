import numpy as np
import pytest

from hap_jax.viz import attributes as viz


def test_a_higher_accuracy_has_a_longer_bar_nearer_to_the_top():
  picture = viz.attribute_bars(["worst", "best"], [0.25, 1.0], [0.1, 0.9])
  assert picture.dtype == np.uint8
  is_bar = (picture == viz._BAR).all(axis=-1)
  rows = [viz._MARGIN + viz._ROW * i + 4 for i in range(2)]
  lengths = [int(is_bar[row].sum()) for row in rows]
  assert lengths[0] > 3 * lengths[1] > 0
  marks = [np.flatnonzero((picture[row] == viz._BASE).all(axis=-1)).mean() for row in rows]
  assert marks[0] - marks[1] == pytest.approx(0.8 * viz._SCALE, abs=3)


def test_an_accuracy_missing_for_one_name_is_an_error():
  with pytest.raises(ValueError, match="2 names, 1 accuracies and 2 base rates"):
    viz.attribute_bars(["a", "b"], [0.5], [0.1, 0.2])


def test_mistakes_are_sorted_by_certainty_and_right_answers_are_left_out():
  probability = np.array([[0.99, 0.2], [0.9, 0.4], [0.5, 0.95]])
  labels = np.array([[0, 0], [0, 1], [0, 1]], bool)
  assert viz.confident_mistakes(probability, labels, 9) == [(0, 0), (1, 0), (1, 1)]
  assert viz.confident_mistakes(probability, labels, 1) == [(0, 0)]


def test_sheet_shows_pictures_of_any_size_in_rows():
  colors = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
  pictures = [
    np.full((h, w, 3), c, np.uint8) for (h, w), c in zip([(64, 32), (7, 50), (9, 9)], colors, strict=True)
  ]
  sheet = viz.labelled_sheet(pictures, [["first", "x" * 80], [], ["third"]], columns=2, title="people")
  wide = viz.labelled_sheet(pictures, [["first", "x" * 80], [], ["third"]], columns=3, title="people")
  assert sheet.shape[0] > wide.shape[0]
  assert sheet.shape[1] < wide.shape[1]
  for color in colors:
    assert (sheet == color).all(axis=-1).sum() > 1000
  with pytest.raises(ValueError, match="3 pictures and 1 texts"):
    viz.labelled_sheet(pictures, [[]])
