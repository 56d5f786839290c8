"""Ranking loss of pictures and captions. Each anchor is compared with one negative inside the margin.

The source is the official code (junkunyuan/HAP, downstream_tasks/text_to_image_person_reid).
"""

import jax
import jax.numpy as jnp

from hap_jax.models.layers import l2_normalize


def similarity(image_feature, text_feature):
  """Returns the cosine of every picture with every caption: S_ij = <v_i, t_j> / (|v_i| |t_j|).

  Args:
    image_feature: [B, D], not normalised, the **global** batch.
    text_feature: [B, D], not normalised. Row i is the caption of picture i.
  Returns:
    [B, B] float32, row = picture, column = caption.
  """
  return jnp.matmul(l2_normalize(image_feature), l2_normalize(text_feature).T, precision="highest")


def ranking_loss(similarity, labels, key, margin=0.2):
  """Returns the ranking loss of every picture and of every caption as anchor.

  loss_i = max(0, m - S_ii + S_ij), where j is drawn uniformly from the candidates of anchor i, see
  `candidates`. An anchor without a candidate has loss 0. The loss of the official code is the *sum* over all
  anchors of both directions.

  If no anchor of a direction has a candidate, the official code uses one replacement triplet. This function
  does not, because the rule can forbid the negative of that triplet.

  Args:
    similarity: [B, B], from the function `similarity`.
    labels: [B] int, the person y_i of each pair of picture and caption.
    key: PRNG key of the draw.
    margin: m > 0.
  Returns:
    (image_anchor, text_anchor): [B] float32 each. Both are 0 if all pairs show one person.
  """
  image_key, text_key = jax.random.split(key)

  def one_way(similarity, key):
    negative, has_candidate = draw_negatives(key, candidates(similarity, labels, margin))
    return hinge(similarity, negative, has_candidate, margin)

  return one_way(similarity, image_key), one_way(similarity.T, text_key)


def candidates(similarity, labels, margin):
  """Returns the negatives that are less similar than the positive, but by less than the margin.

  j is a candidate of anchor i if y_j != y_i and 0 < S_ij - S_ii + m < m. The positive of an anchor is the
  diagonal. So other pairs of the same person are neither positives nor negatives.

  Args:
    similarity: [B, B], row = anchor. For captions as anchors, it is the transposed matrix.
    labels: [B] int, the persons y.
    margin: m > 0.
  Returns:
    [B, B] bool, row = anchor. The choice has no gradient.
  """
  similarity = jax.lax.stop_gradient(similarity)
  # Parity: a negative that is more similar than the positive is never a candidate, although its hinge would
  # be the largest. Only the identity loss moves such pairs apart.
  gap = similarity - jnp.diagonal(similarity)[:, None] + margin
  return (labels[:, None] != labels) & (gap > 0) & (gap < margin)


def draw_negatives(key, candidates):
  """Draws one candidate of each anchor. All candidates of an anchor have the same probability.

  Args:
    key: PRNG key.
    candidates: [B, B] bool, row = anchor.
  Returns:
    (index [B] int32, has_candidate [B] bool). The index of an anchor without a candidate is 0.
  """
  count = candidates.sum(axis=1)
  # The place of the drawn candidate among the candidates of its row, from 0.
  place = jax.random.randint(key, count.shape, 0, jnp.maximum(count, 1))
  # The running count first exceeds `place` at the drawn candidate, and argmax returns the first True.
  index = jnp.argmax(jnp.cumsum(candidates, axis=1) > place[:, None], axis=1)
  return index.astype(jnp.int32), count > 0


def hinge(similarity, negative, is_used, margin):
  """Returns max(0, m - S_ii + S_ij) of each anchor i with its given negative j.

  Args:
    similarity: [B, B], row = anchor.
    negative: [B] int, the index j of each anchor.
    is_used: [B] bool. False: the anchor has loss 0 and no gradient.
    margin: m > 0.
  Returns:
    [B] float32.
  """
  gap = jnp.take_along_axis(similarity, negative[:, None], axis=1)[:, 0] - jnp.diagonal(similarity)
  return jnp.where(is_used, jnp.maximum(gap + margin, 0.0), 0.0)
