"""Random erasing inside the training step: noise in the boxes that the loader has drawn."""

import jax
import jax.numpy as jnp


def erase(image, box, key):
  """Fills a box of each picture with noise, N(0, 1) for every pixel and channel (arXiv 1708.04896).

  Args:
    image: [B, H, W, C] float, normalised.
    box: [B, 4] int32, (top, left, height, width) in pixels. If the height or the width is 0, no pixel is
      erased.
    key: PRNG key.
  Returns:
    An array of the same shape and type.
  """
  H, W = image.shape[1:3]
  top, left, height, width = (side[:, None] for side in jnp.moveaxis(box, -1, 0))
  y, x = jnp.arange(H), jnp.arange(W)
  is_row = (y >= top) & (y < top + height)  # [B, H]
  is_column = (x >= left) & (x < left + width)  # [B, W]
  inside = is_row[:, :, None, None] & is_column[:, None, :, None]
  # Boxes have different sizes, but shapes must be static. So noise is drawn for all pixels and then selected.
  return jnp.where(inside, jax.random.normal(key, image.shape, image.dtype), image)
