"""Divides persons or pictures into splits at random. The result depends only on the arguments of `divide`."""

import numpy as np

_STREAM = 3  # part of the seed, so that other random numbers with the same seed are independent


def divide(groups, ends, seed):
  """Draws the split of each row. All rows of a group get the same split.

  Args:
    groups: [N] numbers or texts: the group of each row, such as the person of each picture. The split of a
      group does not depend on the order of the rows.
    ends: [K] float in ascending order, for K splits. Split k ends at the share ends[k] of all rows. The last
      value is 1.
    seed: whole number >= 0.
  Returns:
    [N] int64, the split of each row: 0 to K - 1.
  """
  names, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
  order = np.random.default_rng((seed, _STREAM)).permutation(len(names))
  # The groups are put in a random order. `middle` is the position of the middle row of each group, as a share
  # of all rows. This position determines the split of the whole group, so no group is divided.
  middle = (np.cumsum(counts[order]) - counts[order] / 2) / max(1, counts.sum())
  part = np.empty(len(names), np.int64)
  part[order] = np.searchsorted(ends[:-1], middle)
  return part[group]
