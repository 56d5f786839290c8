"""Turns other ways to store a plain ViT into the usual tensors, without a change of its features.

- The biases of queries and values are two tensors, and keys have no bias: they are joined, with zeros for
keys. - Queries, keys and values have no bias: the bias is zero. - The outputs of attention and MLP are
multiplied by a vector (layer scale, arXiv 2103.17239): the vector is
  multiplied into the last linear layer of each.
- The position table has no row for the class token: the row is zero.

Tensors that do not have the expected shape are left as they are. The reader then reports their names or
shapes.
"""

import re

import ml_dtypes
import numpy as np

from hap_jax.convert.weights import square_side

_FLOATS = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)
# {vector of a block: linear layer that gets it}, in the names of timm, DeiT III, DINOv2 and transformers.
_SCALES = {
  **dict.fromkeys(("ls1.gamma", "gamma_1"), "attn.proj"),
  **dict.fromkeys(("ls2.gamma", "gamma_2"), "mlp.fc2"),
  "layer_scale1.lambda1": "attention.output.dense",
  "layer_scale2.lambda1": "mlp.fc2",
}


def of_blocks(state, prefix):
  """Joins the biases and multiplies the layer scales of all blocks.

  Args:
    state: {name in the spelling of a family's table: array}.
    prefix: the text before the number of a block in a name, such as "blocks.".
  Returns:
    (state without the tensors that were joined or multiplied, {name of a changed tensor: names of those}).
  """
  state, made = dict(state), {}
  numbers = dict.fromkeys(re.findall(rf"^{re.escape(prefix)}(\d+)\.", "\n".join(state), re.MULTILINE))
  blocks = [f"{prefix}{number}." for number in numbers]
  for block in blocks:
    _join_biases(state, made, block)
    for name, layer in _SCALES.items():
      _multiply(state, made, f"{block}{name}", f"{block}{layer}")
  # A file without the bias of one block is damaged. A model without bias has none in any block.
  names = [f"{block}attn.qkv" for block in blocks]
  if not any(f"{name}.bias" in state for name in names):
    for name in names:
      if _is_matrix(state.get(f"{name}.weight")):
        state[f"{name}.bias"], made[f"{name}.bias"] = np.zeros(len(state[f"{name}.weight"]), np.float32), ()
  return state, made


def _join_biases(state, made, block):
  query, value, whole = (f"{block}attn.{name}" for name in ("q_bias", "v_bias", "qkv.bias"))
  parts = [state.get(query), state.get(value)]
  if whole in state or not all(_is_vector(part) for part in parts) or parts[0].shape != parts[1].shape:
    return
  q, v = (state.pop(name).astype(np.float32) for name in (query, value))
  state[whole], made[whole] = np.concatenate([q, np.zeros_like(q), v]), (query, value)


def _multiply(state, made, scale, layer):
  weight, bias = f"{layer}.weight", f"{layer}.bias"
  vector, matrix, offset = state.get(scale), state.get(weight), state.get(bias)
  if not (_is_vector(vector) and _is_matrix(matrix) and _is_vector(offset)):
    return
  if not len(vector) == len(matrix) == len(offset):
    return
  vector = state.pop(scale).astype(np.float32)
  with np.errstate(over="ignore", invalid="ignore"):  # an infinite product is an error of a later check
    state[weight] = matrix.astype(np.float32) * vector[:, None]
    state[bias] = offset.astype(np.float32) * vector
  made[weight] = made[bias] = (scale,)


def with_class_row(state, made, table, is_without):
  """Adds a row of zeros for the class token to a position table.

  Args:
    state: {name: array}.
    made: the second result of `of_blocks`.
    table: the name of the position table.
    is_without: function of the number of rows of the table that returns True if no row is of the class token.
  Returns:
    (state, made). Both are unchanged if the table has a row for the class token.
  """
  array = state.get(table)
  if array is None or array.ndim != 3 or array.dtype not in _FLOATS or not is_without(array.shape[1]):
    return state, made
  row = np.zeros((array.shape[0], 1, array.shape[2]), np.float32)
  return {**state, table: np.concatenate([row, array.astype(np.float32)], axis=1)}, {**made, table: ()}


def is_square_without_row(num_rows):
  """Returns True if a number of rows is a square number, which it is not with a row for the class token."""
  return square_side(num_rows) is not None and square_side(num_rows - 1) is None


def _is_vector(array):
  return array is not None and array.ndim == 1 and array.dtype in _FLOATS


def _is_matrix(array):
  return array is not None and array.ndim == 2 and array.dtype in _FLOATS
