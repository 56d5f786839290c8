"""Boxes and joints of MPII equal the numbers of the official code (golden file pose_loss_decode_pckh)."""

import numpy as np
import pytest

from hap_jax.data.sources import mpii_pose
from tests.data import pose_files


@pytest.fixture(scope="module")
def data(golden):
  return golden("pose_loss_decode_pckh")


def test_boxes_equal_the_golden_centers_and_scales(data):
  """Tolerance 1e-5 relative, because the official code and the boxes have float32."""
  centers, scales = data["mpii/center_in"].astype(float), data["mpii/scale_in"].astype(float)
  left, top, right, bottom = mpii_pose.squares(centers, scales).T
  np.testing.assert_allclose(np.stack([left + right, top + bottom], 1) / 2, data["mpii/center"], rtol=1e-5)
  # The official scale includes the factor 1.25. The box does not.
  scale = np.stack([right - left, bottom - top], 1) * 1.25 / 200
  np.testing.assert_allclose(scale, data["mpii/scale"], rtol=1e-5)


def test_joints_equal_the_golden_joints(data, tmp_path):
  """Tolerance 1e-6 relative, one rounding of float32."""
  keys = ("mpii/center_in", "mpii/scale_in", "mpii/joints_in", "mpii/joints_vis_in")
  entries = [
    {"image": "0.jpg", "center": center, "scale": scale, "joints": joints, "joints_vis": visible}
    for center, scale, joints, visible in zip(*(data[key].tolist() for key in keys), strict=True)
  ]
  pose_files.write_mpii(tmp_path, entries, split="train")
  source = mpii_pose.open_source(root=str(tmp_path), split="train", seed=0)
  np.testing.assert_array_equal(source.columns["keypoints_visible"], data["mpii/joints_vis_in"])
  np.testing.assert_allclose(source.columns["keypoints_xy"], data["mpii/joints"], rtol=1e-6)
