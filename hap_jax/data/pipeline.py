"""From host batches to device batches. The only file of `data/` that imports jax."""

import collections
import contextlib

from hap_jax import sharding


@contextlib.contextmanager
def device_batches(loader, mesh, start, stop, *, ahead=2):
  """Opens an iterator of device batches of steps start, ..., stop - 1.

  Copies to the devices are started `ahead` batches before their step, so they overlap with computing.

  Args:
    loader: a `Loader`. mesh: from `sharding.make_mesh`. ahead: batches in flight.
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
