"""Reconstruction loss of masked image modelling."""

import jax.numpy as jnp

# Parity: MAE and the official repository add the epsilon inside the square root.
PATCH_VARIANCE_EPSILON = 1e-6


def normalize_patches(patches):
  """Standardises each patch by its own mean and unbiased variance: (x - mean) / sqrt(var + 1e-6).

  Source: MAE, arXiv 2111.06377, "normalized pixels".

  Args:
    patches: [..., P*P*C].
  Returns:
    An array of the same shape, float32.
  """
  patches = patches.astype(jnp.float32)
  mean = patches.mean(-1, keepdims=True)
  variance = patches.var(-1, ddof=1, keepdims=True)
  return (patches - mean) / jnp.sqrt(variance + PATCH_VARIANCE_EPSILON)


def masked_patch_loss(pred, target, is_masked):
  """Sums the squared error over the hidden patches: sum_l masked_l * mean_p (pred_lp - target_lp)^2.

  The loss of a batch is the total of the sums divided by the total of the counts.
  Source: HAP, arXiv 2310.20695, Eq. 1.

  Args:
    pred, target: [..., L, P*P*C] float.
    is_masked: [..., L] bool.
  Returns:
    (sum, count): [...] float32 each.
  """
  error = jnp.mean(jnp.square(pred.astype(jnp.float32) - target), axis=-1)
  is_masked = is_masked.astype(jnp.float32)
  return jnp.sum(error * is_masked, axis=-1), jnp.sum(is_masked, axis=-1)
