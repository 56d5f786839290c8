"""Tests of the identity and triplet losses: values of the official code, special cases of the gradient."""

import jax
import numpy as np

from hap_jax.losses.identity import identity_loss
from hap_jax.losses.triplet import hardest_distances, triplet_loss

LABELS = np.array([0, 0, 1, 1, 2, 2, 3, 3])
# Closed formulas, so that the features and logits are the same on every machine.
I = np.arange(8)[:, None]  # noqa: E741
FEATURE = np.sin(1 + 3 * I + 7 * np.arange(16) + I * np.arange(16)).astype(np.float32)
LOGITS = np.cos(0.5 + 2 * I + 1.3 * np.arange(4) * (I + 1)).astype(np.float32)


def gradient(feature, labels, margin=None):
  grad = jax.grad(lambda x: triplet_loss(x, labels, margin).sum())(np.asarray(feature, np.float32))
  return np.asarray(grad)


def test_losses_have_the_values_of_the_official_code():
  # The official code ran in float64.
  positive, negative = hardest_distances(FEATURE, LABELS)
  expected = [4.208423, 4.208423, 5.134592, 5.134592, 3.995213, 3.995213, 4.001337, 4.001337]
  np.testing.assert_allclose(positive, expected, rtol=1e-6)
  expected = [3.97995, 4.016931, 3.906163, 3.931337, 2.303555, 2.273258, 2.273258, 2.303555]
  np.testing.assert_allclose(negative, expected, rtol=1e-6)
  identity, triplet = identity_loss(LOGITS, LABELS).mean(), triplet_loss(FEATURE, LABELS).mean()
  np.testing.assert_allclose(triplet, 1.50787005, rtol=1e-6)
  np.testing.assert_allclose(identity, 1.53390360, rtol=1e-6)
  np.testing.assert_allclose(0.5 * identity + 0.5 * triplet, 1.52088683, rtol=1e-6)


def test_identity_loss_of_huge_logits_is_finite():
  np.testing.assert_allclose(
    identity_loss(np.array([[1e4, 0], [0, 1e4]], np.float32), np.array([0, 0])), [0, 1e4]
  )


def test_only_one_of_several_equally_far_examples_gets_the_gradient():
  # The two other examples of the first person both have distance 1 to the first example.
  feature = [[0, 0], [1, 0], [-1, 0], [5, 9]]
  labels = np.array([0, 0, 0, 1])
  anchor = jax.grad(lambda x: hardest_distances(x, labels)[0][0])(np.asarray(feature, np.float32))
  assert np.abs(anchor).sum(1).tolist() == [1, 1, 0, 0]


def test_copies_of_one_picture_have_distance_0_and_no_gradient():
  """Checks copies of a picture: a batch repeats pictures of persons who have few.

  The square root has no finite derivative at distance 0.
  """
  feature, labels = [[1, 2], [1, 2], [4, 6], [4, 6]], np.array([0, 0, 1, 1])
  positive, negative = hardest_distances(np.asarray(feature, np.float32), labels)
  np.testing.assert_allclose(positive, 1e-6, rtol=1e-3)
  np.testing.assert_allclose(negative, 5, rtol=1e-6)
  share = 1 / (1 + np.exp(5))  # derivative of the loss log(1 + exp(-5))
  grad = gradient(feature, labels)
  assert np.isfinite(grad).all()
  np.testing.assert_allclose(grad.sum(0), 0, atol=1e-6)
  # The unit vector from one person to the other is (0.6, 0.8). Each of the four anchors adds one pair.
  np.testing.assert_allclose(grad[:2].sum(0), 4 * share * np.array([0.6, 0.8]), rtol=1e-4)


def test_a_batch_of_one_person_has_no_loss_and_no_gradient():
  labels = np.zeros(8, int)
  for margin in (None, 0.3):
    assert not triplet_loss(FEATURE, labels, margin).any()
    assert not gradient(FEATURE, labels, margin).any()


def test_renaming_the_labels_does_not_change_the_triplet_loss():
  np.testing.assert_array_equal(triplet_loss(FEATURE, LABELS * 100 + 7), triplet_loss(FEATURE, LABELS))
