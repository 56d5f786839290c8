"""Tests of the reconstruction and alignment losses on small cases that were computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from hap_jax.losses.alignment import alignment_loss, info_nce
from hap_jax.losses.reconstruction import masked_patch_loss, normalize_patches


def test_normalized_patches_have_unbiased_unit_variance():
  patches = normalize_patches(np.random.default_rng(0).normal(3, 5, size=(2, 4, 48)))
  np.testing.assert_allclose(patches.mean(-1), 0, atol=1e-6)
  np.testing.assert_allclose(patches.var(-1, ddof=1), 1, rtol=1e-5)


def test_constant_patch_is_normalized_to_zero():
  assert np.abs(normalize_patches(np.full((1, 1, 12), 7.0))).max() == 0


def test_only_hidden_patches_count():
  # The visible patch has the largest error, so it would be seen in the sum.
  pred = jnp.array([[[1.0, 3.0], [100.0, 100.0], [2.0, 2.0]]])
  total, count = masked_patch_loss(pred, jnp.zeros_like(pred), jnp.array([[True, False, True]]))
  assert (float(total[0]), float(count[0])) == ((1 + 9) / 2 + 4, 2)


def test_alignment_of_two_orthogonal_pairs():
  eye = jnp.eye(2) * 3  # lengths do not matter
  temperature = 0.5
  # Each query has the similarity 1 / T = 2 with its own key and 0 with the other key.
  expected = -2 * temperature * np.log(np.exp(2) / (np.exp(2) + 1))
  np.testing.assert_allclose(info_nce(eye, eye, jnp.arange(2), temperature), expected, rtol=1e-5)
  np.testing.assert_allclose(alignment_loss(eye, eye, temperature), 2 * expected, rtol=1e-5)


def test_a_larger_bank_of_keys_adds_negatives():
  query, bank = jnp.eye(2), jnp.concatenate([jnp.eye(2), jnp.array([[1.0, 1.0]])])
  few, many = (info_nce(query, keys, jnp.arange(2), 0.2) for keys in (bank[:2], bank))
  assert np.all(many > few)


def test_keys_carry_no_gradient():
  rng = np.random.default_rng(0)
  query, keys = rng.normal(size=(2, 4, 8))
  grad = jax.grad(lambda k: info_nce(query, k, jnp.arange(4), 0.2).sum())(keys)
  assert np.abs(grad).max() == 0
