"""Arrays of 32-bit words: random words, and bit sets, which have one bit per cell.

An operation on a bit set costs 1/32 of the cost of the same operation on a boolean array.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

WORD = 32


def pack_bits(cells):
  """Packs cells into words: bit i of word w is cell 32 * w + i. The bits after the last cell are 0.

  Args:
    cells: [..., N] bool.
  Returns:
    [..., ceil(N / 32)] uint32.
  """
  *batch, N = cells.shape
  cells = jnp.pad(jnp.asarray(cells, jnp.uint32), [(0, 0)] * len(batch) + [(0, -N % WORD)])
  # The shifted bits of one word do not overlap, so their sum is their union.
  words = cells.reshape(*batch, -1, WORD) << jnp.arange(WORD, dtype=jnp.uint32)
  return jnp.sum(words, axis=-1, dtype=jnp.uint32)


def unpack_bits(words, num_cells):
  """Unpacks [..., W] uint32 into the first num_cells cells: [..., num_cells] bool."""
  cells = (words[..., None] >> jnp.arange(WORD, dtype=jnp.uint32)) & 1
  return cells.reshape(*words.shape[:-1], -1)[..., :num_cells].astype(bool)


def bit_span(start, stop, num_words):
  """Returns the bit set of the cells start, ..., stop - 1.

  Args:
    start, stop: [...] int32.
    num_words: number of words of the set.
  Returns:
    [..., num_words] uint32.
  """
  first_cell = WORD * jnp.arange(num_words)

  def cells_below(end):
    num_cells = jnp.clip(end[..., None] - first_cell, 0, WORD).astype(jnp.uint32)
    # A shift by 32 is undefined in XLA, so a full word is handled separately.
    return jnp.where(num_cells < WORD, (jnp.uint32(1) << num_cells) - 1, ~jnp.uint32(0))

  # Cells below `stop`, without the cells below `start`.
  return cells_below(stop) & ~cells_below(start)


def draw(key, *sizes):
  """Draws random words for several uses, and the key of the next draw, in one call of the generator.

  Several calls would take longer to compile: a CPU needs half a second for each call of the generator.
  `jax.random.split` also calls the generator.

  Args:
    key: PRNG key.
    sizes: number of words for each use.
  Returns:
    (key, words): the key of the next draw, and a list of one [size] uint32 array for each of `sizes`.
  """
  num_key_words = jax.random.key_data(key).size
  # The draw is flat, because short trailing axes make the generator several times slower on a CPU.
  words = jax.random.bits(key, (num_key_words + sum(sizes),))
  key_words, *parts = jnp.split(words, np.cumsum([num_key_words, *sizes])[:-1])
  return jax.random.wrap_key_data(key_words, impl=jax.random.key_impl(key)), parts


def unit_interval(words):
  """Returns float32 numbers in [0, 1), computed from the upper 24 bits of random words."""
  # float32 has 24 significant bits. With more bits, a number could be rounded up to 1.
  return (words >> np.uint32(8)).astype(jnp.float32) * np.float32(2**-24)


def count_bits(words):
  """Returns the number of cells in each bit set: [..., W] uint32 -> [...] int32."""
  return jnp.sum(lax.population_count(words), axis=-1, dtype=jnp.int32)
