"""Tests of the ranking loss: hand-computed cases, the frequencies of the draw, and the devices."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from hap_jax import sharding
from hap_jax.losses import ranking

# Row = picture, column = caption. All numbers and the margin of 0.25 are exact in float32.
SIMILARITY = np.array(
  [
    [0.5, 0.375, 0.75, 0.25],
    [0.375, 0.5, 0.5, 0.4375],
    [-0.5, 0.125, 0.25, 0.125],
    [1.0, 0.25, 0.5, 1.0],
  ],
  np.float32,
)
LABELS = np.array([7, 3, 3, 9])
MARGIN = 0.25


def features(num_pairs=16, width=12, num_people=5, seed=0):
  """Draws features of pictures and captions [B, D] and labels [B]. The features of a person are similar."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(num_people, size=num_pairs)
  centers = 1 + rng.standard_normal((num_people, width))
  pair = [centers[labels] + 0.5 * rng.standard_normal((num_pairs, width)) for _ in range(2)]
  return (*(side.astype(np.float32) for side in pair), labels)


# Compiled, because every operation alone would be compiled on its own.
compute = jax.jit(ranking.ranking_loss)


def total(image, text, labels, key, margin=0.2):
  parts = ranking.ranking_loss(ranking.similarity(image, text), labels, key, margin)
  return sum(part.sum() for part in parts)


gradient = jax.jit(jax.value_and_grad(total, argnums=(0, 1)))


def test_similarity_is_the_cosine_for_features_of_any_length():
  image, text = np.array([[3.0, 4.0], [1e-3, 0.0]]), np.array([[0.0, 9.0], [1e4, 1e4]])
  expected = [[0.8, 1.4 / 2**0.5], [0, 0.5**0.5]]
  np.testing.assert_allclose(ranking.similarity(image, text), expected, atol=1e-6)


def test_candidates_are_less_similar_than_the_positive_but_inside_the_margin():
  # Picture 0: caption 1 is a candidate, caption 2 is too similar, and caption 3 is at the margin itself.
  # Picture 1: caption 2 is of the same person. Captions 0 and 3 are candidates.
  # Picture 2: caption 0 is outside the margin, caption 1 is of the same person, caption 3 is a candidate.
  # Picture 3: caption 0 is as similar as the own caption, the other captions are outside the margin.
  expected = [[0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0]]
  np.testing.assert_array_equal(ranking.candidates(SIMILARITY, LABELS, MARGIN), np.array(expected, bool))
  # Caption 2 has only pictures that are too similar, or of the same person.
  expected = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
  np.testing.assert_array_equal(ranking.candidates(SIMILARITY.T, LABELS, MARGIN), np.array(expected, bool))


def test_loss_of_a_hand_computed_case():
  pictures, captions = map(np.asarray, compute(SIMILARITY, LABELS, jax.random.key(0), MARGIN))
  assert pictures[[0, 2, 3]].tolist() == [0.125, 0.125, 0]
  assert pictures[1] in (0.125, 0.1875)  # one loss for each of the two candidates
  assert captions.tolist() == [0.125, 0.125, 0, 0]


def test_hinge_of_given_negatives_has_the_gradient_of_the_used_anchors():
  negative, is_used = np.array([1, 3, 0, 0]), np.array([True, True, True, False])
  loss = ranking.hinge(SIMILARITY, negative, is_used, MARGIN)
  assert loss.tolist() == [0.125, 0.1875, 0, 0]  # anchor 2 is outside the margin, anchor 3 is not used
  slope = jax.jit(jax.grad(lambda x: ranking.hinge(x, negative, is_used, MARGIN).sum()))(SIMILARITY)
  np.testing.assert_array_equal(slope, [[-1, 1, 0, 0], [0, -1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0]])


def test_a_batch_of_one_person_has_no_loss_and_no_gradient():
  image, text, labels = features()
  loss, gradients = gradient(image, text, np.full_like(labels, 3), jax.random.key(1))
  assert loss == 0
  assert not np.any(gradients)  # nan would count as True


def test_draw_is_uniform_over_the_candidates_and_independent_between_anchors():
  num_draws, size = 100_000, 8
  is_candidate = np.zeros((size, size), bool)
  for row, columns in enumerate(
    [[0, 2, 3, 5, 7], [0, 2, 3, 5, 7], [6], [], [0, 1], range(8), [1, 6, 7], [3]]
  ):
    is_candidate[row, list(columns)] = True
  keys = jax.random.split(jax.random.key(5), num_draws)
  index, has_candidate = jax.jit(jax.vmap(ranking.draw_negatives, (0, None)))(keys, is_candidate)
  index = np.asarray(index)
  np.testing.assert_array_equal(has_candidate, np.broadcast_to(is_candidate.any(axis=1), index.shape))
  assert not index[:, 3].any()
  for row in np.flatnonzero(is_candidate.any(axis=1)):
    counts = np.bincount(index[:, row], minlength=size)
    assert not counts[~is_candidate[row]].any()
    # With one candidate, the statistic is 0 and has no degree of freedom.
    if is_candidate[row].sum() > 1:
      assert stats.chisquare(counts[is_candidate[row]]).pvalue > 0.001, row
  # The first two anchors have the same five candidates, so all 25 pairs have the same probability.
  pairs = np.bincount(index[:, 0] * size + index[:, 1], minlength=size * size)
  assert stats.chisquare(pairs[pairs > 0]).pvalue > 0.001
  assert (pairs > 0).sum() == 25


def test_both_directions_draw_with_their_own_key():
  # The matrix is symmetric, so equal keys would draw the same negatives in both directions.
  size = 64
  rng = np.random.default_rng(2)
  matrix = rng.uniform(0.4, 0.49, (size, size)).astype(np.float32)
  matrix = np.maximum(matrix, matrix.T)
  np.fill_diagonal(matrix, 0.5)
  persons = np.arange(size)
  pictures, captions = map(np.asarray, compute(matrix, persons, jax.random.key(0)))
  assert (pictures == captions).sum() < size / 4
  again, other = (compute(matrix, persons, jax.random.key(seed))[0] for seed in (0, 1))
  np.testing.assert_array_equal(pictures, again)
  assert (pictures == other).sum() < size / 4


def test_eight_devices_have_the_loss_and_the_gradient_of_one_device():
  batch, key = features(), jax.random.key(3)
  one, one_gradients = gradient(*batch, key)
  assert one > 0.5  # some anchors have candidates
  mesh = sharding.make_mesh()
  batch = [jax.device_put(rows, sharding.batch_split(mesh)) for rows in batch]
  many, many_gradients = gradient(*batch, jax.device_put(key, sharding.replicated(mesh)))
  np.testing.assert_allclose(many, one, rtol=1e-6)
  for found, expected in zip(many_gradients, one_gradients, strict=True):
    assert len(found.sharding.device_set) == 8
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_similarity_of_bfloat16_features_is_float32():
  image, text, _ = features()
  found = jax.eval_shape(ranking.similarity, jnp.asarray(image, "bfloat16"), jnp.asarray(text, "bfloat16"))
  assert found.dtype == jnp.float32
