"""Tests of bit sets against boolean arrays. The sizes are below, at and above the 32 bits of a word."""

import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.masking import bits


@pytest.mark.parametrize("num_cells", [1, 31, 32, 33, 128])
def test_unpacking_restores_packed_cells(num_cells):
  cells = np.random.default_rng(num_cells).random((3, num_cells)) < 0.5
  words = bits.pack_bits(cells)
  assert words.shape == (3, -(-num_cells // 32))
  np.testing.assert_array_equal(bits.unpack_bits(words, num_cells), cells)
  np.testing.assert_array_equal(bits.count_bits(words), cells.sum(-1))


def test_span_sets_the_cells_from_start_to_stop_minus_one():
  # The spans are empty, full words, inside one word, over a word border, and over three words.
  start, stop = np.array([0, 0, 5, 31, 30, 32, 7]), np.array([0, 32, 9, 33, 70, 64, 70])
  cells = bits.unpack_bits(bits.bit_span(jnp.asarray(start), jnp.asarray(stop), 3), 70)
  np.testing.assert_array_equal(cells, (np.arange(70) >= start[:, None]) & (np.arange(70) < stop[:, None]))
