"""The picture of a verification: both kinds of pairs, the ROC, and the reliability curve."""

import numpy as np

from hap_jax.metrics import calibration, pair_scores, verification
from hap_jax.viz import figure
from hap_jax.viz import verification as viz
from tests.metrics.test_verification import draw

BLUE, RED = (tuple(int(color[i : i + 2], 16) for i in (1, 3, 5)) for color in (figure.BLUE, figure.RED))


def count(picture, color, part):
  """Returns the number of pixels of a colour in the part 0, 1 or 2 of the width."""
  third = picture.shape[1] // 3
  return int((picture[:, part * third : (part + 1) * third] == color).all(axis=-1).sum())


def test_the_picture_shows_scores_thresholds_the_curve_and_the_reliability():
  pairs = pair_scores.collect(*draw(np.random.default_rng(0), 60, 300, num_persons=20, width=16))
  found = verification.of_pairs(pairs)
  made = calibration.calibrate(pairs)
  whole = viz.draw(found, made, title="20 persons")
  assert count(whole, BLUE, 0) > 50  # pairs of one person
  assert count(whole, RED, 0) > 50  # pairs of two persons
  assert count(whole, BLUE, 1) > 100  # the ROC
  assert count(whole, RED, 1) > 20  # the marks at the FARs
  assert count(whole, BLUE, 2) > 100  # the reliability curve
  # Without a FAR and a calibration, their marks are missing.
  bare = viz.draw(verification.of_pairs(pairs, fars=()))
  assert bare.shape == whole.shape
  third = whole.shape[1] // 3
  assert not np.array_equal(bare[60:, :third], whole[60:, :third])  # no lines at thresholds
  assert count(bare, RED, 1) == count(bare, BLUE, 2) == 0
