"""The order of the records in a run that continues another run."""

import dataclasses

from hap_jax.data import samplers
from hap_jax.data.samplers import Sampler


@dataclasses.dataclass(frozen=True)
class ContinuedOrder:
  """A sampler whose first step is `first`, not step 0. From this step, it returns the batches of `new`.

  The step numbers and the progress continue the numbers of the earlier run. The batch and the epoch at a step
  are the batch and the epoch of `new` at step - first. So the augmentation of the records also starts again.

  Attributes:
    new: the sampler of the run, which starts at step 0.
    first: number of steps that the earlier run made.
    epochs: number of epochs that the earlier run made in these steps, as a float.
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
