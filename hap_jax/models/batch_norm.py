"""Batch normalisation with running statistics as in PyTorch, which the official code uses."""

import flax.linen as nn
import jax.numpy as jnp

EPSILON = 1e-5  # the default of PyTorch
MOMENTUM = 0.9  # share of the old running value; `momentum` in PyTorch is the share of the new value, 0.1


class BatchNorm(nn.Module):
  """Normalises each channel by the statistics of the batch in training, otherwise by the running statistics.

  This module and the batch norm of flax have different running variances. Both normalise a batch by its
  biased variance. But the running variance of this module is an average of unbiased variances, as in PyTorch.
  The unbiased variance is the biased variance * n / (n - 1) for n values per channel. The official
  checkpoints contain such averages.

  The statistics are float32. They cover the whole batch, also if the batch is split over devices.
  The parameters `scale` and `bias` and the collection `batch_stats` (`mean`, `var`) are [C] float32.

  Attributes:
    dtype: type of the result.
  """

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, *, train):
    """Normalises `x`.

    Args:
      x: [B, C] or [B, H, W, C] float.
      train: True: use the statistics of the batch, and update the running statistics once per call.
        `batch_stats` must then be mutable.
    Returns:
      An array of the same shape, in the type `dtype`.
    Raises:
      ValueError: if a channel has only one value in training.
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
      # The pictures that initialise the parameters are not training data, so they change no statistics.
      if not self.is_initializing():
        running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * mean
        running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * var * (n / (n - 1))
    return ((x - mean) * (scale / jnp.sqrt(var + EPSILON)) + bias).astype(self.dtype)
