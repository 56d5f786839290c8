"""Index order: which records make up the global batch of a step, as a pure function of the step.

A sampler has `num_records`, `batch_size` (B, rows of the global batch over all processes), `nominal_steps`
(steps an epoch, by which schedules count), `num_steps` (steps of one pass; None: endless) and the functions
of the class `Sampler`. It knows nothing of processes, workers or where a run was resumed, so none of them
changes the order.
"""

import bisect
import dataclasses
import functools
from typing import Protocol

import numpy as np

# Fourth word of the order's seed. A record's generator is seeded by (seed, epoch, index), which NumPy pads to
# (seed, epoch, index, 0): without a word of its own the order would share the generator of record 0.
_ORDER_STREAM = 1


class Sampler(Protocol):
  """What the loader asks of a sampler."""

  num_records: int
  batch_size: int
  nominal_steps: int
  num_steps: int | None

  def epoch(self, step: int) -> int:
    """Epoch number that the step belongs to; all rows of a batch share it."""

  def first_step(self, epoch: int) -> int:
    """Steps before an epoch begins; a run of N whole epochs has first_step(N) steps."""

  def progress(self, step: int) -> float:
    """Epochs done before the step."""

  def indices(self, step: int) -> np.ndarray:
    """[B] integer record numbers of the step's global batch."""

  def valid(self, step: int) -> np.ndarray:
    """[B] bool; False marks rows that only fill up the batch."""


@dataclasses.dataclass(frozen=True)
class ShuffledEpochs:
  """Endless training order: each epoch is a fresh permutation of all records.

  An epoch has num_records // batch_size whole batches; the records left over at its end are dropped from that
  epoch (other ones each time). NumPy's generators draw the permutation, seeded by (seed, epoch); two epochs
  are kept, 4 bytes a record, so that reading ahead over an epoch's end stays cheap.

  Raises:
    ValueError: if there are fewer records than rows in a batch.
  """

  num_records: int
  batch_size: int
  seed: int

  def __post_init__(self):
    _check_sizes(self.num_records, self.batch_size)
    if self.num_records < self.batch_size:
      raise ValueError(
        f"batch_size={self.batch_size} is larger than the {self.num_records} records of the source, so an "
        "epoch would have no batch: reduce config.batch_size or use more data"
      )

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

  def indices(self, step):
    epoch, i = divmod(step, self.nominal_steps)
    return _permutation(self.num_records, self.seed, epoch)[i * self.batch_size : (i + 1) * self.batch_size]

  def valid(self, step):
    return np.ones(self.batch_size, bool)


@dataclasses.dataclass(frozen=True, eq=False)
class IdentityBalanced:
  """Endless training order of persons: a batch is P = batch_size / K persons with K pictures each.

  In every epoch each person's pictures are shuffled and cut into groups of K, what is left over being
  dropped; a person with fewer than K pictures has one group, drawn with replacement. A batch takes P
  different persons, drawn uniformly among those that have groups left, and the next group of each; the epoch
  ends when fewer than P persons have groups left. So a person's chance does not grow with its number of
  pictures, and the number of batches differs from epoch to epoch and is at most `nominal_steps`,
  ceil(pictures in groups / batch_size), by which schedules count: progress jumps at the end of an epoch.

  The persons of epoch e's batches, then their pictures, come from NumPy's generator of (seed, e). Where an
  epoch begins takes a few milliseconds for each epoch before it, once. Two epochs are kept, 4 bytes a row.
  Source: the sampler of HAP's official person ReID, after MALE.

  Attributes:
    pids: [N] whole numbers, the person of each record; kept as their ranks, int32 from 0 on.
    batch_size: rows of a batch, a multiple of num_instances.
    num_instances: K, pictures of each person in a batch; they lie next to each other.
    seed: not negative.

  Raises:
    ValueError: if `pids` are not whole numbers of at most 64 bits, K does not divide the batch, or there are
      fewer than P persons.
  """

  pids: np.ndarray
  batch_size: int
  num_instances: int
  seed: int
  nominal_steps: int = dataclasses.field(init=False)
  # First steps of the epochs looked at so far. Replaced, never changed in place: several threads may ask.
  _first_steps: tuple[int, ...] = dataclasses.field(init=False, repr=False, default=(0,))

  def __post_init__(self):
    pids = np.asarray(self.pids)
    if pids.ndim != 1 or (pids.size and pids.dtype.kind not in "iu"):
      raise ValueError(
        f"pids: found an array of {pids.dtype} of shape {pids.shape}; expected one whole number of at most "
        "64 bits for each record"
      )
    # The numbers may not fit 32 bits.
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
        f"batch_size={B} with num_instances={K} wants {B // K} persons in a batch, the source has "
        f"{len(num_groups)}: reduce config.batch_size or raise config.num_instances"
      )
    # Parity: schedules count epochs of this length, that of all groups, though an epoch ends when fewer than
    # P persons have groups left; so progress jumps forward at its end.
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
    """Draws the batches of an epoch: [steps, B] int32 record numbers."""
    K = self.num_instances
    num_groups = self._num_groups()
    rng = self._generator(epoch)
    persons = _draw_persons(num_groups, self.batch_size // K, rng)
    groups = _draw_groups(self.pids, K, rng)
    # The n-th time that a person is drawn, its n-th group follows: equal persons, in order of their turns.
    turns = np.argsort(persons, axis=None, kind="stable")
    drawn = np.bincount(persons.ravel(), minlength=len(num_groups))
    nth = np.arange(len(turns)) - np.repeat(np.cumsum(drawn) - drawn, drawn)
    rows = np.empty(len(turns), np.intp)
    rows[turns] = np.repeat(np.cumsum(num_groups) - num_groups, drawn) + nth
    return groups[rows].reshape(len(persons), self.batch_size)

  def _num_groups(self):
    """Returns [number of persons] groups of each, persons in ascending order of their numbers."""
    return np.maximum(np.unique(self.pids, return_counts=True)[1] // self.num_instances, 1)

  def _generator(self, epoch):
    return np.random.default_rng((self.seed, epoch, 0, _ORDER_STREAM))

  def _look_ahead(self, is_enough):
    """Returns the first steps of epochs 0, 1, ..., as many as it takes."""
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
  """One pass over all records in order, for evaluation; the last batch is filled up with the last record.

  `valid` is False on the rows that fill up.
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
  """One batch of records at equal distances, for pictures: neighbours are often of one person."""

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
  """Draws which persons make up the batches of an epoch.

  Args:
    num_groups: [persons] groups that each has. num_persons: P, persons of a batch. rng: NumPy's generator.
  Returns:
    [steps, P] persons, all different in a batch.
  """
  pool, left, batches = list(range(len(num_groups))), num_groups.tolist(), []
  # Plain lists: a batch is a few swaps, less work than one call of NumPy.
  for draws in rng.random((sum(left) // num_persons, num_persons)).tolist():
    if len(pool) < num_persons:
      break
    end = len(pool)
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
  """Draws each person's groups of `size` records: [groups, size] int32, persons in ascending order."""
  _, person, counts = np.unique(pids, return_inverse=True, return_counts=True)
  order = np.lexsort((rng.random(len(pids)), person))  # persons in order, each one's records shuffled
  first = np.cumsum(counts) - counts
  num_slots = np.maximum(counts // size, 1) * size
  slot = np.arange(num_slots.sum()) - np.repeat(np.cumsum(num_slots) - num_slots, num_slots)
  # Parity: a person with fewer pictures fills its group by drawing among them with replacement.
  is_small = np.repeat(counts < size, num_slots)
  slot[is_small] = rng.integers(np.repeat(counts, num_slots)[is_small])
  return order[np.repeat(first, num_slots) + slot].astype(np.int32).reshape(-1, size)


def _check_sizes(num_records, batch_size):
  if batch_size < 1:
    raise ValueError(f"batch_size={batch_size}: expected at least 1 (config.batch_size)")
  if not 1 <= num_records < 2**31:
    raise ValueError(f"num_records={num_records}: expected 1 to 2**31 - 1, the range of a batch's `index`")
