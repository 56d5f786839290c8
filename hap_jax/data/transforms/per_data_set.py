"""A transform that applies the transforms of the data set that a record comes from."""

import dataclasses
from collections.abc import Callable


@dataclasses.dataclass(frozen=True)
class PerDataSet:
  """Applies the transforms of the record's data set, one after the other.

  Random numbers: those of these transforms, in their order.

  Attributes:
    transforms: the transforms of each data set. The field `dataset` of a record is the index of its data set.
  """

  transforms: tuple[tuple[Callable, ...], ...]

  @property
  def adds(self):
    """Names of the fields that the transforms add."""
    added = (name for own in self.transforms for one in own for name in getattr(one, "adds", ()))
    return tuple(dict.fromkeys(added))

  def __call__(self, record, rng):
    for transform in self.transforms[int(record["dataset"])]:
      record = transform(record, rng)
    return record
