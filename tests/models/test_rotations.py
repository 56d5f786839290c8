"""Rotations against SciPy, and finite gradients where a root or a division could be by zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hap_jax.models import rotations

sixd_to_matrix = jax.jit(rotations.sixd_to_matrix)
axis_angle_to_matrix = jax.jit(rotations.axis_angle_to_matrix)
matrix_to_axis_angle = jax.jit(rotations.matrix_to_axis_angle)


def random_rotations(count=20_000):
  return Rotation.random(count, random_state=0)


def special_angles():
  """Returns rotation vectors with angles from 0 to 2 pi about the axes and other directions."""
  angles = [0, 1e-20, 1e-8, 1e-5, 1e-3, 0.009, 0.011, 0.1, 3, np.pi - 1e-3, np.pi - 1e-6, np.pi, 4, 6.2]
  axes = np.concatenate([np.eye(3), -np.eye(3), Rotation.random(4, random_state=1).as_matrix()[:, 0]])
  return np.concatenate([angle * axes for angle in angles])


def test_rotation_vectors_become_the_matrices_of_scipy():
  vectors = np.concatenate([special_angles(), random_rotations(500).as_rotvec()])
  found = axis_angle_to_matrix(vectors.astype(np.float32))
  np.testing.assert_allclose(found, Rotation.from_rotvec(vectors).as_matrix(), atol=2e-6, rtol=0)


def test_matrices_become_the_rotation_vectors_of_scipy():
  rotation = random_rotations()
  found = np.asarray(matrix_to_axis_angle(rotation.as_matrix().astype(np.float32)))
  expected = rotation.as_rotvec()
  near_pi = np.linalg.norm(expected, axis=1) > np.pi - 2e-3  # the sign of the axis is free there
  assert near_pi.mean() < 0.01
  np.testing.assert_allclose(found[~near_pi], expected[~near_pi], atol=1e-5, rtol=0)
  turned = Rotation.from_rotvec(found[near_pi]) * rotation[near_pi].inv()
  assert turned.magnitude().max(initial=0) < 1e-5


def test_special_angles_survive_the_way_through_a_matrix():
  vectors = special_angles()
  matrix = Rotation.from_rotvec(vectors).as_matrix().astype(np.float32)
  found = np.asarray(matrix_to_axis_angle(matrix), np.float64)
  assert (np.linalg.norm(found, axis=1) <= np.pi + 1e-6).all()
  difference = Rotation.from_rotvec(found) * Rotation.from_rotvec(vectors).inv()
  assert difference.magnitude().max() < 2e-6


def test_a_quaternion_of_scipy_is_found_and_its_first_number_is_not_negative():
  rotation = Rotation.concatenate([random_rotations(500), Rotation.from_rotvec(special_angles())])
  found = jax.jit(rotations.matrix_to_quaternion)(rotation.as_matrix().astype(np.float32))
  found = np.asarray(found, np.float64)
  assert (found[:, 0] >= 0).all()
  np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
  difference = Rotation.from_quat(found[:, [1, 2, 3, 0]]) * rotation.inv()
  assert difference.magnitude().max() < 2e-6


def test_six_numbers_are_two_columns_row_by_row():
  matrix = random_rotations(1000).as_matrix().astype(np.float32)
  sixd = np.asarray(rotations.matrix_to_sixd(matrix))
  np.testing.assert_array_equal(sixd[:, [0, 2, 4]], matrix[:, :, 0])
  np.testing.assert_array_equal(sixd[:, [1, 3, 5]], matrix[:, :, 1])
  np.testing.assert_allclose(sixd_to_matrix(sixd), matrix, atol=1e-6, rtol=0)
  # The lengths of the columns and a part of the second one along the first one do not count.
  scaled = sixd * np.tile([7, 0.01], 3) + np.repeat(sixd[:, [0, 2, 4]], 2, axis=1) * np.tile([0, 0.3], 3)
  np.testing.assert_allclose(sixd_to_matrix(scaled.astype(np.float32)), matrix, atol=1e-5, rtol=0)


def test_any_six_numbers_with_two_directions_give_a_rotation():
  sixd = np.random.default_rng(0).normal(size=(1000, 6)).astype(np.float32)
  sixd[:100, 1::2] = sixd[:100, ::2] + 1e-3 * sixd[:100, 1::2]  # almost parallel
  sixd[100:200] *= 1e-9
  sixd[200:300] *= 1e9
  found = np.asarray(sixd_to_matrix(sixd), np.float64)
  np.testing.assert_allclose(found @ found.transpose(0, 2, 1), np.tile(np.eye(3), (1000, 1, 1)), atol=1e-6)
  np.testing.assert_allclose(np.linalg.det(found), 1, atol=1e-6)


def test_leading_axes_are_kept():
  vectors = np.random.default_rng(0).normal(size=(2, 3, 4, 3)).astype(np.float32)
  matrix = axis_angle_to_matrix(vectors)
  assert matrix.shape == (2, 3, 4, 3, 3)
  assert rotations.matrix_to_sixd(matrix).shape == (2, 3, 4, 6)
  np.testing.assert_array_equal(matrix[1, 2], axis_angle_to_matrix(vectors[1, 2]))
  found = matrix_to_axis_angle(matrix)
  np.testing.assert_array_equal(found[1, 2], matrix_to_axis_angle(matrix[1, 2]))


PI_MATRICES = Rotation.from_rotvec(np.pi * np.concatenate([np.eye(3), [[0.6, 0.8, 0], [0, -0.6, 0.8]]]))
EDGES = {
  "vectors": (rotations.axis_angle_to_matrix, special_angles()),
  "identity and pi": (
    lambda matrix: rotations.matrix_to_axis_angle(matrix),
    np.concatenate([np.eye(3)[None], PI_MATRICES.as_matrix(), axis_angle_to_matrix(special_angles())]),
  ),
  "no matrix": (rotations.matrix_to_axis_angle, np.stack([np.zeros((3, 3)), -np.eye(3), np.ones((3, 3))])),
  "columns": (
    lambda sixd: rotations.matrix_to_axis_angle(rotations.sixd_to_matrix(sixd)),
    np.array([[0] * 6, [1, 0] * 3, [0, 1] * 3, [1] * 6, [1, 0, 0, 1, 0, 0], [1, 2] * 3, [1e-30] * 6]),
  ),
}


@pytest.mark.parametrize(("function", "inputs"), EDGES.values(), ids=EDGES)
def test_values_and_gradients_are_finite(function, inputs):
  @jax.jit
  @jax.vmap
  def value_and_jacobian(x):
    return function(x), jax.jacrev(function)(x)

  value, jacobian = value_and_jacobian(jnp.asarray(inputs, jnp.float32))
  assert np.isfinite(value).all()
  assert np.isfinite(jacobian).all()


def test_the_gradient_of_both_directions_is_the_inverse_at_the_identity():
  def there_and_back(vector):
    return rotations.matrix_to_axis_angle(rotations.axis_angle_to_matrix(vector))

  vectors = np.concatenate([np.zeros((1, 3)), special_angles()])
  vectors = vectors[np.linalg.norm(vectors, axis=1) < 3.1]
  found = jax.jit(jax.vmap(jax.jacrev(there_and_back)))(vectors.astype(np.float32))
  np.testing.assert_allclose(found, np.tile(np.eye(3), (len(vectors), 1, 1)), atol=2e-4)
