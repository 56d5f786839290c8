"""PCKh against the official implementation, and against the known score of a part of MPII's own file."""

import numpy as np
import pytest

from hap_jax.data.pose_truth import MpiiTruth
from hap_jax.data.skeletons import MPII16
from hap_jax.io import mat_file
from hap_jax.metrics import keypoints2d

# The official names of the joints, in our order of joints.
OFFICIAL_JOINTS = (
  *("rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor"),
  *("neck", "head", "rwri", "relb", "rsho", "lsho", "lelb", "lwri"),
)


def make_truth(xy, is_missing, head_box):
  """Returns `MpiiTruth` from arrays in the order of the official file: [16, 2, N], [16, N] and [2, 2, N]."""
  return MpiiTruth(
    xy_one_based=xy.transpose(2, 0, 1).astype(np.float64),
    is_missing=is_missing.T > 0,
    head_box=head_box.transpose(2, 0, 1).astype(np.float64),
  )


def test_pckh_agrees_with_the_official_code(golden, pick):
  file = pick(golden("pose_loss_decode_pckh"), "pckh/")
  assert tuple(file["joint_names"]) == OFFICIAL_JOINTS
  truth = make_truth(file["gt_xy_one_based"], file["joint_missing"], file["headboxes"])
  scores = keypoints2d.pckh(file["preds_xy_zero_based"] + 1, truth)
  found = [scores[name] for name in file["result_names"]]
  np.testing.assert_allclose(found, file["result"], atol=1e-3, rtol=0)


def test_pckh_of_the_predictions_in_the_sample_file_has_the_known_value(samples):
  file = mat_file.load(samples / "pose2d/mpii/mpii_gt_val.mat")
  assert tuple(mat_file.strings(file["dataset_joints"], "dataset_joints")) == OFFICIAL_JOINTS
  truth = make_truth(file["pos_gt_src"], file["jnt_missing"], file["headboxes_src"])
  scores = keypoints2d.pckh(file["pos_pred_src"].transpose(2, 0, 1), truth)
  assert scores["PCKh"] == pytest.approx(92.4242, abs=1e-4)
  hits = np.array([2, 5, 5, 4, 5, 2, 0, 0, 5, 5, 5, 4, 4, 5, 5, 5])
  counts = np.array([3, 5, 5, 5, 5, 3, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5])
  found = [scores[f"PCKh_{joint}"] for joint in MPII16.joints]
  np.testing.assert_allclose(found, 100 * hits / counts, atol=1e-9, rtol=0)
