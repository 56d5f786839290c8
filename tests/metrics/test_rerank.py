"""Tests of k-reciprocal re-ranking against the definitions of the paper, computed with dense matrices."""

import numpy as np
import pytest

from hap_jax.metrics import retrieval
from hap_jax.metrics.rerank import Reranked, Reranking


def dense(query, gallery, k1, k2, weight):
  """Returns the final distances [Q, G], computed with sets and dense matrices (arXiv 1701.08398, Sec. 3)."""
  x = np.concatenate([query, gallery]).astype(np.float64)
  x /= np.linalg.norm(x, axis=1, keepdims=True)
  distance = ((x[:, None] - x[None]) ** 2).sum(-1)
  # As in the code of the authors, each row is divided by its largest distance.
  distance /= distance.max(axis=1, keepdims=True)
  N = len(x)
  order = np.argsort(distance, axis=1, kind="stable")

  def reciprocal(i, k):
    # k + 1, because a feature is its own nearest neighbour.
    return {j for j in order[i, : k + 1] if i in order[j, : k + 1]}

  V = np.zeros((N, N))
  for i in range(N):
    base = reciprocal(i, k1)
    expanded = set(base)
    for j in base:
      half = reciprocal(j, int(np.around(k1 / 2)))
      if 3 * len(base & half) > 2 * len(half):
        expanded |= half
    members = sorted(expanded)
    V[i, members] = np.exp(-distance[i, members])
    V[i] /= V[i].sum()
  if k2 > 1:
    V = np.stack([V[order[i, :k2]].mean(axis=0) for i in range(N)])
  least = np.minimum(V[:, None], V[None]).sum(-1)
  most = np.maximum(V[:, None], V[None]).sum(-1)
  jaccard = 1 - least / most
  Q = len(query)
  return (1 - weight) * jaccard[:Q, Q:] + weight * distance[:Q, Q:]


def draw_clusters(rng, num_queries, num_gallery, num_pids=8, width=12):
  centers = rng.standard_normal((num_pids, width))
  query_pid, gallery_pid = np.arange(num_queries) % num_pids, np.arange(num_gallery) % num_pids
  query, gallery = (
    centers[pid] + 0.7 * rng.standard_normal((len(pid), width)) for pid in (query_pid, gallery_pid)
  )
  return query.astype(np.float32), gallery.astype(np.float32), query_pid, gallery_pid


@pytest.mark.parametrize(
  ("k1", "k2", "weight"), [(20, 6, 0.3), (7, 3, 0.3), (6, 1, 0.0), (5, 6, 0.8), (99, 2, 0.5)]
)
def test_distances_agree_with_the_dense_computation(k1, k2, weight):
  query, gallery, *_ = draw_clusters(np.random.default_rng(0), 10, 38)
  reranked = Reranked(query, gallery, Reranking(k1, k2, weight))
  # A block may be overwritten when the next one is taken, so each is copied.
  rows = np.concatenate([rows.copy() for _, rows in reranked.blocks()])
  np.testing.assert_allclose(-rows, dense(query, gallery, k1, k2, weight), atol=1e-6, rtol=0)


def test_scores_after_reranking_are_higher_on_clusters_and_have_their_own_names():
  query, gallery, *ids = draw_clusters(np.random.default_rng(1), 16, 120)
  plain = retrieval.evaluate(query, gallery, *ids)
  scores = retrieval.evaluate(query, gallery, *ids, reranking=Reranking(k1=10, k2=4))
  assert plain.reranking is None
  assert scores.reranking == Reranking(k1=10, k2=4)
  assert scores.mean_ap > plain.mean_ap + 0.03
  assert set(scores.metrics()) == {f"{name}_reranked" for name in plain.metrics()}


def test_reranking_with_weight_one_keeps_the_original_ranks():
  query, gallery, *ids = draw_clusters(np.random.default_rng(2), 10, 50)
  plain = retrieval.evaluate(query, gallery, *ids)
  np.testing.assert_array_equal(
    retrieval.evaluate(query, gallery, *ids, reranking=Reranking(weight=1.0)).ap, plain.ap
  )


def test_equal_features_give_finite_distances():
  reranked = Reranked(np.ones((2, 4)), np.ones((30, 4)), Reranking(k1=5, k2=2))
  assert all(np.isfinite(rows).all() for _, rows in reranked.blocks())


@pytest.mark.parametrize("changed", [{"k1": 0}, {"k2": 0}, {"k1": 3, "k2": 5}, {"weight": 1.5}])
def test_reranking_settings_out_of_range_are_an_error(changed):
  with pytest.raises(ValueError, match="expected k1 at least 1"):
    Reranking(**changed)
