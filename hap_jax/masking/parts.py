"""Part-guided masking: finds the patches of each body part, chooses parts and marks some of their patches."""

import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from hap_jax.masking import bits

_RANDOM_BITS = 16  # random bits per cell for the choice of a subset


def part_patches(keypoints_xy, keypoints_visible, grid, patch, parts):
  """Returns the patches of every body part. A part is a list of joint pairs.

  A pair covers the rectangle of patches with its two joints at opposite corners. A part covers the union of
  its rectangles. A joint beyond the right or bottom edge is moved to the edge. A pair with a missing joint
  covers no patch. A joint is missing if it is invisible, not finite or negative. Coordinates are truncated to
  whole pixels before the sign is checked, so -0.5 is pixel 0.

  Args:
    keypoints_xy: [K, 2] float32, pixels of the network input.
    keypoints_visible: [K] bool.
    grid: (Gh, Gw) patches.
    patch: side in pixels.
    parts: (part name, joint pairs) tuples, as in `Skeleton.parts`.
  Returns:
    [num_parts, L] bool, row-major over the grid.
  """
  Gh, Gw = grid
  is_known = keypoints_visible.astype(bool) & jnp.all(jnp.isfinite(keypoints_xy), axis=-1)
  # A cast of a huge float to int32 is undefined, so coordinates are clipped first. Both limits lie outside
  # the grid, where the exact coordinate has no effect.
  pixel_xy = jnp.clip(jnp.where(is_known[:, None], keypoints_xy, -1), -1, patch * max(grid))
  pixel_xy = pixel_xy.astype(jnp.int32)
  is_known = is_known & jnp.all(pixel_xy >= 0, axis=-1)
  cell_xy = jnp.minimum(pixel_xy // patch, np.array((Gw - 1, Gh - 1)))

  row, column = jnp.arange(Gh), jnp.arange(Gw)
  covered = []
  for _, pairs in parts:
    union = jnp.zeros(grid, bool)
    # This is a Python loop, because one gather of all pairs is ten times slower on a CPU.
    for first, second in pairs:
      low = jnp.minimum(cell_xy[first], cell_xy[second])
      high = jnp.maximum(cell_xy[first], cell_xy[second])
      in_columns = (column >= low[0]) & (column <= high[0]) & is_known[first] & is_known[second]
      in_rows = (row >= low[1]) & (row <= high[1])
      union = union | (in_rows[:, None] & in_columns)
    covered.append(union.reshape(-1))
  return jnp.stack(covered)


def choose_parts(random_words, has_patches, num_parts):
  """Chooses up to `num_parts` of the parts with patches, in random order.

  Args:
    random_words: [P] uint32.
    has_patches: [P] bool.
    num_parts: [] int32.
  Returns:
    [P] int32, the position (0, 1, ...) of each part in the order in which the parts were chosen, or -1 for a
      part that was not chosen.
  """
  P = len(has_patches)
  # The lowest 8 bits are the index of the part, so no two numbers are equal and the order is unique.
  noise = random_words & ~np.uint32(255) | jnp.arange(P, dtype=jnp.uint32)
  # The position of a part is the number of parts with patches that drew a smaller number.
  order = jnp.sum((noise < noise[:, None]) & has_patches, axis=-1, dtype=jnp.int32)
  return jnp.where(has_patches & (order < num_parts), order, -1)


def random_subset(random_words, cells, size):
  """Draws a uniformly random subset of the given size from each set of cells.

  Every cell gets a random number, and the cells with the `size` smallest numbers are taken. They are found
  bit by bit, starting with the highest bit. Let n be the number of cells that are still to be taken. If at
  most n candidates have a 0 in this bit, all of these candidates are taken, and the search continues among
  the candidates with a 1. If more than n candidates have a 0, the search continues among these candidates. A
  sort of each set would cost more than the rest of the sampler.

  Args:
    random_words: [R, S, ceil(L / 32)] uint32, R random bits per cell.
    cells: [S, L] bool, S sets of cells.
    size: [S] int32, at most the number of cells in the set.
  Returns:
    [S, L] bool with exactly `size` cells of each set.
  """
  L = cells.shape[1]
  candidates = bits.pack_bits(cells)
  # Two cells have the same 16 random bits once in 65,536 pairs. The bits of the cell's index follow the
  # random bits, so all numbers are different and the size is exact.
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
  # At most one candidate is left now, because all numbers are different. If one cell is still to be taken, it
  # is this candidate.
  return bits.unpack_bits(jnp.where(wanted[:, None] > 0, taken | candidates, taken), L)


def num_words(num_parts, num_cells):
  """Returns the number of random words that `sample_parts` needs for these numbers of parts and cells."""
  return 2 * num_parts + math.prod(_subset_shape(num_parts, num_cells))


def _subset_shape(num_parts, num_cells):
  return _RANDOM_BITS, num_parts, -(-num_cells // bits.WORD)


def sample_parts(random_words, patches, num_parts, fraction):
  """Chooses parts and marks a random subset of the patches of each chosen part.

  The subset of a part has floor(|part| * u) patches, with u ~ U(0, fraction) drawn for each part.

  Args:
    random_words: [num_words(P, L)] uint32.
    patches: [P, L] bool from `part_patches`.
    num_parts: [] int32, the number of parts to choose.
    fraction: number in [0, 1].
  Returns:
    (order, marked):
    order: [P] int32, the position of each part in the order of the choice: 0, 1, ... -1: not chosen.
    marked: [P, L] bool, the marked patches of each part.
  """
  P, L = patches.shape
  order_words, size_words, subset_words = jnp.split(random_words, (P, 2 * P))
  num_patches = jnp.sum(patches, axis=-1, dtype=jnp.int32)
  order = choose_parts(order_words, num_patches > 0, num_parts)
  share = bits.unit_interval(size_words) * fraction
  size = jnp.where(order >= 0, jnp.floor(num_patches * share).astype(jnp.int32), 0)
  return order, random_subset(subset_words.reshape(_subset_shape(P, L)), patches, size)
