"""Pixels as the encoders see them: uint8 RGB, scaled and normalised inside the step."""

import jax
import jax.numpy as jnp
import numpy as np

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(image, mean=IMAGENET_MEAN, std=IMAGENET_STD):
  """Returns (image / 255 - mean) / std.

  Args:
    image: [..., 3] uint8, RGB. mean, std: three numbers each, of pixels in [0, 1].
  Returns:
    [..., 3] float32.
  """
  return (image.astype(np.float32) / 255 - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)


def erase(image, box, key):
  """Fills a box of each picture with noise, N(0, 1) for every pixel and channel (arXiv 1708.04896).

  Args:
    image: [B, H, W, C] float, normalised. box: [B, 4] int32 top, left, height, width in pixels; a height or
      width of 0 erases nothing. key: PRNG key.
  Returns:
    the same shape and type.
  """
  H, W = image.shape[1:3]
  top, left, height, width = (side[:, None] for side in jnp.moveaxis(box, -1, 0))
  y, x = jnp.arange(H), jnp.arange(W)
  is_row = (y >= top) & (y < top + height)  # [B, H]
  is_column = (x >= left) & (x < left + width)  # [B, W]
  inside = is_row[:, :, None, None] & is_column[:, None, :, None]
  return jnp.where(inside, jax.random.normal(key, image.shape, image.dtype), image)
