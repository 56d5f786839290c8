"""The loss of attributes with labels that are not known."""

import jax
import jax.numpy as jnp
import numpy as np

from hap_jax.losses.attributes import attribute_loss, attribute_weights

LOGITS = np.random.default_rng(0).normal(0, 3, (6, 5)).astype(np.float32)
LABELS = np.random.default_rng(1).random((6, 5)) < 0.4
KNOWN = np.random.default_rng(2).random((6, 5)) < 0.7
WEIGHTS = attribute_weights(LABELS, np.linspace(0.1, 0.9, 5))


def test_loss_is_the_sum_over_the_known_labels():
  found = attribute_loss(LOGITS, LABELS, WEIGHTS, KNOWN)
  for row, known in enumerate(KNOWN):
    kept = np.flatnonzero(known)
    expected = attribute_loss(LOGITS[row : row + 1, kept], LABELS[row : row + 1, kept], WEIGHTS[row, kept])
    np.testing.assert_allclose(found[row], expected[0], rtol=1e-6)


def test_a_label_that_is_not_known_changes_neither_loss_nor_gradient():
  def loss(logits, labels):
    return attribute_loss(logits, labels, attribute_weights(labels, np.full(5, 0.3)), KNOWN).sum()

  one, other = (jax.value_and_grad(loss)(LOGITS, labels) for labels in (LABELS & KNOWN, LABELS | ~KNOWN))
  jax.tree.map(np.testing.assert_array_equal, one, other)
  np.testing.assert_array_equal(np.asarray(one[1]) != 0, KNOWN)


def test_with_all_labels_known_the_mask_changes_no_bit():
  found = attribute_loss(LOGITS, LABELS, WEIGHTS, np.ones_like(KNOWN))
  np.testing.assert_array_equal(found, attribute_loss(LOGITS, LABELS, WEIGHTS))


def test_without_known_labels_loss_and_gradient_are_zero():
  mask = jnp.zeros(LABELS.shape, bool)
  loss, grad = jax.value_and_grad(lambda x: attribute_loss(x, LABELS, WEIGHTS, mask).mean())(LOGITS)
  assert loss == 0
  assert not np.any(grad)
