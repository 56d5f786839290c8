"""Layers in NumPy for the second forward pass, see `numpy_vit.py`; weights are [out, in] as in PyTorch."""

import numpy as np

_BATCH_NORM_EPSILON = 1e-5  # of PyTorch and of the ReID reference


def f32(array):
  return np.asarray(array, np.float32)


def pair(module):
  """Returns (weight, bias) of a module as `numpy_vit.Network` gives it."""
  return module["weight"], module["bias"]


def linear(x, pair):
  weight, bias = pair
  # By order in memory and alignment, which a file's tensors may lack, NumPy chooses how it sums: both sides
  # of a comparison shall sum alike.
  weight = np.require(weight, np.float32, ("C", "ALIGNED"))
  return (x.reshape(-1, x.shape[-1]) @ weight.T).reshape(*x.shape[:-1], -1) + f32(bias)


def layer_norm(x, pair, epsilon):
  centred = x - x.mean(axis=-1, keepdims=True)
  scale = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + np.float32(epsilon))
  return centred / scale * f32(pair[0]) + f32(pair[1])


def conv(x, module, stride=1):
  """Convolves [B, H, W, in] with a weight [out, in, k, k], padded to keep the size before the stride."""
  weight = f32(module["weight"])
  k = weight.shape[-1]
  H, W = x.shape[1:3]
  x = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
  total = 0
  for i in range(k):
    for j in range(k):
      window = x[:, i : i + H : stride, j : j + W : stride]
      total = total + (window.reshape(-1, window.shape[-1]) @ weight[:, :, i, j].T).reshape(
        *window.shape[:-1], -1
      )
  return total


def batch_norm(x, module):
  mean, var, weight, bias = (f32(module[key]) for key in ("mean", "var", "weight", "bias"))
  return (x - mean) / np.sqrt(var + np.float32(_BATCH_NORM_EPSILON)) * weight + bias
