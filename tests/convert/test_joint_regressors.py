"""The regressors of SMPL's joints: the right files are used, and other files of similar names are refused."""

import dataclasses
import re

import numpy as np
import pytest

from hap_jax.convert import joint_regressors
from tests import bodies
from tests.smpl_files import H36M_ROWS, write_regressors

V = 6890
FACE = [331, 2802, 6262, 3489, 3990]  # nose, left eye, right eye, left ear, right ear
HEAD_TOP = 411


@pytest.fixture(scope="module")
def smpl():
  """A body with as many vertices as SMPL. The arrays that the regressors do not need are empty."""
  small = bodies.random_body(12)
  rng = np.random.default_rng(0)
  regressor = np.zeros((24, V), np.float32)
  regressor[np.arange(24)[:, None], rng.integers(V, size=(24, 4))] = 0.25
  regressor /= regressor.sum(1, keepdims=True)
  template = rng.normal(0, 0.5, (V, 3)).astype(np.float32)
  return dataclasses.replace(small, v_template=template, J_regressor=regressor)


def one_hot(vertices):
  rows = np.zeros((len(vertices), V))
  rows[np.arange(len(vertices)), vertices] = 1
  return rows


@pytest.fixture
def folder(tmp_path, smpl):
  """A folder with both files, as they are published: float64, one of them in Fortran order."""
  rows = np.concatenate([smpl.J_regressor, one_hot([*FACE, HEAD_TOP])])[H36M_ROWS] * 0.9996
  np.save(tmp_path / "J_regressor_h36m_correct.npy", np.asfortranarray(rows))
  np.save(tmp_path / "J_regressor_extra.npy", one_hot([5, 6, 7, HEAD_TOP, 8, 9, 10, 11, 12]))
  return tmp_path


def refuses(body, folder, match):
  with pytest.raises(ValueError, match=match) as error:
    joint_regressors.make(body, folder)
  assert str(folder) in str(error.value)
  assert "\n" not in str(error.value)


def test_smpl_needs_no_file_for_the_30_joints(smpl):
  joints, h36m = joint_regressors.make(smpl)
  assert h36m is None
  assert joints.dtype == np.float32
  np.testing.assert_array_equal(joints[:24], smpl.J_regressor)
  np.testing.assert_array_equal(joints[24:], one_hot([*FACE, HEAD_TOP]))


def test_the_h36m_regressor_is_read_from_its_folder(smpl, folder):
  joints, h36m = joint_regressors.make(smpl, folder)
  np.testing.assert_array_equal(joints, joint_regressors.make(smpl)[0])
  wanted = np.load(folder / "J_regressor_h36m_correct.npy")
  assert wanted.flags.f_contiguous
  np.testing.assert_array_equal(h36m, wanted.astype(np.float32))
  assert h36m.flags.c_contiguous


def test_the_layout_of_3dcrowdnet_is_accepted_and_the_extra_file_may_be_missing(smpl, folder):
  wanted = joint_regressors.make(smpl, folder)[1]
  (folder / "Human36M").mkdir()
  (folder / "J_regressor_h36m_correct.npy").rename(folder / "Human36M/J_regressor_h36m_correct.npy")
  np.testing.assert_array_equal(joint_regressors.make(smpl, folder)[1], wanted)
  (folder / "J_regressor_extra.npy").unlink()
  np.testing.assert_array_equal(joint_regressors.make(smpl, folder)[1], wanted)


def test_another_extra_regressor_is_refused(smpl, folder):
  right = np.load(folder / "J_regressor_extra.npy")
  for array, match in [
    (np.concatenate([one_hot([332, 6260, 2800, 4071, 583]), right]), "has 14 rows, .* row 3 is an ear"),
    (right[[0, 1, 2, 4, 3, 5, 6, 7, 8]], "row 3 does not select vertex 411"),
    (np.where(right == 1, 0.5, 0) + one_hot([5] * 9) * 0.5, "row 3 does not select vertex 411"),
    (right[:8], r"shape \(8, 6890\); expected numbers of shape \(9, 6890\)"),
  ]:
    np.save(folder / "J_regressor_extra.npy", array)
    refuses(smpl, folder, match)


def test_another_h36m_regressor_is_refused(smpl, folder):
  path = folder / "J_regressor_h36m_correct.npy"
  right = np.load(path)
  for array, match in [
    (right[[0, 4, 5, 6, 1, 2, 3, *range(7, 17)]], "rows 1 to 3 are joints of the left leg"),
    (right[:14], r"expected numbers of shape \(17, 6890\)"),
    (right[:, :6000], r"\(17, 6000\); expected numbers of shape \(17, 6890\)"),
    (right * 1.01, "has a row whose sum is not 1"),
    (np.where(right == 0, np.nan, right), "has a row whose sum is not 1"),
    (right.astype(complex), "holds complex128"),
    (right.astype(object), "holds object"),
  ]:
    np.save(path, array)
    refuses(smpl, folder, match)
  path.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr'")
  refuses(smpl, folder, "not a readable .npy file")
  path.rename(folder / "J_regressor_h36m.npy")
  refuses(
    smpl, folder, re.escape(f"{path}: no such file") + ".*J_regressor_h36m.npy has another order of rows"
  )
  refuses(smpl, folder / "other", "no such folder")


def test_a_body_with_another_mesh_needs_its_own_regressors(tmp_path):
  made = bodies.random_set(40)
  neutral = made.of("neutral")
  with pytest.raises(ValueError, match=r"has 40 vertices, .* SMPL's 6890: --regressors=DIR is required"):
    joint_regressors.make(neutral)
  folder = write_regressors(tmp_path / "regressors", made)
  joints, h36m = joint_regressors.make(neutral, folder)
  np.testing.assert_array_equal(joints, made.joint_regressor)
  np.testing.assert_array_equal(h36m, made.joint_regressor[H36M_ROWS])
  (folder / "joints_30.npy").unlink()
  refuses(neutral, folder, r"joints_30.npy is missing; expected a folder with joints_30.npy \[30, 40\]")
  np.save(folder / "joints_30.npy", np.eye(30))
  refuses(neutral, folder, r"expected numbers of shape \(30, 40\)")
