"""Identities of SMPL's body layer on random bodies."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hap_jax.data import body_model
from hap_jax.models import smpl
from tests import bodies

pose_body = jax.jit(smpl.pose_body)


@pytest.fixture(scope="module")
def body():
  return smpl.body_arrays(bodies.random_set())


def random_inputs(batch, seed=0):
  rng = np.random.default_rng(seed)
  shapes = ((batch, 72), 0.7), ((batch, 10), 1.0), ((batch, 3), 1.0)
  return [rng.normal(0, scale, shape).astype(np.float32) for shape, scale in shapes]


def pose_plainly(body, pose, betas, translation):
  """Poses one body joint by joint and vertex by vertex with 4 x 4 matrices in float64."""
  arrays = {
    field.name: np.asarray(getattr(body, field.name), np.float64)
    for field in dataclasses.fields(body)
    if field.name != "parents"
  }
  matrix = Rotation.from_rotvec(pose.reshape(-1, 3).astype(np.float64)).as_matrix()
  shaped = arrays["v_template"] + arrays["shapedirs"] @ betas
  joints = arrays["J_regressor"] @ shaped
  posed = shaped + arrays["posedirs"] @ (matrix[1:] - np.eye(3)).ravel()
  chain = []
  for joint, parent in enumerate(body.parents):
    step = np.eye(4)
    step[:3, :3], step[:3, 3] = matrix[joint], joints[joint] - (joints[parent] if joint else 0)
    chain.append(chain[parent] @ step if joint else step)
  places = np.array([motion[:3, 3] for motion in chain])
  vertices = np.zeros_like(posed)
  for joint, motion in enumerate(chain):
    moved = (posed - joints[joint]) @ motion[:3, :3].T + motion[:3, 3]
    vertices += arrays["weights"][:, joint, None] * moved
  return vertices + translation, places + translation


def test_the_layer_equals_a_plain_computation_in_float64(body):
  inputs = random_inputs(3)
  vertices, joints = pose_body(body, *inputs)
  assert vertices.dtype == joints.dtype == np.float32
  for i in range(3):
    expected_vertices, expected_joints = pose_plainly(body, *(array[i] for array in inputs))
    np.testing.assert_allclose(vertices[i], expected_vertices, atol=5e-6)
    np.testing.assert_allclose(joints[i], expected_joints, atol=5e-6)


def test_matrices_give_the_same_body_as_rotation_vectors(body):
  pose, betas, translation = random_inputs(2)
  matrix = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(2, 24, 3, 3).astype(np.float32)
  expected = pose_body(body, pose, betas, translation)
  for found, array in zip(pose_body(body, matrix, betas, translation), expected, strict=True):
    np.testing.assert_allclose(found, array, atol=5e-6)


def test_a_body_of_another_tree_is_posed_as_well(body):
  # A chain needs the most rounds, and a star the fewest.
  inputs = random_inputs(1)
  for parents in (tuple(range(-1, 23)), (-1,) + (0,) * 23):
    other = body.replace(parents=parents)
    vertices, joints = pose_body(other, *inputs)
    expected_vertices, expected_joints = pose_plainly(other, *(array[0] for array in inputs))
    np.testing.assert_allclose(vertices[0], expected_vertices, atol=1e-5)
    np.testing.assert_allclose(joints[0], expected_joints, atol=1e-5)


def test_no_pose_and_no_shape_is_the_template(body):
  zero = np.zeros((2, 72), np.float32), np.zeros((2, 10), np.float32), np.zeros((2, 3), np.float32)
  vertices, joints = pose_body(body, *zero)
  np.testing.assert_allclose(vertices, np.stack([body.v_template] * 2), atol=1e-6)
  np.testing.assert_allclose(joints[1], body.J_regressor @ body.v_template, atol=1e-6)


def test_the_rotation_of_the_root_turns_the_whole_body_about_joint_0(body):
  pose, betas, translation = random_inputs(2)
  pose[1, 3:] = pose[0, 3:]
  pose[0, :3] = 0
  betas[1], translation[:] = betas[0], 0
  vertices, joints = (np.asarray(array, np.float64) for array in pose_body(body, pose, betas, translation))
  turn, pelvis = Rotation.from_rotvec(pose[1, :3].astype(np.float64)), joints[0, 0]
  np.testing.assert_allclose(joints[1, 0], pelvis, atol=1e-6)  # joint 0 stays where it is
  np.testing.assert_allclose(vertices[1], turn.apply(vertices[0] - pelvis) + pelvis, atol=2e-6)


def test_translation_moves_everything(body):
  pose, betas, translation = random_inputs(2)
  still = pose_body(body, pose, betas, 0 * translation)
  moved = pose_body(body, pose, betas, translation)
  for one, other in zip(still, moved, strict=True):
    np.testing.assert_allclose(other, one + translation[:, None], atol=1e-6)


def test_the_30_joints_come_from_the_posed_vertices(body):
  vertices, _ = pose_body(body, *random_inputs(2))
  expected = np.asarray(body.joint_regressor, np.float64) @ np.asarray(vertices, np.float64)
  np.testing.assert_allclose(smpl.regress_joints(body, vertices), expected, atol=1e-6)


def weigh(weights, vertices, joints):
  return (weights[0] * vertices).sum() + (weights[1] * joints).sum()


@jax.jit
def gradient(body, weights, pose, betas, translation):
  def total(*inputs):
    return weigh(weights, *smpl.pose_body(body, *inputs))

  return jax.grad(total, argnums=(0, 1, 2))(pose, betas, translation)


@pytest.mark.parametrize("start", ["random", "no rotation", "all joints turned by pi"])
def test_gradients_equal_finite_differences(body, start):
  pose, betas, translation = random_inputs(1, seed=5)
  if start != "random":
    pose[:] = 0
  if start == "all joints turned by pi":
    pose[:, 1::3] = np.pi
  rng = np.random.default_rng(1)
  weights = rng.normal(size=(len(body.v_template), 3)), rng.normal(size=(24, 3))
  inputs = [array[0].astype(np.float64) for array in (pose, betas, translation)]
  for which, found in enumerate(gradient(body, weights, pose, betas, translation)):
    found = np.asarray(found[0], np.float64)
    direction = rng.normal(size=found.shape)
    ends = []
    for sign in (1, -1):
      moved = list(inputs)
      moved[which] = inputs[which] + sign * 1e-5 * direction
      ends.append(weigh(weights, *pose_plainly(body, *moved)))
    slope = (ends[0] - ends[1]) / 2e-5
    assert (found * direction).sum() == pytest.approx(slope, rel=1e-4, abs=1e-4 * np.abs(found).max())


def test_a_folder_is_loaded_and_its_body_is_an_argument(tmp_path, body):
  body_model.write_body_set(tmp_path / "body", bodies.random_set(genders=("neutral", "male")))
  male = smpl.load(tmp_path / "body", "male")
  inputs = random_inputs(1)
  neutral = smpl.load(tmp_path / "body")
  jax.tree.map(np.testing.assert_array_equal, neutral, body)
  # Both genders run the same compiled function, which therefore holds neither of them.
  compiled = pose_body._cache_size()
  vertices = [pose_body(one, *inputs)[0] for one in (neutral, male)]
  assert pose_body._cache_size() <= compiled + 1
  assert np.abs(vertices[0] - vertices[1]).max() > 0.1
  text = jax.jit(smpl.pose_body).lower(male, *inputs).as_text()
  assert len(text) < 100_000  # the arrays of this small body alone would be longer
  with pytest.raises(ValueError, match="--female=FILE"):
    smpl.load(tmp_path / "body", "female")


def test_other_shapes_are_refused(body):
  pose, betas, translation = random_inputs(2)
  expected = r"expected \[B, 72\] or \[B, 24, 3, 3\], \[B, 10\] and \[B, 3\]"
  for bad in (
    (pose[:, 1:], betas, translation),
    (pose, betas[:, 1:], translation),
    (pose, betas, pose[:, :2]),
  ):
    with pytest.raises(ValueError, match=expected):
      smpl.pose_body(body, *bad)
