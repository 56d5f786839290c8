"""The network for 2D pose: it computes one heat map per joint from the map of patch tokens.

A network of several data sets has one head for each of them. Its encoder may have an expert for each of them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hap_jax.models import image_encoder, vit
from hap_jax.models.batch_norm import BatchNorm

HEADS = ("classic", "simple")
STRIDE = 4  # each patch token becomes 4 x 4 cells of the heat maps, in both heads
# Parity: all kernels of the heads start from this normal distribution, and all biases from zero.
_KERNEL_INIT = nn.initializers.normal(0.001)


def head_names(count):
  """Returns the names of the heads of a network, in the order of its data sets, as a tuple."""
  return ("keypoint_head", *(f"associate_keypoint_heads_{k}" for k in range(count - 1)))


class PoseEstimator(nn.Module):
  """An encoder with heads that compute heat maps (ViTPose, arXiv 2204.12484).

  The parameters are "encoder" and the subtrees of `head_names`. A head reads the patch tokens after the final
  norm. The official encoder has no class token and a padding of 2 pixels.

  Attributes:
    encoder: `vit.ViT`.
    num_joints: number of heat maps of each head.
    head: "classic" or "simple", see `ClassicHead` and `SimpleHead`.
    head_channels: channels of the two transposed convolutions of the classic head.
  """

  encoder: vit.ViT
  num_joints: tuple[int, ...]
  head: str = "classic"
  head_channels: tuple[int, int] = (256, 256)

  @nn.compact
  def __call__(self, image, *, train, drop_key=None, expert=None, head=0):
    """Runs the encoder and one head or all heads.

    Args:
      image: [B, H, W, 3] float, normalised, of the encoder's size.
      train: see `BatchNorm`.
      drop_key, expert: see `vit.ViT`.
      head: number of the head. None: all heads, each on the whole batch.
    Returns:
      [B, STRIDE * Gh, STRIDE * Gw, K] float32 heat maps of the head, or a tuple with those of all heads.
    Raises:
      ValueError: if the pictures have another size, or if there is no such kind of head.
    """
    patches = image_encoder.encode(self.encoder, image, drop_key, expert).patches
    features = patches.reshape(len(patches), *self.encoder.grid, -1)
    if head is not None:
      return self._make_head(head)(features, train=train)
    return tuple(self._make_head(k)(features, train=train) for k in range(len(self.num_joints)))

  def _make_head(self, k):
    name, num_joints, dtype = head_names(k + 1)[k], self.num_joints[k], self.encoder.dtype
    if self.head == "classic":
      return ClassicHead(num_joints, tuple(self.head_channels), dtype, name=name)
    if self.head == "simple":
      return SimpleHead(num_joints, dtype, name=name)
    raise ValueError(f"config.model.head={self.head!r} is not one of {', '.join(HEADS)}")


class ClassicHead(nn.Module):
  """Two transposed convolutions, each with batch norm and ReLU, and a 1x1 convolution.

  Attributes:
    num_joints: number of joints K.
    channels: channels of the two transposed convolutions.
    dtype: type of the products. The heat maps are float32.
  """

  num_joints: int
  channels: tuple[int, int]
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features, *, train):
    """Computes heat maps: [B, Gh, Gw, D] -> [B, 4 Gh, 4 Gw, K] float32."""
    x = features
    # The names count the layers of the official state dict. Layers 2 and 5 are the ReLUs.
    for first, channels in zip((0, 3), self.channels, strict=True):
      x = Deconvolution(channels, self.dtype, name=f"deconv_layers_{first}")(x)
      x = nn.relu(BatchNorm(self.dtype, name=f"deconv_layers_{first + 1}")(x, train=train))
    return FinalLayer(self.num_joints, size=1, dtype=self.dtype, name="final_layer")(x)


class SimpleHead(nn.Module):
  """ReLU, bilinear resize to four times the size, and a 3x3 convolution.

  Attributes:
    num_joints: number of joints K.
    dtype: type of the products. The heat maps are float32.
  """

  num_joints: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, features, *, train):
    """Computes heat maps: [B, Gh, Gw, D] -> [B, 4 Gh, 4 Gw, K] float32."""
    del train
    layer = FinalLayer(self.num_joints, size=3, factor=STRIDE, dtype=self.dtype, name="final_layer")
    return layer(nn.relu(features))


class Deconvolution(nn.Module):
  """The layer of `transposed_convolution`, with the parameter `kernel` [4, 4, in, features] and no bias."""

  features: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    kernel = self.param("kernel", _KERNEL_INIT, (4, 4, x.shape[-1], self.features))
    return transposed_convolution(x.astype(self.dtype), kernel.astype(self.dtype))


class FinalLayer(nn.Module):
  """The layer of `resized_convolution`, with the parameters `kernel` [size, size, in, K] and `bias` [K].

  Attributes:
    num_joints: K.
    size: side of the kernel in pixels.
    factor: factor of the resize.
    dtype: type of the product.
  """

  num_joints: int
  size: int
  factor: int = 1
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x):
    kernel = self.param("kernel", _KERNEL_INIT, (self.size, self.size, x.shape[-1], self.num_joints))
    bias = self.param("bias", nn.initializers.zeros, (self.num_joints,))
    return resized_convolution(x.astype(self.dtype), kernel.astype(self.dtype), self.factor) + bias


# Without the checkpoint, the gradient would keep 16 copies of the input in memory.
@jax.checkpoint
def transposed_convolution(x, kernel):
  """Computes the transposed convolution with kernel 4, stride 2 and padding 1, as in PyTorch.

    y[o] = sum of x[i] kernel[k] over all i and k with 2 i - 1 + k = o, in rows and in columns

  So output row 2 m is the sum of row m - 1 with k = 3 and row m with k = 1. Output row 2 m + 1 is the sum of
  row m with k = 2 and row m + 1 with k = 0. The same holds for columns, so there are four kinds of output
  pixels. Each kind is one matrix product of 2 x 2 input pixels with 2 x 2 cells of the kernel. On a CPU, the
  gradients of XLA's own transposed convolution take 40 times as long.

  Args:
    x: [B, H, W, in].
    kernel: [4, 4, in, out] of the same type. kernel[i, j] is weight[:, :, i, j] of PyTorch's layer.
  Returns:
    [B, 2 H, 2 W, out].
  """
  B, H, W, C = x.shape
  padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))

  def make_pixels(a, b):
    """Returns the output pixels in the rows 2 m + a and the columns 2 m + b, [B, H, W, out]."""
    near = [padded[:, a + i : a + i + H, b + j : b + j + W] for i in (0, 1) for j in (0, 1)]
    cells = jnp.concatenate([kernel[3 - a - 2 * i, 3 - b - 2 * j] for i in (0, 1) for j in (0, 1)])
    return (jnp.concatenate(near, axis=-1).reshape(-1, 4 * C) @ cells).reshape(B, H, W, -1)

  rows = [jnp.stack([make_pixels(a, b) for b in (0, 1)], axis=3) for a in (0, 1)]  # [B, H, W, 2, out]
  return jnp.stack(rows, axis=2).reshape(B, 2 * H, 2 * W, -1)


def resized_convolution(x, kernel, factor=1):
  """Resizes a map by bilinear interpolation and convolves it with an odd kernel, stride 1, zeros outside.

  The resize is linear and the same for every channel. So the result does not change if the channels are
  multiplied by the kernel before the resize. This function computes these products at the small size, one for
  each cell of the kernel. It then resizes, shifts and adds the products. After the resize, the products would
  take factor^2 times as many operations.

  Args:
    x: [B, H, W, in].
    kernel: [size, size, in, K] of the same type, with an odd size.
    factor: factor of the resize. Pixels have half-pixel centres, and the border is repeated.
  Returns:
    [B, factor * H, factor * W, K] float32.
  """
  (B, H, W, C), (size, _, _, K) = x.shape, kernel.shape
  cells = kernel.transpose(2, 0, 1, 3).reshape(C, -1)
  # The heat maps are float32, so the sums over the channels are also float32.
  products = jnp.matmul(x.reshape(-1, C), cells, preferred_element_type=jnp.float32)
  if size == factor == 1:
    return products.reshape(B, H, W, K)
  products = products.reshape(B, H, W, size, size, K)
  rows, columns = (jnp.asarray(_resize_and_shift(side, factor, size)) for side in (H, W))
  # Accelerators multiply float32 matrices with fewer bits by default.
  add = lambda *args: jnp.einsum(*args, precision="highest")  # noqa: E731
  return add("bhcek,ewc->bhwk", add("bhcdek,drh->brcek", products, rows), columns)


def _resize_and_shift(length, factor, size):
  """Returns the matrices [size, factor * length, length] that resize one axis and shift the result.

  Output pixel p of matrix d is pixel p + d - size // 2 of the resized axis, and 0 outside of it.
  """
  # Half-pixel centres: the centre of pixel i is at i + 0.5. The border pixel is repeated outwards.
  source = np.clip((np.arange(factor * length) + 0.5) / factor - 0.5, 0, length - 1)
  resize = np.maximum(1 - np.abs(source[:, None] - np.arange(length)), 0)
  reach = size // 2
  padded = np.pad(resize, ((reach, reach), (0, 0)))
  return np.stack([padded[d : d + factor * length] for d in range(size)]).astype(np.float32)
