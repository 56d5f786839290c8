"""Makes the loaders of a run, and copies host batches to the devices.

This is the only file of `data/` that imports jax.
"""

import collections
import contextlib
import dataclasses

import jax

from hap_jax import sharding
from hap_jax.data import samplers
from hap_jax.data.loader import Loader


@dataclasses.dataclass(frozen=True)
class Reading:
  """Settings that all loaders of a run or command share. Each process loads its slice of every batch.

  Attributes:
    seed, workers, max_bad_share, bad_share_key: see `Loader`.
  """

  seed: int = 0
  workers: int = 0
  max_bad_share: float = 0.001
  bad_share_key: str = "config.data.max_bad_share"

  def loader(self, source, transforms, sampler, fields):
    """Returns the `Loader` of a source in the order of a sampler."""
    return Loader(
      source=source,
      transforms=transforms,
      sampler=sampler,
      seed=self.seed,
      workers=self.workers,
      max_bad_share=self.max_bad_share,
      bad_share_key=self.bad_share_key,
      fields=fields,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )

  def ordered(self, source, transforms, batch_size, fields=("image",)):
    """Returns the `Loader` of one pass over a source, in the order of the source.

    Args:
      source: the source.
      transforms: see `Loader`.
      batch_size: number of rows of the global batch.
      fields: names of the fields in a batch.
    """
    return self.loader(source, transforms, samplers.Sequential(len(source), batch_size), fields)


@contextlib.contextmanager
def device_batches(loader, mesh, start, stop, *, ahead=2):
  """Opens an iterator over the device batches of the steps start, ..., stop - 1.

  A batch is copied to the devices `ahead` steps before its use. So devices compute while batches are copied.

  Args:
    loader: a `Loader`.
    mesh: mesh from `sharding.make_mesh`.
    start: first step.
    stop: the step after the last step.
    ahead: number of batches that are copied ahead of their use.
  Yields:
    an iterator of {name: [B, ...] jax.Array split over the data axis}.
  """
  with contextlib.closing(loader.iterate(start, stop)) as batches:

    def generate():
      queue = collections.deque()
      for batch in batches:
        queue.append(sharding.put_batch(batch, mesh))
        if len(queue) > ahead:
          yield queue.popleft()
      while queue:
        yield queue.popleft()

    yield generate()
