"""Tests of rank sheets: frames by verdict, grey for entries that do not count, pictures of any size."""

import cv2
import numpy as np
import pytest

from hap_jax.metrics.identities import VERDICTS
from hap_jax.viz import canvas
from hap_jax.viz.ranks import COLORS, rank_sheet

CELL = (60, 30)
BLUE = (30, 60, 200)


def plain(color=BLUE, size=CELL):
  return np.full((*size, 3), color, np.uint8)


def sheet(verdict, pictures=None, **kwargs):
  """Returns a sheet of one query, and the left edges of the gallery's tiles."""
  pictures = [plain()] * len(verdict) if pictures is None else pictures
  picture = rank_sheet([plain((9, 9, 9))], [pictures], [[0.5] * len(verdict)], [verdict], cell=CELL, **kwargs)
  # The margin, the query's tile, the gap behind it, then one tile with its gap per entry.
  lefts = [18 + 40 + 26 + k * 48 for k in range(len(verdict))]
  return picture, lefts


def tile(picture, left):
  """Returns the framed picture that starts at column `left` of the first row."""
  return picture[18 : 18 + 70, left : left + 40]


def test_every_verdict_has_its_frame_and_entries_that_do_not_count_are_grey():
  picture, lefts = sheet(list(VERDICTS))
  for verdict, left in zip(VERDICTS, lefts, strict=True):
    entry = tile(picture, left)
    np.testing.assert_array_equal(entry[:2, :20], np.broadcast_to(COLORS[verdict], (2, 20, 3)))
    np.testing.assert_array_equal(entry[:, :5], np.broadcast_to(COLORS[verdict], (70, 5, 3)))
    inside = entry[40:60, 8:32]
    if verdict in ("match", "wrong"):
      np.testing.assert_array_equal(inside, np.broadcast_to(BLUE, inside.shape))
    else:
      assert np.ptp(inside.astype(int), axis=-1).max() == 0
      assert inside.min() > 128


def test_tick_and_cross_differ_by_shape():
  picture, lefts = sheet(["match", "wrong"])
  # The badge is in the upper right corner; its strokes are white.
  light = [(tile(picture, left)[3:28, 14:38] > 250).all(-1) for left in lefts]
  assert light[0].any()
  assert (light[0] != light[1]).sum() > 10


def test_entries_that_do_not_count_have_no_rank_number():
  whole, lefts = sheet(["wrong", "same camera", "wrong"])
  counted, _ = sheet(["wrong", "wrong", "wrong"])

  def words(picture, k):
    return picture[88:107, lefts[k] : lefts[k] + 40]

  np.testing.assert_array_equal(words(whole, 0), words(counted, 0))
  np.testing.assert_array_equal(words(whole, 2), words(counted, 1))  # it is at rank 2
  assert (words(whole, 2) != words(counted, 2)).any()


def test_pictures_of_any_size_keep_their_proportions():
  picture, lefts = sheet([None] * 3, [plain(size=(120, 60)), plain(size=(20, 30)), plain(size=(300, 20))])
  counts = []
  for left in lefts:
    is_blue = (tile(picture, left) == BLUE).all(-1)
    counts.append((is_blue.any(1).sum(), is_blue.any(0).sum()))
  assert counts == [(60, 30), (20, 30), (60, 4)]


def test_lists_may_have_different_lengths_and_no_verdicts():
  picture = rank_sheet([plain(), plain()], [[plain()] * 2, [plain()]], [[0.1, 0.2], [0.3]], cell=CELL)
  assert picture.dtype == np.uint8
  other = rank_sheet([plain()], [[plain()] * 2], [[0.1, 0.2]], cell=CELL)
  assert picture.shape[1] == other.shape[1]
  assert picture.shape[0] > other.shape[0] + CELL[0]


def test_long_labels_are_cut_to_the_width_of_the_tile(monkeypatch):
  written = []
  write = canvas.write_centered

  def record(picture, text, x, y, size, *args):
    written.append((text, size, picture.shape[1], canvas.text_width(text, size)))
    write(picture, text, x, y, size, *args)

  monkeypatch.setattr(canvas, "write_centered", record)
  sheet(["match"], query_labels=["a person seen in a station"], gallery_labels=[["0001_c1s1_000451_03.jpg"]])
  cut = [entry for entry in written if "…" in entry[0]]
  assert len(cut) == 2
  assert all(width <= limit and size >= 12 for _, size, limit, width in cut)
  assert cut[1][0].endswith("jpg")


def test_a_sheet_does_not_change_its_input_pictures():
  given = plain()
  sheet(["same camera"], [given])
  np.testing.assert_array_equal(given, plain())


def test_a_text_query_is_above_its_pictures_in_several_lines():
  caption = "A woman in a red coat with a backpack walks to the left. " * 2
  verdicts = [["match"] + ["wrong"] * 11, ["wrong"]]
  galleries = [[plain()] * len(row) for row in verdicts]
  numbers = [[0.5] * len(row) for row in verdicts]

  def draw(*queries):
    return rank_sheet(queries, galleries, numbers, verdicts, cell=CELL)

  short, long = draw("a man", "a boy"), draw(caption, "a boy")
  pitch = len(canvas.paragraph("a man", 500, 15, 600))
  lines = len(canvas.wrap(caption, short.shape[1] - 36, 15, 600))
  assert lines > 1
  # The first caption has more lines. Everything below it moves down, and nothing else changes.
  assert long.shape == (short.shape[0] + (lines - 1) * pitch, *short.shape[1:])
  np.testing.assert_array_equal(long[18 + lines * pitch :], short[18 + pitch :])
  top = 18 + pitch + 6
  for picture, height in ((short, pitch), (long, lines * pitch)):
    is_dark = (picture[18 : 18 + height] < 128).all(-1).any(1)
    # Every line of the caption has letters.
    assert is_dark.reshape(-1, pitch).any(1).all()
  # The rows begin at the left edge, because there is no tile of a query.
  for verdict, left in zip(verdicts[0][:3], (18, 66, 114), strict=True):
    np.testing.assert_array_equal(short[top, left : left + 40], np.broadcast_to(COLORS[verdict], (40, 3)))


def test_the_label_of_a_text_query_is_below_the_text():
  plain_sheet, labelled = (
    rank_sheet(["a man"], [[plain()]], [[0.5]], query_labels=[label], cell=CELL) for label in ("", "0001.jpg")
  )
  added = labelled.shape[0] - plain_sheet.shape[0]
  assert added == len(canvas.paragraph("0001.jpg", 420, 13))
  text = 18 + len(canvas.paragraph("a man", 420, 15))
  np.testing.assert_array_equal(labelled[:text], plain_sheet[:text])
  np.testing.assert_array_equal(labelled[text + added :], plain_sheet[text:])


def test_a_text_query_may_have_an_empty_list():
  picture = rank_sheet(["a man", "a boy"], [[plain()], []], [[0.5], []], [["match"], []], cell=CELL)
  one = rank_sheet(["a man"], [[plain()]], [[0.5]], [["match"]], cell=CELL)
  assert picture.shape[0] > one.shape[0]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"queries": [], "galleries": [], "distance": []}, "at least one query"),
    ({"galleries": [[]], "distance": [[]]}, "one gallery entry"),
    (
      {"distance": [[0.1]]},
      r"distance has row lengths \[1\]; expected 1 rows \(one per query\) with lengths \[2\]",
    ),
    ({"verdict": [["match", "good"]]}, "verdicts .'good'. are unknown"),
    ({"galleries": [[plain(), plain() / 255.0]]}, r"a picture is float64 \[60, 30, 3\]"),
    ({"query_labels": ["a", "b"]}, "one label for each query"),
    (
      {"queries": [plain(), "a man"], "galleries": [[plain()]] * 2, "distance": [[0.1]] * 2},
      "1 of 2 queries are texts",
    ),
  ],
)
def test_bad_input_is_an_error_that_names_it(change, message):
  given = {"queries": [plain()], "galleries": [[plain(), plain()]], "distance": [[0.1, 0.2]]}
  with pytest.raises(ValueError, match=message):
    rank_sheet(**(given | change))


def test_swatches_wrap_to_the_width():
  entries = [((200, 0, 0), "first"), ((0, 200, 0), "second")]
  wide, narrow = canvas.swatches(entries, 400), canvas.swatches(entries, 90)
  assert narrow.shape[0] == 2 * wide.shape[0]
  for strip in (wide, narrow):
    for color, _ in entries:
      assert (strip == color).all(-1).sum() == 18 * 18
  assert cv2.cvtColor(wide, cv2.COLOR_RGB2GRAY).min() < 60  # words


def test_entries_that_pass_a_threshold_have_a_blue_frame_and_no_badge():
  queries, entries = [plain((9, 9, 9))], [[plain()] * 2]
  picture = rank_sheet(queries, entries, [[0.5, 0.6]], passes=[[True, False]], cell=CELL)
  for word, left in (("passes", 84), ("below", 132)):
    entry = tile(picture, left)
    np.testing.assert_array_equal(entry[:, :5], np.broadcast_to(COLORS[word], (70, 5, 3)))
    np.testing.assert_array_equal(entry[5:65, 5:35], np.broadcast_to(BLUE, (60, 30, 3)))
