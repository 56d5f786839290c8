"""Samplers choose the records of each global batch. The choice is a pure function of the step.

A sampler has the attributes and methods of the class `Sampler`. The order that it returns does not depend on
the number of processes, on the number of workers or on the step at which a run resumes.
"""

import bisect
import dataclasses
import functools
from typing import Protocol

import numpy as np

# The order of an epoch has the seed (seed, epoch, 0, _ORDER_STREAM). The generator of a record has the seed
# (seed, epoch, index), which NumPy pads with zeros to (seed, epoch, index, 0). Without _ORDER_STREAM, the
# order and the augmentation of record 0 would have the same seed.
_ORDER_STREAM = 1


class Sampler(Protocol):
  """The interface between a sampler and the loader.

  Attributes:
    num_records: number of records of the source.
    batch_size: B, rows of the global batch over all processes.
    nominal_steps: number of steps that schedules count for one epoch.
    num_steps: number of steps of one pass over the records. None: the order is endless.
  """

  num_records: int
  batch_size: int
  nominal_steps: int
  num_steps: int | None

  def epoch(self, step: int) -> int:
    """Returns the index of the epoch of a step. A batch never mixes two epochs."""

  def first_step(self, epoch: int) -> int:
    """Returns the number of steps before `epoch`. A run of N whole epochs has first_step(N) steps."""

  def progress(self, step: int) -> float:
    """Returns the number of epochs done before the step, as a float."""

  def indices(self, step: int) -> np.ndarray:
    """Returns the record indices of the step's global batch, [B] integers."""

  def valid(self, step: int) -> np.ndarray:
    """Returns [B] bool. False marks rows that only fill up the batch."""


def passes(sampler, step):
  """Returns [B] integers: how many times each row's data set was passed through before the row was drawn.

  The number is a part of the seed of the row's generator, so that a record that is drawn again is augmented
  anew. In most samplers, a record is drawn at most once per epoch, and the number is the epoch. A sampler
  that draws records more often has a method `passes(step)`.
  """
  if hasattr(sampler, "passes"):
    return sampler.passes(step)
  return np.full(sampler.batch_size, sampler.epoch(step))


class EqualEpochs:
  """The epochs of a training order that all have num_records // batch_size whole batches.

  A sampler with the attributes `num_records` and `batch_size` inherits them.
  """

  @property
  def nominal_steps(self):
    return self.num_records // self.batch_size

  @property
  def num_steps(self):
    return None

  def epoch(self, step):
    return step // self.nominal_steps

  def first_step(self, epoch):
    return epoch * self.nominal_steps

  def progress(self, step):
    return step / self.nominal_steps

  def valid(self, step):
    return np.ones(self.batch_size, bool)


@dataclasses.dataclass(frozen=True)
class ShuffledEpochs(EqualEpochs):
  """Endless training order: each epoch is a new permutation of all records.

  An epoch has num_records // batch_size whole batches. The remaining records at its end, fewer than a batch,
  are dropped. They are different records in each epoch.

  A NumPy generator that depends only on the seed and the epoch draws the permutation. The permutations of two
  epochs are kept in memory, with 4 bytes per record, because the loader reads ahead into the next epoch.

  Raises:
    ValueError: if there are fewer records than rows in a batch.
  """

  num_records: int
  batch_size: int
  seed: int

  def __post_init__(self):
    check_epoch(self.num_records, self.batch_size)

  def indices(self, step):
    epoch, i = divmod(step, self.nominal_steps)
    return _permutation(self.num_records, self.seed, epoch)[i * self.batch_size : (i + 1) * self.batch_size]


@dataclasses.dataclass(frozen=True, eq=False)
class IdentityBalanced:
  """Endless training order of persons: a batch is P = batch_size / K persons with K pictures each.

  In every epoch the pictures of each person are shuffled and cut into groups of K. The remaining pictures,
  fewer than K, are dropped. A person with fewer than K pictures has one group, whose K pictures are
  drawn with replacement. For a batch, P different persons are drawn uniformly from the persons with unused
  groups, and the next group of each of these persons is used. The epoch ends when fewer than P persons have
  unused groups.

  So a person with many pictures is not more likely to be in a batch than a person with few pictures. The
  number of batches differs between epochs. It is at most `nominal_steps` = ceil(pictures in groups /
  batch_size). Schedules count `nominal_steps` for every epoch, so the progress jumps forward at the end of an
  epoch.

  A NumPy generator that depends only on the seed and the epoch draws the persons of all batches of the epoch,
  then their pictures. The first access to an epoch takes a few milliseconds for each earlier epoch.
  The batches of two epochs are kept in memory, with 4 bytes per row. Source: the sampler of HAP's official
  person ReID, which follows MALE.

  Attributes:
    pids: [N] whole numbers, the person of each record. The sampler replaces each id by its rank among the
      different ids: int32, starting at 0.
    batch_size: rows of a batch, a multiple of num_instances.
    num_instances: K, number of pictures of each person in a batch. They are in consecutive rows.
    seed: seed of the order; not negative.

  Raises:
    ValueError: if `pids` are not whole numbers of at most 64 bits, if K does not divide the batch size, or if
      there are fewer than P persons.
  """

  pids: np.ndarray
  batch_size: int
  num_instances: int
  seed: int
  nominal_steps: int = dataclasses.field(init=False)
  # First steps of the epochs computed so far. It is replaced by a longer tuple, and never changed in place,
  # because several threads may read it.
  _first_steps: tuple[int, ...] = dataclasses.field(init=False, repr=False, default=(0,))

  def __post_init__(self):
    pids = np.asarray(self.pids)
    if pids.ndim != 1 or (pids.size and pids.dtype.kind not in "iu"):
      raise ValueError(
        f"pids: found an array of {pids.dtype} of shape {pids.shape}; expected one whole number of at most "
        "64 bits per record"
      )
    # The ranks fit into 32 bits, but the ids may not.
    object.__setattr__(self, "pids", np.unique(pids, return_inverse=True)[1].astype(np.int32))
    _check_sizes(len(self.pids), self.batch_size)
    B, K = self.batch_size, self.num_instances
    if K < 1 or B % K:
      raise ValueError(
        f"batch_size={B} is not a multiple of num_instances={K}: change config.batch_size or "
        "config.num_instances"
      )
    num_groups = self._num_groups()
    if len(num_groups) < B // K:
      raise ValueError(
        f"batch_size={B} with num_instances={K} needs {B // K} persons in a batch, but the source has "
        f"{len(num_groups)}: reduce config.batch_size or raise config.num_instances"
      )
    # Parity: as in the official code, schedules count all groups. But an epoch ends when fewer than P persons
    # have unused groups, so the progress jumps forward at its end.
    object.__setattr__(self, "nominal_steps", -(-int(num_groups.sum()) * K // B))

  @property
  def num_records(self):
    return len(self.pids)

  @property
  def num_steps(self):
    return None

  def epoch(self, step):
    return bisect.bisect_right(self._look_ahead(lambda first_steps: first_steps[-1] > step), step) - 1

  def first_step(self, epoch):
    return self._look_ahead(lambda first_steps: len(first_steps) > epoch)[epoch]

  def progress(self, step):
    epoch = self.epoch(step)
    return epoch + (step - self.first_step(epoch)) / self.nominal_steps

  def indices(self, step):
    epoch = self.epoch(step)
    return _identity_batches(self, epoch)[step - self.first_step(epoch)]

  def valid(self, step):
    return np.ones(self.batch_size, bool)

  def draw_epoch(self, epoch):
    """Draws the batches of an epoch. Returns [steps, B] int32 record indices."""
    K = self.num_instances
    num_groups = self._num_groups()
    rng = self._generator(epoch)
    persons = _draw_persons(num_groups, self.batch_size // K, rng)
    groups = _draw_groups(self.pids, K, rng)
    # When a person is drawn for the n-th time, the batch gets the person's n-th group. A stable sort puts all
    # draws of a person next to each other and keeps their order.
    turns = np.argsort(persons, axis=None, kind="stable")
    drawn = np.bincount(persons.ravel(), minlength=len(num_groups))
    nth = np.arange(len(turns)) - np.repeat(np.cumsum(drawn) - drawn, drawn)
    rows = np.empty(len(turns), np.intp)
    rows[turns] = np.repeat(np.cumsum(num_groups) - num_groups, drawn) + nth
    return groups[rows].reshape(len(persons), self.batch_size)

  def _num_groups(self):
    """Returns the number of groups of each person, [persons] int, in ascending order of the pids."""
    return np.maximum(np.unique(self.pids, return_counts=True)[1] // self.num_instances, 1)

  def _generator(self, epoch):
    return np.random.default_rng((self.seed, epoch, 0, _ORDER_STREAM))

  def _look_ahead(self, is_enough):
    """Returns the first steps of the epochs 0, 1, ..., as a tuple.

    Args:
      is_enough: function of this tuple. More epochs are computed until it returns True.
    """
    if is_enough(self._first_steps):
      return self._first_steps
    first_steps, num_groups = list(self._first_steps), self._num_groups()
    while not is_enough(first_steps):
      rng = self._generator(len(first_steps) - 1)
      persons = _draw_persons(num_groups, self.batch_size // self.num_instances, rng)
      first_steps.append(first_steps[-1] + len(persons))
    object.__setattr__(self, "_first_steps", tuple(first_steps))
    return self._first_steps


@dataclasses.dataclass(frozen=True)
class Sequential:
  """One pass over all records in order, for evaluation.

  The last batch is filled up with copies of the last record. `valid` is False in these rows.
  """

  num_records: int
  batch_size: int

  def __post_init__(self):
    _check_sizes(self.num_records, self.batch_size)

  @property
  def nominal_steps(self):
    return -(-self.num_records // self.batch_size)

  @property
  def num_steps(self):
    return self.nominal_steps

  def epoch(self, step):
    return step // self.nominal_steps

  def first_step(self, epoch):
    return epoch * self.nominal_steps

  def progress(self, step):
    return step / self.nominal_steps

  def indices(self, step):
    return np.minimum(self._positions(step), self.num_records - 1)

  def valid(self, step):
    return self._positions(step) < self.num_records

  def _positions(self, step):
    if not 0 <= step < self.num_steps:
      raise IndexError(f"step {step} of a pass of {self.num_steps} steps")
    return np.arange(step * self.batch_size, (step + 1) * self.batch_size)


@dataclasses.dataclass(frozen=True)
class Spread:
  """A single batch of records at equal distances in the source, for sheets of example pictures.

  It does not use the first records of the source, because neighbouring records often show the same person.
  """

  num_records: int
  batch_size: int

  def __post_init__(self):
    _check_sizes(self.num_records, self.batch_size)

  @property
  def nominal_steps(self):
    return 1

  @property
  def num_steps(self):
    return 1

  def epoch(self, step):
    return step

  def first_step(self, epoch):
    return epoch

  def progress(self, step):
    return float(step)

  def indices(self, step):
    return np.arange(self.batch_size) * self.num_records // self.batch_size

  def valid(self, step):
    return np.ones(self.batch_size, bool)


@functools.lru_cache(maxsize=2)
def _permutation(num_records, seed, epoch):
  order = np.random.default_rng((seed, epoch, 0, _ORDER_STREAM)).permutation(
    np.arange(num_records, dtype=np.int32)
  )
  order.setflags(write=False)
  return order


@functools.lru_cache(maxsize=2)
def _identity_batches(sampler, epoch):
  batches = sampler.draw_epoch(epoch)
  batches.setflags(write=False)
  return batches


def _draw_persons(num_groups, num_persons, rng):
  """Draws the persons of all batches of an epoch.

  Args:
    num_groups: [persons] number of groups of each person.
    num_persons: P, the number of persons in a batch.
    rng: a NumPy generator.
  Returns:
    [steps, P] indices into `num_groups`. The persons of one batch are different.
  """
  # `pool` holds the persons with unused groups. `left` holds the number of unused groups of every person.
  pool, left, batches = list(range(len(num_groups))), num_groups.tolist(), []
  # Both are plain lists, because the few swaps of a batch are faster than a call of NumPy.
  for draws in rng.random((sum(left) // num_persons, num_persons)).tolist():
    if len(pool) < num_persons:
      break
    end = len(pool)
    # A partial Fisher-Yates shuffle: the drawn persons move to the end of the pool.
    for draw in draws:
      i = int(draw * end)
      end -= 1
      pool[i], pool[end] = pool[end], pool[i]
    batch = pool[end:]
    for person in batch:
      left[person] -= 1
    pool[end:] = [person for person in batch if left[person]]
    batches.append(batch)
  return np.array(batches)


def _draw_groups(pids, size, rng):
  """Draws each person's groups of `size` records.

  Returns:
    [groups, size] int32 record indices. The persons are in ascending order of their pids.
  """
  _, person, counts = np.unique(pids, return_inverse=True, return_counts=True)
  order = np.lexsort((rng.random(len(pids)), person))  # records sorted by person, shuffled within a person
  # `slot` is the position of a record among the records of its person: 0, 1, .... Only whole groups are used,
  # and the remaining records are dropped.
  first = np.cumsum(counts) - counts
  num_slots = np.maximum(counts // size, 1) * size
  slot = np.arange(num_slots.sum()) - np.repeat(np.cumsum(num_slots) - num_slots, num_slots)
  # Parity: if a person has fewer than `size` pictures, the group is drawn from them with replacement.
  is_small = np.repeat(counts < size, num_slots)
  slot[is_small] = rng.integers(np.repeat(counts, num_slots)[is_small])
  return order[np.repeat(first, num_slots) + slot].astype(np.int32).reshape(-1, size)


def check_epoch(num_records, batch_size):
  """Raises ValueError if an epoch of this many records has no whole batch."""
  _check_sizes(num_records, batch_size)
  if num_records < batch_size:
    raise ValueError(
      f"batch_size={batch_size} is larger than the {num_records} records of the source, so that an epoch has "
      "no batch: reduce config.batch_size or use more data"
    )


def _check_sizes(num_records, batch_size):
  if batch_size < 1:
    raise ValueError(f"batch_size={batch_size}: expected at least 1 (config.batch_size)")
  if not 1 <= num_records < 2**31:
    raise ValueError(f"num_records={num_records}: expected 1 to 2**31 - 1, the range of a batch's `index`")
