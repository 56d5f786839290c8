"""Heat maps of both rules against loops in float64 and against checked numbers of the official code."""

import functools

import jax
import numpy as np
import pytest

from hap_jax.pixels import heatmap_targets

SIZES = [((256, 192), (64, 48)), ((384, 288), (96, 72))]


@functools.partial(jax.jit, static_argnames=("image_size", "heatmap_size"))
def make(keypoints_xy, weight, is_udp, image_size=SIZES[0][0], heatmap_size=SIZES[0][1]):
  return heatmap_targets.make_heatmaps(
    keypoints_xy, weight, is_udp, image_size=image_size, heatmap_size=heatmap_size
  )


def expected_map(xy, weight, is_udp, image_size, heatmap_size, sigma=2.0):
  """Computes one heat map and its weight cell by cell."""
  (H, W), (h, w) = image_size, heatmap_size
  if is_udp:
    u = xy[0] / ((W - 1) / (w - 1)), xy[1] / ((H - 1) / (h - 1))
  else:
    u = xy[0] / (W / w), xy[1] / (H / h)
  m = [int(np.trunc(value + 0.5)) for value in u]
  if not is_udp:
    u = m
  if m[0] - 6 >= w or m[1] - 6 >= h or m[0] + 7 < 0 or m[1] + 7 < 0:
    weight = 0
  result = np.zeros((h, w))
  if weight > 0.5:
    for y in range(max(0, m[1] - 6), min(h, m[1] + 7)):
      for x in range(max(0, m[0] - 6), min(w, m[0] + 7)):
        result[y, x] = np.exp(-((x - u[0]) ** 2 + (y - u[1]) ** 2) / (2 * sigma**2))
  return result, weight


@pytest.fixture(scope="module")
def joints():
  """Returns (xy [4, 9, 2], weight [4, 9], is_udp [4]); joints are up to 40 pixels outside the input."""
  rng = np.random.default_rng(0)
  xy = rng.uniform(-40, np.array(SIZES[0][0][::-1]) + 40, (4, 9, 2)).astype(np.float32)
  weight = rng.choice([0, 0.5, 1, 1.5], (4, 9), p=[0.1, 0.1, 0.6, 0.2]).astype(np.float32)
  return xy, weight, np.array([True, False, False, True])


@pytest.mark.parametrize(("image_size", "heatmap_size"), SIZES)
def test_maps_and_weights_of_a_mixed_batch_equal_a_loop_over_cells(joints, image_size, heatmap_size):
  xy, weight, is_udp = joints
  found, found_weight = make(*joints, image_size=image_size, heatmap_size=heatmap_size)
  assert found.shape == (4, *heatmap_size, 9)
  assert found.dtype == found_weight.dtype == np.float32
  empty = 0
  for row in range(4):
    for joint in range(9):
      expected, expected_weight = expected_map(
        xy[row, joint], weight[row, joint], is_udp[row], image_size, heatmap_size
      )
      # The place of a joint in float32 has an error of up to 4e-6 cells.
      np.testing.assert_allclose(found[row, :, :, joint], expected, atol=3e-6, rtol=0)
      assert found_weight[row, joint] == expected_weight
      empty += expected_weight == 0 and weight[row, joint] > 0
  assert empty > 0  # some joints are so far outside that they lose their weight


def test_one_rule_does_not_change_the_maps_of_the_other(joints):
  xy, weight, is_udp = joints
  mixed, _ = make(*joints)
  for rule in (True, False):
    alone, _ = make(xy, weight, np.full(4, rule))
    np.testing.assert_array_equal(mixed[is_udp == rule], alone[is_udp == rule])


def test_maps_equal_the_checked_numbers_of_the_official_code():
  xy = np.tile(np.float32([100.3, 77.7]), (2, 1, 1))
  target, _ = make(xy, np.ones((2, 1), np.float32), np.array([True, False]))
  udp, msra = np.asarray(target)[..., 0]
  for heatmap in (udp, msra):
    assert np.unravel_index(heatmap.argmax(), heatmap.shape) == (19, 25)
  np.testing.assert_allclose(udp[19, 24:28], [0.9391114, 0.9826198, 0.8007192, 0.5081611], atol=1e-6)
  np.testing.assert_allclose(msra[19, 24:28], [0.8824969, 1, 0.8824969, 0.6065307], atol=1e-6)
  np.testing.assert_allclose((udp.sum(), msra.sum()), (25.07586, 25.081291), rtol=1e-6)


def test_a_joint_just_outside_keeps_its_weight_with_a_small_or_empty_map():
  # Cells m = x / 4: the window is m - 6 ... m + 6. The official test compares its exclusive end with < 0.
  x = np.float32([-30, -26, -34, 54 * 4 - 4, 54 * 4])
  xy = np.stack([x, np.full(5, 100, np.float32)], axis=1)[None]
  target, weight = make(xy, np.ones((1, 5), np.float32), np.array([False]))
  np.testing.assert_array_equal(weight[0], [1, 1, 0, 1, 0])
  total = np.asarray(target).sum((0, 1, 2))
  np.testing.assert_array_equal(total > 0, [False, True, False, True, False])
  udp, weight = make(xy, np.ones((1, 5), np.float32), np.array([True]))
  assert weight[0, 0] == 1
  # Under UDP, its window still holds column 0, at a distance of 30 * 47 / 191 cells.
  assert 0.004 < np.asarray(udp)[..., 0].sum() < 0.006


def test_a_joint_at_the_center_of_the_input_belongs_to_the_later_cell():
  # The centre lies exactly between two cells, and the window of 13 cells shows which cell was chosen.
  for image_size, heatmap_size in (*SIZES, ((64, 48), (16, 12))):
    (H, W), (h, w) = image_size, heatmap_size
    center = np.float32([[[(W - 1) / 2, (H - 1) / 2]]])
    sizes = {"image_size": image_size, "heatmap_size": heatmap_size}
    target = np.asarray(make(center, np.ones((1, 1), np.float32), np.array([True]), **sizes)[0])
    rows, columns = np.nonzero(target[0, :, :, 0])
    assert (rows.min(), columns.min()) == (h // 2 - 6, max(0, w // 2 - 6))
