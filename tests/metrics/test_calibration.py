"""Probabilities from scores: two kinds of curves, the choice, and the quality on other persons."""

import numpy as np
import pytest
import sklearn.isotonic
import sklearn.metrics

from hap_jax.metrics import calibration, pair_scores
from tests.metrics.test_verification import draw


def counts_of(genuine, impostor):
  score = np.unique(np.concatenate([genuine, impostor]))
  return score, *(np.array([np.sum(side == s) for s in score]) for side in (genuine, impostor))


def test_the_isotonic_curve_equals_scikit_learn_with_the_added_pairs():
  rng = np.random.default_rng(0)
  genuine, impostor = rng.integers(2, 12, 50) / 10, rng.integers(0, 9, 80) / 10
  score, *counts = counts_of(genuine, impostor)
  curve = calibration.fit_isotonic(score, *counts)
  x = np.concatenate([[-5, -5], genuine, impostor, [5, 5]])
  y = np.concatenate([[1, 0], np.ones(50), np.zeros(80), [1, 0]])
  weights = np.where(y == 1, 1 / 52, 1 / 82)
  model = sklearn.isotonic.IsotonicRegression().fit(x, y, sample_weight=weights)
  np.testing.assert_allclose(curve.probability(score, 0.5), model.predict(score), atol=1e-12)
  assert list(curve.score) == sorted(set(curve.score))
  assert np.all(np.diff(curve.log_ratio) >= 0)
  assert 0 < curve.probability(-1.0, 0.5) < curve.probability(1.0, 0.5) < 1


def test_the_logistic_curve_finds_the_true_ratio_of_two_normal_distributions():
  rng = np.random.default_rng(1)
  # The log ratio of N(0.5, 0.1) and N(0.1, 0.1) is 40 score - 12.
  score, *counts = counts_of(rng.normal(0.5, 0.1, 4000).round(3), rng.normal(0.1, 0.1, 4000).round(3))
  curve = calibration.fit_platt(score, *counts)
  for value in (0.2, 0.3, 0.4):
    assert np.interp(value, curve.score, curve.log_ratio) == pytest.approx(40 * value - 12, abs=0.6)
  at = {prior: float(curve.probability(0.32, prior)) for prior in (0.5, 0.1)}
  odds = {prior: p / (1 - p) for prior, p in at.items()}
  assert odds[0.1] == pytest.approx(odds[0.5] / 9)


def test_scores_that_separate_all_pairs_or_say_nothing_give_finite_curves():
  # In the isotonic curve, the pairs that are added at the lower end join the others: 31 of 32 genuine and 71
  # of 72 impostor pairs. The targets of the logistic regression are 31/32 and 1/72.
  pooled = 31 / 32 / (31 / 32 + 71 / 72)
  for fit, middle in ((calibration.fit_isotonic, pooled), (calibration.fit_platt, (31 / 32 + 1 / 72) / 2)):
    score, *counts = counts_of(np.full(30, 0.8), np.full(70, 0.2))
    low, high = fit(score, *counts).probability(np.array([0.2, 0.8]), 0.5)
    assert 0 < low < 0.1
    assert 0.9 < high < 1
    # Impostor pairs with the higher scores: the curve must not fall.
    score, *counts = counts_of(np.full(30, 0.2), np.full(70, 0.8))
    low, high = fit(score, *counts).probability(np.array([0.2, 0.8]), 0.5)
    assert low == high
    assert low == pytest.approx(middle, abs=1e-5)


def test_the_log_loss_equals_scikit_learn():
  rng = np.random.default_rng(2)
  probability, genuine, impostor = (
    rng.uniform(0.01, 0.99, 20),
    rng.integers(5, size=20),
    rng.integers(9, size=20),
  )
  labels, p = (
    np.repeat([1, 0], [genuine.sum(), impostor.sum()]),
    np.concatenate([np.repeat(probability, genuine), np.repeat(probability, impostor)]),
  )
  weights = np.where(labels == 1, 0.2 / genuine.sum(), 0.8 / impostor.sum())
  expected = sklearn.metrics.log_loss(labels, p, sample_weight=weights)
  assert calibration.log_loss(probability, genuine, impostor, 0.2) == pytest.approx(expected)


def test_a_calibration_is_scored_on_persons_that_it_was_not_fitted_on():
  """The lower loss wins, and probabilities agree with the shares of new persons."""
  rng = np.random.default_rng(3)
  given = draw(rng, 300, 600, num_persons=60, width=32, spread=1.2)
  pairs = pair_scores.collect(*given)
  found = calibration.calibrate(pairs, prior=0.3)
  assert found.curve.method == min(found.log_loss, key=found.log_loss.get)
  assert 0 < found.log_loss[found.curve.method] < found.baseline
  # The halves share no person.
  first, second = (pairs.genuine[h].sum() for h in (0, 1))
  assert first + second == pairs.num_genuine
  assert min(first, second) > 0.25 * pairs.num_genuine
  # Fitted on one half, the other half is scored: computed again here.
  score = pairs.score[::-1]
  losses = []
  for h in (0, 1):
    curve = calibration.fit_platt(score, pairs.genuine[1 - h][::-1], pairs.impostor[1 - h][::-1])
    p = curve.probability(score, 0.3)
    losses.append(calibration.log_loss(p, pairs.genuine[h][::-1], pairs.impostor[h][::-1], 0.3))
  assert found.log_loss["platt"] == pytest.approx(np.mean(losses))
  # Other persons with the same distribution.
  other = pair_scores.collect(*draw(rng, 300, 600, num_persons=60, width=32, spread=1.2))
  p = found.curve.probability(other.score, 0.3)
  sides = [side.sum(axis=0) for side in (other.genuine, other.impostor)]
  weight = [0.3 * sides[0] / sides[0].sum(), 0.7 * sides[1] / sides[1].sum()]
  for low, high in ((0.0, 0.1), (0.9, 1.0)):
    part = (p >= low) & (p <= high)
    share = weight[0][part].sum() / (weight[0] + weight[1])[part].sum()
    mean = ((weight[0] + weight[1]) * p)[part].sum() / (weight[0] + weight[1])[part].sum()
    assert share == pytest.approx(mean, abs=0.05)
  assert sum(bin.num_genuine for bin in found.reliability) == pairs.num_genuine


@pytest.mark.parametrize("prior", [0, 1, float("nan")])
def test_a_prior_that_is_no_probability_is_an_error(prior):
  pairs = pair_scores.collect(*draw(np.random.default_rng(4), 40, 80))
  with pytest.raises(ValueError, match="expected a probability above 0 and below 1"):
    calibration.calibrate(pairs, prior)


def test_too_few_persons_are_an_error():
  given = draw(np.random.default_rng(5), 6, 9, num_persons=1, num_cameras=9)
  with pytest.raises(ValueError, match="too few persons for a calibration"):
    calibration.calibrate(pair_scores.collect(*given))
