"""Losses of 3D pose and shape. Each returns one value per person."""

import jax.numpy as jnp


def joint_error(pred, target, weight):
  """Returns the mean absolute error over joints and coordinates: mean_jc w_j |p_jc - t_jc|.

  A joint with weight 0 adds 0 to the error, but it counts in the mean, as in the official code.

  Args:
    pred, target: [B, J, C] float32.
    weight: [B, J] float32.
  Returns:
    [B] float32.
  """
  weight = weight[..., None]
  # `where` keeps an infinite error of a joint with weight 0 out of the loss.
  return jnp.where(weight > 0, weight * jnp.abs(pred - target), 0.0).mean(axis=(1, 2))


def squared_error(pred, target):
  """Returns the mean squared error over all axes except the first: [B, ...] -> [B] float32."""
  return jnp.square(pred - target).reshape(len(pred), -1).mean(axis=1)


def absolute_error(pred, target):
  """Returns the mean absolute error over all axes except the first: [B, ...] -> [B] float32."""
  return jnp.abs(pred - target).reshape(len(pred), -1).mean(axis=1)


def mean_over_people(error, has_truth):
  """Returns the mean error over the people with a true value, or 0 if nobody has one.

  Args:
    error: [B] float32.
    has_truth: [B] bool. False: the true value of this person is unknown.
  Returns:
    scalar float32.
  """
  count = jnp.maximum(has_truth.sum(), 1).astype(jnp.float32)
  return jnp.where(has_truth, error, 0.0).sum() / count
