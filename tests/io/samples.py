"""Arrays of every kind that the readers allow, and an object whose pickle calls a function."""

import numpy as np

ARRAYS = [
  np.arange(6.0).reshape(2, 3),
  np.asfortranarray(np.arange(6).reshape(2, 3)),
  np.arange(24).reshape(2, 3, 4).transpose(1, 0, 2),
  np.arange(3, dtype=">i2"),
  np.zeros((0, 3), np.float32),
  np.array(5),
  np.array([True, False]),
  np.array([1 + 2j], np.complex64),
  np.array(["añ", "b"]),
  np.array([b"xy"]),
]


class Call:
  """An object whose pickle is the call of a function."""

  def __init__(self, function, *arguments):
    self.call = function, arguments

  def __reduce__(self):
    return self.call


def assert_same_array(got, want):
  """Checks that two arrays have equal dtypes, shapes and values."""
  assert got.dtype == want.dtype
  assert got.shape == want.shape
  np.testing.assert_array_equal(got, want)
