"""Part-guided masking: which patches a body part covers, and which of them go first."""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from hap_jax.masking import bits

_RANDOM_BITS = 16  # of each cell, to choose a random subset


def part_patches(keypoints_xy, keypoints_visible, grid, patch, parts):
  """Finds the patches of every body part: the union of the rectangles spanned by its joint pairs.

  A pair covers all patches from one joint's patch to the other's; a joint beyond the right or bottom edge
  counts as one on the edge, and a pair with a missing joint covers nothing. A joint is missing if it is not
  visible, not finite or negative. Coordinates are cut to whole pixels before the sign is looked at, so -0.5
  is pixel 0.

  Args:
    keypoints_xy: [K, 2] float32, pixels of the network input. keypoints_visible: [K] bool.
    grid: (Gh, Gw) patches. patch: side in pixels.
    parts: part name -> joint pairs, as `Skeleton.parts`.
  Returns:
    [num_parts, L] bool, row-major over the grid.
  """
  Gh, Gw = grid
  is_known = keypoints_visible.astype(bool) & jnp.all(jnp.isfinite(keypoints_xy), axis=-1)
  # Clipping before the cast keeps huge numbers in range; anything beyond the grid acts alike.
  pixel_xy = jnp.clip(jnp.where(is_known[:, None], keypoints_xy, -1), -1, patch * max(grid))
  pixel_xy = pixel_xy.astype(jnp.int32)
  is_known = is_known & jnp.all(pixel_xy >= 0, axis=-1)
  cell_xy = jnp.minimum(pixel_xy // patch, np.array((Gw - 1, Gh - 1)))

  row, column = jnp.arange(Gh), jnp.arange(Gw)
  covered = []
  for _, pairs in parts:
    union = jnp.zeros(grid, bool)
    for first, second in pairs:  # written out: gathering all pairs at once is ten times slower on CPU
      low = jnp.minimum(cell_xy[first], cell_xy[second])
      high = jnp.maximum(cell_xy[first], cell_xy[second])
      in_columns = (column >= low[0]) & (column <= high[0]) & is_known[first] & is_known[second]
      in_rows = (row >= low[1]) & (row <= high[1])
      union = union | (in_rows[:, None] & in_columns)
    covered.append(union.reshape(-1))
  return jnp.stack(covered)


def choose_parts(random_words, has_patches, num_parts):
  """Takes the first `num_parts` parts of a random order; a part without patches is passed over, not counted.

  Args:
    random_words: [P] uint32. has_patches: [P] bool. num_parts: [] int32.
  Returns:
    [P] int32: k = 0, 1, ... of the k-th part taken, -1 of a part not taken.
  """
  P = len(has_patches)
  noise = random_words & ~np.uint32(255) | jnp.arange(P, dtype=jnp.uint32)  # all different
  order = jnp.sum((noise < noise[:, None]) & has_patches, axis=-1, dtype=jnp.int32)
  return jnp.where(has_patches & (order < num_parts), order, -1)


def random_subset(random_words, cells, size):
  """Draws a uniformly random subset of given size of each set of cells.

  Every cell gets a random number, and the `size` smallest of a set are found bit by bit, highest first:
  if no more cells than still wanted have a 0, all of these are taken and the search goes on among the others;
  if more have, it goes on among them. A sort per set would be the greatest cost of the sampler.

  Args:
    random_words: [R, S, ceil(L / 32)] uint32: R random bits of each cell. Two cells share 16 bits once in
      65,536; their index tells them apart, so that the size is exact.
    cells: [S, L] bool. size: [S] int32, at most the size of the set.
  Returns:
    [S, L] bool with exactly `size` cells of each set.
  """
  L = cells.shape[1]
  candidates = bits.pack_bits(cells)
  index_bits = np.arange(L) >> np.arange((L - 1).bit_length())[::-1, None] & 1
  index_bits = bits.pack_bits(index_bits)[:, None]

  def split(state, is_one):
    candidates, taken, wanted = state
    zeros = candidates & ~is_one
    num_zeros = bits.count_bits(zeros)
    is_few = num_zeros <= wanted
    candidates = jnp.where(is_few[:, None], candidates & is_one, zeros)
    taken = jnp.where(is_few[:, None], taken | zeros, taken)
    return (candidates, taken, jnp.where(is_few, wanted - num_zeros, wanted)), None

  state = candidates, jnp.zeros_like(candidates), size
  state, _ = lax.scan(split, state, random_words)
  (candidates, taken, wanted), _ = lax.scan(split, state, index_bits)
  # At most one candidate is left now; it may be the last cell wanted.
  return bits.unpack_bits(jnp.where(wanted[:, None] > 0, taken | candidates, taken), L)


def num_words(num_parts, num_cells):
  """Returns how many random words `sample_parts` takes for so many parts and cells."""
  return 2 * num_parts + math.prod(_subset_shape(num_parts, num_cells))


def _subset_shape(num_parts, num_cells):
  return _RANDOM_BITS, num_parts, -(-num_cells // bits.WORD)


def sample_parts(random_words, patches, num_parts, fraction):
  """Chooses parts and marks a random subset of floor(|part| * u) patches of each, u ~ U(0, fraction).

  Args:
    random_words: [num_words(P, L)] uint32. patches: [P, L] bool from `part_patches`. num_parts: [] int32.
    fraction: plain number.
  Returns:
    order: [P] int32, when each part was taken: 0, 1, ..., or -1 if it was not.
    marked: [P, L] bool, its marked patches.
  """
  P, L = patches.shape
  order_words, size_words, subset_words = jnp.split(random_words, (P, 2 * P))
  num_patches = jnp.sum(patches, axis=-1, dtype=jnp.int32)
  order = choose_parts(order_words, num_patches > 0, num_parts)
  share = bits.unit_interval(size_words) * fraction
  size = jnp.where(order >= 0, jnp.floor(num_patches * share).astype(jnp.int32), 0)
  return order, random_subset(subset_words.reshape(_subset_shape(P, L)), patches, size)
