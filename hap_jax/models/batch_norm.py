"""Batch normalisation with the running statistics of the reference implementations."""

import flax.linen as nn
import jax.numpy as jnp

EPSILON = 1e-5
MOMENTUM = 0.9  # share of a running value that stays; PyTorch calls the other share, 0.1, the momentum


class BatchNorm(nn.Module):
  """Normalises each channel by the batch's statistics in training and by running ones otherwise.

  Differs from flax's in one number: batches are normalised by their biased variance, but the running variance
  is of unbiased ones (n / (n - 1), n values a channel), as in PyTorch, whose checkpoints hold such values.
  Statistics are float32 and, in a batch that is split over devices, of the whole batch.

  Attributes:
    dtype: type of the result; parameters `scale`, `bias` and collection `batch_stats` (`mean`, `var`, all
      [C]) are float32.
  """

  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, *, train):
    """Normalises.

    Args:
      x: [B, C] or [B, H, W, C]. train: use the batch's statistics and move the running ones towards them,
        once a call; `batch_stats` must then be mutable.
    Returns:
      the same shape.
    Raises:
      ValueError: in training, for one value a channel.
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
        raise ValueError(f"{self.name}: one value a channel has no variance; use a batch_size of 2 or more")
      mean = x.mean(axes)
      var = jnp.square(x - mean).mean(axes)
      if not self.is_initializing():
        running_mean.value = MOMENTUM * running_mean.value + (1 - MOMENTUM) * mean
        running_var.value = MOMENTUM * running_var.value + (1 - MOMENTUM) * var * (n / (n - 1))
    return ((x - mean) * (scale / jnp.sqrt(var + EPSILON)) + bias).astype(self.dtype)
