"""Generators made in one go draw what NumPy's own draw: published runs depend on every crop."""

import numpy as np
import pytest

from hap_jax.data import generators


@pytest.mark.parametrize("seed", [0, 1, 2310_20695, 2**32 - 1, 2**32, 2**63 + 5, 2**130 + 7])
@pytest.mark.parametrize("epoch", [0, 399, 2**32 + 1])
def test_generators_are_those_of_default_rng(seed, epoch):
  index = [
    0,
    1,
    2,
    4_180_242,
    2**31 - 1,
    2**32 - 1,
    *np.random.default_rng(0).integers(2**32, size=20).tolist(),
  ]
  for i, rng in zip(index, generators.of_records(seed, epoch, index), strict=True):
    wanted = np.random.default_rng((seed, epoch, i))
    assert rng.bit_generator.state == wanted.bit_generator.state
    np.testing.assert_array_equal(rng.random(3), wanted.random(3))
    np.testing.assert_array_equal(rng.permutation(9), wanted.permutation(9))


def test_generators_of_no_record_are_none():
  assert generators.of_records(0, 0, []) == []


@pytest.mark.parametrize("seed", [0, 2**32 + 1, 2**130 + 7])
def test_a_record_that_a_batch_holds_again_is_drawn_anew(seed):
  rngs = generators.of_batch(seed, 3, np.array([7, 2, 7, 7, 2, 5]))
  wanted = [(7,), (2,), (7, 0, 1), (7, 0, 2), (2, 0, 1), (5,)]
  for rng, numbers in zip(rngs, wanted, strict=True):
    assert rng.bit_generator.state == np.random.default_rng((seed, 3, *numbers)).bit_generator.state
  assert len({rng.random() for rng in rngs}) == 6
