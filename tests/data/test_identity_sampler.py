"""The sampler of batches with P persons and K pictures of each."""

import pickle
import time

import numpy as np
import pytest

from hap_jax.data.loader import Loader
from hap_jax.data.samplers import IdentityBalanced, Sequential, ShuffledEpochs, Spread
from hap_jax.data.sources import synthetic
from hap_jax.data.transforms.reid import DrawErasing

K = 8
COUNTS = (1, 3, 7, 8, 8, 9, 15, 17, 17, 24, 31, 40)  # pictures of each person: 12 persons, 180 pictures
PIDS = np.random.default_rng(0).permutation(np.repeat(100 + 7 * np.arange(len(COUNTS)), COUNTS))
GROUPS = dict(zip(100 + 7 * np.arange(len(COUNTS)), np.maximum(np.array(COUNTS) // K, 1), strict=True))


def make_sampler(pids=PIDS, persons=4, num_instances=K, seed=3):
  return IdentityBalanced(pids, persons * num_instances, num_instances, seed)


SAMPLER = make_sampler()


def epoch_of(sampler, epoch):
  """Returns all batches of an epoch: [steps, P, K] record numbers."""
  steps = range(sampler.first_step(epoch), sampler.first_step(epoch + 1))
  return np.stack([sampler.indices(step) for step in steps]).reshape(len(steps), -1, sampler.num_instances)


def test_batch_has_p_persons_with_k_pictures_each():
  for epoch in range(5):
    persons = PIDS[epoch_of(SAMPLER, epoch)]
    assert persons.shape[1:] == (4, K)
    assert (persons == persons[..., :1]).all()  # pictures of one person are neighbours
    assert all(len(set(batch)) == 4 for batch in persons[..., 0].tolist())


def test_person_is_drawn_at_most_once_per_group():
  seen = dict.fromkeys(GROUPS, 0)
  for epoch in range(30):
    persons, turns = np.unique(PIDS[epoch_of(SAMPLER, epoch)][..., 0], return_counts=True)
    for person, count in zip(persons, turns, strict=True):
      assert count <= GROUPS[person]
      seen[person] = max(seen[person], count)
  assert seen == GROUPS  # each person has its largest number in some epoch


def test_picture_is_drawn_at_most_once_per_epoch_if_its_person_has_k_pictures():
  for epoch in range(5):
    rows = epoch_of(SAMPLER, epoch).reshape(-1, K)
    enough = np.isin(PIDS[rows[:, 0]], [pid for pid in GROUPS if np.count_nonzero(pid == PIDS) >= K])
    records, times = np.unique(rows[enough], return_counts=True)
    assert (times == 1).all()
    assert len(records) > 60


def test_person_with_few_pictures_is_drawn_with_replacement():
  rows = [row for epoch in range(60) for row in epoch_of(SAMPLER, epoch).reshape(-1, K)]
  of_three = np.array([row for row in rows if PIDS[row[0]] == 107])  # 3 pictures
  assert len(of_three) > 20
  shares = np.unique(of_three, return_counts=True)[1] / of_three.size
  assert len(shares) == 3
  assert np.abs(shares - 1 / 3).max() < 5 * np.sqrt(2 / 9 / of_three.size)
  assert any(len(set(row)) < 3 for row in of_three.tolist())  # a group may leave out a picture


def test_epoch_ends_when_too_few_persons_have_groups_left():
  for epoch in range(20):
    persons, turns = np.unique(PIDS[epoch_of(SAMPLER, epoch)][..., 0], return_counts=True)
    left = {**GROUPS}
    for person, count in zip(persons, turns, strict=True):
      left[person] -= count
    assert sum(count > 0 for count in left.values()) < 4


def test_chance_of_a_person_does_not_depend_on_its_number_of_pictures():
  sampler = make_sampler(persons=3)
  first = np.concatenate([PIDS[sampler.indices(sampler.first_step(e))][::K] for e in range(500)])
  counts = np.unique(first, return_counts=True)[1]
  assert len(counts) == len(COUNTS)
  expected = 500 * 3 / 12
  assert np.abs(counts - expected).max() < 5 * np.sqrt(expected)


def test_all_pictures_of_a_person_have_the_same_chance():
  person = np.flatnonzero(PIDS == 177)  # 40 pictures, up to five groups
  rows = np.concatenate([epoch_of(SAMPLER, epoch).ravel() for epoch in range(200)])
  counts = np.array([(rows == record).sum() for record in person])
  assert np.abs(counts - counts.mean()).max() < 5 * np.sqrt(counts.mean())


@pytest.mark.parametrize(
  ("counts", "batch_size", "expected"),
  [
    (COUNTS, 32, 6),  # 8 x (1+1+1+1+1+1+1+2+2+3+3+5) = 176 pictures in groups
    (COUNTS, 64, 3),
    ((8,) * 8, 64, 1),
    ((1,) * 9, 64, 2),
    ((17, 16, 40, 3, 8, 8, 8, 8, 8), 64, 2),
  ],
)
def test_nominal_length_follows_the_official_formula(counts, batch_size, expected):
  sampler = IdentityBalanced(np.repeat(np.arange(len(counts)), counts), batch_size, 8, seed=0)
  L = sum(max(n, 8) - max(n, 8) % 8 for n in counts)
  assert sampler.nominal_steps == -(-L // batch_size) == expected


def test_true_length_varies_and_is_at_most_the_nominal_length():
  sampler = make_sampler()
  lengths = np.diff([sampler.first_step(epoch) for epoch in range(101)])
  assert lengths.min() >= 1
  assert lengths.max() <= sampler.nominal_steps
  assert len(set(lengths.tolist())) > 1


def test_steps_epochs_and_progress_agree():
  sampler = make_sampler()
  assert sampler.num_steps is None
  assert sampler.first_step(0) == 0
  for epoch in range(6):
    first, last = sampler.first_step(epoch), sampler.first_step(epoch + 1) - 1
    assert sampler.epoch(first) == sampler.epoch(last) == epoch
    assert sampler.progress(first) == epoch
    assert sampler.progress(last) == epoch + (last - first) / sampler.nominal_steps
  assert sampler.valid(7).all()


def test_order_depends_only_on_seed_and_epoch():
  late = make_sampler()
  batch = late.indices(100)  # without a call for an earlier step
  early = make_sampler()
  for step in range(101):
    early.indices(step)
  np.testing.assert_array_equal(batch, early.indices(100))
  np.testing.assert_array_equal(pickle.loads(pickle.dumps(late)).indices(100), batch)
  assert len(pickle.dumps(early)) < 4 * len(PIDS) + 3_000
  assert not np.array_equal(make_sampler(seed=4).indices(0), make_sampler().indices(0))
  assert not np.array_equal(epoch_of(late, 0)[0], epoch_of(late, 1)[0])
  with pytest.raises(ValueError, match="read-only"):
    late.indices(0)[0] = 3


def test_order_does_not_depend_on_the_numbers_of_persons():
  renamed = make_sampler(pids=(PIDS.astype(np.int64) * 1_000).tolist())
  np.testing.assert_array_equal(renamed.indices(9), make_sampler().indices(9))


def test_hundred_epochs_of_msmt17_take_less_than_three_seconds():
  rng = np.random.default_rng(0)
  counts = 2 + rng.multinomial(32_621 - 2 * 1_041, rng.dirichlet(np.full(1_041, 2.0)))
  start = time.process_time()
  sampler = IdentityBalanced(np.repeat(np.arange(1_041), counts), 64, 8, seed=0)
  steps = sampler.first_step(100)
  sampler.indices(steps - 1)
  assert time.process_time() - start < 3  # it takes a quarter of a second on an idle machine
  assert 100 * 400 < steps < 100 * sampler.nominal_steps
  assert len(pickle.dumps(sampler)) < 200_000


@pytest.mark.parametrize(
  "numbers",
  [
    np.array([1, 2**31 + 1, 2**32 + 1, 2**40], np.int64),
    np.array([-(2**40), 0, 2**32, 2**63 - 1], np.int64),
    np.array([0, 1, 2**63, 2**64 - 1], np.uint64),
  ],
)
def test_persons_with_numbers_beyond_32_bits_stay_different(numbers):
  person = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 8))
  sampler = make_sampler(pids=numbers[person], persons=2, num_instances=4)
  small = make_sampler(pids=person, persons=2, num_instances=4)
  batches = epoch_of(sampler, 0)
  assert (person[batches] == person[batches[..., :1]]).all()
  np.testing.assert_array_equal(batches, epoch_of(small, 0))


@pytest.mark.parametrize(
  "pids", [[1.5, 2.0], [1, float("nan")], ["1", "2"], [2**70, 1], [[1, 2], [3, 4]], [True, False]]
)
def test_numbers_of_persons_that_are_not_whole_are_an_error(pids):
  with pytest.raises(ValueError, match="expected one whole number of at most 64 bits per record"):
    IdentityBalanced(pids, 2, 1, seed=0)


def test_impossible_batches_are_errors():
  with pytest.raises(ValueError, match=r"batch_size=30 is not a multiple of num_instances=8.*config\.batch"):
    IdentityBalanced(PIDS, 30, 8, seed=0)
  with pytest.raises(ValueError, match=r"needs 13 persons in a batch, but the source has 12.*config\.batch"):
    make_sampler(persons=13)
  with pytest.raises(ValueError, match="num_instances=0"):
    IdentityBalanced(PIDS, 32, 0, seed=0)
  with pytest.raises(ValueError, match="num_records=0"):
    IdentityBalanced([], 32, 8, seed=0)


@pytest.mark.parametrize(
  "sampler", [ShuffledEpochs(26, 6, seed=3), Sequential(26, 6), Spread(26, 6), make_sampler()], ids=repr
)
def test_first_step_is_the_step_at_which_an_epoch_begins(sampler):
  steps = [sampler.first_step(epoch) for epoch in range(4)]
  assert steps[0] == 0
  for epoch in (1, 2, 3):
    assert steps[epoch] > steps[epoch - 1]
    assert sampler.epoch(steps[epoch]) == epoch
    assert sampler.epoch(steps[epoch] - 1) == epoch - 1
  assert steps[1] == (sampler.num_steps or steps[1])  # a pass is one epoch


def make_loader(sampler, fields=None):
  source = synthetic.open_source(seed=0, num_train=24, image_size=(32, 16))
  return Loader(source, (DrawErasing(prob=1),), sampler, seed=0, fields=fields)


def test_loader_knows_the_steps_that_end_an_epoch():
  pids = np.repeat([5, 1, 9], 8)
  sampler = IdentityBalanced(pids, 8, 4, seed=1)
  loader = make_loader(sampler)
  ends = {loader.first_step(epoch): epoch for epoch in range(1, 6)}
  for step in range(loader.first_step(5) + 1):
    assert loader.ends_epoch(step) == ends.get(step, 0)
  loader = make_loader(ShuffledEpochs(24, 7, seed=0))
  assert [loader.ends_epoch(step) for step in range(7)] == [0, 0, 0, 1, 0, 0, 2]


def test_batch_has_the_fields_that_a_transform_adds():
  sampler = Sequential(24, 2)
  loader = make_loader(sampler, fields=("image", "pid", "erase_box"))
  batch = loader.batch(0)
  assert batch.keys() == {"image", "pid", "erase_box", "index", "valid"}
  assert batch["erase_box"].dtype == np.int32
  assert (batch["erase_box"][:, 2:] > 0).all()
  for row, index in enumerate(batch["index"]):  # the generator of the record draws the box
    expected = DrawErasing(prob=1)(loader.source[index], np.random.default_rng((0, 0, int(index))))
    np.testing.assert_array_equal(batch["erase_box"][row], expected["erase_box"])
  assert "erase_box" in make_loader(sampler).batch(0)
  with pytest.raises(ValueError, match=r"fields \['caption'\] are unknown; the source"):
    make_loader(sampler, fields=("image", "caption"))
