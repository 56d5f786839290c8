"""Structure-invariant alignment of two masked views of one picture."""

import jax
import jax.numpy as jnp


def l2_normalize(feature):
  """Scales each [..., D] feature to unit length, in float32."""
  feature = feature.astype(jnp.float32)
  return feature / jnp.maximum(jnp.linalg.norm(feature, axis=-1, keepdims=True), 1e-12)


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


def alignment_loss(first, second, temperature=0.2):
  """Aligns the class tokens of two views in both directions; the other images of the batch are the negatives.

  Args:
    first, second: [B, D] class tokens of the two views, the **global** batch in the same order.
  Returns:
    [B] float32, info_nce(first -> second) + info_nce(second -> first).
  """
  positive = jnp.arange(len(first))
  return info_nce(first, second, positive, temperature) + info_nce(second, first, positive, temperature)
