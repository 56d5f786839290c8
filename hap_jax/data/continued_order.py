"""The order of the records in a run that continues another run."""

import dataclasses

from hap_jax.data import samplers
from hap_jax.data.samplers import Sampler


@dataclasses.dataclass(frozen=True)
class ContinuedOrder:
  """A sampler whose first step is not step 0. It returns the order of another sampler from its beginning.

  The step numbers and the progress go on from the numbers of the earlier run. Batches and epochs, and so the
  augmentation of the records, are those that `new` has at step - first.

  Attributes:
    new: the sampler of the run.
    first: number of steps that the earlier run made.
    epochs: number of epochs that the earlier run had done after these steps.
  """

  new: Sampler
  first: int
  epochs: float

  @property
  def num_records(self):
    return self.new.num_records

  @property
  def batch_size(self):
    return self.new.batch_size

  @property
  def nominal_steps(self):
    return self.new.nominal_steps

  @property
  def num_steps(self):
    return self.new.num_steps

  def epoch(self, step):
    return self.new.epoch(step - self.first)

  def first_step(self, epoch):
    return self.first + self.new.first_step(epoch)

  def progress(self, step):
    return self.epochs + self.new.progress(step - self.first)

  def indices(self, step):
    return self.new.indices(step - self.first)

  def passes(self, step):
    return samplers.passes(self.new, step - self.first)

  def valid(self, step):
    return self.new.valid(step - self.first)
