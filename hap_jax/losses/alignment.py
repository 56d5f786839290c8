"""Structure-invariant alignment of two masked views of one picture."""

import jax
import jax.numpy as jnp

from hap_jax import sharding
from hap_jax.models.layers import l2_normalize


def info_nce(query, keys, positive, temperature):
  """Contrastive loss of each query against a bank of keys, times 2T.

  loss_i = -2T log( exp(q_i k_p(i) / T) / sum_j exp(q_i k_j / T) ), all features scaled to unit length.

  Args:
    query: [B, D]. keys: [N, D], the feature bank. positive: [B] int32, the key that matches each query.
    temperature: T > 0.
  Returns:
    [B] float32, one loss an example (HAP, arXiv 2310.20695, Sec. 3.3; the factor is the official
    repository's).
  """
  # Parity: keys carry no gradient in the official code, though the paper's formula is symmetric.
  keys = jax.lax.stop_gradient(l2_normalize(keys))
  logits = jnp.einsum("qd,kd->qk", l2_normalize(query), keys, precision="highest") / temperature
  log_prob = jax.nn.log_softmax(logits, axis=-1)
  return -2 * temperature * jnp.take_along_axis(log_prob, positive[:, None], axis=-1)[:, 0]


def blockwise_info_nce(query, keys, positive, temperature, block):
  """`info_nce` without its [B, N] logits: keys come `block` at a time, forward and backward.

  The sum of exponentials is carried from block to block beside the largest logit so far, by which it is
  scaled, and the logits of a block are computed again for the gradient.

  Args:
    block: keys at a time; the last block may be shorter.
  """
  query = l2_normalize(query)
  keys = jax.lax.stop_gradient(l2_normalize(keys))
  num_blocks = -(-len(keys) // block)
  padded = jnp.pad(keys, ((0, num_blocks * block - len(keys)), (0, 0)))
  is_key = (jnp.arange(num_blocks * block) < len(keys)).reshape(num_blocks, block)

  @jax.checkpoint
  def add_block(carry, part):
    largest, total = carry
    some_keys, is_some = part
    logits = jnp.einsum("qd,kd->qk", query, some_keys, precision="highest") / temperature
    logits = jnp.where(is_some, logits, -jnp.inf)
    new_largest = jax.lax.stop_gradient(jnp.maximum(largest, logits.max(axis=1)))
    total = total * jnp.exp(largest - new_largest) + jnp.exp(logits - new_largest[:, None]).sum(axis=1)
    return (new_largest, total), None

  # Both begin as something of the queries, so that under shard_map they vary over the devices as those do.
  start = query[:, 0] * 0 - 2 / temperature, query[:, 0] * 0  # no logit is below -1 / T
  (largest, total), _ = jax.lax.scan(add_block, start, (padded.reshape(num_blocks, block, -1), is_key))
  matched = jnp.einsum("qd,qd->q", query, keys[positive], precision="highest") / temperature
  return -2 * temperature * (matched - largest - jnp.log(total))


def alignment_loss(first, second, temperature=0.2, block=0):
  """Aligns the class tokens of two views in both directions; the other images of the batch are the negatives.

  Args:
    first, second: [B, D] class tokens of the two views, the **global** batch in the same order.
    block: 0: all logits at once, where the compiler likes; else keys at a time of `blockwise_info_nce`, each
      device against the whole batch for its own rows.
  Returns:
    [B] float32, info_nce(first -> second) + info_nce(second -> first).
  """

  if not block:
    positive = jnp.arange(len(first))
    return info_nce(first, second, positive, temperature) + info_nce(second, first, positive, temperature)

  def one_way(query, keys, first_row):
    return blockwise_info_nce(query, keys, first_row + jnp.arange(len(query)), temperature, block)

  to_second = sharding.against_whole_batch(one_way, first, second)
  return to_second + sharding.against_whole_batch(one_way, second, first)
