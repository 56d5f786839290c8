"""Block-wise masking: random rectangles cover patches until enough are covered (BEiT, arXiv 2106.08254)."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hap_jax.masking import bits

MIN_AREA = 12  # patches; the official repository uses this value for every grid
MIN_ASPECT = 0.3  # height / width lies in [0.3, 1 / 0.3]
TRIES = 10  # block-wise masking ends after this number of refused rectangles in a row


class Rectangles(NamedTuple):
  """T rectangles of patches. Each field is [T]. `fits` is True if a rectangle is smaller than the grid.

  Smaller means that both its height and its width are smaller.
  """

  height: jax.Array
  width: jax.Array
  top: jax.Array
  left: jax.Array
  fits: jax.Array


def make_rectangles(uniform, area_limit, grid):
  """Computes rectangles from random numbers. Area, logarithm of the aspect and place are uniform.

  Args:
    uniform: [3, T] float32 in [0, 1): the random numbers of area, aspect and place.
    area_limit: [] int32, in patches. The area is drawn from U(12, area_limit). If area_limit is below 12, it
      is drawn from U(area_limit, 12).
    grid: (Gh, Gw) patches.
  Returns:
    `Rectangles` of [T] int32 and [T] bool.
  """
  Gh, Gw = grid
  area, aspect, place = uniform
  area = MIN_AREA + area * (area_limit - MIN_AREA)
  aspect = jnp.exp((2 * aspect - 1) * math.log(1 / MIN_ASPECT))
  exact_height = jnp.sqrt(area * aspect)
  height = jnp.round(exact_height).astype(jnp.int32)
  width = jnp.round(area / exact_height).astype(jnp.int32)
  # One random number places the rectangle: its integer part is the row, its fraction chooses the column.
  place = place * jnp.maximum(Gh - height + 1, 1)
  top = jnp.floor(place)
  left = jnp.floor((place - top) * jnp.maximum(Gw - width + 1, 1))
  # Parity: the official code refuses a rectangle that is as high or as wide as the grid.
  fits = (height < Gh) & (width < Gw)
  return Rectangles(height, width, top.astype(jnp.int32), left.astype(jnp.int32), fits)


def sample_blocks(key, grid, num_masked):
  """Covers patches with random rectangles.

  The function ends when at least `num_masked` patches are covered, or when ten rectangles in a row were
  refused. So the number of covered patches may be larger or smaller than `num_masked`. If no rectangle fits,
  for example on a grid that is one patch wide, no patch is covered. Source: the behaviour of the official
  repository (HAP, arXiv 2310.20695).

  Args:
    key: PRNG key.
    grid: (Gh, Gw) patches.
    num_masked: number of patches to cover.
  Returns:
    [L] bool, row-major over the grid. True: the patch is covered.
  """
  Gh, Gw = grid
  # A set of patches is one bit set per row of the grid, [Gh, num_words] uint32.
  num_words = -(-Gw // bits.WORD)
  row = jnp.arange(Gh)

  def cover(height, width, top, left):
    in_rows = (row >= top[..., None]) & (row < (top + height)[..., None])  # [..., Gh]
    in_columns = bits.bit_span(left, left + width, num_words)  # [..., words]
    return jnp.where(in_rows[..., None], in_columns[..., None, :], jnp.uint32(0))

  def is_unfinished(state):
    _, num_set, is_stuck, _ = state
    return (num_set < num_masked) & ~is_stuck

  def add_block(state):
    # All ten tries are drawn and checked at once, and the first good try is used. So the loop runs once per
    # rectangle, not once per try.
    set_rows, num_set, _, key = state
    rest = num_masked - num_set
    key, (words,) = bits.draw(key, 3 * TRIES)
    uniform = bits.unit_interval(words).reshape(3, TRIES)
    *places, fits = make_rectangles(uniform, rest, grid)
    overlap = jnp.sum(lax.population_count(cover(*places) & set_rows), axis=(1, 2), dtype=jnp.int32)
    area = places[0] * places[1]
    # Parity: a covered patch has the value 2 in the official code, so its sum counts the overlap twice.
    charge = area - 2 * overlap
    is_good = fits & (charge > 0) & (charge <= rest)
    first = jnp.argmax(is_good)
    # argmax is 0 if no try is good, so `found` reads whether try `first` is good.
    found = is_good[first]
    new_rows = jnp.where(found, cover(*(place[first] for place in places)), jnp.uint32(0))
    # Unlike `charge`, the number of covered patches counts each patch once.
    num_new = jnp.where(found, area[first] - overlap[first], 0)
    return set_rows | new_rows, num_set + num_new, ~found, key

  start = jnp.zeros((Gh, num_words), jnp.uint32), jnp.int32(0), jnp.array(False), key
  set_rows, *_ = lax.while_loop(is_unfinished, add_block, start)
  return bits.unpack_bits(set_rows, Gw).reshape(-1)
