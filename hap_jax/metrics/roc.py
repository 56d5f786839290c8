"""The ROC of a verification: the share of pairs that pass a threshold, for genuine and for impostor pairs.

A genuine pair shows one person, an impostor pair shows two persons. A pair passes a threshold if its score is
at least the threshold. FAR is the share of the impostor pairs that pass, TAR the share of the genuine pairs.
"""

import dataclasses

import numpy as np

LEAST_ALARMS = 10  # a FAR is measured only if at least this number of false alarms is expected


@dataclasses.dataclass(frozen=True, eq=False)
class Roc:
  """FAR and TAR of every threshold that changes them.

  Attributes:
    threshold: [n + 1] float64, descending. The first is infinite: no pair passes.
    far: [n + 1] float64, ascending from 0 to 1.
    tar: [n + 1] float64, ascending from 0 to 1.
    num_genuine, num_impostor: numbers of pairs.
  """

  threshold: np.ndarray
  far: np.ndarray
  tar: np.ndarray
  num_genuine: int
  num_impostor: int


@dataclasses.dataclass(frozen=True)
class Point:
  """One threshold of a ROC.

  Attributes:
    threshold: the lowest score that passes.
    far: share of the impostor pairs that pass.
    tar: share of the genuine pairs that pass.
  """

  threshold: float
  far: float
  tar: float


def of_scores(genuine, impostor):
  """Returns the Roc of the scores of single pairs.

  Args:
    genuine: [n] scores of the genuine pairs, at least one.
    impostor: [m] scores of the impostor pairs, at least one.
  """
  score, entry = np.unique(np.concatenate([genuine, impostor]), return_inverse=True)
  counts = (np.bincount(part, minlength=len(score)) for part in np.split(entry, [len(genuine)]))
  return of_counts(score[::-1], *(count[::-1] for count in counts))


def of_counts(score, genuine, impostor):
  """Returns the Roc of pairs that are counted per score.

  Args:
    score: [n] distinct scores, descending.
    genuine: [n] number of genuine pairs of each score.
    impostor: [n] number of impostor pairs of each score.
  """
  totals = int(genuine.sum()), int(impostor.sum())
  tar, far = (
    np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]) / total
    for counts, total in zip((genuine, impostor), totals, strict=True)
  )
  return Roc(np.concatenate([[np.inf], score]), far, tar, *totals)


def num_needed(far):
  """Returns the number of pairs that a FAR needs, so that `LEAST_ALARMS` of them are false alarms."""
  return round(LEAST_ALARMS / far)


def at_far(roc, far):
  """Returns the Point with the largest TAR whose FAR is at most `far`. The threshold is finite."""
  k = int(np.searchsorted(roc.far, far, "right")) - 1
  # If even the highest score is shared by too many impostor pairs, the threshold is just above this score.
  threshold = roc.threshold[k] if k else np.nextafter(roc.threshold[1], np.inf)
  return Point(float(threshold), float(roc.far[k]), float(roc.tar[k]))


def at_threshold(roc, threshold):
  """Returns the Point of a threshold."""
  k = int(np.searchsorted(-roc.threshold, -threshold, "right")) - 1
  return Point(float(threshold), float(roc.far[k]), float(roc.tar[k]))


def equal_error_rate(far, tar):
  """Returns the rate at which FAR and 1 - TAR are equal, with straight lines between the points of a ROC.

  Args:
    far: [..., n] ascending from 0 to 1. Several ROCs may be given.
    tar: [..., n] ascending from 0 to 1.
  Returns:
    [...] float64.
  """
  excess = far - (1 - tar)  # ascends from -1 to 1
  k = np.argmax(excess >= 0, axis=-1)[..., None]
  before, after = (np.take_along_axis(excess, place, -1) for place in (k - 1, k))
  low, high = (np.take_along_axis(far, place, -1) for place in (k - 1, k))
  return (low + before / (before - after) * (high - low))[..., 0]
