"""Makes the heat maps that a 2D pose network learns, inside the training step."""

import jax.numpy as jnp
import numpy as np


def make_heatmaps(keypoints_xy, weight, is_udp, *, image_size, heatmap_size, sigma=2.0):
  """Makes one heat map per joint: exp(-|p - u|^2 / (2 sigma^2)) at each cell p near the joint's place u.

  Let m be the cell of the joint. Cells farther than 3 sigma from m in x or in y are 0.
    udp:   u = xy * (heatmap_size - 1) / (image_size - 1), m = trunc(u + 0.5)
    msra:  u = m = trunc(xy * heatmap_size / image_size + 0.5)
  Sources: unbiased data processing (arXiv 1911.07524) and the older rule (arXiv 1804.06208), as in ViTPose.

  Args:
    keypoints_xy: [B, K, 2] float, (x, y) in pixels of the network's input.
    weight: [B, K] float32, 0 for a missing joint.
    is_udp: [B] bool, the rule of each record.
    image_size: (H, W) of the network's input.
    heatmap_size: (h, w) of the maps.
    sigma: standard deviation of the Gaussian in cells.
  Returns:
    (target [B, h, w, K] float32, weight [B, K] float32). The target of a joint whose weight is at most 0.5 is
    0. The weight becomes 0 if the joint is so far outside that its Gaussian does not reach the map.
  """
  to_udp = is_udp[:, None]
  maps, reaches = [], True
  for axis, (pixels, cells) in enumerate(zip(image_size[::-1], heatmap_size[::-1], strict=True)):
    place = keypoints_xy[..., axis].astype(jnp.float32)  # [B, K]
    # The product comes before the division. The centre of a picture is then exactly between two cells, as in
    # the official code, and both codes choose the same cell.
    unbiased = place * np.float32(cells - 1) / np.float32(pixels - 1)
    place = jnp.where(to_udp, unbiased, place * np.float32(cells) / np.float32(pixels))
    # Parity: the official code truncates towards zero. For negative places, this differs from floor.
    cell = jnp.trunc(place + 0.5)
    place = jnp.where(to_udp, place, cell)
    # Parity: the window ends before cell + 3 sigma + 1. The official code also accepts 0 for this number. So
    # a joint whose window ends just before the map keeps its weight, although its map is empty.
    reaches &= (cell - 3 * sigma < cells) & (cell + 3 * sigma + 1 >= 0)
    maps.append(_line(place, cell, cells, sigma))
  x, y = maps
  weight = jnp.where(reaches, weight, 0).astype(jnp.float32)
  y = jnp.where(weight[:, None] > 0.5, y, 0)
  return y[:, :, None] * x[:, None], weight


def _line(place, cell, cells, sigma):
  """Returns the Gaussian along one axis, [B, cells, K], for places and cells of [B, K]."""
  line = jnp.arange(cells, dtype=jnp.float32)[:, None]
  place, cell = place[:, None], cell[:, None]
  gaussian = jnp.exp(-jnp.square(line - place) / (2 * sigma**2))
  return jnp.where(jnp.abs(line - cell) <= 3 * sigma, gaussian, 0)
