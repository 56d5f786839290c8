"""Loss of attributes: sigmoid cross entropy with more weight on the rarer answer of each attribute."""

import jax
import jax.numpy as jnp


def attribute_weights(labels, positive_ratio):
  """Returns the weight of every label: exp(1 - r_a) if attribute a is present, exp(r_a) if it is absent.

  Args:
    labels: [B, A] bool or 0/1.
    positive_ratio: [A] float, r_a: the share of training examples in which attribute a is present.
  Returns:
    [B, A] float32 between 1 and e.
  """
  ratio = jnp.asarray(positive_ratio, jnp.float32)
  return jnp.exp(jnp.where(jnp.asarray(labels, bool), 1.0 - ratio, ratio))


def attribute_loss(logits, labels, weights=1.0, known=None):
  """Returns the weighted sigmoid cross entropy, summed over the known labels.

  Args:
    logits: [B, A] float.
    labels: [B, A] bool or 0/1.
    weights: [B, A] float, or one number for all labels.
    known: [B, A] bool. False: the label is unknown, so it adds nothing to the loss or to the gradient. None:
      all labels are known.
  Returns:
    [B] float32, one loss per example. An example without known labels has the loss 0.
  """
  logits = logits.astype(jnp.float32)
  target = jnp.asarray(labels, jnp.float32)
  # This form of -t log s(x) - (1 - t) log(1 - s(x)) never overflows, because the exponent is never positive.
  # Parity: the loss is the sum over the attributes, not the mean, because the published learning rates are
  # for the sum.
  entropy = jax.nn.relu(logits) - logits * target + jnp.log1p(jnp.exp(-jnp.abs(logits)))
  weighted = weights * entropy
  if known is not None:
    weighted = jnp.where(known, weighted, 0.0)
  return jnp.sum(weighted, axis=-1)
