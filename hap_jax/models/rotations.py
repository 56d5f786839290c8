"""Rotations as 6 numbers, matrices, quaternions and rotation vectors, with finite gradients everywhere.

A matrix acts on columns. A rotation vector ("axis-angle") is the axis times the angle in radians. All
products are sums of elementwise products, so every backend computes them in float32.

The gradient of a root or a division at 0 is infinite. So each function replaces an argument that is 0 before
the operation. A `where` after the operation would give the gradient 0 times infinity, which is NaN.
"""

import jax
import jax.numpy as jnp
import numpy as np

_SMALL_ANGLE = 1e-2  # radians; below it, the first terms of a series are exact in float32
_NO_DIRECTION = 1e-24  # a vector has no direction if its squared length is at most this
_IDENTITY = np.eye(3, dtype=np.float32)
# [3, 3, 3]: the matrix of the cross product with a vector v is (_CROSS_SIGNS * v).sum(-1).
_CROSS_SIGNS = np.array(
  [
    [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
    [[0, 0, 1], [0, 0, 0], [-1, 0, 0]],
    [[0, -1, 0], [1, 0, 0], [0, 0, 0]],
  ],
  np.float32,
)


def _quaternion_signs():
  """Returns the signs of the matrix entries in the products 4 q_i q_j, [4, 4, 3, 3].

  A product is the sum of the entries of the rotation matrix times these signs, plus 1 if i = j.
  """
  signs = np.zeros((4, 4, 3, 3), np.float32)
  for i in range(3):
    signs[0, 0, i, i] = 1
    for j in range(3):
      signs[1 + i, 1 + i, j, j] = 1 if i == j else -1
      if i != j:
        signs[1 + i, 1 + j, i, j] = signs[1 + i, 1 + j, j, i] = 1
    following, last = (i + 1) % 3, (i + 2) % 3
    for place in ((0, 1 + i), (1 + i, 0)):
      signs[(*place, last, following)], signs[(*place, following, last)] = 1, -1
  return signs


_QUATERNION_SIGNS = _quaternion_signs()
_QUATERNION_ONES = np.eye(4, dtype=np.float32)  # the 1 that is added if i = j


def sixd_to_matrix(sixd):
  """Returns the rotation matrices of 6 numbers each (Zhou et al., arXiv 1812.07035).

  The numbers are a 3 x 2 matrix, row-major: entries 0, 2, 4 are its first column, and entries 1, 3, 5 are its
  second column. The columns are made orthonormal in this order. The third column is their cross product.

  Args:
    sixd: [..., 6] float32. Columns without a direction give a finite matrix that is not a rotation.
  Returns:
    [..., 3, 3] float32.
  """
  columns = sixd.reshape(*sixd.shape[:-1], 3, 2)
  first, second = _normalize(columns[..., 0]), _normalize(columns[..., 1])
  # The second pass removes the rounding error of the first pass, which is large if the columns are almost
  # parallel.
  for _ in range(2):
    second = _normalize(second - (first * second).sum(-1, keepdims=True) * first)
  return jnp.stack([first, second, jnp.cross(first, second)], axis=-1)


def matrix_to_sixd(matrix):
  """Returns the first two columns of [..., 3, 3] as [..., 6], in the layout of `sixd_to_matrix`."""
  return matrix[..., :2].reshape(*matrix.shape[:-2], 6)


def axis_angle_to_matrix(axis_angle):
  """Returns the rotation matrices of rotation vectors, by the formula of Rodrigues.

  Args:
    axis_angle: [..., 3] float32, any angle.
  Returns:
    [..., 3, 3] float32.
  """
  square = (axis_angle * axis_angle).sum(-1)
  is_small = square < _SMALL_ANGLE**2
  angle = jnp.sqrt(jnp.where(is_small, 1.0, square))
  half = jnp.sin(0.5 * angle) / angle
  sine = jnp.where(is_small, 1 - square / 6, jnp.sin(angle) / angle)
  cosine = jnp.where(is_small, 0.5 - square / 24, 2 * half * half)  # (1 - cos a) / a^2
  cross = (_CROSS_SIGNS * axis_angle[..., None, None, :]).sum(-1)  # cross v = axis_angle x v
  squared = axis_angle[..., :, None] * axis_angle[..., None, :] - square[..., None, None] * _IDENTITY
  return _IDENTITY + sine[..., None, None] * cross + cosine[..., None, None] * squared


def matrix_to_quaternion(matrix):
  """Returns the quaternions (w, x, y, z) of rotation matrices, with w >= 0.

  Args:
    matrix: [..., 3, 3] float32, rotations.
  Returns:
    [..., 4] float32 of length 1.
  """
  # Row i of this table is 4 q_i (w, x, y, z). The row with the largest q_i^2 has a length of at least 2.
  table = _QUATERNION_ONES + (_QUATERNION_SIGNS * matrix[..., None, None, :, :]).sum((-2, -1))
  largest = jnp.argmax(jnp.diagonal(table, axis1=-2, axis2=-1), axis=-1)
  row = (jax.nn.one_hot(largest, 4, dtype=table.dtype)[..., None] * table).sum(-2)
  row = row * jnp.where(row[..., :1] < 0, -1.0, 1.0)
  return _normalize(row)


def matrix_to_axis_angle(matrix):
  """Returns the rotation vectors of rotation matrices, with angles in [0, pi].

  At the angle pi, the sign of the axis is arbitrary. The gradient there belongs to the chosen sign.

  Args:
    matrix: [..., 3, 3] float32, rotations.
  Returns:
    [..., 3] float32.
  """
  quaternion = matrix_to_quaternion(matrix)
  w, vector = quaternion[..., 0], quaternion[..., 1:]
  square = (vector * vector).sum(-1)
  is_small = square < (0.5 * _SMALL_ANGLE) ** 2
  sine = jnp.sqrt(jnp.where(is_small, 1.0, square))
  safe_w = jnp.where(is_small, w, 1.0)
  ratio = square / (safe_w * safe_w)
  series = (1 - ratio / 3 + ratio * ratio / 5) / safe_w  # atan(sine / w) / sine
  factor = jnp.where(is_small, series, jnp.arctan2(sine, w) / sine)
  return 2 * factor[..., None] * vector


def _normalize(vector):
  """Returns vectors of length 1. A zero vector is returned as it is."""
  square = (vector * vector).sum(-1, keepdims=True)
  return vector / jnp.sqrt(jnp.where(square > _NO_DIRECTION, square, 1.0))
