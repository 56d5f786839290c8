"""The order of the records of several data sets whose shares in the batches are given."""

import dataclasses
import functools

import numpy as np

from hap_jax.data import samplers

# The last number of the seeds, so that this order shares no generator with another sampler or a record.
_STREAM = 2


@dataclasses.dataclass(frozen=True)
class ShuffledShares(samplers.EqualEpochs):
  """Endless training order of several data sets: the data set of each row is drawn by given shares.

  Each data set runs through shuffled passes of its own: when all its records were drawn, it begins again in a
  new order. A small data set with a large share is passed through several times while a large data set is
  passed through once. The records of the data sets follow each other in the source.

  An epoch has as many steps as in `samplers.ShuffledEpochs`. A NumPy generator that depends only on the seed
  and the epoch draws the number of rows of each data set in this epoch, then their order. This is the same as
  an independent draw for each row. The first access to an epoch draws the numbers of all earlier epochs,
  which takes some microseconds for each of them. The rows of two epochs are kept in memory, with 8 bytes per
  row.

  Attributes:
    sizes: number of records of each data set.
    shares: expected share of each data set in the rows. Their sum is 1.
    batch_size: rows of a batch.
    seed: seed of the order; not negative.
  Raises:
    ValueError: if the shares do not fit the data sets, or if there are fewer records than rows in a batch.
  """

  sizes: tuple[int, ...]
  shares: tuple[float, ...]
  batch_size: int
  seed: int

  def __post_init__(self):
    if len(self.shares) != len(self.sizes) or min(self.shares) <= 0 or abs(sum(self.shares) - 1) > 1e-6:
      raise ValueError(
        f"shares={self.shares}: expected {len(self.sizes)} numbers above 0 with the sum 1, one per data set"
      )
    samplers.check_epoch(self.num_records, self.batch_size)

  @property
  def num_records(self):
    return sum(self.sizes)

  def indices(self, step):
    return self._rows(step)[0]

  def passes(self, step):
    return self._rows(step)[1]

  def draw_epoch(self, epoch):
    """Returns (record indices, passes) of an epoch, each [steps * B] int32; see `passes`."""
    before = sum((self._counts(earlier)[1] for earlier in range(epoch)), np.zeros(len(self.sizes), np.int64))
    rng, counts = self._counts(epoch)
    dataset = rng.permutation(np.repeat(np.arange(len(self.sizes)), counts))
    index, number = (np.empty(len(dataset), np.int32) for _ in range(2))
    for d, (size, count) in enumerate(zip(self.sizes, counts.tolist(), strict=True)):
      rows = np.flatnonzero(dataset == d)
      number[rows], place = np.divmod(before[d] + np.arange(count), size)
      for k in np.unique(number[rows]):
        is_of_pass = number[rows] == k
        order = self._generator(k, 1 + d).permutation(np.arange(size, dtype=np.int32))
        index[rows[is_of_pass]] = order[place[is_of_pass]]
      index[rows] += sum(self.sizes[:d])
    return index, number

  def _counts(self, epoch):
    """Returns (the generator of an epoch, number of rows of each data set in this epoch [data sets])."""
    rng = self._generator(epoch, 0)
    shares = np.array(self.shares) / sum(self.shares)  # the sum of the shares may be 1 + 1e-6
    return rng, rng.multinomial(self.nominal_steps * self.batch_size, shares)

  def _generator(self, number, stream):
    return np.random.default_rng((self.seed, int(number), stream, _STREAM))

  def _rows(self, step):
    epoch, i = divmod(step, self.nominal_steps)
    rows = slice(i * self.batch_size, (i + 1) * self.batch_size)
    return tuple(column[rows] for column in _drawn_epoch(self, epoch))


@functools.lru_cache(maxsize=2)
def _drawn_epoch(sampler, epoch):
  """Returns `sampler.draw_epoch(epoch)`, whose arrays cannot be changed."""
  drawn = sampler.draw_epoch(epoch)
  for column in drawn:
    column.setflags(write=False)
  return drawn
