"""A sampler for work that is done part by part. A part is a number of consecutive records."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class PartByPart:
  """One pass over some parts of the records, in order. No batch has records of two parts.

  So the batches of a part do not depend on the other parts. The last batch of a part is filled up with copies
  of the last record of the part. `valid` is False in these rows. It has the interface of `samplers.Sampler`.

  Attributes:
    num_records: number of records of the source.
    batch_size: rows of a batch.
    part_size: number of records of a part. The last part of the source may have fewer.
    parts: the numbers of the parts to read.
  """

  num_records: int
  batch_size: int
  part_size: int
  parts: tuple[int, ...]

  @property
  def _steps_per_part(self):
    return -(-self.part_size // self.batch_size)

  @property
  def num_steps(self):
    if not self.parts:
      return 0
    start, stop = self.rows(self.parts[-1])
    return self._steps_per_part * (len(self.parts) - 1) + -(-(stop - start) // self.batch_size)

  @property
  def nominal_steps(self):
    return self.num_steps

  def epoch(self, step):
    return step // max(self.num_steps, 1)

  def first_step(self, epoch):
    return epoch * self.num_steps

  def progress(self, step):
    return step / max(self.num_steps, 1)

  def rows(self, part):
    """Returns (start, stop): the part has the records start, ..., stop - 1."""
    return part * self.part_size, min((part + 1) * self.part_size, self.num_records)

  def place(self, step):
    """Returns (part, whether the step is the last one of the part)."""
    position, number = divmod(step, self._steps_per_part)
    start, stop = self.rows(self.parts[position])
    return self.parts[position], start + (number + 1) * self.batch_size >= stop

  def indices(self, step):
    positions, stop = self._positions(step)
    return np.minimum(positions, stop - 1)

  def valid(self, step):
    positions, stop = self._positions(step)
    return positions < stop

  def _positions(self, step):
    if not 0 <= step < self.num_steps:
      raise IndexError(f"step {step} of a pass of {self.num_steps} steps")
    position, number = divmod(step, self._steps_per_part)
    start, stop = self.rows(self.parts[position])
    return start + number * self.batch_size + np.arange(self.batch_size), stop
