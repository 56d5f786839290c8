"""The linear probe finds the optimum of its loss and selects its penalty on held-out rows."""

import numpy as np
import pytest
import scipy.special

from hap_jax.evaluation import linear_probe
from hap_jax.metrics import attributes as metrics


def make_data(n, seed, d=12, noise=0.3):
  """Returns features with very different scales, and three labels.

  One plane separates the first label. Another plane separates the second label, which is rare. The third
  label is noise.
  """
  rng = np.random.default_rng(seed)
  x = rng.standard_normal((n, d))
  planes = np.random.default_rng(99).standard_normal((d, 2))
  logits = x @ planes + noise * rng.standard_normal((n, 2)) - [0, 4]
  labels = np.concatenate([logits > 0, rng.random((n, 1)) < 0.3], axis=1)
  # The different scales check that `fit` standardises the features.
  return (5 + x * np.geomspace(1e-3, 1e3, d)).astype(np.float32), labels


def test_linearly_separable_labels_are_learned_and_noise_is_not():
  probe = linear_probe.choose_and_fit(*make_data(2000, seed=0))
  features, labels = make_data(2000, seed=1)
  found = metrics.score(probe.probability(features), labels).label_mean_accuracy
  assert found[0] > 0.93
  assert found[1] > 0.8
  # An mA of 0.5 is the score of an answer that ignores the picture.
  assert abs(found[2] - 0.5) < 0.05


def test_regression_ends_where_its_gradient_is_zero():
  features, labels = make_data(300, seed=2)
  probe = linear_probe.fit(features, labels, 1e-2)
  x = (features - features.mean(0, dtype=float)) / features.std(0, dtype=float)
  ratio = labels.mean(0)
  weights = np.where(labels, np.exp(1 - ratio), np.exp(ratio))
  error = weights * (scipy.special.expit(x @ probe.kernel + probe.bias) - labels) / len(x)
  assert np.abs(x.T @ error + 1e-2 * probe.kernel).max() < 1e-4
  assert np.abs(error.sum(0)).max() < 1e-4
  assert np.abs(x.T @ error).max() > 1e-3  # without the penalty, the gradient would not be zero here


def test_a_constant_feature_gives_finite_probabilities():
  features, labels = make_data(200, seed=3)
  features[:, 4] = 7.0
  assert np.isfinite(linear_probe.fit(features, labels, 1e-2).probability(features)).all()


def test_the_held_out_rows_select_the_penalty():
  rng = np.random.default_rng(0)
  x = rng.standard_normal((60, 200))  # with more features than rows, only a strong penalty generalises
  labels = (x[:, :1] + 0.2 * rng.standard_normal((60, 1))) > 0
  strong = linear_probe.choose_and_fit(x, labels)
  scores = [
    metrics.score(linear_probe.fit(x[:48], labels[:48], p).probability(x[48:]), labels[48:]).metrics()["mA"]
    for p in linear_probe.STRENGTHS
  ]
  assert strong.penalty == linear_probe.STRENGTHS[int(np.argmax(scores))]


def test_too_few_pictures_are_refused():
  with pytest.raises(ValueError, match="the training split has 4 pictures; expected 5"):
    linear_probe.choose_and_fit(np.ones((4, 2)), np.ones((4, 1), bool))


@pytest.mark.parametrize("value", [-1.0, 2.0, np.nan])
def test_labels_other_than_0_and_1_are_refused_with_their_place(value):
  features, labels = make_data(40, seed=4)
  labels = labels.astype(float)
  labels[7, 1] = value
  for learn in (linear_probe.choose_and_fit, lambda *data: linear_probe.fit(*data, 1e-2)):
    with pytest.raises(ValueError, match=rf"1 labels .* the first is {value} in row 7, column 1"):
      learn(features, labels)


def test_labels_of_0_and_1_give_the_same_result_as_booleans():
  features, labels = make_data(100, seed=5)
  found = linear_probe.fit(features, labels.astype(np.int32), 1e-2)
  np.testing.assert_array_equal(found.kernel, linear_probe.fit(features, labels, 1e-2).kernel)


def test_a_wrong_number_of_labels_is_refused():
  features, labels = make_data(20, seed=6)
  with pytest.raises(ValueError, match="19 rows of labels for 20 pictures"):
    linear_probe.fit(features, labels[:19], 1e-2)


def test_rows_without_known_labels_do_not_change_the_fit():
  features, labels = make_data(150, seed=7)
  # Copies of the rows keep the mean and the scale of the features.
  twice, known = np.concatenate([features, features]), np.repeat([[True], [False]], 150, axis=0)
  hidden = np.concatenate([labels, ~labels])
  found = linear_probe.fit(twice, hidden, 1e-2, np.broadcast_to(known, hidden.shape))
  expected = linear_probe.fit(features, labels, 1e-2)
  # The wrong labels of the copies would move all probabilities to 0.5.
  np.testing.assert_allclose(found.probability(features), expected.probability(features), atol=1e-6, rtol=0)
  assert np.abs(expected.probability(features) - 0.5).max() > 0.4


def test_an_attribute_without_known_labels_gets_one_half_and_does_not_change_the_others():
  features, labels = make_data(200, seed=8)
  known = np.ones(labels.shape, bool)
  known[:, 1] = False
  probability = linear_probe.choose_and_fit(features, labels, known).probability(features)
  np.testing.assert_array_equal(probability[:, 1], 0.5)
  assert metrics.score(probability, labels, known).label_mean_accuracy[0] > 0.9


def test_with_all_labels_known_the_mask_changes_no_bit_of_the_probe():
  features, labels = make_data(100, seed=9)
  found = linear_probe.choose_and_fit(features, labels, np.ones(labels.shape, bool))
  expected = linear_probe.choose_and_fit(features, labels)
  assert found.penalty == expected.penalty
  np.testing.assert_array_equal(found.kernel, expected.kernel)
  np.testing.assert_array_equal(found.bias, expected.bias)
