"""Triplet loss on the hardest pairs of a batch (arXiv 1703.07737)."""

import jax
import jax.numpy as jnp

_MIN_SQUARED_DISTANCE = 1e-12  # distances are clamped, because the gradient of a square root is infinite at 0


def triplet_loss(feature, labels, margin=None):
  """Returns the triplet loss of each example with its hardest positive and its hardest negative.

  p_i = max over y_j = y_i of |f_i - f_j|, n_i = min over y_j != y_i of |f_i - f_j|.
  Without a margin, loss_i = log(1 + exp(p_i - n_i)). With a margin, loss_i = max(0, p_i - n_i + margin).

  Args:
    feature: [B, D], not normalised, the **global** batch.
    labels: [B] int.
    margin: margin of the hinge. None: the soft margin of the official ReID recipe.
  Returns:
    [B] float32, one loss per example. It is 0 if all examples of the batch are of one person.
  """
  positive, negative = hardest_distances(feature, labels)
  gap = positive - negative
  return jax.nn.softplus(gap) if margin is None else jnp.maximum(gap + margin, 0.0)


def hardest_distances(feature, labels):
  """Returns the distances of each example to its hardest positive and its hardest negative.

  Args:
    feature, labels: as in `triplet_loss`.
  Returns:
    (p, n): [B] float32 each. p is at least 1e-6. n is infinite if all examples are of one person.
  """
  feature = feature.astype(jnp.float32)
  is_same = labels[:, None] == labels
  # Parity: the pairs are chosen without a gradient, and the distances of the chosen pairs are computed again.
  # So if several pairs have the same distance, only the first pair gets a gradient. With the gradient of a
  # max, these pairs would share it. A pair of identical features gets no gradient, because its distance is
  # clamped.
  squared = squared_distances(jax.lax.stop_gradient(feature))
  farthest = jnp.argmax(jnp.where(is_same, squared, -jnp.inf), axis=1)
  nearest = jnp.argmin(jnp.where(is_same, jnp.inf, squared), axis=1)
  negative = _distance(feature, feature[nearest])
  return _distance(feature, feature[farthest]), jnp.where(is_same.all(axis=1), jnp.inf, negative)


def squared_distances(feature):
  """Returns |f_i - f_j|^2 for all pairs of [B, D] features: [B, B], never negative."""
  length = jnp.sum(jnp.square(feature), axis=-1)
  product = jnp.matmul(feature, feature.T, precision="highest")
  # Rounding can make the distance of equal features slightly negative.
  return jnp.maximum(length[:, None] + length - 2 * product, 0.0)


def _distance(a, b):
  return jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(a - b), axis=-1), _MIN_SQUARED_DISTANCE))
