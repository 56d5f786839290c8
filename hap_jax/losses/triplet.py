"""Triplet loss on the hardest pairs of a batch (arXiv 1703.07737)."""

import jax
import jax.numpy as jnp

_MIN_SQUARED_DISTANCE = 1e-12


def triplet_loss(feature, labels, margin=None):
  """Compares the farthest example of the same person with the nearest one of another.

  p_i = max over y_j = y_i of |f_i - f_j|, n_i = min over y_j != y_i of |f_i - f_j|;
  loss_i = log(1 + exp(p_i - n_i)), or max(0, p_i - n_i + margin).

  Args:
    feature: [B, D], not normalised, the **global** batch. labels: [B] int.
    margin: of the hinge; None: the soft margin of the official ReID recipe.
  Returns:
    [B] float32, one loss an anchor; 0 for an anchor without any other person in the batch.
  """
  positive, negative = hardest_distances(feature, labels)
  gap = positive - negative
  return jax.nn.softplus(gap) if margin is None else jnp.maximum(gap + margin, 0.0)


def hardest_distances(feature, labels):
  """Finds each example's distance to its hardest pairs.

  Args:
    as of `triplet_loss`.
  Returns:
    (p, n): [B] float32 each; p is at least 1e-6, n infinite where all examples are of one person.
  """
  feature = feature.astype(jnp.float32)
  is_same = labels[:, None] == labels
  # Parity: the gradient reaches the one pair that was found, where a max would share it among equal ones, and
  # none whose distance is clamped: an example and its own copy.
  squared = squared_distances(jax.lax.stop_gradient(feature))
  farthest = jnp.argmax(jnp.where(is_same, squared, -jnp.inf), axis=1)
  nearest = jnp.argmin(jnp.where(is_same, jnp.inf, squared), axis=1)
  negative = _distance(feature, feature[nearest])
  return _distance(feature, feature[farthest]), jnp.where(is_same.all(axis=1), jnp.inf, negative)


def squared_distances(feature):
  """Returns |f_i - f_j|^2 of all pairs of [B, D] features, [B, B], never negative."""
  length = jnp.sum(jnp.square(feature), axis=-1)
  product = jnp.matmul(feature, feature.T, precision="highest")
  return jnp.maximum(length[:, None] + length - 2 * product, 0.0)


def _distance(a, b):
  return jnp.sqrt(jnp.maximum(jnp.sum(jnp.square(a - b), axis=-1), _MIN_SQUARED_DISTANCE))
