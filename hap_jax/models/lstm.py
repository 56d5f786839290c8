"""A bidirectional LSTM for captions (Long Short-Term Memory, Hochreiter and Schmidhuber, 1997)."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from hap_jax.models import cpu_matmul
from hap_jax.models.initializers import uniform_within


class BidirectionalLstm(nn.Module):
  """One bidirectional LSTM layer without biases. The result is the mean of both directions.

  The LSTM cells of flax always have a bias, so the cell is written here. The parameters of a direction are
  two kernels: "forward_input" [D, 4H] and "forward_recurrent" [H, 4H], or the same with "backward". The 4H
  columns are the input gate, the forget gate, the cell candidate and the output gate, as in PyTorch.

  Attributes:
    width: H, the width of the state.
    dtype: type of the matrix products. Parameters, state, gates and result are float32.
  """

  width: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, lengths):
    """Runs both directions.

    Args:
      x: [B, T, D] features of tokens.
      lengths: [B] int32, the number of real tokens of each caption. The backward direction starts at the last
        real token.
    Returns:
      [B, T, H] float32, zero in the padding.
    """
    init = uniform_within(self.width**-0.5)  # PyTorch draws the matrices of its LSTM in this way
    gates, recurrent = [], []
    for direction in ("forward", "backward"):
      # The products with the inputs of all steps are one large product, which is faster than T small ones.
      layer = nn.Dense(
        4 * self.width,
        use_bias=False,
        dtype=self.dtype,
        kernel_init=init,
        dot_general=cpu_matmul.dot_general,
        name=f"{direction}_input",
      )
      gates.append(layer(x).swapaxes(0, 1))  # a scan reads along the first axis
      kernel = _Kernel(init, (self.width, 4 * self.width), name=f"{direction}_recurrent")()
      recurrent.append(kernel.astype(self.dtype))
    is_real = (jnp.arange(x.shape[1])[:, None] < lengths)[..., None]  # [T, B, 1]
    forward, backward = _run(tuple(recurrent), (gates[0], gates[1][::-1]), (is_real, is_real[::-1]))
    return ((forward + backward[::-1]) / 2).swapaxes(0, 1)


class _Kernel(nn.Module):
  """A matrix with the name "kernel", as in `nn.Dense`."""

  kernel_init: Callable
  shape: tuple[int, int]

  @nn.compact
  def __call__(self):
    return self.param("kernel", self.kernel_init, self.shape)


def _run(kernels, gates, is_real):
  """Runs both directions in one loop, which compiles faster than two loops.

  Args:
    kernels: for each direction [H, 4H], the recurrent kernel.
    gates: for each direction [T, B, 4H], the part of the gates that comes from the inputs. For the backward
      direction, the last token is the first step.
    is_real: for each direction [T, B, 1] bool, False in the padding. The steps have the order of the gates.
  Returns:
    for each direction [T, B, H] float32, zero in the padding.
  """

  def step(states, inputs):
    states = tuple(_cell(*parts) for parts in zip(states, kernels, *inputs, strict=True))
    return states, tuple(hidden for hidden, _ in states)

  zero = jnp.zeros((gates[0].shape[1], len(kernels[0])), jnp.float32)
  _, hidden = jax.lax.scan(step, ((zero, zero),) * 2, (gates, is_real))
  return hidden


def _cell(state, kernel, gates, is_real):
  """Returns the next (hidden, cell), [B, H] float32 each, of one direction."""
  hidden, cell = state
  gates = gates.astype(jnp.float32) + (hidden.astype(kernel.dtype) @ kernel).astype(jnp.float32)
  input_gate, forget_gate, candidate, output_gate = jnp.split(gates, 4, axis=-1)
  cell = jax.nn.sigmoid(forget_gate) * cell + jax.nn.sigmoid(input_gate) * jnp.tanh(candidate)
  hidden = jax.nn.sigmoid(output_gate) * jnp.tanh(cell)
  # The state is zero in the padding. So the backward direction starts at the last real token with a zero
  # state, and no caption has to be shifted.
  return jnp.where(is_real, hidden, 0), jnp.where(is_real, cell, 0)
