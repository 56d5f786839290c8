"""Rotations of 3D pose against the official code: 6 numbers, matrices, rotation vectors, gradients.

The tolerances are 2e-5, 1e-5 for matrices, and 1e-3 relative for gradients.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hap_jax.models import rotations

_KEYS = {
  *("sixd/input", "sixd/matrix", "sixd/axis_angle", "sixd/grad_weight", "sixd/scalar", "sixd/grad_input"),
  *("matrix/input", "matrix/angle_true", "matrix/rotvec_true", "matrix/quaternion_wxyz", "matrix/axis_angle"),
  *("matrix/axis_angle_via_sixd", "matrix/sixd", "matrix/near_pi"),
  *("rodrigues/input", "rodrigues/matrix"),
  *("batch3/input", "batch3/axis_angle", "batch3/axis_angle_reference_batch_of_3"),
}


@pytest.fixture(scope="module")
def file(golden):
  arrays = golden("rotations")
  assert arrays.keys() == _KEYS
  return arrays


# Without jit, each operation would be compiled alone, which takes longer.
sixd_to_matrix = jax.jit(rotations.sixd_to_matrix)
matrix_to_axis_angle = jax.jit(rotations.matrix_to_axis_angle)


@jax.jit
def sixd_to_axis_angle(sixd):
  return rotations.matrix_to_axis_angle(rotations.sixd_to_matrix(sixd))


def as_matrices(axis_angle):
  return Rotation.from_rotvec(np.asarray(axis_angle, np.float64)).as_matrix()


def check_axis_angles(found, expected, is_near_pi):
  """Compares rotation vectors. Close to the angle pi, the sign of the axis is free: compares matrices."""
  near = is_near_pi.astype(bool)
  np.testing.assert_allclose(found[~near], expected[~near], atol=2e-5, rtol=0)
  np.testing.assert_allclose(as_matrices(found[near]), as_matrices(expected[near]), atol=2e-5, rtol=0)


def test_six_numbers_give_the_official_matrix_and_axis_angle(file):
  found = sixd_to_matrix(file["sixd/input"])
  np.testing.assert_allclose(found, file["sixd/matrix"], atol=1e-5, rtol=0)
  found = np.asarray(matrix_to_axis_angle(found))
  # The official code compares the gradient where the weight is not 0, which is not close to the angle pi.
  check_axis_angles(found, file["sixd/axis_angle"], (file["sixd/grad_weight"] == 0).all(axis=1))


def test_the_gradient_through_six_numbers_agrees(file):
  def total(sixd):
    return (file["sixd/grad_weight"] * sixd_to_axis_angle(sixd)).sum()

  scalar, grad = jax.jit(jax.value_and_grad(total))(jnp.asarray(file["sixd/input"]))
  np.testing.assert_allclose(scalar, file["sixd/scalar"], rtol=1e-5)
  expected = file["sixd/grad_input"]
  size = np.abs(expected).max(axis=1, keepdims=True)  # very short columns have very large gradients
  np.testing.assert_allclose(grad / np.maximum(size, 1), expected / np.maximum(size, 1), atol=1e-3, rtol=0)


def test_matrices_give_the_official_quaternion_axis_angle_and_six_numbers(file):
  matrix, near_pi = file["matrix/input"], file["matrix/near_pi"]
  found = np.asarray(jax.jit(rotations.matrix_to_quaternion)(matrix))
  expected = file["matrix/quaternion_wxyz"]
  expected = expected * np.where((found * expected).sum(axis=1, keepdims=True) < 0, -1, 1)
  np.testing.assert_allclose(found, expected, atol=2e-5, rtol=0)

  found = np.asarray(matrix_to_axis_angle(matrix))
  np.testing.assert_allclose(np.linalg.norm(found, axis=1), file["matrix/angle_true"], atol=2e-5, rtol=0)
  for name in ("rotvec_true", "axis_angle", "axis_angle_via_sixd"):
    check_axis_angles(found, file[f"matrix/{name}"], near_pi)
  sixd = rotations.matrix_to_sixd(matrix)
  np.testing.assert_allclose(sixd, file["matrix/sixd"], atol=1e-6, rtol=0)
  check_axis_angles(np.asarray(sixd_to_axis_angle(sixd)), file["matrix/axis_angle_via_sixd"], near_pi)


def test_rotation_vectors_give_the_official_matrices(file):
  found = jax.jit(rotations.axis_angle_to_matrix)(file["rodrigues/input"])
  np.testing.assert_allclose(found, file["rodrigues/matrix"], atol=1e-5, rtol=0)


def test_three_samples_are_as_right_as_any_other_number(file):
  # For exactly three samples, the cross product of the official code runs along the batch. Ours does not.
  found = np.asarray(sixd_to_axis_angle(file["batch3/input"]))
  np.testing.assert_allclose(found, file["batch3/axis_angle"], atol=2e-5, rtol=0)
  assert np.abs(found - file["batch3/axis_angle_reference_batch_of_3"]).max() > 0.1
