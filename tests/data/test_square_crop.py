"""Square crops of one person: the rules for boxes, and how pixels, joints and the mirror move together."""

import cv2
import numpy as np
import pytest

from hap_jax.data.skeletons import SMPL30
from hap_jax.data.sources.base import BadRecordError
from hap_jax.data.transforms import square_crop, topdown

SIZE = (64, 64)
H, W = 90, 120


def make_record(seed=0, box=(30, 12, 75, 80)):
  rng = np.random.default_rng(seed)
  return {
    "image": rng.integers(256, size=(H, W, 3)).astype(np.uint8),
    "keypoints_xy": rng.uniform((20, 10), (80, 85), (30, 2)).astype(np.float32),
    "keypoints_visible": rng.random(30) < 0.8,
    "box": np.array(box, np.float32),
  }


def apply(transforms, record, seed=0):
  rng = np.random.default_rng(seed)
  for transform in transforms:
    record = transform(record, rng)
  return record


def make_augmentation(flip_prob=0.5):
  return square_crop.make_augmentation(
    image_size=SIZE,
    flip_pairs=SMPL30.flip_pairs,
    flip_prob=flip_prob,
    scale=0.25,
    rotation=30,
    rotation_prob=0.6,
    color_gain=0.2,
  )


# {name: (box, region around it, good enough for training)} in a picture of 120 x 90 pixels
BOXES = {
  "inside": ((30, 12, 75, 80), (52, 45.5, 67 * 1.25, 67 * 1.25), True),
  "over the left border": ((-10, 20, 31, 40), (20, 29.5, 50, 50), True),
  "over the right border": ((100, 20, 141, 30), (109.5, 24.5, 23.75, 23.75), True),
  "outside": ((130, 20, 160, 61), (124.5, 40, 50, 50), False),
  "no width": ((50, 20, 50, 41), (50, 30, 25, 25), False),
  "turned": ((50, 41, 60, 20), (54.5, 41, 11.25, 11.25), False),
  "one pixel": ((50, 20, 51, 21), (50, 20, 0, 0), False),
  "one row": ((50, 20, 61, 21), (55, 20, 12.5, 12.5), True),
}


@pytest.mark.parametrize(("box", "region", "is_good"), BOXES.values(), ids=BOXES)
def test_a_box_becomes_a_square_of_the_part_in_the_picture(box, region, is_good):
  np.testing.assert_allclose(square_crop.square_region(box, (H, W)), region)
  assert square_crop.can_train(box, (H, W)) == is_good


def test_the_box_around_joints_is_enlarged_about_its_centre():
  xy = np.array([[10, 20], [30, 70], [500, 500]])
  np.testing.assert_allclose(square_crop.joint_box(xy, [True, True, False]), [8, 15, 32, 75])
  assert square_crop.joint_box(xy, [False] * 3) is None


@pytest.mark.parametrize("box", [(50, 20, 51, 21), (np.nan, 0, 20, 20)])
def test_a_person_without_a_region_is_an_error(box):
  with pytest.raises(
    ValueError, match=r"more than one pixel in a picture of 90 x 120 pixels \(height x width"
  ):
    square_crop.PersonSquare()(make_record(box=box), None)


def test_a_box_outside_the_picture_is_a_bad_record_of_the_training_only():
  record = make_record(box=(130, 20, 160, 61))
  square_crop.PersonSquare()(record, None)
  with pytest.raises(BadRecordError, match="more than one pixel in a picture"):
    square_crop.PersonSquare(is_training=True)(record, None)


def test_colours_change_by_at_most_the_gain():
  record = {"image": np.full((4, 4, 3), 100, np.uint8)}
  image = square_crop.ColorGain(0.2)(record, np.random.default_rng(0))["image"]
  assert len(np.unique(image[0, 0])) == 3
  assert 80 <= image.min() <= image.max() <= 120


def test_matrices_agree_with_three_points_of_opencv():
  rng = np.random.default_rng(0)
  for _ in range(200):
    x, y, w, h = rng.uniform((0, 0, 20, 20), (200, 200, 300, 300))
    degrees = rng.uniform(-60, 60)
    angle = np.deg2rad(degrees)
    right = np.array([np.cos(angle), np.sin(angle)])
    down = np.array([-right[1], right[0]])
    source = np.array([[x, y], [x, y] + w / 2 * right, [x, y] + h / 2 * down], np.float32)
    target = np.array([[32, 32], [64, 32], [32, 64]], np.float32)
    found = square_crop.square_matrix((x, y, w, h), degrees, SIZE)
    points = rng.uniform(0, 200, (10, 2))
    expected = cv2.transform(points[None], cv2.getAffineTransform(source, target))[0]
    np.testing.assert_allclose(cv2.transform(points[None], found)[0], expected, atol=2e-3)
    back = cv2.transform(expected[None], cv2.invertAffineTransform(found))[0]
    np.testing.assert_allclose(back, points, atol=2e-2)


def test_joints_and_the_matrix_of_the_crop_move_together():
  record, seen = make_record(), set()
  for seed in range(12):
    found = apply(make_augmentation(), record, seed)
    mirrored = bool(found["is_mirrored"])
    seen.add(mirrored)
    order = np.arange(30)
    if mirrored:
      for left, right in SMPL30.flip_pairs:
        order[[left, right]] = right, left
    visible = record["keypoints_visible"][order]
    np.testing.assert_array_equal(found["keypoints_visible"], visible)
    moved = record["keypoints_xy"][order] @ found["crop_matrix"][:, :2].T + found["crop_matrix"][:, 2]
    np.testing.assert_allclose(found["keypoints_xy"][visible], moved[visible], atol=1e-3)
    assert found["image"].shape == (*SIZE, 3)
    assert found["image"].dtype == np.uint8
    assert found["crop_matrix"].dtype == found["keypoints_xy"].dtype == np.float32
  assert seen == {True, False}


def test_pixels_move_as_joints_do():
  # A bright dot in a dark picture is found where its joint is.
  record = make_record()
  record["keypoints_xy"][:] = 50, 40
  record["image"][:] = 0
  cv2.circle(record["image"], (50, 40), 3, (255, 255, 255), -1)
  for seed in range(6):
    found = apply(make_augmentation(), {**record, "keypoints_visible": np.ones(30, bool)}, seed)
    weight = found["image"][..., 0].astype(np.float64)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    center = (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()
    np.testing.assert_allclose(center, found["keypoints_xy"][0], atol=0.3)


def test_a_view_has_no_randomness_and_no_mirror():
  record = make_record()
  found = apply(square_crop.make_view(image_size=SIZE), record)
  assert set(found) == {*record, "region", "crop_matrix"}
  middle = found["crop_matrix"] @ np.array([*found["region"][:2], 1])
  np.testing.assert_allclose(middle, [32, 32], atol=1e-4)


def test_every_new_field_is_declared():
  added = {name for transform in make_augmentation() for name in getattr(transform, "adds", ())}
  record = make_record()
  assert set(apply(make_augmentation(), record)) == set(record) | added


def test_a_probability_above_one_is_an_error():
  with pytest.raises(ValueError, match="prob=2: expected a probability"):
    square_crop.MirrorBody((), prob=2)


def test_square_regions_have_the_matrix_of_the_older_rule():
  region = (40.0, 50.0, 70.0, 70.0)
  expected = topdown.warp_matrix(region, 20, SIZE, "msra")
  np.testing.assert_allclose(square_crop.square_matrix(region, 20, SIZE), expected, atol=1e-12)
