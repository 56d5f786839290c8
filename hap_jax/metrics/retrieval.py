"""Retrieval metrics on plain arrays: mAP, CMC, mINP, rank lists, with the junk and camera rules of ReID."""

import dataclasses

import numpy as np

from hap_jax.metrics import rerank
from hap_jax.metrics.similarity import CosineSimilarity

_MAX_ID = np.iinfo(np.int64).max
VERDICTS = ("match", "wrong", "same camera", "junk")  # of a gallery entry; the last two count in no rank


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
  """How well queries find their matches; an average is over the queries that have one.

  Attributes:
    mean_ap: mean average precision, 0 to 1.
    cmc: {rank: share of queries whose first match stands at this rank or before}.
    minp: mean inverse negative penalty: number of matches / rank of the last one.
    num_queries, num_valid_queries: all queries, and those with a match left to be found.
    ap: [Q] float64, a query's average precision; nan without a match.
    first_rank: [Q] int64, rank of a query's first match, from 1; 0 without a match.
    reranking: the `rerank.Reranking` by which the ranks were made, or None.
  """

  mean_ap: float
  cmc: dict[int, float]
  minp: float
  num_queries: int
  num_valid_queries: int
  ap: np.ndarray
  first_rank: np.ndarray
  reranking: rerank.Reranking | None = None

  def metrics(self):
    """Returns {"mAP": ..., "rank1": ..., "mINP": ...}; "mAP_reranked" and so on after re-ranking."""
    values = {"mAP": self.mean_ap, **{f"rank{k}": share for k, share in self.cmc.items()}, "mINP": self.minp}
    suffix = "" if self.reranking is None else "_reranked"
    return {f"{name}{suffix}": value for name, value in values.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class RankList:
  """The first k gallery entries of every query, closest first.

  Attributes:
    index: [Q, k] int64, into the gallery.
    distance: [Q, k] float64, squared Euclidean distance of the unit vectors, 2 - 2 cos, 0 to 4.
    verdict: [Q, k] of the words in `VERDICTS`; None if the identities were not given.
  """

  index: np.ndarray
  distance: np.ndarray
  verdict: np.ndarray | None


class _Identities:
  """Which gallery entries are a query's matches, and which are left out of its list."""

  def __init__(self, num_queries, num_gallery, query_pid, gallery_pid, query_camid, gallery_camid, junk_pids):
    if (query_camid is None) != (gallery_camid is None):
      raise ValueError("cameras came for one side only: give query_camid and gallery_camid, or neither")
    self._query_pid = _as_ids(query_pid, num_queries, "query_pid", "query")
    self._gallery_pid = _as_ids(gallery_pid, num_gallery, "gallery_pid", "gallery")
    self._query_camid = self._gallery_camid = None
    if query_camid is not None:
      self._query_camid = _as_ids(query_camid, num_queries, "query_camid", "query")
      self._gallery_camid = _as_ids(gallery_camid, num_gallery, "gallery_camid", "gallery")
    junk_pids = tuple(junk_pids)
    self.is_junk = np.isin(self._gallery_pid, _as_ids(junk_pids, len(junk_pids), "junk_pids", "junk"))
    self._by_pid = np.argsort(self._gallery_pid, kind="stable")
    ordered = self._gallery_pid[self._by_pid]
    self._start = np.searchsorted(ordered, self._query_pid, "left")
    self._stop = np.searchsorted(ordered, self._query_pid, "right")

  def split(self, i):
    """Returns (matches, same-camera matches) of query i: gallery indices, ascending, without junk."""
    same = self._by_pid[self._start[i] : self._stop[i]]
    same = same[~self.is_junk[same]]
    if self._query_camid is None:
      return same, same[:0]
    is_same_camera = self._gallery_camid[same] == self._query_camid[i]
    return same[~is_same_camera], same[is_same_camera]

  def judge(self, i, index):
    """Returns the verdicts, words of `VERDICTS`, on the gallery entries `index` of query i's list."""
    matches, same_camera = self.split(i)
    cases = [self.is_junk[index], np.isin(index, same_camera), np.isin(index, matches)]
    return np.select(cases, ["junk", "same camera", "match"], "wrong")


def evaluate(
  query,
  gallery,
  query_pid,
  gallery_pid,
  query_camid=None,
  gallery_camid=None,
  *,
  ranks=(1, 5, 10),
  junk_pids=(),
  reranking=None,
):
  """Scores a retrieval: every query ranks the gallery by cosine similarity.

  Gallery entries of the query's identity under the query's camera, and those of junk identities, are left out
  of its list. AP = (1/R) sum_k k / rank of the k-th of its R matches; equal features keep the gallery's
  order. This is the protocol of Market-1501 and MSMT17 (Zheng et al., ICCV 2015) with the AP of today's
  papers, not the trapezoid of the first MATLAB script; mINP is that of arXiv 2001.04193.

  Exact whatever the size: the similarities come in blocks of 64 MiB and only ranks of matches are kept.

  Args:
    query: [Q, D] features. gallery: [G, D]. They are scaled to unit length here.
    query_pid, query_camid: [Q] whole numbers. gallery_pid, gallery_camid: [G]. Without cameras, which go
      together, nothing is left out for its camera.
    ranks: at which CMC is told. junk_pids: identities of the gallery that are no answer, right or wrong.
    reranking: a `rerank.Reranking` to rank by k-reciprocal neighbours instead; None: do not.
  Returns:
    `Scores`.
  Raises:
    ValueError: for features or numbers of the wrong shape or kind, features that are not finite, and if no
      query has a match.
  """
  if reranking is None:
    closeness = CosineSimilarity(query, gallery)
  else:
    closeness = rerank.Reranked(query, gallery, reranking)
  found = match_ranks(closeness, query_pid, gallery_pid, query_camid, gallery_camid, junk_pids=junk_pids)
  return dataclasses.replace(score_ranks(found, ranks), reranking=reranking)


def match_ranks(closeness, query_pid, gallery_pid, query_camid=None, gallery_camid=None, *, junk_pids=()):
  """Finds the ranks of every query's matches.

  Args:
    closeness: a `CosineSimilarity` or `rerank.Reranked`. The others: as in `evaluate`.
  Returns:
    Q arrays [R] int64: ranks of the query's matches from 1, ascending; empty without a match.
  """
  identities = _Identities(
    closeness.num_queries,
    closeness.num_gallery,
    query_pid,
    gallery_pid,
    query_camid,
    gallery_camid,
    junk_pids,
  )
  found = []
  for start, rows in closeness.blocks():
    rows[:, identities.is_junk] = -np.inf
    for i, row in enumerate(rows, start):
      matches, same_camera = identities.split(i)
      row[same_camera] = -np.inf
      found.append(_rank(row, matches, i, closeness) if len(matches) else np.zeros(0, np.int64))
  return found


def score_ranks(match_ranks, ranks=(1, 5, 10)):
  """Averages AP, CMC and INP over queries.

  Args:
    match_ranks: as from the function of this name. ranks: at which CMC is told.
  Returns:
    `Scores`.
  Raises:
    ValueError: if no query has a match, or a rank is no whole number from 1.
  """
  if any(k != int(k) or k < 1 for k in ranks):
    raise ValueError(f"ranks={tuple(ranks)}: expected whole numbers from 1")
  is_valid = np.array([len(found) > 0 for found in match_ranks], bool)
  _check_any_match(is_valid)
  valid = [found for found in match_ranks if len(found)]
  ap = np.full(len(is_valid), np.nan)
  ap[is_valid] = [np.mean(np.arange(1, len(found) + 1) / found) for found in valid]
  first_rank = np.zeros(len(is_valid), np.int64)
  first_rank[is_valid] = [found[0] for found in valid]
  return Scores(
    mean_ap=float(ap[is_valid].mean()),
    cmc={int(k): float((first_rank[is_valid] <= k).mean()) for k in ranks},
    minp=float(np.mean([len(found) / found[-1] for found in valid])),
    num_queries=len(is_valid),
    num_valid_queries=int(is_valid.sum()),
    ap=ap,
    first_rank=first_rank,
  )


def chance_mean_ap(query_pid, gallery_pid, query_camid=None, gallery_camid=None, *, junk_pids=()):
  """Returns the expected mAP of a gallery in random order, exactly.

  With R matches among the N entries of a query's list, E[AP] = (H_N + (R-1)/(N-1) (N - H_N)) / N, where H_N
  is the N-th harmonic number: rank k holds a match with probability R/N, and then (k-1)(R-1)/(N-1) of the
  ranks before do so on average.

  Args:
    as in `evaluate`.
  Raises:
    ValueError: as `evaluate`.
  """
  num_queries, num_gallery = np.size(query_pid), np.size(gallery_pid)
  identities = _Identities(
    num_queries, num_gallery, query_pid, gallery_pid, query_camid, gallery_camid, junk_pids
  )
  counts = np.array([[len(part) for part in identities.split(i)] for i in range(num_queries)]).reshape(-1, 2)
  has_match = counts[:, 0] > 0
  _check_any_match(has_match)
  R, num_same_camera = counts[has_match].T
  N = num_gallery - identities.is_junk.sum() - num_same_camera
  harmonic = np.cumsum(1 / np.arange(1, num_gallery + 1))[N - 1]
  return float(np.mean((harmonic + (R - 1) / np.maximum(N - 1, 1) * (N - harmonic)) / N))


def _check_any_match(has_match):
  if not has_match.any():
    raise ValueError(
      f"none of the {len(has_match)} queries has a match in the gallery that counts: entries of the same "
      "identity under the same camera, and junk, do not; check the identities and cameras of both lists"
    )


def rank_list(
  query,
  gallery,
  *,
  k=10,
  query_pid=None,
  gallery_pid=None,
  query_camid=None,
  gallery_camid=None,
  junk_pids=(),
):
  """Lists the first k gallery entries of every query, for pictures and for people who ask.

  Nothing is left out: what `evaluate` would not count is in its place and says so in its verdict.

  Args:
    query: [Q, D] features, or [D] of one query. gallery: [G, D].
    k: entries; a smaller gallery gives all it has.
    The others: as in `evaluate`; without query_pid and gallery_pid there are no verdicts.
  Returns:
    `RankList`; Q is 1 for one query.
  Raises:
    ValueError: as `evaluate`, and for k below 1.
  """
  if k < 1:
    raise ValueError(f"k={k}: expected at least 1 entry a query")
  similarity = CosineSimilarity(np.atleast_2d(query), gallery)
  verdict = None
  index, cosine = similarity.nearest(k)
  if (query_pid is None) != (gallery_pid is None):
    raise ValueError("identities came for one side only: give query_pid and gallery_pid, or neither")
  if query_pid is not None:
    num_queries, num_gallery = similarity.num_queries, similarity.num_gallery
    identities = _Identities(
      num_queries, num_gallery, query_pid, gallery_pid, query_camid, gallery_camid, junk_pids
    )
    verdict = np.stack([identities.judge(i, row) for i, row in enumerate(index)])
  return RankList(index, np.clip(2 - 2 * cosine, 0, 4), verdict)


def _rank(row, matches, i, closeness):
  """Returns the ranks of the matches in query i's row, from 1, ascending; ties in gallery order."""
  margin = row.dtype.type(closeness.margin)
  low, high = row[matches] - margin, row[matches] + margin
  ordered = np.sort(row)  # of values: many times as fast as an argsort
  num_closer = len(row) - np.searchsorted(ordered, high, "right")
  num_near = len(row) - num_closer - np.searchsorted(ordered, low, "left")
  ranks = num_closer + 1
  unclear = num_near > 1  # a match itself is always near
  if unclear.any():
    # What is near to any of these is put in order exactly; the row tells what else stands before a match.
    is_near = np.zeros(len(row), bool)
    for m in np.flatnonzero(unclear):
      is_near |= (row >= low[m]) & (row <= high[m])
    near = np.flatnonzero(is_near)
    value = row[near] if closeness.exact is None else closeness.exact(i, near)
    place = np.empty(len(near), np.int64)
    place[np.argsort(-value, kind="stable")] = np.arange(len(near))
    num_counted_twice = len(near) - np.searchsorted(np.sort(row[near]), high[unclear], "right")
    ranks[unclear] += place[np.searchsorted(near, matches[unclear])] - num_counted_twice
  return np.sort(ranks)


def _as_ids(ids, count, name, side):
  """Returns whole numbers [count] as int64."""
  ids = np.asarray(ids)
  if ids.shape != (count,) or not (ids.dtype.kind in "iu" or count == 0):
    raise ValueError(
      f"{name} is {ids.dtype} {list(ids.shape)}; expected one whole number of at most 64 bits for each "
      f"of the {count} {side} features"
    )
  if ids.dtype.kind == "u" and ids.size and ids.max() > _MAX_ID:
    raise ValueError(f"{name} holds {ids.max()}; expected whole numbers of at most {_MAX_ID} (int64)")
  return ids.astype(np.int64)
