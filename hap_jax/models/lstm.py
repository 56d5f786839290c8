"""A bidirectional LSTM for captions (Long Short-Term Memory, Hochreiter and Schmidhuber, 1997)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hap_jax.models import cpu_matmul
from hap_jax.models.initializers import uniform_within


class BidirectionalLstm(nn.Module):
  """One bidirectional LSTM layer without biases. The result is the mean of both directions.

  The LSTM cells of flax always have a bias, so the cell is written here. The parameters of a direction,
  "forward" or "backward", are two kernels: "input" [D, 4H] and "recurrent" [H, 4H]. The 4H columns are the
  input gate, the forget gate, the cell candidate and the output gate, as in PyTorch.

  Attributes:
    width: H, the width of the state.
    dtype: type of the matrix products. State, gates and result are float32, as are the parameters.
  """

  width: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, lengths):
    """Runs both directions.

    Args:
      x: [B, T, D] features of tokens.
      lengths: [B] int32. The backward direction starts at the last real token of a caption.
    Returns:
      [B, T, H] float32, zero behind each caption.
    """
    B, T, D = x.shape
    rows = x.astype(self.dtype).swapaxes(0, 1).reshape(T * B, D)  # a scan reads along the first axis
    is_real = (jnp.arange(T)[:, None] < lengths)[..., None]  # [T, B, 1]
    outputs = []
    for direction in ("forward", "backward"):
      kernels = _Kernels(D, self.width, name=direction)()
      input_kernel, recurrent_kernel = (kernel.astype(self.dtype) for kernel in kernels)
      # The products with the inputs of all steps are one large product, which is faster than T small ones.
      gates = cpu_matmul.matmul(rows, input_kernel).reshape(T, B, -1)
      outputs.append(_run(gates, recurrent_kernel, is_real, reverse=direction == "backward"))
    return ((outputs[0] + outputs[1]) / 2).swapaxes(0, 1)


class _Kernels(nn.Module):
  """The two kernels of one direction."""

  width_in: int
  width: int

  @nn.compact
  def __call__(self):
    # As PyTorch draws the matrices of its LSTM.
    init = uniform_within(self.width**-0.5)
    return (
      self.param("input", init, (self.width_in, 4 * self.width)),
      self.param("recurrent", init, (self.width, 4 * self.width)),
    )


def _run(gates, kernel, is_real, reverse):
  """Runs one direction.

  Args:
    gates: [T, B, 4H], the part of the gates that comes from the inputs.
    kernel: [H, 4H], the recurrent kernel.
    is_real: [T, B, 1] bool.
    reverse: True: from the last step to the first.
  Returns:
    [T, B, H] float32, zero behind each caption.
  """

  def step(state, inputs):
    hidden, cell = state
    gates, is_real = inputs
    gates = gates.astype(jnp.float32) + (hidden.astype(kernel.dtype) @ kernel).astype(jnp.float32)
    input_gate, forget_gate, candidate, output_gate = jnp.split(gates, 4, axis=-1)
    cell = jax.nn.sigmoid(forget_gate) * cell + jax.nn.sigmoid(input_gate) * jnp.tanh(candidate)
    hidden = jax.nn.sigmoid(output_gate) * jnp.tanh(cell)
    # The state is zero in the padding. So the backward direction starts at the last real token with a zero
    # state, and no caption has to be moved.
    hidden, cell = jnp.where(is_real, hidden, 0), jnp.where(is_real, cell, 0)
    return (hidden, cell), hidden

  zero = jnp.zeros((*gates.shape[1:-1], len(kernel)), jnp.float32)
  _, hidden = jax.lax.scan(step, (zero, zero), (gates, is_real), reverse=reverse)
  return hidden
