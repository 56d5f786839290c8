"""Decoding of heat maps against OpenCV and loops, and its known errors near the border."""

import re

import cv2
import jax
import numpy as np
import pytest

from hap_jax import sharding
from hap_jax.data.transforms import topdown
from hap_jax.pixels import heatmap_decode, heatmap_targets

merge = jax.jit(heatmap_decode.merge_mirrored, static_argnums=2)
decode = jax.jit(heatmap_decode.decode)
refine = jax.jit(heatmap_decode.refine_udp)
shift = jax.jit(heatmap_decode.shift_quarter)
find = jax.jit(heatmap_decode.find_maximum)

IMAGE_SIZE, SIZE = (256, 192), (64, 48)
RULES = np.array([True, False])  # one record of each rule


@jax.jit
def make_heatmaps(keypoints_xy, is_udp):
  weight = np.ones(keypoints_xy.shape[:2], np.float32)
  sizes = {"image_size": IMAGE_SIZE, "heatmap_size": SIZE}
  return heatmap_targets.make_heatmaps(keypoints_xy, weight, is_udp, **sizes)[0]


def peaks(xy, size=SIZE, sigma=2.0):
  """Returns Gaussians around places [..., 2] in cells, with the axes [..., h, w]."""
  y, x = np.mgrid[: size[0], : size[1]]
  distance = (x - xy[..., 0, None, None]) ** 2 + (y - xy[..., 1, None, None]) ** 2
  return np.exp(-distance / (2 * sigma**2)).astype(np.float32)


@pytest.fixture(scope="module")
def noisy():
  """Returns maps [2, h, w, 12] with one clear peak each, anywhere in the map, on a noisy background."""
  rng = np.random.default_rng(0)
  xy = rng.uniform(0, (47, 63), (2, 12, 2))
  maps = 0.8 * peaks(xy) + rng.normal(0, 0.01, (2, 12, *SIZE))
  return maps.transpose(0, 2, 3, 1).astype(np.float32)


def test_merge_exchanges_joints_mirrors_maps_and_shifts_only_the_older_rule():
  rng = np.random.default_rng(1)
  maps, mirrored = rng.integers(0, 2**20, (2, 2, 5, 4, 3)).astype(np.float32) * 2
  found = merge(maps, mirrored, ((1, 2),), RULES)
  back = mirrored[..., [0, 2, 1]][:, :, ::-1]
  np.testing.assert_array_equal(found[0], (maps[0] + back[0]) / 2)
  shifted = back[1].copy()
  shifted[:, 1:] = back[1][:, :-1]
  np.testing.assert_array_equal(found[1], (maps[1] + shifted) / 2)


def test_merge_of_the_maps_of_mirrored_udp_joints_changes_nothing():
  xy = np.random.default_rng(2).uniform(20, 170, (1, 3, 2)).astype(np.float32)
  mirrored_xy = (xy * (-1, 1) + (191, 0))[:, [0, 2, 1]].astype(np.float32)
  maps, mirrored = (make_heatmaps(joints, RULES[:1]) for joints in (xy, mirrored_xy))
  np.testing.assert_allclose(merge(maps, mirrored, ((1, 2),), RULES[:1]), maps, atol=1e-5)


def refined_with_opencv(heatmap, x, y):
  """Refines one maximum in float64, with OpenCV's blur."""
  blurred = cv2.GaussianBlur(heatmap.astype(np.float64), (11, 11), 0)
  value = np.pad(np.log(np.clip(blurred, 0.001, 50)), 1, mode="edge")
  near = value[y : y + 3, x : x + 3]
  gradient = np.array([near[1, 2] - near[1, 0], near[2, 1] - near[0, 1]]) / 2
  xx, yy = near[1, 2] - 2 * near[1, 1] + near[1, 0], near[2, 1] - 2 * near[1, 1] + near[0, 1]
  xy = (near[2, 2] - near[1, 2] - near[2, 1] + 2 * near[1, 1] - near[1, 0] - near[0, 1] + near[0, 0]) / 2
  hessian = np.array([[xx, xy], [xy, yy]]) + np.finfo(np.float32).eps * np.eye(2)
  return (x, y) - np.linalg.inv(hessian) @ gradient


def test_refinement_equals_a_blur_of_the_whole_map_with_opencv(noisy):
  cell, value = find(noisy)
  found = refine(noisy, cell)
  for row in range(2):
    for joint in range(noisy.shape[-1]):
      heatmap = noisy[row, :, :, joint]
      y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
      assert (*cell[row, joint], value[row, joint]) == (x, y, heatmap.max())
      np.testing.assert_allclose(found[row, joint], refined_with_opencv(heatmap, x, y), atol=1e-3)


@pytest.mark.parametrize("size", [(16, 12), (7, 3), (4, 2), (2, 1)])
def test_refinement_works_on_maps_smaller_than_the_blur(size):
  heatmap = np.random.default_rng(3).uniform(0.2, 1, size).astype(np.float32)
  h, w = size
  cells = [(0, 0), (w - 1, h - 1), (w // 2, h // 2)]
  maps = np.tile(heatmap[None, :, :, None], (1, 1, 1, 3))
  found = jax.jit(heatmap_decode._blurred_neighbours)(maps, np.array([cells]))
  blurred = np.pad(cv2.GaussianBlur(heatmap, (11, 11), 0), 1, mode="edge")
  for (x, y), near in zip(cells, found[0], strict=True):
    np.testing.assert_allclose(near, blurred[y : y + 3, x : x + 3], atol=1e-6)


def test_blur_has_the_checked_taps():
  taps = heatmap_decode._blur_matrix(64)[32, 32:38]
  checked = [0.20056541, 0.17699836, 0.12164907, 0.06511406, 0.02714358, 0.00881223]
  np.testing.assert_allclose(taps, checked, rtol=1e-6)


def refined_peaks(xy):
  maps = np.moveaxis(peaks(np.array(xy)[None]), 1, -1)
  return np.asarray(refine(maps, find(maps)[0]))[0]


def test_refinement_is_exact_in_the_interior_and_has_the_known_error_at_the_border():
  xy = np.random.default_rng(4).uniform((8, 8), (39, 55), (40, 2))
  np.testing.assert_allclose(refined_peaks(xy), xy, atol=1e-3)
  # True x and decoded x of the official code. The error comes from the blur's border.
  known = np.array([(1.2, 0.03), (2.2, 0.93), (3.3, 2.97), (4.4, 4.37), (6.0, 6.0)])
  found = refined_peaks([(x, 30.3) for x in known[:, 0]])
  np.testing.assert_allclose(found[:, 0], known[:, 1], atol=1e-2)


def test_quarter_shift_equals_a_loop_exactly(noisy):
  rng = np.random.default_rng(5)
  cells = rng.integers(0, (48, 64), (2, 12, 2))
  cells[0, :6] = [(0, 9), (1, 9), (2, 9), (46, 9), (47, 9), (9, 0)]
  cells[1, :5] = [(9, 1), (9, 2), (9, 62), (9, 63), (47, 63)]
  found = np.asarray(shift(noisy, cells))
  for row in range(2):
    for joint, (x, y) in enumerate(cells[row]):
      heatmap, expected = noisy[row, :, :, joint], np.array([x, y], float)
      if 1 < x < 47 and 1 < y < 63:
        expected[0] += 0.25 * np.sign(heatmap[y, x + 1] - heatmap[y, x - 1])
        expected[1] += 0.25 * np.sign(heatmap[y + 1, x] - heatmap[y - 1, x])
      np.testing.assert_array_equal(found[row, joint], expected)
  flat = np.ones((1, 64, 48, 1), np.float32)
  np.testing.assert_array_equal(shift(flat, np.array([[[9, 9]]]))[0, 0], (9, 9))  # no larger neighbour


def test_both_rules_in_one_batch_equal_each_rule_alone(noisy):
  region = np.array([[100, 120, 150, 200], [90, 50, 75, 100]], np.float32)
  mixed, score = decode(noisy, region, RULES)
  udp, udp_score = decode(noisy, region, np.array([True, True]))
  older, _ = decode(noisy, region, np.array([False, False]))
  np.testing.assert_array_equal(mixed[0], udp[0])
  np.testing.assert_array_equal(mixed[1], older[1])
  np.testing.assert_array_equal(score, udp_score)
  assert np.abs(udp - older).max() > 0.1


@pytest.mark.parametrize(("codec", "limit"), [("udp", 1e-2), ("msra", 0.75)])
def test_joints_of_a_picture_come_back_from_their_heat_maps(codec, limit):
  """The limit is in cells. The older rule rounds to cells twice, and then moves by a quarter."""
  region = np.array([[300, 200, 225, 300]], np.float32)
  xy = np.random.default_rng(6).uniform((225, 100), (375, 300), (1, 20, 2)).astype(np.float32)
  matrix = topdown.warp_matrix(region[0], 0, IMAGE_SIZE, codec)
  moved = (xy @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)
  is_udp = np.array([codec == "udp"])
  maps = make_heatmaps(moved, is_udp)
  found, score = decode(maps, region, is_udp)
  assert np.abs(found - xy).max() <= limit * region[0, 2] / SIZE[1]
  assert (np.asarray(score) > 0.9).all()


def test_a_map_without_a_positive_value_gives_the_cell_before_the_first():
  maps = np.full((2, *SIZE, 2), -0.5, np.float32)
  maps[:, 10, 20, 0] = 0
  maps[:, 10, 20, 1] = -0.25
  region = np.array([[100, 120, 94, 126], [100, 120, 96, 128]], np.float32)
  found, score = decode(maps, region, RULES)
  np.testing.assert_array_equal(score, [[0, -0.25]] * 2)
  for joint in range(2):
    np.testing.assert_allclose(found[0, joint], (100 - 47 - 2, 120 - 63 - 2), rtol=1e-6)
    np.testing.assert_allclose(found[1, joint], (100 - 48 - 2, 120 - 64 - 2), rtol=1e-6)


def test_flat_maps_and_numbers_that_are_not_finite_give_no_error():
  maps = np.full((2, *SIZE, 3), 0.5, np.float32)
  maps[..., 1] = np.nan
  maps[..., 2] = 1e-9  # below the range of the logarithm
  region = np.array([[100, 120, 94, 126]] * 2, np.float32)
  found, score = decode(maps, region, RULES)
  assert np.isfinite(found).all()
  assert np.isnan(score[:, 1]).all()


def test_devices_that_share_a_batch_give_the_results_of_one_device(noisy):
  mesh = sharding.make_mesh(8, 1, 1)
  maps, rules = np.tile(noisy, (4, 1, 1, 1)), np.tile(RULES, 4)
  region = np.random.default_rng(7).uniform(50, 200, (8, 4)).astype(np.float32)
  batch = sharding.put_batch({"maps": maps, "region": region, "rules": rules}, mesh)
  found = decode(batch["maps"], batch["region"], batch["rules"])
  jax.tree.map(np.testing.assert_array_equal, found, decode(maps, region, rules))


@pytest.mark.parametrize("platform", ["tpu", "cuda"])
def test_steps_on_heat_maps_need_no_host_and_no_scatter(platform):
  maps = jax.ShapeDtypeStruct((2, *SIZE, 3), np.float32)
  xy, region = (jax.ShapeDtypeStruct(shape, np.float32) for shape in ((2, 3, 2), (2, 4)))
  rules = jax.ShapeDtypeStruct((2,), bool)

  @jax.jit
  def all_steps(maps, xy, region, rules):
    merged = heatmap_decode.merge_mirrored(maps, make_heatmaps(xy, rules), ((1, 2),), rules)
    return heatmap_decode.decode(merged, region, rules)

  text = jax.export.export(all_steps, platforms=[platform])(maps, xy, region, rules).mlir_module()
  assert not re.findall(r"stablehlo.scatter|callback|custom_call", text)
