import numpy as np
import pytest

from hap_jax.viz import attributes as viz
from hap_jax.viz import figure


def test_a_higher_accuracy_has_a_longer_bar_nearer_to_the_top():
  picture = viz.attribute_bars(["worst", "best"], [0.25, 1.0], [0.1, 0.9])
  assert picture.dtype == np.uint8
  is_bar, is_mark = (
    (picture == [int(color[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=-1)
    for color in (figure.BLUE, figure.RED)
  )
  chart = slice(0, int(0.6 * len(picture)))  # without axis and legend
  rows = np.flatnonzero(is_bar[chart].any(axis=1))
  left = [np.flatnonzero(is_bar[row])[0] for row in (rows[0], rows[-1])]
  right = [np.flatnonzero(is_bar[row])[-1] for row in (rows[0], rows[-1])]
  assert left[0] == left[1]
  length = right[0] - left[0]
  assert right[1] - left[1] == pytest.approx(0.25 * length, abs=4)
  marks = [np.flatnonzero(is_mark[row]).mean() for row in (rows[0], rows[-1])]
  assert marks[0] - left[0] == pytest.approx(0.9 * length, abs=4)
  assert marks[1] - left[0] == pytest.approx(0.1 * length, abs=4)


def test_chart_has_space_for_every_name_and_its_title():
  few = viz.attribute_bars(["a"] * 2, [0.5] * 2, [0.1] * 2)
  many = viz.attribute_bars(["a"] * 20, [0.5] * 20, [0.1] * 20)
  assert many.shape[0] - few.shape[0] == pytest.approx(18 * viz._BAR_HEIGHT * figure.DPI, abs=1)
  for title in ("", "t" * 500):
    picture = viz.attribute_bars(["n" * 500, "b"], [0.6, 0.5], [0.1, 0.2], title=title)
    assert picture.shape[1] == few.shape[1]
    assert all((edge == 255).all() for edge in (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]))


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


def test_an_answer_whose_label_is_not_known_is_no_mistake():
  probability = np.array([[0.99, 0.2], [0.9, 0.4], [0.5, 0.95]])
  labels = np.array([[0, 0], [0, 1], [0, 1]], bool)
  known = np.array([[0, 1], [1, 1], [1, 1]], bool)
  assert viz.confident_mistakes(probability, labels, 9, known) == [(1, 0), (1, 1)]
  # The hidden mistake does not take the place of another mistake.
  assert viz.confident_mistakes(probability, labels, 1, known) == [(1, 0)]
