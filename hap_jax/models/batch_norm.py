"""Batch normalisation with the running statistics of the reference implementations."""

import flax.linen as nn
import jax.numpy as jnp

EPSILON = 1e-5  # the default of PyTorch
MOMENTUM = 0.9  # share of the old running value that stays; PyTorch calls the other share, 0.1, the momentum


class BatchNorm(nn.Module):
  """Normalises each channel by the statistics of the batch in training, otherwise by the running statistics.

  The module differs from the batch norm of flax in the running variance. Both normalise a batch by its biased
  variance. This module then averages unbiased variances (biased variance * n / (n - 1) for n values per
  channel), as PyTorch does. The official checkpoints hold such values.

  The statistics are float32. If the batch is split over devices, they are the statistics of the whole batch.
  The parameters `scale` and `bias` and the collection `batch_stats` (`mean`, `var`) are [C] float32.

  Attributes:
    dtype: type of the result.
  """

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, *, train):
    """Normalises `x`.

    Args:
      x: [B, C] or [B, H, W, C].
      train: True: use the statistics of the batch and move the running statistics towards them, once per
        call. `batch_stats` must then be mutable.
    Returns:
      An array of the same shape.
    Raises:
      ValueError: if there is only one value per channel in training.
    """
    C = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones, (C,))
    bias = self.param("bias", nn.initializers.zeros, (C,))
    running_mean = self.variable("batch_stats", "mean", jnp.zeros, C)
    running_var = self.variable("batch_stats", "var", jnp.ones, C)
    x = x.astype(jnp.float32)
    mean, var = running_mean.value, running_var.value
    if train:
      axes, n = tuple(range(x.ndim - 1)), x.size // C
      if n < 2:
        raise ValueError(f"{self.name}: one value per channel has no variance; use a batch_size of 2 or more")
      mean = x.mean(axes)
      var = jnp.square(x - mean).mean(axes)
      # The pictures that create the parameters are not training data, so they leave the statistics unchanged.
      if not self.is_initializing():
        running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * mean
        running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * var * (n / (n - 1))
    return ((x - mean) * (scale / jnp.sqrt(var + EPSILON)) + bias).astype(self.dtype)
