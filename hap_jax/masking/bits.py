"""Words of 32 bits: random ones, and sets of cells, whose operations cost a 32nd of those on booleans."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

WORD = 32


def pack_bits(cells):
  """Packs cells into words: bit i of word w is cell 32 * w + i, the bits beyond the last cell are 0.

  Args:
    cells: [..., N] bool.
  Returns:
    [..., ceil(N / 32)] uint32.
  """
  *batch, N = cells.shape
  cells = jnp.pad(jnp.asarray(cells, jnp.uint32), [(0, 0)] * len(batch) + [(0, -N % WORD)])
  words = cells.reshape(*batch, -1, WORD) << jnp.arange(WORD, dtype=jnp.uint32)
  return jnp.sum(words, axis=-1, dtype=jnp.uint32)


def unpack_bits(words, num_cells):
  """Unpacks [..., W] uint32 into the first num_cells cells: [..., num_cells] bool."""
  cells = (words[..., None] >> jnp.arange(WORD, dtype=jnp.uint32)) & 1
  return cells.reshape(*words.shape[:-1], -1)[..., :num_cells].astype(bool)


def bit_span(start, stop, num_words):
  """Words of the set of cells start, ..., stop - 1: [...] int32 twice -> [..., num_words] uint32."""
  first_cell = WORD * jnp.arange(num_words)

  def cells_below(end):
    num_cells = jnp.clip(end[..., None] - first_cell, 0, WORD).astype(jnp.uint32)
    # A shift by the whole word is undefined in XLA.
    return jnp.where(num_cells < WORD, (jnp.uint32(1) << num_cells) - 1, ~jnp.uint32(0))

  return cells_below(stop) & ~cells_below(start)


def draw(key, *sizes):
  """Draws random words for several uses, and the key of the next draw, in one call of the generator.

  Each call takes half a second to compile on a CPU, `jax.random.split` too.

  Args:
    key: PRNG key. sizes: how many words each use takes.
  Returns:
    (key, [[size] uint32 for each of sizes]).
  """
  num_key_words = jax.random.key_data(key).size
  # One flat draw: short trailing axes make the generator several times slower on a CPU.
  words = jax.random.bits(key, (num_key_words + sum(sizes),))
  key_words, *parts = jnp.split(words, np.cumsum([num_key_words, *sizes])[:-1])
  return jax.random.wrap_key_data(key_words, impl=jax.random.key_impl(key)), parts


def unit_interval(words):
  """Turns random words into float32 numbers in [0, 1) by their upper 24 bits."""
  return (words >> np.uint32(8)).astype(jnp.float32) * np.float32(2**-24)


def count_bits(words):
  """Counts the set cells of [..., W] uint32: [...] int32."""
  return jnp.sum(lax.population_count(words), axis=-1, dtype=jnp.int32)
