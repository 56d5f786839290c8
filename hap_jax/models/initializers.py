"""Initial values that several heads share: those of PyTorch's convolutions and linear layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp

UNIFORM_IN_FAN = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # within 1 / sqrt(fan_in)


def uniform_within(bound):
  """Makes an initializer uniform on -bound ... bound, as that of PyTorch's biases."""
  return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)
