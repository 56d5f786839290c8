"""ROC, EER, TAR at FAR, open-set rates and their intervals, against scikit-learn and plain loops."""

import numpy as np
import pytest
import sklearn.metrics

from hap_jax.metrics import pair_scores, roc, similarity, verification


def draw(rng, num_queries, num_gallery, num_persons=9, num_cameras=3, width=5, spread=0.7):
  """Draws features around one centre per person, and identities. Returns the arguments of `collect`."""
  centers = rng.standard_normal((num_persons + 2, width))
  pids = rng.integers(num_persons + 2, size=num_queries), rng.integers(num_persons, size=num_gallery)
  features = [centers[pid] + spread * rng.standard_normal((len(pid), width)) for pid in pids]
  return (
    *features,
    *pids,
    rng.integers(num_cameras, size=num_queries),
    rng.integers(num_cameras, size=num_gallery),
  )


def plain_pairs(
  query, gallery, query_pid, gallery_pid, query_camid=None, gallery_camid=None, junk_pids=(), own_index=None
):
  """Returns a list of (score, is genuine, row of the query, entry) of all pairs that count."""
  found = []
  for i, a in enumerate(query):
    for j, b in enumerate(gallery):
      is_same = query_pid[i] == gallery_pid[j]
      if gallery_pid[j] in junk_pids or (own_index is not None and own_index[i] == j):
        continue
      if is_same and query_camid is not None and query_camid[i] == gallery_camid[j]:
        continue
      found.append((a @ b / np.linalg.norm(a) / np.linalg.norm(b), is_same, i, j))
  return found


@pytest.mark.parametrize("seed", range(4))
def test_roc_eer_and_tar_equal_scikit_learn_with_ties(seed):
  rng = np.random.default_rng(seed)
  genuine, impostor = rng.integers(3, 12, size=60) / 10, rng.integers(0, 9, size=900) / 10
  curve = roc.of_scores(genuine, impostor)
  labels, scores = np.repeat([1, 0], [60, 900]), np.concatenate([genuine, impostor])
  far, tar, threshold = sklearn.metrics.roc_curve(labels, scores, drop_intermediate=False)
  np.testing.assert_allclose(curve.far, far, atol=1e-15)
  np.testing.assert_allclose(curve.tar, tar, atol=1e-15)
  np.testing.assert_array_equal(curve.threshold, threshold)
  for goal in (0.5, 0.1, 1e-2, 1e-3):
    point = roc.at_far(curve, goal)
    assert point.tar == tar[far <= goal].max()
    assert point.far == far[far <= goal].max() == np.mean(impostor >= point.threshold)
    assert point == roc.at_threshold(curve, point.threshold)
    assert np.isfinite(point.threshold)
  # Along the straight lines between the points, FAR and 1 - TAR are equal at the EER.
  eer = roc.equal_error_rate(curve.far, curve.tar)
  assert np.interp(eer, far, tar) == pytest.approx(1 - eer, abs=1e-12)


def test_rates_of_scores_that_separate_all_pairs_or_none():
  perfect = roc.of_scores(np.array([0.9, 0.8]), np.array([0.1, 0.2, 0.2]))
  assert roc.equal_error_rate(perfect.far, perfect.tar) == 0
  assert roc.at_far(perfect, 1e-2) == roc.Point(0.8, 0, 1)
  equal = roc.of_scores(np.full(4, 0.5), np.full(8, 0.5))
  assert roc.equal_error_rate(equal.far, equal.tar) == 0.5
  point = roc.at_far(equal, 0.9)
  assert (point.far, point.tar) == (0, 0)
  assert point.threshold > 0.5


RULES = {
  "cameras": {},
  "junk": {"junk_pids": (0, 3)},
  "no cameras": {"query_camid": None, "gallery_camid": None},
  "own entries": {"own_index": True},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("is_exact", [True, False])
def test_pairs_are_left_out_as_in_retrieval(rule, is_exact, monkeypatch):
  rng = np.random.default_rng(0)
  names = ("query", "gallery", "query_pid", "gallery_pid", "query_camid", "gallery_camid")
  given = {**dict(zip(names, draw(rng, 40, 70), strict=True)), **RULES[rule]}
  if "own_index" in given:
    given["own_index"] = rng.integers(70, size=40)
    given["query_pid"] = given["gallery_pid"][given["own_index"]]
  expected = plain_pairs(**given)
  monkeypatch.setattr(similarity, "_BLOCK_BYTES", 7 * 4 * 70)  # several blocks
  found = pair_scores.collect(**given, max_exact=10_000 if is_exact else 0)
  scores = {kind: np.sort([s for s, is_same, *_ in expected if is_same == kind]) for kind in (True, False)}
  assert (found.num_genuine, found.num_impostor) == (len(scores[True]), len(scores[False]))
  for kind, counts in ((True, found.genuine.sum(axis=0)), (False, found.impostor.sum(axis=0))):
    counted = np.repeat(found.score, counts)[::-1]
    np.testing.assert_allclose(counted, scores[kind], atol=1e-14 if is_exact else found.score_error)
  # The tables per person, against a loop.
  persons = np.unique(given["query_pid"])
  for table, kind in ((found.genuine_by_person, True), (found.impostor_by_person, False)):
    for k in (0, len(found.cuts) // 2, len(found.cuts) - 1):
      edge = found.cuts[k] - (1e-12 if is_exact else 0)
      got = dict(zip(persons, table[:, k], strict=True))
      for person in persons:
        mine = [s for s, is_same, i, _ in expected if is_same == kind and given["query_pid"][i] == person]
        low, high = (sum(s >= edge + d for s in mine) for d in (found.score_error, -found.score_error))
        assert low <= got[person] <= high
    assert table[:, -1].sum() == len(scores[kind])


def test_the_cells_are_within_their_bound_of_the_exact_result():
  rng = np.random.default_rng(1)
  given = draw(rng, 200, 500, num_persons=30, width=16, spread=1.0)
  exact, cells = (
    verification.of_pairs(pair_scores.collect(*given, max_exact=limit), fars=(1e-1, 1e-2, 1e-3))
    for limit in (10**6, 0)
  )
  error = cells.pairs.score_error
  assert 0 < error < 1e-5
  # The exact rates of a slightly higher and a slightly lower threshold are the bounds.
  for name in ("far", "tar"):
    low, high = (
      getattr(exact.roc, name)[np.searchsorted(-exact.roc.threshold, -(cells.roc.threshold + d), "right") - 1]
      for d in (error, -error)
    )
    rates = getattr(cells.roc, name)
    assert np.all((low <= rates) & (rates <= high))
  for goal, point in exact.points.items():
    assert cells.points[goal].threshold == pytest.approx(point.threshold, abs=1e-3)
    for name in ("value", "low", "high"):
      assert getattr(cells.points[goal].tar, name) == pytest.approx(getattr(point.tar, name), abs=5e-3)
  assert cells.eer.value == pytest.approx(exact.eer.value, abs=1e-4)
  assert cells.open_set == exact.open_set or all(
    cells.open_set[goal].dir.value == at.dir.value for goal, at in exact.open_set.items() if at
  )


def vectors(*degrees):
  angles = np.deg2rad(degrees)
  return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def test_a_hand_computed_case_of_five_pictures():
  # Two queries at 0 and 90 degrees, three entries at 20, 50 and 80 degrees. Person 1 has the entries at 20
  # and 80 degrees, but the entry at 80 is by the camera of the query. Person 2 has the entry at 50 degrees.
  found = verification.evaluate(
    vectors(0, 90), vectors(20, 50, 80), [1, 2], [1, 2, 1], [0, 0], [1, 1, 0], fars=(1.0,), open_set_fars=()
  )
  cos = np.cos(np.deg2rad([10, 20, 40, 50, 70]))
  # Genuine: 20 and 40 degrees. Impostors: query 1 with 50, query 2 with 70 and 10 degrees.
  np.testing.assert_allclose(found.pairs.score, cos, atol=1e-15)
  assert found.pairs.genuine.sum(axis=0).tolist() == [0, 1, 1, 0, 0]
  assert found.pairs.impostor.sum(axis=0).tolist() == [1, 0, 0, 1, 1]
  # The ROC goes up at FAR 1/3 from TAR 0 to 1, so FAR and 1 - TAR are equal at 1/3.
  assert found.eer.value == pytest.approx(1 / 3)
  # One of the two persons leaves the gallery.
  assert (found.num_absent, found.num_present) == (1, 1)
  leaves = int(np.flatnonzero(found.pairs.has_left)[0])
  assert found.pairs.num_staying == (1, 2)[leaves]
  assert found.pairs.top_score == pytest.approx([[cos[3], cos[2]], [cos[1], cos[0]]][leaves])
  assert found.pairs.is_hit.tolist() == [[False, True], [True, False]][leaves]


def test_the_open_set_rate_equals_a_plain_loop():
  rng = np.random.default_rng(2)
  given = draw(rng, 300, 240, num_persons=30, num_cameras=4)
  found = verification.evaluate(*given, open_set_fars=(0.1, 1e-3))
  _, _, query_pid, gallery_pid, _, _ = given
  pairs = found.pairs
  gone = set(query_pid[pairs.has_left])
  assert not gone & set(query_pid[pairs.stays])
  assert len(gone) == len(set(query_pid[pairs.has_left | pairs.stays])) // 2
  alarms, hits = [], []
  by_query = {}
  for score, is_same, i, j in plain_pairs(*given):
    if gallery_pid[j] not in gone:
      by_query.setdefault(i, []).append((score, is_same))
  for i in np.flatnonzero(pairs.has_left):
    alarms.append(max(by_query[i])[0])
  for i in np.flatnonzero(pairs.stays):
    hits.append(max(by_query[i]))
  at = found.open_set[0.1]
  assert np.mean(np.array(alarms) >= at.threshold) <= 0.1
  assert np.mean(np.array(alarms) >= at.threshold - 1e-9) > 0.1 - 1 / len(alarms)
  assert at.dir.value == np.mean([is_same and score >= at.threshold for score, is_same in hits])
  assert at.dir.low <= at.dir.value <= at.dir.high
  assert found.open_set[1e-3] is None  # it needs 10,000 queries
  point = found.points[1e-2]
  assert point.absent_rejected.value == np.mean(np.array(alarms) < point.threshold)
  assert point.present_rejected.value == np.mean([score < point.threshold for score, _ in hits])


def test_a_threshold_holds_for_persons_that_it_was_not_made_on():
  achieved = []
  for seed in range(5):
    rng = np.random.default_rng((5, seed))
    pairs = pair_scores.collect(*draw(rng, 300, 700, num_persons=120, width=24, spread=1.0), seed=seed)
    halves = [roc.of_counts(pairs.score, pairs.genuine[h], pairs.impostor[h]) for h in (0, 1)]
    for source, target in (halves, halves[::-1]):
      assert min(source.num_impostor, target.num_impostor) > roc.num_needed(1e-2)
      achieved.append(roc.at_threshold(target, roc.at_far(source, 1e-2).threshold).far)
  assert 0.5e-2 <= min(achieved) <= max(achieved) <= 2e-2
  assert len(set(achieved)) > 5  # the halves differ


def test_a_far_that_needs_more_impostor_pairs_has_no_value():
  rng = np.random.default_rng(3)
  found = verification.evaluate(*draw(rng, 20, 100))
  assert 1000 <= found.pairs.num_impostor < 10_000
  assert [at is None for at in found.points.values()] == [False, True, True]
  plain = found.to_json()
  assert plain["tar_at_far"][1] == {"goal": 1e-3}
  assert plain["tar_at_far"][0]["tar"]["value"] == found.points[1e-2].tar.value


def test_intervals_cover_the_true_rate_of_new_persons():
  """The true TAR at a fixed threshold is known. About 95 % of the intervals contain it."""
  rng = np.random.default_rng(4)
  covered, num_runs = 0, 40
  many = rng.normal(0.5, 0.2, 10**6) + rng.normal(0, 0.1, 10**6)
  true = np.mean(many >= 0.6)
  for run in range(num_runs):
    # The score of a person's pairs depends on the person, so pairs are not independent.
    person = rng.normal(0.5, 0.2, 40)[:, None]
    genuine = np.clip(person + rng.normal(0, 0.1, (40, 6)), -1, 1)
    cuts = np.linspace(1, -1, 401)
    counts = (genuine[:, :, None] >= cuts - 1e-12).sum(axis=1)
    pairs = pair_scores.PairScores(
      score=cuts,
      score_error=0.0,
      genuine=np.stack([np.diff(counts.sum(axis=0), prepend=0), np.zeros(401, np.int64)]),
      impostor=np.stack([np.diff(counts.sum(axis=0), prepend=0)] * 3),
      cuts=cuts,
      genuine_by_person=counts,
      impostor_by_person=counts,
      person=np.arange(40),
      top_score=np.zeros(40),
      is_hit=np.zeros(40, bool),
      has_left=np.zeros(40, bool),
      stays=np.ones(40, bool),
      num_gallery=240,
      num_staying=240,
    )
    found = verification.at_threshold(verification.of_pairs(pairs, fars=(), open_set_fars=()), 0.6, seed=run)
    covered += found.tar.low <= true <= found.tar.high
  assert 0.85 * num_runs <= covered < num_runs


BASE = {
  "query": np.ones((2, 3)),
  "gallery": np.ones((3, 3)),
  "query_pid": [0, 1],
  "gallery_pid": [0, 1, 1],
  "query_camid": [0, 0],
  "gallery_camid": [1, 1, 1],
}
BAD = {
  "one camera": (
    {"gallery_camid": [0, 0, 0]},
    r"all pictures are by one camera \(0\), and a genuine pair needs",
  ),
  "same cameras": (
    {"query_camid": [0, 1], "gallery_camid": [0, 1, 1]},
    "a pair of one person under one camera",
  ),
  "no person": (
    {"query_pid": [4, 5]},
    "no genuine pair among 2 queries and 3 .*: no person of a query is in",
  ),
  "one person": (
    {"query_pid": [1, 1], "gallery_pid": [1, 1, 1]},
    r"no impostor pair: all .* show one person \(1\)",
  ),
  "nan": ({"query": np.full((2, 3), np.nan)}, "2 of 2 query features contain nan or inf"),
}


@pytest.mark.parametrize("change", BAD)
def test_error_names_the_wrong_input(change):
  changed, message = BAD[change]
  with pytest.raises(ValueError, match=message):
    verification.evaluate(**(BASE | changed))
