"""Loss of attributes: sigmoid cross entropy in which the rarer answer of an attribute weighs more."""

import jax
import jax.numpy as jnp


def attribute_weights(labels, positive_ratio):
  """Weight of every answer: exp(1 - r_a) where attribute a is present, exp(r_a) where it is absent.

  Args:
    labels: [B, A] bool or 0/1. positive_ratio: [A] float, share of a's positives in the training split.
  Returns:
    [B, A] float32 between 1 and e.
  """
  ratio = jnp.asarray(positive_ratio, jnp.float32)
  return jnp.exp(jnp.where(jnp.asarray(labels, bool), 1.0 - ratio, ratio))


def attribute_loss(logits, labels, weights=1.0):
  """Weighted sigmoid cross entropy, summed over the attributes.

  Args:
    logits: [B, A] float. labels: [B, A] bool or 0/1. weights: [B, A] float, or a number for all.
  Returns:
    [B] float32, one loss an example.
  """
  logits = logits.astype(jnp.float32)
  target = jnp.asarray(labels, jnp.float32)
  # Parity: a sum over attributes, not a mean: the published learning rates are made for it.
  entropy = jax.nn.relu(logits) - logits * target + jnp.log1p(jnp.exp(-jnp.abs(logits)))
  return jnp.sum(weights * entropy, axis=-1)
