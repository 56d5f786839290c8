"""Crop, bicubic resize and mirror on the device: what OpenCV does to a picture, as two matrix products."""

import jax
import jax.numpy as jnp

_A = -0.75  # of the cubic kernel, OpenCV's


def crop_resize_flip(image, crop, flip, size):
  """Cuts a window out of each picture, resizes it bicubically to `size` and mirrors it where `flip`.

  It is `data.transforms.image.crop_resize` for a batch: pixel edges are scaled, the window's border is
  replicated, nothing is smoothed before it shrinks, and results are whole grey levels, at most one away from
  OpenCV's, which computes in fixed point. A window of `size` itself is copied exactly.

  Args:
    image: [B, H0, W0, C] uint8. crop: [B, 4] int32, (top, left, height, width) in pixels, inside the picture.
    flip: [B] bool. size: (H, W) of the result.
  Returns:
    [B, H, W, C] uint8.
  """
  (H, W), (H0, W0) = size, image.shape[1:3]
  top, left, height, width = (crop[:, i, None] for i in range(4))
  y, x = (jnp.arange(side, dtype=jnp.float32)[None] for side in size)
  rows = _weights(y, top, height, H, H0)
  columns = _weights(jnp.where(flip[:, None], W - 1 - x, x), left, width, W, W0)
  # Full float32: accelerators' products are of lower precision unless told, and would lose grey levels.
  highest = jax.lax.Precision.HIGHEST
  narrow = jnp.einsum("bxw,bhwc->bhxc", columns, image.astype(jnp.float32), precision=highest)
  resized = jnp.einsum("byh,bhxc->byxc", rows, narrow, precision=highest)
  return jnp.clip(jnp.round(resized), 0, 255).astype(jnp.uint8)


def _weights(place, start, extent, size, size0):
  """Makes the matrices of a resize along one side.

  Args:
    place: [B or 1, size] float32, pixels of the result. start, extent: [B, 1] int32, the window.
    size: pixels of the result. size0: of the picture.
  Returns:
    [B, size, size0] float32, rows sum to 1.
  """
  source = (place + 0.5) * (extent.astype(jnp.float32) / size) - 0.5
  first = jnp.floor(source)
  matrix = jnp.zeros((), jnp.float32)
  for tap, weight in enumerate(_cubic(source - first), start=-1):
    pixel = start + jnp.clip(first.astype(jnp.int32) + tap, 0, extent - 1)
    matrix += jnp.where(pixel[..., None] == jnp.arange(size0), weight[..., None], 0)
  return matrix


def _cubic(t):
  """Returns the weights of the four pixels around a place, t in [0, 1) beyond the second of them."""
  u = 1 - t
  before = _A * t * u**2
  near = ((_A + 2) * t - (_A + 3)) * t**2 + 1
  after = ((_A + 2) * u - (_A + 3)) * u**2 + 1
  return before, near, after, 1 - before - near - after
