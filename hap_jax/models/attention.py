"""Softmax attention with its own gradient. No array of logits is kept for the gradient.

The gradient needs the outputs and one number per query, the logarithm of the softmax's sum. It computes the
logits again (as in FlashAttention, arXiv 2205.14135, but with plain matrix products).

The tokens of a sequence may be several groups. 128 tokens fit the registers of a TPU exactly, and 129 tokens
need twice the memory. So the decoder has the class token in a group of its own.
"""

import functools

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

# Names of the outputs and of the logarithms, for the policies of `layers.REMAT_POLICIES`.
KEPT = ("attended", "log_sum")


def attend(queries, keys, values, implementation="xla", is_real=None):
  """Computes softmax attention of every query to the keys of all groups.

  Args:
    queries, keys, values: tuples with one array [B, T_i, heads, D/heads] for each group of tokens.
    implementation: "xla": plain matrix products. "cudnn": the fused kernel of
      `jax.nn.dot_product_attention`.
    is_real: [B, T] bool, only for a single group. False for the padding of a row: such a token gets no
      attention. None: no padding.
  Returns:
    a tuple of [B, T_i, heads, D/heads]. Logits and softmax are computed in float32.
  """
  if implementation != "xla":
    mask = None if is_real is None else is_real[:, None, None]
    query, key, value = (jnp.concatenate(groups, axis=1) for groups in (queries, keys, values))
    attended = jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=implementation)
    return tuple(jax.lax.split(attended, [group.shape[1] for group in queries], axis=1))
  # Scaling the query is cheaper than scaling the logits, because there are more logits.
  queries = tuple(query * query.shape[-1] ** -0.5 for query in queries)
  return _attend(queries, keys, values, is_real)


@jax.custom_vjp
def _attend(queries, keys, values, is_real):
  return _attend_forward(queries, keys, values, is_real)[0]


def _attend_forward(queries, keys, values, is_real):
  outputs, log_sums = zip(*(_attend_group(query, keys, values, is_real) for query in queries), strict=True)
  return outputs, (queries, keys, values, is_real, outputs, log_sums)


def _attend_group(query, keys, values, is_real):
  """Returns the outputs [B, T_i, heads, d] of one group of queries, and the logarithms [B, heads, T_i, 1]."""
  logits = [_logits(query, key, is_real) for key in keys]
  largest = _total([x.max(-1, keepdims=True) for x in logits], jnp.maximum)
  weights = [jnp.exp(x - largest) for x in logits]
  sums = _total([x.sum(-1, keepdims=True) for x in weights])
  mixed = _total([_mix(x.astype(query.dtype), value) for x, value in zip(weights, values, strict=True)])
  # The division comes after the product, because there are fewer outputs than weights.
  output = (mixed / sums.transpose(0, 2, 1, 3)).astype(query.dtype)
  names = zip((output, largest + jnp.log(sums)), KEPT, strict=True)
  return tuple(checkpoint_name(x, name) for x, name in names)


def _attend_backward(saved, gradients):
  queries, keys, values, is_real, outputs, log_sums = saved
  # {queries, keys, values: [group] -> list of the parts of its gradient}
  for_queries, for_keys, for_values = ([[] for _ in queries] for _ in range(3))
  for i, (query, output, log_sum, gradient) in enumerate(
    zip(queries, outputs, log_sums, gradients, strict=True)
  ):
    # Of each query, this is also the sum over the keys of weight * gradient of this weight.
    dot = jnp.einsum("bthd,bthd->bht", output, gradient, preferred_element_type=jnp.float32)[..., None]
    for j, (key, value) in enumerate(zip(keys, values, strict=True)):
      weights = jnp.exp(_logits(query, key, is_real) - log_sum)
      logit_gradient = weights * (_logits(gradient, value) - dot)
      for_queries[i].append(_mix(logit_gradient, key))
      for_keys[j].append(_mix(logit_gradient.swapaxes(2, 3), query))
      for_values[j].append(_mix(weights.astype(query.dtype).swapaxes(2, 3), gradient))
  groups = (
    tuple(_total(parts).astype(queries[0].dtype) for parts in x) for x in (for_queries, for_keys, for_values)
  )
  return *groups, None


_attend.defvjp(_attend_forward, _attend_backward)


def _logits(query, key, is_real=None):
  """Returns the products of every query with every key, [B, heads, T, S] float32."""
  logits = jnp.einsum("bthd,bshd->bhts", query, key, preferred_element_type=jnp.float32)
  if is_real is None:
    return logits
  # The lowest number instead of -inf: a row without any real token then gives finite values, not NaN.
  return jnp.where(is_real[:, None, None], logits, jnp.finfo(logits.dtype).min)


def _mix(weights, value):
  """Returns sums of values with weights [B, heads, T, S], as [B, T, heads, D/heads] float32."""
  return jnp.einsum("bhts,bshd->bthd", weights, value, preferred_element_type=jnp.float32)


def _total(parts, add=jnp.add):
  """Returns the sum of the arrays of all groups."""
  return functools.reduce(add, parts)
