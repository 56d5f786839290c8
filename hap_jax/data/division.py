"""Divides persons or pictures into splits at random. A division depends only on its seed and its groups."""

import numpy as np

_STREAM = 3  # makes this draw independent of other draws with the same seed


def divide(groups, ends, seed):
  """Draws the split of each row. All rows of a group get the same split.

  Args:
    groups: [N] numbers or texts, such as the person of each picture. The order of the rows has no effect.
    ends: [K] float, ascending: the share of all rows at which split k ends. The last one is 1.
    seed: whole number >= 0.
  Returns:
    [N] int64, the number of each row's split: 0 to K - 1.
  """
  names, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
  order = np.random.default_rng((seed, _STREAM)).permutation(len(names))
  # The middle of each group's rows in the drawn order, as a share of all rows. A group is never cut: its
  # middle decides the split.
  middle = (np.cumsum(counts[order]) - counts[order] / 2) / max(1, counts.sum())
  part = np.empty(len(names), np.int64)
  part[order] = np.searchsorted(ends[:-1], middle)
  return part[group]
