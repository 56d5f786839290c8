import numpy as np
import pytest

from hap_jax.data.samplers import Sequential, ShuffledEpochs, Spread


def test_every_record_is_drawn_once_per_epoch():
  sampler = ShuffledEpochs(num_records=24, batch_size=6, seed=3)
  assert sampler.nominal_steps == 4
  for epoch in range(3):
    steps = range(epoch * 4, (epoch + 1) * 4)
    rows = np.concatenate([sampler.indices(step) for step in steps])
    np.testing.assert_array_equal(np.sort(rows), np.arange(24))
    assert {sampler.epoch(step) for step in steps} == {epoch}


def test_records_that_fill_no_batch_are_dropped_and_differ_between_epochs():
  sampler = ShuffledEpochs(num_records=26, batch_size=6, seed=3)
  assert sampler.nominal_steps == 4
  left_over = set()
  for epoch in range(5):
    rows = np.concatenate([sampler.indices(epoch * 4 + i) for i in range(4)])
    assert len(set(rows)) == 24
    left_over.add(frozenset(range(26)) - frozenset(rows.tolist()))
  assert len(left_over) > 1


def test_shuffled_order_depends_only_on_seed_and_epoch():
  orders = [ShuffledEpochs(50, 50, seed).indices(epoch) for seed in (0, 1) for epoch in (0, 1)]
  assert len({tuple(order) for order in orders}) == 4
  late = ShuffledEpochs(50, 7, seed=1)
  late.indices(1000)
  np.testing.assert_array_equal(late.indices(5), ShuffledEpochs(50, 7, seed=1).indices(5))


def test_order_does_not_share_the_generator_of_record_0():
  order = ShuffledEpochs(50, 50, seed=4).indices(2)
  assert not np.array_equal(
    order, np.random.default_rng((4, 2, 0)).permutation(np.arange(50, dtype=np.int32))
  )


def test_progress_counts_epochs():
  sampler = ShuffledEpochs(num_records=26, batch_size=6, seed=0)
  assert [sampler.progress(step) for step in (0, 1, 4, 10)] == [0, 0.25, 1, 2.5]
  assert sampler.num_steps is None


def test_order_of_millions_of_records_is_a_permutation():
  sampler = ShuffledEpochs(num_records=4_180_243, batch_size=4096, seed=0)
  assert sampler.indices(2 * sampler.nominal_steps + 5).max() < 4_180_243
  assert len(np.unique(np.concatenate([sampler.indices(step) for step in range(50)]))) == 50 * 4096


def test_cached_order_cannot_be_changed_by_a_caller():
  with pytest.raises(ValueError, match="read-only"):
    ShuffledEpochs(50, 7, seed=1).indices(0)[0] = 3


def test_sequential_pass_covers_each_record_once_and_marks_padding():
  for num_records in (1, 7, 8, 9):
    sampler = Sequential(num_records, batch_size=4)
    assert sampler.num_steps == sampler.nominal_steps == -(-num_records // 4)
    indices = np.concatenate([sampler.indices(step) for step in range(sampler.num_steps)])
    valid = np.concatenate([sampler.valid(step) for step in range(sampler.num_steps)])
    assert len(indices) == 4 * sampler.num_steps
    np.testing.assert_array_equal(indices[valid], np.arange(num_records))
    assert set(indices[~valid]) <= {num_records - 1}


def test_step_after_the_end_of_a_pass_is_an_error():
  with pytest.raises(IndexError, match="step 2 of a pass of 2"):
    Sequential(7, 4).indices(2)


def test_batch_larger_than_the_source_is_an_error():
  with pytest.raises(ValueError, match=r"batch_size=8 is larger than the 7 records.*config\.batch_size"):
    ShuffledEpochs(7, 8, seed=0)


@pytest.mark.parametrize("sampler", [Sequential, lambda n, b: ShuffledEpochs(n, b, seed=0)])
def test_empty_sizes_are_errors(sampler):
  with pytest.raises(ValueError, match="batch_size=0"):
    sampler(5, 0)
  with pytest.raises(ValueError, match="num_records=0"):
    sampler(0, 5)


def test_spread_takes_different_records_from_the_whole_source():
  assert Spread(512, 4).indices(0).tolist() == [0, 128, 256, 384]
  assert Spread(5, 5).indices(0).tolist() == [0, 1, 2, 3, 4]
