"""Transforms of one person: their results for given random numbers, and the distribution of their draws."""

import json
import statistics

import cv2
import numpy as np
import pytest

from hap_jax.data.skeletons import AIC14, COCO17
from hap_jax.data.sources import mpii_pose
from hap_jax.data.transforms import topdown

SIZE = (64, 48)
ASPECT = 48 / 64


class Given:
  """A generator that returns given numbers, and checks the order of the calls."""

  def __init__(self, *numbers):
    self.numbers = list(numbers)  # pairs (method, number)

  def _next(self, method):
    expected, number = self.numbers.pop(0)
    assert method == expected
    return number

  def random(self, shape=None):
    return self._next("random") if shape is None else np.array([self._next("random") for _ in range(shape)])

  def standard_normal(self):
    return self._next("normal")


def uniform(*numbers):
  return [("random", number) for number in numbers]


def normal(*numbers):
  return [("normal", number) for number in numbers]


def make_record(H=90, W=120, seed=0, K=17):
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:H, :W]
  waves = np.stack([127 + 90 * np.sin(x / a + y / b) for a, b in ((9, 31), (17, 5), (40, 13))], axis=-1)
  return {
    "image": (waves + rng.normal(0, 20, (H, W, 3))).clip(0, 255).astype(np.uint8),
    # Some joints are outside the picture.
    "keypoints_xy": (rng.random((K, 2)) * (W, H) * 1.2 - 5).astype(np.float32),
    "keypoints_visible": rng.random(K) < 0.8,
    "box": np.array([30, 12, 75, 80], np.float32),
  }


def with_region(record, region=(52.5, 46.0, 60.0, 80.0)):
  return {**record, "region": np.array(region, np.float32)}


@pytest.mark.parametrize(
  ("codec", "degrees", "expected"),
  [
    ("udp", 0, [[1.2733333, 0, -31.833334], [0, 1.275, -25.5]]),
    ("udp", 30, [[1.102739, -0.63666666, 61.6261], [0.6375, 1.1041824, -68.75189]]),
    ("msra", 0, [[1.28, 0, -32], [0, 1.28, -25.6]]),
    ("msra", 30, [[1.10851253, 0.64000001, -91.65125428], [-0.64000001, 1.10851253, 58.97849843]]),
  ],
)
def test_matrices_equal_the_checked_numbers_of_the_official_code(codec, degrees, expected):
  found = topdown.warp_matrix((100, 120, 150, 200), degrees, (256, 192), codec)
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


def bilinear(image, matrix, size):
  """Warps a picture with black outside, in float64 and not rounded."""
  H, W = image.shape[:2]
  inverse = np.linalg.inv(np.concatenate([matrix, [[0, 0, 1]]]))
  y, x = np.mgrid[: size[0], : size[1]]
  source = inverse @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
  first = np.floor(source[:2]).astype(int)
  fx, fy = source[:2] - first
  result = np.zeros((x.size, 3))
  for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
    weight = (fx if dx else 1 - fx) * (fy if dy else 1 - fy)
    column, row = first[0] + dx, first[1] + dy
    inside = (column >= 0) & (column < W) & (row >= 0) & (row < H)
    result[inside] += weight[inside, None] * image[row[inside], column[inside]].astype(float)
  return result.reshape(*size, 3)


@pytest.mark.parametrize("codec", topdown.CODECS)
def test_warp_is_bilinear_interpolation_rounded_to_whole_grey_levels(codec):
  rng = np.random.default_rng(1)
  for seed in range(8):
    height = rng.uniform(40, 160)
    record = with_region(make_record(seed=seed), (*rng.uniform(10, 100, 2), ASPECT * height, height))
    record["rotation"] = np.float32(rng.uniform(-80, 80))
    found = topdown.WarpRegion(SIZE, codec)(record, None)["image"]
    matrix = topdown.warp_matrix(record["region"], float(record["rotation"]), SIZE, codec)
    assert np.abs(found - bilinear(record["image"], matrix, SIZE)).max() <= 1
    assert found.dtype == np.uint8
    assert (found == 0).all(axis=-1).any()  # black corners are part of the test


@pytest.mark.parametrize("codec", topdown.CODECS)
def test_warped_joints_return_to_the_picture(codec):
  record = with_region(make_record())
  record["rotation"] = np.float32(33)
  moved = topdown.WarpRegion(SIZE, codec)(record, None)
  matrix = topdown.warp_matrix(record["region"], 33, SIZE, codec)
  back = (moved["keypoints_xy"] - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
  np.testing.assert_allclose(back, record["keypoints_xy"], atol=1e-3)
  assert moved["is_udp"] == (codec == "udp")
  np.testing.assert_array_equal(moved["region"], record["region"])


def test_both_codecs_turn_in_opposite_directions_and_agree_on_the_center():
  for codec, sign, middle in (("udp", 1, (23.5, 31.5)), ("msra", -1, (24, 32))):
    matrix = topdown.warp_matrix((50, 40, 48, 64), 90, SIZE, codec)
    np.testing.assert_allclose(matrix @ (50, 40, 1), middle, atol=1e-9)
    right = matrix @ (51, 40, 1) - middle
    assert right[1] * sign > 0.9


@pytest.mark.parametrize(("codec", "last"), [("udp", 47), ("msra", 48)])
def test_a_mirrored_person_is_the_mirror_image_of_the_warped_person(codec, last):
  record = with_region(make_record())
  warp = topdown.WarpRegion(SIZE, codec)
  mirrored = warp(topdown.MirrorPerson(COCO17.flip_pairs, 1.0)(record, np.random.default_rng(0)), None)
  plain = warp(record, None)
  order = np.arange(17)
  for left, right in COCO17.flip_pairs:
    order[[left, right]] = right, left
  visible = record["keypoints_visible"]
  np.testing.assert_array_equal(mirrored["keypoints_visible"], visible[order])
  expected = plain["keypoints_xy"] * (-1, 1) + (last, 0)
  np.testing.assert_allclose(mirrored["keypoints_xy"][order][visible], expected[visible], atol=1e-5)
  if codec == "udp":  # under the older rule, the columns of both images lie half a pixel apart
    difference = mirrored["image"].astype(int) - plain["image"][:, ::-1]
    assert np.abs(difference).max() <= 1


def test_mirror_twice_is_the_identity_for_visible_joints_and_sets_the_others_to_zero():
  record, mirror = with_region(make_record()), topdown.MirrorPerson(COCO17.flip_pairs, 1.0)
  once = mirror(record, np.random.default_rng(0))
  assert not once["keypoints_xy"][~once["keypoints_visible"]].any()
  twice = mirror(once, np.random.default_rng(0))
  visible = record["keypoints_visible"]
  np.testing.assert_allclose(twice["keypoints_xy"][visible], record["keypoints_xy"][visible], atol=1e-5)
  for name in ("image", "keypoints_visible", "box", "region"):
    np.testing.assert_array_equal(twice[name], record[name])
  # The region of the mirrored box is the mirrored region.
  region = topdown.PersonRegion(ASPECT)
  np.testing.assert_array_equal(
    region(once, None)["region"], mirror(region(record, None), np.random.default_rng(0))["region"]
  )


def test_region_is_the_box_grown_to_the_aspect_and_padded():
  wide = topdown.region_of_box((10, 20, 110, 70), 0.75)
  np.testing.assert_allclose(wide, (60, 45, 125, 100 / 0.75 * 1.25), rtol=1e-6)
  tall = topdown.region_of_box((10, 20, 20, 120), 0.75, padding=2.0)
  np.testing.assert_allclose(tall, (15, 70, 150, 200), rtol=1e-6)
  square = topdown.region_of_box((0, 0, 80, 80), 0.75, fit_aspect=False)
  np.testing.assert_allclose(square, (40, 40, 100, 100), rtol=1e-6)
  # A detector may give a box without a width. Its height is enough.
  np.testing.assert_allclose(topdown.region_of_box((5, 0, 5, 80), 0.75), (5, 40, 75, 100), rtol=1e-6)


@pytest.mark.parametrize("box", [(5, 5, 5, 5), (9, 0, 2, -4), (0, 0, np.nan, 5), (0, 0, np.inf, 5)])
def test_an_empty_box_is_an_error_that_names_it(box):
  with pytest.raises(ValueError, match=r"box=\[.*left < right"):
    topdown.region_of_box(box, 0.75)


def test_a_box_that_reaches_outside_is_cut_at_the_border_only_on_request():
  record = {**make_record(), "box": np.array([-30, 10, 50, 300], np.float32)}
  cut, whole = (topdown.PersonRegion(ASPECT, clip=clip)(record, None)["region"] for clip in (True, False))
  np.testing.assert_array_equal(cut, topdown.region_of_box((0, 10, 50, 89), ASPECT))
  np.testing.assert_array_equal(whole, topdown.region_of_box(record["box"], ASPECT))


def test_a_box_is_not_cut_if_nothing_would_remain():
  record = {"image": np.zeros((1, 9, 3), np.uint8), "box": np.float32([2, 0, 5, 1])}
  region = topdown.PersonRegion(ASPECT, clip=True)(record, None)["region"]
  np.testing.assert_array_equal(region, topdown.PersonRegion(ASPECT)(record, None)["region"])


def test_a_square_region_is_around_the_smallest_square_that_contains_the_box():
  for box, square in (([2, 3, 12, 43], [-13, 3, 27, 43]), ([0, 0, 50, 20], [0, -15, 50, 35])):
    record = {"image": np.zeros((9, 9, 3), np.uint8), "box": np.float32(box)}
    region = topdown.PersonRegion(ASPECT, fit_aspect=False, square=True)(record, None)["region"]
    np.testing.assert_array_equal(region, topdown.region_of_box(square, ASPECT, fit_aspect=False))


def test_jitter_moves_the_center_by_a_share_of_the_unpadded_box():
  record, jitter = make_record(), topdown.PersonRegion(ASPECT, jitter_prob=0.3)
  still = jitter(record, Given(*uniform(0.3)))["region"]
  moved = jitter(record, Given(*uniform(0.29, 0.75, 0.0)))["region"]
  # The box is 45 x 68 pixels, and the shift is 0.4 * (u - 0.5) of it.
  np.testing.assert_allclose(moved - still, (4.5, -13.6, 0, 0), atol=1e-5)
  epochs = [jitter(record, np.random.default_rng((0, epoch, 3)))["region"] for epoch in range(40)]
  assert len({tuple(region) for region in epochs}) > 5


def test_scale_and_rotation_follow_their_random_numbers():
  record, change = with_region(make_record()), topdown.ScaleRotate()
  for z_scale, factor in ((0.4, 1.2), (3.0, 1.5), (-3.0, 0.5)):
    for z_angle, angle in ((-1.5, -60), (2.5, 80), (-2.5, -80)):
      found = change(record, Given(*normal(z_scale, z_angle), *uniform(0.59)))
      np.testing.assert_allclose(found["region"], record["region"] * (1, 1, factor, factor), rtol=1e-6)
      np.testing.assert_allclose(found["rotation"], angle, rtol=1e-6)
      assert found["rotation"].dtype == np.float32
  assert change(record, Given(*normal(0, 1), *uniform(0.6)))["rotation"] == 0


def test_upper_or_lower_half_follows_the_random_number_and_the_number_of_joints():
  record = make_record(K=14)
  xy, visible = record["keypoints_xy"], np.ones(14, bool)
  upper = np.isin(np.arange(14), AIC14.upper_body)

  def region(chosen):
    (left, top), (right, bottom) = xy[chosen].min(0), xy[chosen].max(0)
    width, height = right - left, bottom - top
    width, height = max(width, ASPECT * height), max(height, width / ASPECT)
    return np.array([*xy[chosen].mean(0), 1.5 * width, 1.5 * height])

  def check(visible, z, chosen):
    found = topdown.half_body_region(xy, visible, AIC14.upper_body, ASPECT, z)
    np.testing.assert_allclose(found, region(chosen & visible), rtol=1e-6)

  check(visible, 0.49, upper)
  check(visible, 0.5, ~upper)
  # A half with at most two joints is not chosen if the other half has more joints.
  two_upper = visible & ~(upper & (np.cumsum(upper) > 2))
  check(two_upper, -1.0, ~upper)
  two_lower = visible & ~(~upper & (np.cumsum(~upper) > 2))
  check(two_lower, 1.0, upper)
  # If both halves have at most two joints, the upper half is taken; one joint is not enough.
  check(two_upper & two_lower, 1.0, upper)
  one = visible & False
  one[[0, 7]] = True
  assert topdown.half_body_region(xy, one, AIC14.upper_body, ASPECT, 0.0) is None
  assert topdown.half_body_region(xy * 0, visible, AIC14.upper_body, ASPECT, 0.0) is None


def test_half_body_needs_more_than_eight_joints_and_its_probability():
  record, half = with_region(make_record()), topdown.HalfBody(COCO17.upper_body, ASPECT, 0.3)
  record["keypoints_visible"] = np.arange(17) < 8
  assert half(record, Given()) is record
  record["keypoints_visible"] = np.arange(17) < 9
  assert half(record, Given(*uniform(0.3))) is record
  changed = half(record, Given(*uniform(0.29), *normal(0.0)))["region"]
  assert not np.array_equal(changed, record["region"])


def test_the_upper_body_is_chosen_with_the_official_probability():
  # All upper joints are at y = 0 and all lower ones at y = 100, so the region shows the choice.
  upper = np.isin(np.arange(17), COCO17.upper_body)
  record = with_region({**make_record(), "keypoints_visible": np.ones(17, bool)})
  record["keypoints_xy"] = np.stack([np.arange(17), np.where(upper, 0, 100)], axis=1).astype(np.float32)
  half, count = topdown.HalfBody(COCO17.upper_body, ASPECT, 1.0), 2000
  # The normal numbers are evenly spaced quantiles, so the share has no statistical error.
  numbers = [statistics.NormalDist().inv_cdf((i + 0.5) / count) for i in range(count)]
  regions = [half(record, Given(*uniform(0.0), *normal(number)))["region"] for number in numbers]
  assert abs(np.mean([region[1] < 50 for region in regions]) - 0.691) <= 0.005


def test_half_body_of_a_real_person_equals_the_checked_numbers(samples):
  people = json.loads((samples / "pose2d" / "coco" / "test_coco.json").read_text())["annotations"]
  (person,) = (person for person in people if person["image_id"] == 785 and person["num_keypoints"])
  joints = np.array(person["keypoints"], np.float32).reshape(17, 3)
  lower = topdown.half_body_region(joints[:, :2], joints[:, 2] > 0, COCO17.upper_body, 0.75, 1.0)
  np.testing.assert_allclose(lower, (412.5, 281.16666, 200 * 0.89437497, 200 * 1.1925), rtol=1e-6)


def test_training_transforms_draw_in_a_fixed_order_and_keep_joints_outside_visible():
  chain = topdown.make_augmentation(
    image_size=SIZE,
    codec="udp",
    skeleton=COCO17,
    fit_aspect=True,
    clip=False,
    jitter_prob=0.3,
    flip_prob=0.5,
    half_body_prob=0.3,
    scale=0.5,
    rotation=40.0,
    rotation_prob=0.6,
  )
  record = {**make_record(), "keypoints_visible": np.ones(17, bool)}
  # Region: jitter, its x and y. Mirror. Half body: decision, half. Scale, angle, decision on the angle.
  rng = Given(*uniform(0.1, 0.2, 0.9, 0.4, 0.1), *normal(0.1, -1.0, 0.8), *uniform(0.2))
  for transform in chain:
    record = transform(record, rng)
  assert not rng.numbers
  np.testing.assert_allclose(record["rotation"], 32)
  xy = record["keypoints_xy"]
  assert ((xy < 0) | (xy > (47, 63))).any()
  assert record["keypoints_visible"].all()
  assert record["image"].shape == (*SIZE, 3)
  assert [name for transform in chain for name in getattr(transform, "adds", ())] == [
    *("region", "rotation", "is_udp")
  ]


def test_evaluation_shows_the_whole_region_without_random_numbers():
  record = make_record()
  for transform in topdown.make_view(image_size=SIZE, codec="msra", fit_aspect=True, clip=False):
    record = transform(record, None)
  corners = record["region"][:2] + record["region"][2:] * ((-0.5, -0.5), (0.5, 0.5))
  matrix = topdown.warp_matrix(record["region"], 0, SIZE, "msra")
  np.testing.assert_allclose(corners @ matrix[:, :2].T + matrix[:, 2], [(0, 0), (48, 64)], atol=1e-4)
  assert record["image"].shape == (*SIZE, 3)


def test_a_record_without_joints_is_only_cut_out():
  record = with_region(make_record())
  whole = topdown.WarpRegion(SIZE, "udp")(record, None)
  del record["keypoints_xy"], record["keypoints_visible"]
  found = topdown.WarpRegion(SIZE, "udp")(record, None)
  np.testing.assert_array_equal(found["image"], whole["image"])
  assert "keypoints_xy" not in found


def test_transforms_change_no_array_of_their_record():
  record = with_region(make_record())
  copy = {name: value.copy() for name, value in record.items()}
  chain = (
    topdown.PersonRegion(ASPECT, jitter_prob=1.0),
    topdown.MirrorPerson(COCO17.flip_pairs, 1.0),
    topdown.HalfBody(COCO17.upper_body, ASPECT, 1.0),
    topdown.ScaleRotate(),
    topdown.WarpRegion(SIZE, "udp"),
  )
  for transform in chain:
    transform(record, np.random.default_rng(0))
  for name, value in copy.items():
    np.testing.assert_array_equal(record[name], value)


def test_impossible_options_are_errors():
  with pytest.raises(ValueError, match="codec='dark'"):
    topdown.WarpRegion(SIZE, "dark")
  with pytest.raises(ValueError, match=r"jitter_prob=1\.5"):
    topdown.PersonRegion(ASPECT, jitter_prob=1.5)
  with pytest.raises(ValueError, match=r"scale=1\.0"):
    topdown.ScaleRotate(scale=1.0)


def test_a_real_person_of_mpii_is_squeezed_by_the_checked_factors(samples):
  person = json.loads((samples / "pose2d" / "mpii" / "test_mpii.json").read_text())[0]
  (box,) = mpii_pose.squares(np.array([person["center"]]), np.array([person["scale"]]))
  region = topdown.region_of_box(box, 0.75, fit_aspect=False)
  matrix = topdown.warp_matrix(region, 0, (256, 192), "udp")
  np.testing.assert_allclose((matrix[0, 0], matrix[1, 1]), (0.16191627, 0.21617094), rtol=1e-6)


def test_joints_stay_on_their_pixels_after_mirror_and_rotation():
  image = np.zeros((480, 640, 3), np.uint8)
  image[298:303, 398:403] = 255
  record = with_region({**make_record(480, 640), "image": cv2.blur(image, (3, 3))}, (380, 310, 120, 160))
  record["keypoints_xy"] = np.tile(np.float32([400, 300]), (17, 1))
  record["keypoints_visible"] = np.ones(17, bool)
  record = topdown.MirrorPerson(COCO17.flip_pairs, 1.0)(record, np.random.default_rng(0))
  for codec in topdown.CODECS:
    moved = topdown.WarpRegion((256, 192), codec)({**record, "rotation": np.float32(25)}, None)
    weight = moved["image"][..., 0] / moved["image"][..., 0].sum()
    centre = (weight.sum(0) * np.arange(192)).sum(), (weight.sum(1) * np.arange(256)).sum()
    np.testing.assert_allclose(centre, moved["keypoints_xy"][0], atol=0.1)
