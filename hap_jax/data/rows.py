"""A part of a source: some of its records in a row."""

import dataclasses

from hap_jax.data.columns import LazyColumns
from hap_jax.data.sources import base


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
  """The records start .. stop - 1 of a source, as a source.

  Attributes:
    source: a source whose records are picture files.
    start, stop: numbers of records.
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
  """Returns the records of a split of a source: the last `num_val` records are "val", the others "train".

  Raises:
    ValueError: as `base.held_out`.
  """
  return Rows(source, *base.held_out(len(source), num_val, split))
