"""Errors on 3DPW against the official code. The tolerances are 2e-3 mm, and 1e-5 for the alignment."""

import numpy as np
import pytest

from hap_jax.data import skeletons
from hap_jax.metrics import keypoints3d as metrics

_KEYS = {
  *("regressor_h36m", "joint_regressor_30", "eval_joints", "gt_vertices", "pred_vertices", "kinds"),
  *("gt_joints_rootrel_m", "pred_joints_rootrel_m", "pred_joints_aligned_m", "mpjpe_mm", "pa_mpjpe_mm"),
  *("mpvpe_mm", "mean_mpjpe_mm", "mean_pa_mpjpe_mm", "mean_mpvpe_mm"),
  *(f"procrustes/{key}" for key in ("source", "target", "scale", "rotation", "translation", "aligned")),
}


@pytest.fixture(scope="module")
def file(golden):
  arrays = golden("pose3d_eval")
  assert arrays.keys() == _KEYS
  return arrays


@pytest.fixture(scope="module")
def joints(file):
  """Returns (predicted, target) [N, 17, 3] joints of the H36M regressor."""
  meshes = file["pred_vertices"], file["gt_vertices"]
  return tuple(file["regressor_h36m"].astype(np.float64) @ mesh.astype(np.float64) for mesh in meshes)


@pytest.fixture(scope="module")
def vertex_error_mm(file):
  meshes = [file[name].astype(np.float64) for name in ("pred_vertices", "gt_vertices")]
  pelvis = [file["joint_regressor_30"][0].astype(np.float64) @ mesh for mesh in meshes]
  return metrics.mpvpe(*meshes, *pelvis)


def test_the_same_joints_are_compared(file, joints):
  assert tuple(file["eval_joints"].tolist()) == skeletons.EVAL_JOINTS
  for found, name in zip(joints, ("pred", "gt"), strict=True):
    np.testing.assert_allclose(
      metrics.eval_joints(found), file[f"{name}_joints_rootrel_m"], atol=1e-5, rtol=0
    )


def test_the_errors_of_each_person_agree(file, joints, vertex_error_mm):
  predicted, target = (metrics.eval_joints(array) for array in joints)
  found = {
    "mpjpe_mm": metrics.mpjpe(predicted, target),
    "pa_mpjpe_mm": metrics.pa_mpjpe(predicted, target),
    "mpvpe_mm": vertex_error_mm,
  }
  for name, values in found.items():
    for kind, value, expected in zip(file["kinds"], values, file[name], strict=True):
      assert value == pytest.approx(expected, abs=2e-3), f"{name} of {kind}"
  np.testing.assert_allclose(
    metrics.align(predicted, target), file["pred_joints_aligned_m"], atol=1e-5, rtol=0
  )


def test_the_means_over_people_agree(file, joints, vertex_error_mm):
  found = metrics.score(*joints, vertex_error_mm)
  expected = {
    "MPJPE": file["mean_mpjpe_mm"],
    "PA-MPJPE": file["mean_pa_mpjpe_mm"],
    "MPVPE": file["mean_mpvpe_mm"],
  }
  assert found == pytest.approx({name: float(value) for name, value in expected.items()}, abs=2e-3)


def test_the_alignment_agrees(file):
  source, target = file["procrustes/source"], file["procrustes/target"]
  for found, name in zip(
    metrics.procrustes(source, target), ("scale", "rotation", "translation"), strict=True
  ):
    np.testing.assert_allclose(found, file[f"procrustes/{name}"], atol=1e-5, rtol=1e-5)
  np.testing.assert_allclose(metrics.align(source, target), file["procrustes/aligned"], atol=1e-5, rtol=1e-5)
