"""Initializers that several heads share: the defaults of PyTorch for convolutions and linear layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp

# A uniform distribution from -a to a has the variance a^2 / 3. Here the variance is 1 / (3 fan_in), so the
# values lie between -1 / sqrt(fan_in) and 1 / sqrt(fan_in).
UNIFORM_IN_FAN = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


def uniform_within(bound):
  """Returns an initializer that is uniform from -bound to bound, as PyTorch initialises biases."""
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)
