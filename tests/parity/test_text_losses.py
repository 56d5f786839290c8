"""Identity and ranking loss of text ReID against the official implementation. The tolerance is 1e-5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.losses import ranking
from hap_jax.losses.identity import identity_loss

SIDES = ("image", "text")


@pytest.fixture(scope="module")
def file(golden):
  return golden("text_losses")


@pytest.fixture(scope="module")
def cases(file, pick):
  """Returns {name: arrays} of the cases of the ranking loss."""
  names = sorted({key.split("/")[1] for key in file if key.startswith("rank/")})
  assert names
  return {name: pick(file, f"rank/{name}/") for name in names}


def assert_close(found, expected, name):
  np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0, err_msg=name)


def features(case):
  return [case[f"{side}_embedding"] for side in SIDES]


def directions(image, text):
  """Returns the similarities with pictures and with captions as anchors."""
  similarity = ranking.similarity(image, text)
  return similarity, similarity.T


@jax.jit
def candidates_of(image, text, labels, margin):
  return [ranking.candidates(rows, labels, margin) for rows in directions(image, text)]


@jax.jit
@jax.value_and_grad
def forced_loss(pair, negatives, is_used, margin):
  """Returns the ranking loss with given negatives; `negatives` and `is_used` are lists of two [B]."""
  parts = zip(directions(*pair), negatives, is_used, strict=True)
  return sum(ranking.hinge(rows, negative, used, margin).sum() for rows, negative, used in parts)


@jax.jit
@jax.value_and_grad
def expected_loss(pair, labels, margin):
  """Returns the mean of the ranking loss over all draws: the mean over the candidates of each anchor."""
  total = 0.0
  for rows in directions(*pair):
    is_candidate = ranking.candidates(rows, labels, margin)
    negatives = jnp.broadcast_to(jnp.arange(len(rows))[:, None], rows.shape)
    losses = jax.vmap(ranking.hinge, (None, 0, 1, None))(rows, negatives, is_candidate, margin)
    total += (losses.sum(axis=0) / jnp.maximum(is_candidate.sum(axis=1), 1)).sum()
  return total


def read_triplets(case, side):
  """Returns the stored triplets of one direction as (negative [B], is_used [B])."""
  anchor, positive, negative = case[f"{side}_triplets"].T
  np.testing.assert_array_equal(anchor, positive)
  negatives, is_used = np.zeros(len(case["labels"]), np.int32), np.zeros(len(case["labels"]), bool)
  negatives[anchor], is_used[anchor] = negative, True
  return negatives, is_used


def test_identity_loss_accuracies_and_gradients_agree_with_the_official_code(file, pick):
  case = pick(file, "id/")
  names = ("image_embedding", "text_embedding", "weight", "bias")

  @jax.jit
  @jax.value_and_grad
  def loss_of(given):
    logits = [feature @ given["weight"].T + given["bias"] for feature in features(given)]
    return sum(identity_loss(scores, case["labels"]).mean() for scores in logits)

  loss, gradients = loss_of({name: case[name] for name in names})
  assert_close(loss, case["loss"], "loss")
  for name in names:
    assert_close(gradients[name], case[f"grad_{name}"], name)
  for side, feature in zip(SIDES, features(case), strict=True):
    classes = np.argmax(feature @ case["weight"].T + case["bias"], axis=1)
    assert_close((classes == case["labels"]).mean(), case[f"acc_{side}"], side)


def test_similarities_and_candidates_agree_with_the_official_code(file, cases):
  for name, case in cases.items():
    assert_close(ranking.similarity(*features(case)), case["similarity"], name)
    found = candidates_of(*features(case), case["labels"], file["margin"])
    for side, is_candidate in zip(SIDES, found, strict=True):
      np.testing.assert_array_equal(is_candidate, case[f"candidates_{side}_anchor"], err_msg=name)


def test_stored_triplets_follow_our_rule_for_candidates(file, cases):
  """Also shows when the official code uses its replacement: the last anchor with its first negative."""
  for name, case in cases.items():
    labels = case["labels"]
    found = candidates_of(*features(case), labels, file["margin"])
    for side, is_candidate in zip(SIDES, map(np.asarray, found), strict=True):
      negatives, is_used = read_triplets(case, side)
      assert case[f"fallback_{side}"] == (not is_candidate.any()), name
      if is_candidate.any():
        np.testing.assert_array_equal(is_used, is_candidate.any(axis=1), err_msg=name)
        assert is_candidate[is_used, negatives[is_used]].all(), name
      else:
        assert np.flatnonzero(is_used).tolist() == [len(labels) - 1], name
        assert negatives[-1] == np.argmax(labels != labels[-1]), name


def test_loss_and_gradients_of_the_stored_triplets_agree_with_the_official_code(file, cases):
  for name, case in cases.items():
    negatives, is_used = zip(*(read_triplets(case, side) for side in SIDES), strict=True)
    loss, gradients = forced_loss(features(case), negatives, is_used, file["margin"])
    assert_close(loss, case["loss"], name)
    for side, gradient in zip(SIDES, gradients, strict=True):
      assert_close(gradient, case[f"grad_{side}_embedding"], name)
    # The loss without replacement triplets is the loss that training uses.
    is_drawn = [used & (case[f"fallback_{side}"] == 0) for side, used in zip(SIDES, is_used, strict=True)]
    loss, _ = forced_loss(features(case), negatives, is_drawn, file["margin"])
    assert_close(loss, case["loss_no_fallback"], name)


def test_mean_over_the_draw_and_its_gradients_agree_with_the_official_code(file, cases):
  for name, case in cases.items():
    loss, gradients = expected_loss(features(case), case["labels"], file["margin"])
    assert_close(loss, case["expected_loss_no_fallback"], name)
    for side, gradient in zip(SIDES, gradients, strict=True):
      assert_close(gradient, case[f"grad_expected_{side}_embedding"], name)


def test_drawn_losses_have_the_expected_mean(file, cases):
  keys = jax.random.split(jax.random.key(0), 4000)
  draw = jax.jit(jax.vmap(ranking.ranking_loss, (None, None, 0, None)))
  for name, case in cases.items():
    losses = np.add(*draw(case["similarity"], case["labels"], keys, file["margin"])).sum(axis=1)
    error = losses.std() / np.sqrt(len(losses))
    assert abs(losses.mean() - case["expected_loss_no_fallback"]) <= 4 * error + 1e-5, name
