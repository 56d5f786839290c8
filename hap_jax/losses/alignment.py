"""Structure-invariant alignment loss of two masked views of one picture."""

import jax
import jax.numpy as jnp

from hap_jax import sharding
from hap_jax.models.layers import l2_normalize


def info_nce(query, keys, positive, temperature):
  """Returns the contrastive loss of each query against a bank of keys, times 2T.

  loss_i = -2T log( exp(q_i k_p(i) / T) / sum_j exp(q_i k_j / T) ), with all features scaled to unit length
  (HAP, arXiv 2310.20695, Sec. 3.3). The factor 2T comes from the official repository.

  Args:
    query: [B, D].
    keys: [N, D], the feature bank.
    positive: [B] int32, the index of the key that matches each query.
    temperature: T > 0.
  Returns:
    [B] float32, one loss per example.
  """
  # Parity: in the official code, no gradient flows through the keys. The formula of the paper is symmetric.
  keys = jax.lax.stop_gradient(l2_normalize(keys))
  logits = jnp.einsum("qd,kd->qk", l2_normalize(query), keys, precision="highest") / temperature
  log_prob = jax.nn.log_softmax(logits, axis=-1)
  return -2 * temperature * jnp.take_along_axis(log_prob, positive[:, None], axis=-1)[:, 0]


def blockwise_info_nce(query, keys, positive, temperature, block):
  """Returns `info_nce` without the [B, N] array of logits: the keys are processed in blocks.

  The largest logit so far and the sum of exponentials are carried from block to block. The sum is stored
  divided by the exponential of the largest logit, so it cannot overflow. The logits of a block are computed
  again for the gradient.

  Args:
    query, keys, positive, temperature: as in `info_nce`.
    block: number of keys in a block. The last block may have fewer keys.
  Returns:
    [B] float32, one loss per example.
  """
  query = l2_normalize(query)
  keys = jax.lax.stop_gradient(l2_normalize(keys))
  # scan needs blocks of one size, so the last block is padded, and `is_key` is False for the padding.
  num_blocks = -(-len(keys) // block)
  padded = jnp.pad(keys, ((0, num_blocks * block - len(keys)), (0, 0)))
  is_key = (jnp.arange(num_blocks * block) < len(keys)).reshape(num_blocks, block)

  @jax.checkpoint
  def add_block(carry, part):
    largest, total = carry
    some_keys, is_some = part
    logits = jnp.einsum("qd,kd->qk", query, some_keys, precision="highest") / temperature
    logits = jnp.where(is_some, logits, -jnp.inf)
    # `new_largest` only scales the sum, and the loss does not depend on this scale. So it needs no gradient.
    new_largest = jax.lax.stop_gradient(jnp.maximum(largest, logits.max(axis=1)))
    total = total * jnp.exp(largest - new_largest) + jnp.exp(logits - new_largest[:, None]).sum(axis=1)
    return (new_largest, total), None

  # Under shard_map, the carry of the scan varies over the devices, because the queries do. shard_map requires
  # that the start values also vary, so both are computed from the queries. No logit is below -1 / T, so
  # -2 / T is a safe first maximum.
  start = query[:, 0] * 0 - 2 / temperature, query[:, 0] * 0
  (largest, total), _ = jax.lax.scan(add_block, start, (padded.reshape(num_blocks, block, -1), is_key))
  matched = jnp.einsum("qd,qd->q", query, keys[positive], precision="highest") / temperature
  return -2 * temperature * (matched - largest - jnp.log(total))


def alignment_loss(first, second, temperature=0.2, block=0):
  """Returns the alignment loss of two views in both directions. Negatives are the other images of the batch.

  Args:
    first, second: [B, D], class tokens of the two views of the **global** batch, in the same order.
    temperature: T > 0, see `info_nce`.
    block: 0: all logits are one array, and the compiler distributes it over the devices. Above 0: the block
      size of `blockwise_info_nce`, and each device compares its own rows with the whole batch.
  Returns:
    [B] float32, info_nce(first -> second) + info_nce(second -> first).
  """

  if not block:
    positive = jnp.arange(len(first))
    return info_nce(first, second, positive, temperature) + info_nce(second, first, positive, temperature)

  def one_way(query, keys, first_row):
    # The positive key of a row is its own index in the whole batch, not its index on this device.
    return blockwise_info_nce(query, keys, first_row + jnp.arange(len(query)), temperature, block)

  to_second = sharding.against_whole_batch(one_way, first, second)
  return to_second + sharding.against_whole_batch(one_way, second, first)
