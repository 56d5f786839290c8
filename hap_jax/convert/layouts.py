"""Changes of layout between the tensors of PyTorch and the arrays of this project."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
  """A change of layout and its inverse. Both are functions of one array."""

  name: str
  to_ours: Callable[[np.ndarray], np.ndarray]
  to_reference: Callable[[np.ndarray], np.ndarray]


def _kernel_of_patch_conv(weight):
  """Turns the weight [D, 3, P, P] of a convolution into a kernel [P*P*3, D].

  The rows are ordered by (row, column, channel), as in `layers.patchify`.
  """
  return weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])


def _patch_conv_of_kernel(kernel):
  """Turns a kernel [P*P*3, D] into the weight [D, 3, P, P] of a convolution."""
  # Patches are square and have 3 channels, so the side follows from the number of rows.
  P = math.isqrt(kernel.shape[0] // 3)
  return kernel.reshape(P, P, 3, -1).transpose(3, 2, 0, 1)


def _flat_patches(kernel):
  """Turns a kernel [P, P, 3, D] into a kernel [P*P*3, D]."""
  return kernel.reshape(-1, kernel.shape[-1])


def _square_patches(kernel):
  """Turns a kernel [P*P*3, D] into a kernel [P, P, 3, D]."""
  P = math.isqrt(kernel.shape[0] // 3)
  return kernel.reshape(P, P, 3, -1)


def _hwio_of_conv(weight):
  """Turns PyTorch's convolution weight [out, in, kh, kw] into Linen's [kh, kw, in, out]."""
  return weight.transpose(2, 3, 1, 0)


def _conv_of_hwio(kernel):
  """Turns Linen's convolution weight [kh, kw, in, out] into PyTorch's [out, in, kh, kw]."""
  return kernel.transpose(3, 2, 0, 1)


def _hwio_of_deconv(weight):
  """Turns the weight [in, out, kh, kw] of PyTorch's transposed convolution into [kh, kw, in, out]."""
  return weight.transpose(2, 3, 0, 1)


def _deconv_of_hwio(kernel):
  """Turns a kernel [kh, kw, in, out] into the weight [in, out, kh, kw] of a transposed convolution."""
  return kernel.transpose(2, 3, 0, 1)


def _unchanged(array):
  return array


def _kernel_of_conv_1x1(weight):
  """Turns the weight [out, in, 1, 1] of a convolution into a kernel [in, out]."""
  return weight[:, :, 0, 0].T


def _conv_1x1_of_kernel(kernel):
  """Turns a kernel [in, out] into the weight [out, in, 1, 1] of a convolution."""
  return kernel.T[:, :, None, None]


IDENTITY = Layout("identity", _unchanged, _unchanged)  # tokens and position tables
VECTOR = Layout("vector", _unchanged, _unchanged)  # biases, norm scales
LINEAR = Layout("linear", np.transpose, np.transpose)  # (out, in) in PyTorch, (in, out) here
PATCH_CONV = Layout("patch_conv", _kernel_of_patch_conv, _patch_conv_of_kernel)
FLAT_PATCHES = Layout("flat_patches", _flat_patches, _square_patches)
CONV = Layout("conv", _hwio_of_conv, _conv_of_hwio)
DECONV = Layout("deconv", _hwio_of_deconv, _deconv_of_hwio)
CONV_1X1 = Layout("conv_1x1", _kernel_of_conv_1x1, _conv_1x1_of_kernel)  # in this project, a linear layer
