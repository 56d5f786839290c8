"""Tests of sheets of synthetic people: colours of sides, hidden joints and parts, and the command."""

import cv2
import numpy as np
import pytest

from hap_jax.cli import __main__ as cli
from hap_jax.data.skeletons import COCO17
from hap_jax.synthetic import draw
from hap_jax.synthetic.anatomy import PART_INDEX, PARTS
from hap_jax.viz import people
from hap_jax.viz.pose import SIDE_COLORS, draw_sides


@pytest.fixture(scope="module")
def record():
  return draw.draw_person(0, 240, (96, 48))


def test_seen_joints_have_the_colour_of_their_side_and_hidden_joints_have_a_white_centre():
  xy = np.stack([10 + 14 * (np.arange(17) % 6), 10 + 14 * (np.arange(17) // 6)], axis=1)
  hidden, visible = np.zeros(17, bool), np.ones(17, bool)
  hidden[COCO17.joints.index("right_knee")], visible[COCO17.joints.index("nose")] = True, False
  picture = draw_sides(np.full((60, 100, 3), 128, np.uint8), xy, visible, hidden, COCO17)
  at = {name: tuple(picture[xy[k][1], xy[k][0]].tolist()) for k, name in enumerate(COCO17.joints)}
  assert at["left_wrist"] == SIDE_COLORS["left"]
  assert at["right_wrist"] == SIDE_COLORS["right"]
  assert at["right_knee"] == (255, 255, 255)
  assert at["nose"] == (128, 128, 128)


def test_parts_are_tinted_and_the_right_side_is_darker():
  parts = np.zeros((4, 4), np.uint8)
  parts[0], parts[1] = PART_INDEX["left_foot"], PART_INDEX["right_foot"]
  picture = people.draw_parts(np.full((4, 4, 3), 100, np.uint8), parts, PARTS).astype(int)
  assert (picture[0] > picture[1]).all()
  assert np.ptp(picture[3, 0]) == 0  # the background is grey
  assert np.ptp(picture[0, 0]) > 20


def test_a_sheet_shows_the_pictures_unchanged(record):
  image = record["image"]
  sheet = people.contact_sheet([[image, image]], ["somebody"], [["Tall."]], ["camera 1", "camera 2"])
  starts = np.argwhere((sheet[:-95, :-47] == image[0, 0]).all(axis=-1))
  assert sum(np.array_equal(sheet[y : y + 96, x : x + 48], image) for y, x in starts) == 2


def test_text_higher_than_its_pictures_makes_the_row_higher(record):
  short, long = (
    people.contact_sheet([[record["image"]]], ["somebody"], [[text]], ["camera 1"], text_width=100)
    for text in ("short", "long " * 80)
  )
  assert long.shape[0] > short.shape[0] + 96
  assert (long[-40:-18] < 128).any()  # the last line


def test_last_row_of_the_truth_sheet_may_be_shorter(record):
  full, started = (people.truth_sheet([record] * n, PARTS, columns=2) for n in (4, 3))
  assert full.shape == started.shape
  row = np.s_[18 + 96 + 14 : 18 + 2 * 96 + 14]
  half = 18 + 3 * 48 + 2 * 4 + 11  # the middle of the gap between two records
  np.testing.assert_array_equal(full[row, :half], started[row, :half])
  assert (started[row, half:] == 255).all()


def test_the_command_writes_both_sheets_and_overwrites_no_file(tmp_path, capsys):
  words = ["people", f"--out={tmp_path / 'sheets'}", "--rows=1"]
  assert cli.main(words) == 0
  shapes = [cv2.imread(line).shape for line in capsys.readouterr().out.split()]
  assert len(shapes) == 2
  assert all(height > 200 and width > 900 for height, width, _ in shapes)
  assert cli.main(words) == 1
  assert "people.jpg exists" in capsys.readouterr().err
