"""A source that is a range of consecutive records of another source."""

import dataclasses

from hap_jax.data.columns import LazyColumns
from hap_jax.data.sources import base


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
  """A source of the records start, start + 1, ..., stop - 1 of another source.

  Attributes:
    source: the other source. Its records must be picture files.
    start: index of the first record in `source`.
    stop: index after the last record in `source`.
  """

  source: base.Source
  start: int
  stop: int

  @property
  def spec(self):
    return self.source.spec

  @property
  def columns(self):
    rows, columns = slice(self.start, self.stop), self.source.columns
    return LazyColumns({field: lambda field=field: columns[field][rows] for field in columns})

  def __len__(self):
    return self.stop - self.start

  def __getitem__(self, index):
    return self.source[self.start + index]

  def name(self, index):
    return self.source.name(self.start + index)

  def file(self, index):
    return self.source.file(self.start + index)


def hold_out(source, num_val, split):
  """Returns a source with the records of a split: the last `num_val` records ("val") or the others ("train").

  Raises:
    ValueError: in the same cases as `base.held_out`.
  """
  return Rows(source, *base.held_out(len(source), num_val, split))
