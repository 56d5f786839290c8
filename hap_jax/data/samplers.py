"""Index order: which records make up the global batch of a step, as a pure function of the step.

A sampler has `num_records`, `batch_size` (B, rows of the global batch over all processes), `nominal_steps`
(steps an epoch), `num_steps` (steps of one pass; None: endless) and the functions of the class `Sampler`. It
knows nothing of processes, workers or where a run was resumed, so none of them changes the order.
"""

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

  def progress(self, step):
    return step / self.nominal_steps

  def indices(self, step):
    epoch, i = divmod(step, self.nominal_steps)
    return _permutation(self.num_records, self.seed, epoch)[i * self.batch_size : (i + 1) * self.batch_size]

  def valid(self, step):
    return np.ones(self.batch_size, bool)

  def locate(self, step, row):
    """Returns (epoch, record number) of one row of a global batch."""
    return self.epoch(step), int(self.indices(step)[row])


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
    return 0

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
    return 0

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


def _check_sizes(num_records, batch_size):
  if batch_size < 1:
    raise ValueError(f"batch_size={batch_size}: expected at least 1 (config.batch_size)")
  if not 1 <= num_records < 2**31:
    raise ValueError(f"num_records={num_records}: expected 1 to 2**31 - 1, the range of a batch's `index`")
