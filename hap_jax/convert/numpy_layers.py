"""Layers in NumPy for the forward pass of `numpy_vit.py`. Weights are [out, in], as in PyTorch."""

import numpy as np
import scipy.special

_BATCH_NORM_EPSILON = 1e-5  # the value in PyTorch and in the ReID reference


def f32(array):
  """Returns an aligned float32 array in C order.

  The order of additions in NumPy depends on the layout and the alignment of an array in memory. Tensors of a
  file may be unaligned, and this project stores the axes of a weight in another order. With a fixed layout,
  both sides of a comparison add in the same order.
  """
  return np.require(array, np.float32, ("C", "ALIGNED"))


def pair(module):
  """Returns (weight, bias) of a module that `numpy_vit.Network.module` returned."""
  return module["weight"], module["bias"]


def linear(x, pair):
  weight, bias = pair
  return (x.reshape(-1, x.shape[-1]) @ f32(weight).T).reshape(*x.shape[:-1], -1) + f32(bias)


def layer_norm(x, pair, epsilon):
  centred = x - x.mean(axis=-1, keepdims=True)
  scale = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + np.float32(epsilon))
  return centred / scale * f32(pair[0]) + f32(pair[1])


def gelu(x):
  """Returns the exact GELU, as in the references.

  The error of the tanh approximation would be larger than the allowed difference.
  """
  return x * (0.5 * (1 + scipy.special.erf(x / np.sqrt(np.float32(2)))))


def attention(x, p, num_heads):
  """Returns the self-attention of all T tokens, including its output layer, [B, T, D].

  Args:
    x: [B, T, D].
    p: {"q", "k", "v", "proj": pair}.
    num_heads: the number of heads.
  """
  B, T, D = x.shape
  # [B, heads, T, D / heads]
  q, k, v = (linear(x, p[key]).reshape(B, T, num_heads, -1).swapaxes(1, 2) for key in "qkv")
  scores = q @ k.swapaxes(2, 3) / np.sqrt(np.float32(D // num_heads))
  # The largest score is subtracted before the softmax, so that no exponential overflows.
  scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
  mixed = scores / scores.sum(axis=-1, keepdims=True) @ v
  return linear(mixed.swapaxes(1, 2).reshape(B, T, D), p["proj"])


def conv(x, module, stride=1):
  """Returns the convolution of [B, H, W, in] with a weight [out, in, k, k], [B, H/stride, W/stride, out].

  The input is padded with zeros by k // 2 on each side.
  """
  weight = f32(module["weight"])
  k = weight.shape[-1]
  H, W = x.shape[1:3]
  x = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
  total = 0
  # The convolution is a sum of matrix products, one per position in the kernel. It checks the convolution of
  # JAX, so it shares no code with it.
  for i in range(k):
    for j in range(k):
      window = x[:, i : i + H : stride, j : j + W : stride]
      product = window.reshape(-1, window.shape[-1]) @ f32(weight[:, :, i, j]).T
      total = total + product.reshape(*window.shape[:-1], -1)
  return total


def deconv(x, module):
  """Returns the transposed convolution with kernel 4, stride 2 and padding 1, [B, 2 H, 2 W, out].

  Args:
    x: [B, H, W, in].
    module: {"weight": [out, in, 4, 4]}. PyTorch stores this weight as [in, out, 4, 4].
  """
  weight = f32(module["weight"])
  B, H, W, _ = x.shape
  total = np.zeros((B, 2 * H + 2, 2 * W + 2, len(weight)), np.float32)
  # Here each input pixel adds its product with the kernel to 4 x 4 output pixels. The network in JAX computes
  # each output pixel from its input pixels. So the two share no code.
  for i in range(4):
    for j in range(4):
      product = x.reshape(-1, x.shape[-1]) @ f32(weight[:, :, i, j]).T
      total[:, i : i + 2 * H : 2, j : j + 2 * W : 2] += product.reshape(B, H, W, -1)
  return total[:, 1:-1, 1:-1]


def enlarge(x, factor):
  """Returns a map [B, H, W, C] that is enlarged by bilinear interpolation, [B, factor H, factor W, C].

  Pixel centres are at half-integers, and border pixels are repeated.
  """
  for axis in (1, 2):
    length = x.shape[axis]
    place = np.clip((np.arange(factor * length) + 0.5) / factor - 0.5, 0, length - 1)
    low = np.floor(place).astype(int)
    shape = [1, 1, 1, 1]
    shape[axis] = -1
    share = f32(place - low).reshape(shape)
    high = np.minimum(low + 1, length - 1)
    x = x.take(low, axis) * (1 - share) + x.take(high, axis) * share
  return x


def batch_norm(x, module):
  mean, var, weight, bias = (f32(module[key]) for key in ("mean", "var", "weight", "bias"))
  return (x - mean) / np.sqrt(var + np.float32(_BATCH_NORM_EPSILON)) * weight + bias
