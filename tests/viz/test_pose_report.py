"""Pictures of 2D pose: bars, the curve, pairs of truth and prediction, and the people of a picture."""

import numpy as np
import pytest

from hap_jax.data.skeletons import COCO17
from hap_jax.viz import figure, pose, pose_report

K = 17
BLUE = tuple(int(figure.BLUE[i : i + 2], 16) for i in (1, 3, 5))


def chart(shares, full=1):
  thresholds = np.linspace(0, 0.3, 7)
  return pose_report.accuracy_chart(
    COCO17.joints[: len(shares)],
    shares,
    thresholds,
    full * thresholds / 0.3,
    score="PCK@0.1",
    marks=((0.1, "PCK@0.1"),),
    unit="longer side of the box",
    full=full,
    title="5 people of val",
  )


@pytest.mark.parametrize("full", [1, 100])
def test_a_higher_share_has_a_longer_bar_and_a_joint_without_truth_has_none(full):
  picture = chart(np.array([0.25, np.nan, 1.0]) * full, full)
  is_bar = (picture == BLUE).all(axis=-1)[:, : picture.shape[1] // 2]
  rows = np.flatnonzero(is_bar.sum(axis=1) > 20)
  starts = rows[np.flatnonzero(np.diff(rows, prepend=-9) > 1)]
  assert len(starts) == 2
  lengths = [is_bar[start + 2].sum() for start in starts]
  assert lengths[0] == pytest.approx(0.25 * lengths[1], abs=3)
  # There is space for another bar between the two bars, because the second joint has no bar.
  assert starts[1] - starts[0] > 0.3 * picture.shape[0]


def person(image, xy, **changes):
  fields = {
    "image": image,
    "region": (50, 40, 40, 50),
    "truth_xy": np.full((K, 2), 45.0),
    "is_labelled": np.ones(K, bool),
    "xy": xy,
    "title": "OKS 0.50",
  }
  return pose_report.ShownPerson(**(fields | changes))


def test_truth_is_at_the_left_and_prediction_at_the_right_of_a_person():
  image = np.full((80, 100, 3), 90, np.uint8)
  sheets = [
    pose_report.people_sheet([person(image, xy)], COCO17, title="people")
    for xy in (np.full((K, 2), 45.0), np.full((K, 2), 60.0), np.full((K, 2), np.nan))
  ]
  assert len({sheet.shape for sheet in sheets}) == 1
  background = (sheets[2] == 90).all(axis=-1)
  rows, columns = (np.flatnonzero(background.any(axis=axis)) for axis in (1, 0))
  middle = (columns[0] + columns[-1]) // 2
  top, bottom = rows[0], rows[-1] + 1
  truth, prediction = np.s_[top:bottom, columns[0] : middle - 1], np.s_[top:bottom, middle + 3 : columns[-1]]
  np.testing.assert_array_equal(sheets[0][truth], sheets[1][truth])
  assert (sheets[0][prediction] != sheets[1][prediction]).any()
  assert (sheets[2][prediction] == 90).all()  # nothing is drawn without a prediction
  assert (sheets[2][truth] != 90).any()


def test_a_predicted_joint_without_truth_has_a_white_centre():
  image = np.full((80, 100, 3), 90, np.uint8)
  xy = np.full((K, 2), 50.0)
  xy[5] = 40, 30
  is_labelled = np.arange(K) != 5
  marked, plain = (
    pose_report.people_sheet([person(image, xy, is_labelled=known)], COCO17)
    for known in (is_labelled, np.ones(K, bool))
  )
  assert (marked[:150] == 255).all(axis=-1).sum() > (plain[:150] == 255).all(axis=-1).sum()


@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0, 7.3])
@pytest.mark.parametrize("center", [(80, 60), (5, 115), (159, 3)])
def test_a_cut_out_region_has_its_pixels_at_the_places_of_the_matrix(factor, center):
  """The matrix and the pixels agree for regions that are enlarged, reduced or reach outside."""
  y, x = np.mgrid[:120, :160]
  image = np.stack([x, y, np.full_like(x, 50)], axis=-1).astype(np.uint8)  # each pixel has its position
  size = (90, 70)
  region = (*center, 70 / factor, 90 / factor)
  picture, matrix = pose_report.cut_out(image, region, size)
  assert picture.shape == (*size, 3)
  found = np.argwhere(picture[..., 2] == 50)
  assert len(found)
  for row, column in found[:: max(1, len(found) // 50)]:
    place = picture[row, column, :2].astype(float)
    np.testing.assert_allclose(matrix[:, :2] @ place + matrix[:, 2], (column, row), atol=1.5 * max(factor, 1))
  # The part of the region outside the picture is grey, and nothing else is.
  rows, columns = np.mgrid[: size[0], : size[1]]
  places = (np.stack([columns, rows]) - matrix[:, 2, None, None]) / matrix[[0, 1], [0, 1], None, None]
  outside = np.maximum(-places, places - np.array([[[159]], [[119]]])).max(axis=0)  # pixels of the picture
  is_grey = (picture == pose_report._OUTSIDE).all(axis=-1)
  assert is_grey[outside > 0.5 + 1 / factor].all()
  assert not is_grey[outside < 0.5 - 1 / factor].any()


def test_a_region_outside_the_picture_is_empty():
  picture, _ = pose_report.cut_out(np.zeros((10, 10, 3), np.uint8), (500, 500, 20, 20), (30, 30))
  assert (picture == pose_report._OUTSIDE).all()


@pytest.mark.parametrize(
  ("size", "drawn"),
  [((1, 1), (960, 960)), ((1, 500), (2, 960)), ((40, 30), (960, 720)), ((1000, 500), (1000, 500))],
)
def test_people_are_drawn_at_a_size_at_which_lines_can_be_seen(size, drawn):
  image = np.full((*size, 3), 100, np.uint8)
  xy = np.zeros((2, K, 2)) + np.array(size[::-1]) / 2 - 0.5
  picture = pose.draw_people(image, [], xy, np.zeros((2, K), bool), COCO17)
  assert picture.shape == (*drawn, 3)
  assert (picture == 100).all()
  xy[1] += 1e9  # a joint that is far away is not an error
  seen = pose.draw_people(image, [[0, 0, *size[::-1]]] * 2, xy, np.ones((2, K), bool), COCO17)
  middle = seen[drawn[0] // 2, drawn[1] // 2]
  assert tuple(middle.tolist()) in pose.SIDE_COLORS.values()


def test_a_huge_picture_is_reduced_and_its_joints_with_it():
  image = np.full((6000, 3000, 3), 100, np.uint8)
  xy = np.full((1, K, 2), 1500.0)
  picture = pose.draw_people(image, [[750, 750, 2250, 2250]], xy, np.ones((1, K), bool), COCO17)
  assert picture.shape == (1920, 960, 3)
  assert tuple(picture[480, 480].tolist()) in pose.SIDE_COLORS.values()
  assert (picture[240, 240:720] == 255).all()  # the upper edge of the box
