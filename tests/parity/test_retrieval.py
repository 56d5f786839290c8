"""Retrieval metrics against the official implementation."""

import numpy as np
import pytest

from hap_jax.metrics import retrieval


@pytest.fixture
def case(golden):
  """Returns (features, identities and cameras of the golden file, all arrays of the file)."""
  file = golden("reid_losses_metrics")
  names = ("query_feat_raw", "gallery_feat_raw", "query_pid", "gallery_pid", "query_cam", "gallery_cam")
  return [file[f"eval/{name}"] for name in names], file


def test_retrieval_scores_agree_with_the_official_code(case):
  arrays, file = case
  count = len(file["eval/cmc_first20"])
  scores = retrieval.evaluate(*arrays, ranks=range(1, count + 1))
  np.testing.assert_allclose(scores.mean_ap, file["eval/mAP"], atol=1e-6, rtol=0)
  np.testing.assert_allclose(list(scores.cmc.values()), file["eval/cmc_first20"], atol=1e-6, rtol=0)
  np.testing.assert_allclose([scores.cmc[k] for k in (1, 5, 10)], file["eval/cmc_1_5_10"], atol=1e-6, rtol=0)
  query_pid, gallery_pid, query_camid, gallery_camid = arrays[2:]
  has_match = [
    bool(np.any((gallery_pid == pid) & (gallery_camid != cam)))
    for pid, cam in zip(query_pid, query_camid, strict=True)
  ]
  np.testing.assert_array_equal(scores.first_rank > 0, has_match)
  assert scores.num_valid_queries == sum(has_match)


def test_retrieval_distances_agree_with_the_official_code(case):
  arrays, file = case
  found = retrieval.rank_list(*arrays[:2], k=len(arrays[1]))
  # The rank list is sorted by distance, the file by gallery index.
  distance = np.empty_like(found.distance)
  np.put_along_axis(distance, found.index, found.distance, axis=1)
  np.testing.assert_allclose(distance, file["eval/dist"], atol=1e-6, rtol=0)


def test_scores_of_features_from_closed_formulas_have_the_official_values():
  # The formulas can be evaluated anywhere, so the official code can be run again on the same features.
  i, k, c = np.arange(6)[:, None], np.arange(20)[:, None], np.arange(5)
  query = np.sin(1 + 2.1 * i + 1.7 * c)
  gallery = np.sin(0.3 + 1.1 * k + 0.9 * c * (1 + k % 3))
  ids = (np.array([1, 2, 3, 1, 9, 4]), 7 * k[:, 0] % 5, np.array([0, 1, 0, 2, 0, 1]), k[:, 0] % 3)
  scores = retrieval.evaluate(query, gallery, *ids, ranks=range(1, 11))
  assert scores.mean_ap == pytest.approx(0.27336080586, abs=1e-9)
  assert list(scores.cmc.values()) == pytest.approx([0, 0.2, 0.6, 0.6, 0.6, 0.8, 1, 1, 1, 1], abs=1e-9)
  assert scores.num_valid_queries == 5
