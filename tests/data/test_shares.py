"""The sampler that draws the data set of each row by given shares."""

import itertools

import numpy as np
import pytest

from hap_jax.data import samplers, shares
from hap_jax.data.continued_order import ContinuedOrder
from hap_jax.data.samplers import ShuffledEpochs
from hap_jax.data.shares import ShuffledShares

SIZES, SHARES = (30, 9, 61), (0.2, 0.5, 0.3)
BOUNDS = np.cumsum((0, *SIZES))


def make(**changes):
  return ShuffledShares(**{"sizes": SIZES, "shares": SHARES, "batch_size": 8, "seed": 3, **changes})


def rows_of(sampler, steps):
  """Returns [rows, 3]: data set, row in the data set and pass of each row of these steps."""
  index = np.concatenate([sampler.indices(step) for step in steps])
  dataset = np.searchsorted(BOUNDS, index, side="right") - 1
  passes = np.concatenate([samplers.passes(sampler, step) for step in steps])
  return np.stack([dataset, index - BOUNDS[dataset], passes], axis=1)


def test_an_epoch_is_as_long_as_that_of_the_shuffled_records():
  sampler, plain = make(), ShuffledEpochs(sum(SIZES), 8, seed=3)
  assert (sampler.nominal_steps, sampler.num_records, sampler.num_steps) == (12, 100, None)
  for step in (0, 11, 12, 40):
    assert (sampler.epoch(step), sampler.progress(step)) == (plain.epoch(step), plain.progress(step))
    assert sampler.first_step(step) == plain.first_step(step)
    assert sampler.valid(step).tolist() == [True] * 8


def test_each_data_set_runs_through_shuffled_passes_of_its_own():
  rows = rows_of(make(), range(7 * 12))
  orders = []
  for d, size in enumerate(SIZES):
    drawn = rows[rows[:, 0] == d][:, 1:]
    np.testing.assert_array_equal(drawn[:, 1], np.arange(len(drawn)) // size)
    assert len(drawn) > size
    for start in range(0, len(drawn) - size + 1, size):
      one_pass = drawn[start : start + size, 0]
      assert sorted(one_pass) == list(range(size))
      orders.append(tuple(one_pass))
  assert len(set(orders)) == len(orders)


def test_the_data_sets_of_rows_are_independent_draws_by_the_shares():
  sampler = make(sizes=(3000, 500, 2500), batch_size=10)
  bounds = np.cumsum((0, 3000, 500, 2500))
  steps = range(20 * sampler.nominal_steps)
  dataset = np.searchsorted(bounds, [sampler.indices(step) for step in steps], side="right") - 1
  counts = np.bincount(dataset.ravel(), minlength=3)
  expected = np.array(SHARES) * dataset.size
  # The counts are binomial, so six standard deviations are a safe bound.
  assert (np.abs(counts - expected) < 6 * np.sqrt(expected * (1 - np.array(SHARES)))).all()
  # The number of rows of a data set in a batch has the variance of independent draws.
  for d, share in enumerate(SHARES):
    assert np.var((dataset == d).sum(axis=1)) == pytest.approx(10 * share * (1 - share), rel=0.05)


def test_a_batch_depends_only_on_seed_and_step():
  steps = (0, 5, 12, 31, 100)
  forward, backward = make(), make()
  found = [rows_of(forward, [step]) for step in steps]
  shares._drawn_epoch.cache_clear()
  again = [rows_of(backward, [step]) for step in reversed(steps)]
  for one, other in zip(found, reversed(again), strict=True):
    np.testing.assert_array_equal(one, other)
  assert not np.array_equal(rows_of(make(seed=4), [0]), found[0])


def test_a_continued_run_has_the_passes_of_its_own_beginning():
  sampler, plain = make(), ShuffledEpochs(sum(SIZES), 8, seed=3)
  np.testing.assert_array_equal(ContinuedOrder(sampler, 50, 4.0).passes(53), sampler.passes(3))
  assert ContinuedOrder(plain, 50, 4.0).passes(50 + 12).tolist() == [1] * 8


def test_the_generators_of_the_order_are_used_by_no_record():
  """Seeds of orders have four words, and the last one differs between the samplers."""
  sampler = make()
  seeds = itertools.product(range(3), range(4))
  states = [
    sampler._generator(number, stream).bit_generator.state["state"]["state"] for number, stream in seeds
  ]
  others = [np.random.default_rng((3, e, i)) for e in range(3) for i in range(4)]
  others += [np.random.default_rng((3, e, 0, 1)) for e in range(3)]
  states += [rng.bit_generator.state["state"]["state"] for rng in others]
  assert len(set(states)) == len(states)


@pytest.mark.parametrize("wrong", [(0.5, 0.5), (0.5, 0.5, 0.5), (1.0, 0.0, 0.0), (1.2, -0.1, -0.1)])
def test_shares_that_do_not_fit_are_errors(wrong):
  with pytest.raises(ValueError, match="expected 3 numbers above 0 with the sum 1"):
    make(shares=wrong)


def test_a_batch_that_is_larger_than_all_data_sets_is_an_error():
  with pytest.raises(ValueError, match=r"batch_size=101 is larger than the 100 records"):
    make(batch_size=101)
