"""Block-wise masking: random rectangles of patches until enough are covered (BEiT, arXiv 2106.08254)."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from hap_jax.masking import bits

MIN_AREA = 12  # patches; the official repository's, whatever the grid
MIN_ASPECT = 0.3  # height / width lies in [0.3, 1 / 0.3]
TRIES = 10  # so many refused rectangles in a row end the stage


class Rectangles(NamedTuple):
  """[T] rectangles of patches; `fits` is False where one is not strictly smaller than the grid."""

  height: jax.Array
  width: jax.Array
  top: jax.Array
  left: jax.Array
  fits: jax.Array


def make_rectangles(uniform, area_limit, grid):
  """Makes rectangles of random numbers: area ~ U(12, area_limit), log aspect and place uniform.

  Args:
    uniform: [3, T] float32 in [0, 1): for area, aspect and place. area_limit: [] int32 patches; below 12 the
      interval is simply reversed. grid: (Gh, Gw) patches.
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
  # The whole part of one number chooses the row, what is left of it the column.
  place = place * jnp.maximum(Gh - height + 1, 1)
  top = jnp.floor(place)
  left = jnp.floor((place - top) * jnp.maximum(Gw - width + 1, 1))
  fits = (height < Gh) & (width < Gw)
  return Rectangles(height, width, top.astype(jnp.int32), left.astype(jnp.int32), fits)


def sample_blocks(key, grid, num_masked):
  """Covers patches with random rectangles until `num_masked` are set or ten in a row were refused.

  The number of set patches varies: the last rectangle may pass `num_masked`, and where none fits (a grid that
  is one patch wide, say) nothing is set. Source: the official repository's behaviour (HAP, arXiv 2310.20695).

  Args:
    key: PRNG key. grid: (Gh, Gw) patches. num_masked: patches wanted.
  Returns:
    [L] bool, row-major over the grid.
  """
  Gh, Gw = grid
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
    # All ten tries are judged at once and the first good one is kept: far fewer trips than one try at a time.
    set_rows, num_set, _, key = state
    rest = num_masked - num_set
    key, (words,) = bits.draw(key, 3 * TRIES)
    uniform = bits.unit_interval(words).reshape(3, TRIES)
    *places, fits = make_rectangles(uniform, rest, grid)
    overlap = jnp.sum(lax.population_count(cover(*places) & set_rows), axis=(1, 2), dtype=jnp.int32)
    area = places[0] * places[1]
    # Parity: the overlap counts twice, because the official code sums cells that hold the value 2.
    charge = area - 2 * overlap
    is_good = fits & (charge > 0) & (charge <= rest)
    first = jnp.argmax(is_good)
    found = is_good[first]
    new_rows = jnp.where(found, cover(*(place[first] for place in places)), jnp.uint32(0))
    num_new = jnp.where(found, area[first] - overlap[first], 0)
    return set_rows | new_rows, num_set + num_new, ~found, key

  start = jnp.zeros((Gh, num_words), jnp.uint32), jnp.int32(0), jnp.array(False), key
  set_rows, *_ = lax.while_loop(is_unfinished, add_block, start)
  return bits.unpack_bits(set_rows, Gw).reshape(-1)
