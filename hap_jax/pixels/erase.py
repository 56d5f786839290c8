"""Random erasing inside the training step. The loader chooses the boxes; this code fills them with noise."""

import jax
import jax.numpy as jnp


def erase(image, box, key):
  """Fills one box in each picture with noise from N(0, 1) (Random Erasing, arXiv 1708.04896).

  Args:
    image: [B, H, W, C] float, normalised.
    box: [B, 4] int32, (top, left, height, width) in pixels. If the height or the width is 0, no pixel is
      erased.
    key: PRNG key.
  Returns:
    [B, H, W, C], same dtype as `image`. Every pixel and channel of a box gets its own random number.
  """
  H, W = image.shape[1:3]
  top, left, height, width = (side[:, None] for side in jnp.moveaxis(box, -1, 0))
  y, x = jnp.arange(H), jnp.arange(W)
  is_row = (y >= top) & (y < top + height)  # [B, H]
  is_column = (x >= left) & (x < left + width)  # [B, W]
  inside = is_row[:, :, None, None] & is_column[:, None, :, None]
  # Boxes have different sizes, but the shapes of arrays inside jit must be static. So noise is drawn for all
  # pixels, and only the pixels of the box take it.
  return jnp.where(inside, jax.random.normal(key, image.shape, image.dtype), image)
