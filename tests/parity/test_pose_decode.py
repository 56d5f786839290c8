"""Loss, decoding, accuracy and the box of MPII against the official code.

The tolerances are 1e-3 cells and 2e-2 pixels for decoded joints, 1e-5 relative for the loss and for matrices,
and 2e-3 pixels for joints. Joints whose largest value is not positive are left out where the official code
refines them: their official position is numerical noise.
"""

import re

import jax
import numpy as np
import pytest

from hap_jax.data.sources import mpii_pose
from hap_jax.data.transforms import topdown
from hap_jax.losses import heatmap
from hap_jax.pixels import heatmap_decode

# The file stores maps in float16. For one map the official scores are of the values before this rounding.
FLOAT16_ROUNDING = 2.0**-11


@pytest.fixture(scope="module")
def file(golden):
  return golden("pose_loss_decode_pckh")


def channels_last(heatmaps):
  return np.asarray(heatmaps, np.float32).transpose(0, 2, 3, 1)


def test_loss_and_gradient_agree_with_the_official_code(file):
  target, weight = channels_last(file["loss/target"]), file["loss/target_weight"][..., 0]
  loss, grad = jax.jit(jax.value_and_grad(heatmap.heatmap_loss))(
    channels_last(file["loss/output"]), target, weight
  )
  np.testing.assert_allclose(loss, file["loss/value"], rtol=1e-5)
  expected = channels_last(file["loss/grad_output"])
  np.testing.assert_allclose(grad, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


@pytest.fixture(scope="module")
def merged(file):
  """Returns the merged heat maps, [B, h, w, K]."""
  maps, mirrored = (channels_last(file[f"decode/heatmap{name}_f16"]) for name in ("", "_of_flipped"))
  pairs = tuple(map(tuple, file["decode/flip_pairs"].tolist()))
  # The official numbers of both rules are computed from maps without a shift.
  is_udp = np.ones(len(maps), bool)
  return np.asarray(jax.jit(heatmap_decode.merge_mirrored, static_argnums=2)(maps, mirrored, pairs, is_udp))


@pytest.fixture(scope="module")
def decoded(file, merged):
  """Returns a function: is_udp -> (joints in the picture, scores)."""
  region = np.concatenate([file["decode/center"], 200 * file["decode/scale"]], axis=1)
  decode = jax.jit(heatmap_decode.decode)
  return lambda is_udp: decode(merged, region, np.full(len(merged), is_udp))


def test_merged_maps_agree_with_the_official_code(file, merged):
  np.testing.assert_allclose(merged[..., 0], file["decode/merged_sample_joint0"], atol=1e-6, rtol=0)


def test_maxima_and_scores_agree_with_the_official_code(file, merged):
  cell, value = jax.jit(heatmap_decode.find_maximum)(merged)
  expected = file["decode/maxvals"][..., 0]
  np.testing.assert_allclose(value, expected, rtol=FLOAT16_ROUNDING)
  xy = np.where(expected[..., None] > 0, cell, -1)
  np.testing.assert_array_equal(xy, file["decode/argmax_xy"])
  refined = jax.jit(heatmap_decode.refine_udp)(merged, cell)
  is_positive = expected > 0
  assert is_positive.sum() > 0
  np.testing.assert_allclose(
    np.asarray(refined)[is_positive], file["decode/heatmap_xy_refined"][is_positive], atol=1e-3, rtol=0
  )


def test_joints_of_udp_agree_with_the_official_code(file, decoded):
  xy, score = decoded(True)
  np.testing.assert_allclose(score, file["decode/maxvals"][..., 0], rtol=FLOAT16_ROUNDING)
  is_positive = np.asarray(score) > 0
  np.testing.assert_allclose(
    np.asarray(xy)[is_positive], file["decode/preds_xy"][is_positive], atol=2e-2, rtol=0
  )


def test_joints_of_the_older_rule_agree_with_the_official_code_without_exception(file, decoded):
  xy, _ = decoded(False)
  np.testing.assert_allclose(xy, file["decode/preds_xy_no_udp_quarter_shift"], atol=2e-2, rtol=0)


def test_accuracy_agrees_with_the_official_code(file):
  share, is_counted = jax.jit(heatmap.joint_accuracy)(
    file["pck/pred_xy"],
    file["pck/gt_xy"],
    file["pck/mask"] > 0,
    file["pck/normalize"][:, None],
    float(file["pck/threshold"]),
  )
  np.testing.assert_allclose(np.where(is_counted, share, -1), file["pck/acc_per_joint"], rtol=1e-6)
  assert is_counted.sum() == file["pck/cnt"]
  np.testing.assert_allclose(share.sum() / is_counted.sum(), file["pck/avg"], rtol=1e-6)


def test_matrices_of_mpii_agree_with_the_official_code(file):
  (key,) = (key for key in file if key.startswith("mpii/warp_matrix_"))
  H, W = map(int, re.fullmatch(r"mpii/warp_matrix_(\d+)x(\d+)", key).groups())
  boxes = mpii_pose.squares(file["mpii/center_in"].astype(float), file["mpii/scale_in"].astype(float))
  for box, matrix in zip(boxes, file[key], strict=True):
    region = topdown.region_of_box(box, W / H, fit_aspect=False)
    np.testing.assert_allclose(topdown.warp_matrix(region, 0, (H, W), "udp"), matrix, rtol=1e-5, atol=1e-5)
