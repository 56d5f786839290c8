"""Tests of the retrieval metrics against a plain loop, and of the rules for junk, cameras and ties."""

import itertools
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from hap_jax.metrics import identities, retrieval, similarity


def naive_match_ranks(
  query, gallery, query_pid, gallery_pid, query_camid, gallery_camid, junk_pids=(), own_index=None
):
  """Returns the ranks of all matches of each query, counted entry by entry, in float64."""
  query, gallery = np.asarray(query, np.float64), np.asarray(gallery, np.float64)
  result = []
  for i in range(len(query)):
    cosine = [query[i] @ feature / np.linalg.norm(feature) for feature in gallery]
    ranks, rank = [], 0
    for j in sorted(range(len(gallery)), key=lambda j: (-cosine[j], j)):
      is_same = gallery_pid[j] == query_pid[i]
      if gallery_pid[j] in junk_pids or (is_same and gallery_camid[j] == query_camid[i]):
        continue
      if own_index is not None and own_index[i] == j:
        continue
      rank += 1
      if is_same:
        ranks.append(rank)
    result.append(ranks)
  return result


def naive_scores(ranks, at):
  valid = [found for found in ranks if found]
  ap = [sum((k + 1) / rank for k, rank in enumerate(found)) / len(found) for found in valid]
  minp = [len(found) / found[-1] for found in valid]
  cmc = [sum(found[0] <= k for found in valid) / len(valid) for k in at]
  return sum(ap) / len(ap), cmc, sum(minp) / len(minp)


def naive_trapezoid(found):
  """Returns the area under the curve of precision over recall, with the trapezoidal rule."""
  area, recall, precision = 0.0, 0.0, 1.0
  for rank in range(1, found[-1] + 1):
    hits = sum(r <= rank for r in found)
    area += (hits / len(found) - recall) * (precision + hits / rank) / 2
    recall, precision = hits / len(found), hits / rank
  return area


def draw_ids(rng, num_queries, num_gallery, num_pids=6, num_cameras=3):
  """Draws identities and cameras of queries and gallery; some query identities are not in the gallery."""
  return (
    rng.integers(num_pids + 2, size=num_queries),
    rng.integers(num_pids, size=num_gallery),
    rng.integers(num_cameras, size=num_queries),
    rng.integers(num_cameras, size=num_gallery),
  )


@pytest.mark.parametrize("junk_pids", [(), (0, 3)])
@pytest.mark.parametrize("kind", ["normal", "many ties"])
def test_scores_agree_with_the_plain_loop(kind, junk_pids):
  rng = np.random.default_rng(0)
  ids = draw_ids(rng, 25, 90)
  if kind == "normal":
    query, gallery = rng.standard_normal((25, 7)), rng.standard_normal((90, 7))
  else:
    # Five numbers, three of them 1 and two 0: ten different features of equal length, so ties are frequent.
    choices = np.array(
      [[i in chosen for i in range(5)] for chosen in itertools.combinations(range(5), 3)], float
    )
    query, gallery = choices[rng.integers(10, size=25)], choices[rng.integers(10, size=90)]
  expected = naive_match_ranks(query, gallery, *ids, junk_pids)
  found = retrieval.match_ranks(similarity.CosineSimilarity(query, gallery), *ids, junk_pids=junk_pids)
  assert [ranks.tolist() for ranks in found] == expected
  scores = retrieval.evaluate(query, gallery, *ids, ranks=(1, 2, 7, 200), junk_pids=junk_pids)
  mean_ap, cmc, minp = naive_scores(expected, (1, 2, 7, 200))
  np.testing.assert_allclose([scores.mean_ap, scores.minp], [mean_ap, minp], rtol=1e-12)
  np.testing.assert_allclose(list(scores.cmc.values()), cmc, rtol=1e-12)
  np.testing.assert_allclose(
    scores.mean_ap_trapezoid, np.mean([naive_trapezoid(found) for found in expected if found]), rtol=1e-12
  )
  np.testing.assert_array_equal(np.isnan(scores.ap_trapezoid), np.isnan(scores.ap))
  assert scores.num_queries == 25
  assert scores.num_valid_queries == sum(map(bool, expected)) < 25
  np.testing.assert_array_equal(np.isnan(scores.ap), [not ranks for ranks in expected])
  np.testing.assert_array_equal(scores.first_rank, [ranks[0] if ranks else 0 for ranks in expected])


def test_scores_of_a_hand_computed_case():
  angles = np.deg2rad([10, 20, 30, 40, 50, 60])
  gallery = np.stack([np.cos(angles), np.sin(angles)], axis=1)
  # Entries by distance from the query at 0 degrees: same camera and junk (both left out), then wrong, match,
  # wrong, match.
  scores = retrieval.evaluate(
    np.array([[5.0, 0.0]]), gallery, [7], [7, -1, 1, 7, 2, 7], [0], [0, 1, 0, 1, 1, 2], junk_pids=(-1,)
  )
  assert scores.first_rank.tolist() == [2]
  assert scores.mean_ap == pytest.approx((1 / 2 + 2 / 4) / 2)
  assert scores.minp == pytest.approx(2 / 4)
  assert scores.cmc == {1: 0.0, 5: 1.0, 10: 1.0}
  assert scores.metrics() == {"mAP": 0.5, "rank1": 0.0, "rank5": 1.0, "rank10": 1.0, "mINP": 0.5}


def test_the_own_entry_of_a_query_is_left_out():
  rng = np.random.default_rng(6)
  pid = rng.integers(40, size=90)
  own = rng.integers(90, size=70)
  own[:10] = 7  # a picture can be the own entry of several captions
  gallery = rng.standard_normal((90, 7))
  query = gallery[own] + rng.standard_normal((70, 7))
  camids = rng.integers(3, size=70), rng.integers(3, size=90)
  for extra in ({}, {"query_camid": camids[0], "gallery_camid": camids[1]}):
    naive = extra or {"query_camid": np.full(70, -1), "gallery_camid": np.zeros(90)}
    expected = naive_match_ranks(query, gallery, pid[own], pid, **naive, own_index=own)
    scores = retrieval.evaluate(query, gallery, pid[own], pid, **extra, own_index=own)
    np.testing.assert_array_equal(scores.first_rank, [ranks[0] if ranks else 0 for ranks in expected])
    mean_ap, _, minp = naive_scores(expected, ())
    np.testing.assert_allclose([scores.mean_ap, scores.minp], [mean_ap, minp], rtol=1e-12)
    # A query whose own entry is its only match is counted, but is in no mean.
    assert scores.num_valid_queries == sum(map(bool, expected)) < scores.num_queries == 70


def test_without_cameras_no_entry_is_left_out_because_of_its_camera():
  features = np.eye(3)
  assert retrieval.evaluate(features, features, [0, 1, 2], [0, 1, 2]).mean_ap == 1
  with pytest.raises(ValueError, match="none of the 3 queries has a match"):
    retrieval.evaluate(features, features, [0, 1, 2], [0, 1, 2], [4, 4, 4], [4, 4, 4])


def test_equal_features_keep_gallery_order_although_their_float32_products_differ():
  rng = np.random.default_rng(1)
  query = rng.standard_normal((9, 37)).astype(np.float32)
  gallery = rng.standard_normal((13, 37)).astype(np.float32)[np.arange(1001) % 13]
  pid = np.arange(1001)  # 76 or 77 other entries are equal to the match of a query
  query_pid = np.array([5, 18, 400, 555, 613, 700, 800, 900, 1000])
  ranks = retrieval.match_ranks(similarity.CosineSimilarity(query, gallery), query_pid, pid)
  index, _ = similarity.CosineSimilarity(query, gallery).nearest(30)  # entry 31 equals entry 30
  for i, (found, match) in enumerate(zip(ranks, query_pid, strict=True)):
    cosine = np.linalg.norm(gallery[:13], axis=1) ** -1.0 * (gallery[:13].astype(float) @ query[i])
    expected = sorted(range(1001), key=lambda j: (-cosine[j % 13], j))
    assert found.tolist() == [expected.index(match) + 1]
    assert index[i].tolist() == expected[:30]


def test_order_of_nearly_equal_features_is_the_float64_order():
  rng = np.random.default_rng(2)
  center = rng.standard_normal(64)
  query, gallery = (center + 1e-3 * rng.standard_normal((count, 64)) for count in (8, 400))
  ids = draw_ids(rng, 8, 400)
  unit = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
  exact = (query / np.linalg.norm(query, axis=1, keepdims=True)) @ unit.T
  gap = np.diff(np.sort(exact, axis=1), axis=1).min()
  assert 1e-14 < gap < 1e-10  # far below the float32 step of 6e-8
  closeness = similarity.CosineSimilarity(query, gallery)
  # The margin is small, so few entries are compared in float64.
  assert closeness.margin < np.ptp(exact, axis=1).min() / 100
  found = retrieval.match_ranks(closeness, *ids)
  assert [ranks.tolist() for ranks in found] == naive_match_ranks(query, gallery, *ids)


@pytest.mark.parametrize("spread", [3, 1e-2])
@pytest.mark.parametrize("width", [16, 768])
def test_errors_of_float32_products_are_far_below_the_margin(width, spread):
  rng = np.random.default_rng(5)
  center = rng.standard_normal(width)
  query, gallery = (center + spread * rng.standard_normal((count, width)) for count in (20, 500))
  gallery[:20] = query
  closeness = similarity.CosineSimilarity(query, gallery)
  (_, rows), *_ = closeness.blocks()
  exact = np.stack([closeness.exact(i, np.arange(500)) for i in range(20)])
  # A row differs from the cosines by a constant, so the spread of the difference is the error.
  assert np.ptp(rows - exact, axis=1).max() < closeness.margin / 3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_result_does_not_depend_on_the_block_size(dtype, monkeypatch):
  rng = np.random.default_rng(3)
  query = rng.standard_normal((31, 19)).astype(dtype)
  gallery = rng.standard_normal((120, 19)).astype(dtype)[rng.integers(120, size=300)]
  ids = draw_ids(rng, 31, 300)
  whole = retrieval.evaluate(query, gallery, *ids)
  lists = retrieval.rank_list(query, gallery, k=40)
  for rows in (1, 4, 30):
    monkeypatch.setattr(similarity, "_BLOCK_BYTES", rows * 4 * 300)
    monkeypatch.setattr(similarity, "_CHUNK_ROWS", 7 * rows)
    blocked = retrieval.evaluate(query, gallery, *ids)
    np.testing.assert_array_equal(blocked.ap, whole.ap)
    assert blocked.metrics() == whole.metrics()
    np.testing.assert_array_equal(retrieval.rank_list(query, gallery, k=40).index, lists.index)


def test_matrix_of_all_similarities_is_never_in_memory(monkeypatch):
  rng = np.random.default_rng(4)
  query, gallery = rng.standard_normal((1200, 4)), rng.standard_normal((6000, 4))
  ids = draw_ids(rng, 1200, 6000, num_pids=1500)
  monkeypatch.setattr(similarity, "_BLOCK_BYTES", 2**20)
  tracemalloc.start()
  retrieval.evaluate(query, gallery, *ids)
  peak = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  assert peak < 1200 * 6000 * 4 / 4  # a quarter of the float32 matrix


def test_zero_features_rank_in_gallery_order():
  found = retrieval.match_ranks(
    similarity.CosineSimilarity(np.zeros((1, 8), np.float16), np.zeros((50, 8), np.float16)),
    [1],
    np.arange(50) % 5,
  )
  assert found[0].tolist() == list(range(2, 51, 5))


def test_chance_equals_the_mean_over_all_orders_of_the_gallery():
  query_pid, gallery_pid = np.array([1, 2, 9, 1]), np.array([1, 2, 1, 3, 1, 0])
  query_camid, gallery_camid = np.array([0, 0, 0, 1]), np.array([0, 1, 1, 0, 2, 0])
  ids = (query_pid, gallery_pid, query_camid, gallery_camid)
  scores = []
  for order in itertools.permutations(range(6)):
    # Different angles to the query give the gallery this order.
    angle = np.empty(6)
    angle[list(order)] = np.linspace(0.1, 1, 6)
    gallery = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    query = np.array([[1.0, 0.0]] * 4)
    scores.append(retrieval.evaluate(query, gallery, *ids, junk_pids=(0,)).mean_ap)
  assert retrieval.chance_mean_ap(*ids, junk_pids=(0,)) == pytest.approx(np.mean(scores), rel=1e-12)


def test_chance_is_one_if_every_gallery_entry_is_a_match():
  assert retrieval.chance_mean_ap([3], [3]) == 1
  assert retrieval.chance_mean_ap([3], [3, 3, 3]) == pytest.approx(1)


def test_rank_list_gives_distance_and_verdict_of_each_entry():
  angles = np.deg2rad([60, 10, 20, 30])
  gallery = 3 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
  ids = {"query_pid": [7], "gallery_pid": [7, 7, -1, 1], "query_camid": [0], "gallery_camid": [1, 0, 1, 0]}
  found = retrieval.rank_list(np.array([2.0, 0.0]), gallery, k=10, junk_pids=(-1,), **ids)
  assert found.index.tolist() == [[1, 2, 3, 0]]
  assert found.verdict.tolist() == [["same camera", "junk", "wrong", "match"]]
  np.testing.assert_allclose(found.distance, [2 - 2 * np.cos(angles[[1, 2, 3, 0]])], atol=1e-12)
  assert set(found.verdict[0]) == set(identities.VERDICTS)
  assert retrieval.rank_list(np.array([2.0, 0.0]), gallery, k=2).verdict is None


BASE = {
  "query": np.ones((2, 3)),
  "gallery": np.ones((4, 3)),
  "query_pid": [0, 1],
  "gallery_pid": [0, 0, 1, 1],
  "query_camid": [0, 0],
  "gallery_camid": [1, 1, 1, 1],
}
BAD = {
  "no query": (
    {"query": np.zeros((0, 3)), "query_pid": [], "query_camid": []},
    r"query features are \[0, 3\]",
  ),
  "no gallery": (
    {"gallery": np.zeros((0, 3)), "gallery_pid": [], "gallery_camid": []},
    r"gallery .*\[0, 3\]",
  ),
  "one feature flat": ({"query": np.ones(3)}, r"query features are \[3\]; expected \[N, D\]"),
  "widths": ({"gallery": np.ones((4, 5))}, "3 wide and gallery features 5"),
  "nan": ({"gallery": [[1, 2, 3], [1, 2, np.nan], [1, 1, 1], [np.inf, 0, 0]]}, "2 of 4 gallery .* number 1"),
  "too few ids": ({"query_pid": [0]}, r"query_pid is int64 \[1\]; .* each of the 2 query features"),
  "ids not whole": ({"gallery_camid": [0.5, 1, 1, 1]}, "gallery_camid is float64"),
  "ids beyond int64": (
    {"gallery_pid": np.array([2**64 - 1, 0, 1, 1], np.uint64)},
    "gallery_pid holds 18446744073709551615; expected whole numbers of at most 9223372036854775807",
  ),
  "junk not whole": ({"junk_pids": (0.5,)}, "junk_pids is float64"),
  "own entry beyond the gallery": ({"own_index": [0, 4]}, "own_index has the numbers 0 to 4; .* 0 to 3"),
  "own entry of another identity": (
    {"own_index": [0, 1]},
    "query 1 has the identity 1, but its own gallery entry 1 has the identity 0",
  ),
  "too few own entries": ({"own_index": [0]}, r"own_index is int64 \[1\]; .* each of the 2 query features"),
  "one side's cameras": ({"gallery_camid": None}, "for one side only"),
  "rank 0": ({"ranks": (0, 1)}, r"ranks=\(0, 1\)"),
  "nothing to find": ({"query_pid": [5, 6]}, "none of the 2 queries"),
  "all junk": ({"junk_pids": (0, 1)}, "none of the 2 queries"),
}


@pytest.mark.parametrize("change", BAD)
def test_error_names_the_wrong_input(change):
  changed, message = BAD[change]
  with pytest.raises(ValueError, match=message):
    retrieval.evaluate(**(BASE | changed))


def test_rank_list_with_identities_of_one_side_or_without_entries_is_an_error():
  with pytest.raises(ValueError, match="identities are given for one side only"):
    retrieval.rank_list(np.ones((1, 2)), np.ones((3, 2)), query_pid=[1])
  with pytest.raises(ValueError, match="k=0"):
    retrieval.rank_list(np.ones((1, 2)), np.ones((3, 2)), k=0)


def test_metrics_import_neither_jax_nor_opencv_nor_scipy_nor_torch():
  # A new process, because other tests have imported these modules into this one.
  code = (
    "import sys, hap_jax.metrics.retrieval\n"
    "print([name for name in ('jax', 'cv2', 'scipy', 'torch') if name in sys.modules])"
  )
  assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout == b"[]\n"
