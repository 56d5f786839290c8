"""Identity and triplet loss against the official implementation.

The tolerance is 1e-5 for losses and gradients, 1e-6 for the hardest distances and 2e-6 for all distances.
"""

import jax
import numpy as np
import pytest

from hap_jax.losses import triplet
from hap_jax.losses.identity import identity_loss


@pytest.fixture(scope="module")
def file(golden):
  return golden("reid_losses_metrics")


def test_hardest_distances_agree_with_the_official_code(file):
  feature, labels = file["triplet/feat"], file["triplet/labels"]
  positive, negative = triplet.hardest_distances(feature, labels)
  np.testing.assert_allclose(positive, file["triplet/hardest_pos"], rtol=1e-6)
  np.testing.assert_allclose(negative, file["triplet/hardest_neg"], rtol=1e-6)


def test_all_distances_agree_with_the_official_code(file):
  found = np.sqrt(triplet.squared_distances(file["triplet/feat"]))
  # The distance of a feature to itself is only rounding error, so the diagonal is not compared.
  apart = ~np.eye(len(found), dtype=bool)
  np.testing.assert_allclose(found[apart], file["triplet/dist"][apart], rtol=2e-6)


@pytest.mark.parametrize(("suffix", "margin"), [("", None), ("_margin0.3", 0.3)])
def test_triplet_loss_and_gradient_agree_with_the_official_code(file, suffix, margin):
  labels = file["triplet/labels"]
  value_and_grad = jax.value_and_grad(lambda f: triplet.triplet_loss(f, labels, margin).mean())
  loss, grad = value_and_grad(file["triplet/feat"])
  np.testing.assert_allclose(loss, file[f"triplet/loss{suffix}"], rtol=1e-5)
  np.testing.assert_allclose(grad, file[f"triplet/grad_feat{suffix}"], atol=1e-5, rtol=0)


def test_identity_loss_and_gradient_agree_with_the_official_code(file):
  labels = file["id/labels"]
  loss, grad = jax.value_and_grad(lambda x: identity_loss(x, labels).mean())(file["id/logits"])
  np.testing.assert_allclose(loss, file["id/loss"], rtol=1e-5)
  np.testing.assert_allclose(grad, file["id/grad_logits"], atol=1e-5, rtol=0)
