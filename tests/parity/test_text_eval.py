"""Text-to-image retrieval against the official implementation. The tolerance is 1e-6."""

import numpy as np
import pytest

from hap_jax.metrics import retrieval, similarity, text_retrieval

SCORED = ("query_feature", "gallery_feature", "query_id", "gallery_id")


@pytest.fixture(scope="module")
def file(golden):
  return golden("text_eval")


@pytest.fixture(scope="module")
def cosine(file):
  """Returns our cosines [queries, gallery] float64."""
  closeness = similarity.CosineSimilarity(file["query_feature"], file["gallery_feature"])
  everything = np.arange(closeness.num_gallery)
  return np.stack([closeness.exact(i, everything) for i in range(closeness.num_queries)])


def assert_close(found, expected):
  np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


def assert_scores(scores, expected):
  """Compares the `retrieval.Scores` with the stored arrays of one protocol."""
  assert_close(list(scores.cmc.values()), expected["cmc"])
  assert_close([scores.cmc[k] for k in (1, 5, 10)], expected["rank1_5_10"])
  assert_close(scores.mean_ap, expected["mAP_standard"])
  assert_close(scores.mean_ap_trapezoid, expected["mAP_trapezoid"])


def test_similarities_agree_with_the_official_code(file, cosine):
  assert_close(cosine, file["similarity"])
  is_match = file["query_id"][:, None] == file["gallery_id"]
  # The smallest distance of a match from an entry of another identity, over all queries.
  gaps = [np.abs(row[same][:, None] - row[~same]).min() for row, same in zip(cosine, is_match, strict=True)]
  assert_close(min(gaps), file["smallest_gap_match_nonmatch"])


def test_scores_agree_with_the_official_code(file):
  scores = retrieval.evaluate(*(file[name] for name in SCORED), ranks=range(1, len(file["cmc"]) + 1))
  assert_scores(scores, file)
  assert_close(scores.ap, file["ap_standard"])
  assert_close(scores.ap_trapezoid, file["ap_trapezoid"])
  assert scores.num_valid_queries == scores.num_queries


def test_scores_without_the_own_picture_agree_with_the_official_code(file, pick):
  expected = pick(file, "wm/")
  scores = retrieval.evaluate(
    *(file[name] for name in SCORED),
    ranks=range(1, len(expected["cmc"]) + 1),
    own_index=file["query_image_index"],
  )
  assert_scores(scores, expected)
  np.testing.assert_array_equal(scores.first_rank == 0, expected["excluded"].astype(bool))
  assert scores.num_queries - scores.num_valid_queries == expected["num_excluded"]


def test_scores_of_the_example_agree_with_the_official_code(file):
  ranks = np.flatnonzero(file["example/relevance"]) + 1
  scores = retrieval.score_ranks([ranks])
  assert_close(scores.mean_ap, file["example/ap_standard"])
  assert_close(scores.mean_ap_trapezoid, file["example/ap_trapezoid"])


def test_scores_of_the_task_agree_with_the_official_code(file, cosine):
  names = ("gallery_feature", "query_feature", "gallery_id", "query_id")
  scores = text_retrieval.evaluate(*(file[name] for name in names))
  assert_close([scores[f"rank{k}"] for k in (1, 5, 10)], file["rank1_5_10"])
  assert_close([scores["mAP"], scores["mAP_trapezoid"]], [file["mAP_standard"], file["mAP_trapezoid"]])
  # The file has no scores of pictures as queries, so they are counted here.
  best, has_match = cosine.argmax(axis=0), np.isin(file["gallery_id"], file["query_id"])
  is_right = (file["query_id"][best] == file["gallery_id"])[has_match]
  assert_close(scores["rank1_image_to_text"], is_right.mean())
