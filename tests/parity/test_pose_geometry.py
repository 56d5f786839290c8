"""Regions, matrices, warped pictures, mirror and heat maps of 2D pose against the official code.

The tolerances are 1e-5 relative for matrices, 2e-3 pixels for joints, 2 grey levels and 1e-4 for heat maps.
"""

import jax
import numpy as np
import pytest

from hap_jax.data.skeletons import SKELETONS
from hap_jax.data.transforms import topdown
from hap_jax.pixels.heatmap_targets import make_heatmaps

_FIELDS = {
  *("boxes_xywh", "center", "scale", "rotation_deg", "warp_matrix", "joints_in", "joints_visible"),
  *("joints_warped", "target_weight", "image_size_wh", "heatmap_size_wh", "target"),
  *("warp_image_in", "warp_image_center", "warp_image_scale", "warp_image_rot", "warp_image_matrix"),
  *("warp_image_out", "fliplr_in", "fliplr_visible_in", "fliplr_out", "fliplr_visible_out", "fliplr_width"),
}


@pytest.fixture(scope="module")
def cases(golden):
  """Returns [{field: array}], one dictionary per size of the input."""
  found = {}
  for key, value in golden("pose_geometry_targets").items():
    prefix, name = key.split("/")
    found.setdefault(prefix, {})[name] = value
  assert all(case.keys() == _FIELDS for case in found.values())
  return list(found.values())


def size_of(case):
  """Returns the (H, W) of the network's input."""
  return tuple(case["image_size_wh"][::-1].tolist())


def region_of(center, scale):
  return np.concatenate([center, 200 * scale]).astype(np.float32)


def check_matrix(found, expected):
  # An element that is 0 in float64 is only rounding error in the official float32.
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_box_gives_the_official_center_and_scale(cases):
  for case in cases:
    H, W = size_of(case)
    for (x, y, w, h), center, scale in zip(case["boxes_xywh"], case["center"], case["scale"], strict=True):
      region = topdown.region_of_box((x, y, x + w, y + h), W / H)
      np.testing.assert_allclose(region, region_of(center, scale), rtol=1e-6)


def test_matrices_and_joints_agree_with_the_official_code(cases):
  for case in cases:
    rows = zip(
      *(case[name] for name in ("center", "scale", "rotation_deg", "warp_matrix", "joints_in")),
      case["joints_warped"],
      strict=True,
    )
    for center, scale, rotation, expected, joints, warped in rows:
      region = region_of(center, scale)
      check_matrix(topdown.warp_matrix(region, rotation, size_of(case), "udp"), expected)
      record = {"image": np.zeros((4, 4, 3), np.uint8), "region": region, "rotation": rotation}
      moved = topdown.WarpRegion(size_of(case), "udp")({**record, "keypoints_xy": joints}, None)
      np.testing.assert_allclose(moved["keypoints_xy"], warped, atol=2e-3, rtol=0)


def test_warped_picture_is_within_two_grey_levels(cases):
  for case in cases:
    region = region_of(case["warp_image_center"], case["warp_image_scale"])
    record = {"image": case["warp_image_in"], "region": region, "rotation": case["warp_image_rot"]}
    matrix = topdown.warp_matrix(region, case["warp_image_rot"], size_of(case), "udp")
    check_matrix(matrix, case["warp_image_matrix"])
    found, expected = topdown.WarpRegion(size_of(case), "udp")(record, None)["image"], case["warp_image_out"]
    assert found.shape == expected.shape
    difference = np.abs(found.astype(int) - expected)
    place = np.unravel_index(difference.argmax(), found.shape)
    assert difference.max() <= 2, f"{difference.max()} at {place}"


def test_mirrored_joints_agree_with_the_official_code(cases):
  for case in cases:
    (skeleton,) = (s for s in SKELETONS.values() if len(s.joints) == len(case["fliplr_in"]))
    record = {
      "image": np.zeros((4, int(case["fliplr_width"]), 3), np.uint8),
      "keypoints_xy": case["fliplr_in"],
      "keypoints_visible": case["fliplr_visible_in"] > 0,
      "box": np.zeros(4, np.float32),
      "region": np.ones(4, np.float32),
    }
    flipped = topdown.MirrorPerson(skeleton.flip_pairs, prob=1.0)(record, np.random.default_rng(0))
    np.testing.assert_allclose(flipped["keypoints_xy"], case["fliplr_out"], atol=2e-3, rtol=0)
    np.testing.assert_array_equal(flipped["keypoints_visible"], case["fliplr_visible_out"] > 0)


def test_heat_maps_and_weights_agree_with_the_official_code(cases):
  for case in cases:
    expected = case["target"].transpose(0, 2, 3, 1)  # the official maps are [B, K, h, w]
    heatmap_size = tuple(case["heatmap_size_wh"][::-1].tolist())
    make = jax.jit(make_heatmaps, static_argnames=("image_size", "heatmap_size"))
    sizes = {"image_size": size_of(case), "heatmap_size": heatmap_size}
    joints, visible = case["joints_warped"], case["joints_visible"].astype(np.float32)
    found, weight = make(joints, visible, np.ones(len(joints), bool), **sizes)
    assert found.shape[1:3] == heatmap_size
    np.testing.assert_array_equal(weight, case["target_weight"][..., 0])
    np.testing.assert_allclose(found[: len(expected)], expected, atol=1e-4, rtol=0)
