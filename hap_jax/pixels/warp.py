"""Crops, resizes (bicubic) and mirrors pictures on the device, with two matrix products instead of OpenCV."""

import jax
import jax.numpy as jnp

_A = -0.75  # Parity: the parameter of OpenCV's cubic kernel


def crop_resize_flip(image, crop, flip, size):
  """Cuts a window out of each picture, resizes it bicubically to `size` and mirrors it where `flip` is True.

  The rules are the same as in `data.transforms.image.crop_resize`. Pixel edges are scaled. Beyond its border,
  the window continues with its border pixels. A picture is not smoothed before it shrinks. The results are
  whole grey levels. They differ from OpenCV's results by at most one level, because OpenCV computes in fixed
  point. A window that has the size of the result is copied exactly.

  Args:
    image: [B, H0, W0, C] uint8.
    crop: [B, 4] int32, (top, left, height, width) in pixels, inside the picture.
    flip: [B] bool.
    size: (H, W) of the result.
  Returns:
    [B, H, W, C] uint8.
  """
  (H, W), (H0, W0) = size, image.shape[1:3]
  top, left, height, width = (crop[:, i, None] for i in range(4))
  y, x = (jnp.arange(side, dtype=jnp.float32)[None] for side in size)
  rows = _weights(y, top, height, H, H0)
  # A mirrored picture reads its columns from right to left, so the mirror needs no extra operation.
  columns = _weights(jnp.where(flip[:, None], W - 1 - x, x), left, width, W, W0)
  # By default, accelerators multiply with less than float32 precision, which would change grey levels.
  highest = jax.lax.Precision.HIGHEST
  narrow = jnp.einsum("bxw,bhwc->bhxc", columns, image.astype(jnp.float32), precision=highest)
  resized = jnp.einsum("byh,bhxc->byxc", rows, narrow, precision=highest)
  return jnp.clip(jnp.round(resized), 0, 255).astype(jnp.uint8)


def _weights(place, start, extent, size, size0):
  """Returns the matrices that resize pictures along one side.

  Args:
    place: [B or 1, size] float32, positions in the result, in pixels.
    start, extent: [B, 1] int32, first pixel and length of the window.
    size: number of pixels of the result along this side.
    size0: number of pixels of the picture along this side.
  Returns:
    [B, size, size0] float32; each row sums to 1.
  """
  # Pixel edges are scaled, so the centre of pixel i is at i + 0.5.
  source = (place + 0.5) * (extent.astype(jnp.float32) / size) - 0.5
  first = jnp.floor(source)
  matrix = jnp.zeros((), jnp.float32)
  for tap, weight in enumerate(_cubic(source - first), start=-1):
    # Clipping repeats the border of the window, so pixels outside the window never count.
    pixel = start + jnp.clip(first.astype(jnp.int32) + tap, 0, extent - 1)
    matrix += jnp.where(pixel[..., None] == jnp.arange(size0), weight[..., None], 0)
  return matrix


def _cubic(t):
  """Returns the weights of four neighbouring pixels for a position between the second and the third pixel.

  Args:
    t: distance from the second pixel to the position, in [0, 1) pixels.
  """
  u = 1 - t
  before = _A * t * u**2
  near = ((_A + 2) * t - (_A + 3)) * t**2 + 1
  after = ((_A + 2) * u - (_A + 3)) * u**2 + 1
  # The last weight is 1 minus the other weights. So the sum is exactly 1, and a flat area keeps its grey
  # level.
  return before, near, after, 1 - before - near - after
