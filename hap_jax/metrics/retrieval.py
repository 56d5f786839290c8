"""Retrieval metrics on NumPy arrays: mAP, CMC, mINP, rank lists, with the ReID rules for junk and cameras."""

import dataclasses

import numpy as np

from hap_jax.metrics import rerank
from hap_jax.metrics.identities import Identities
from hap_jax.metrics.similarity import CosineSimilarity


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
  """Scores of a retrieval. Means are taken over the valid queries, which are the queries with a match.

  Attributes:
    mean_ap: mean average precision, 0 to 1.
    cmc: {k: share of the valid queries whose first match has a rank of at most k}.
    minp: mean inverse negative penalty, the mean of (number of matches / rank of the last match).
    num_queries: number of all queries.
    num_valid_queries: number of the queries that have a match in the gallery.
    ap: [Q] float64, average precision of each query; nan for a query without a match.
    ap_trapezoid: [Q] float64, the same with the trapezoidal rule, see `evaluate`.
    first_rank: [Q] int64, rank of the first match of each query, from 1; 0 for a query without a match.
    reranking: the settings of the re-ranking, a `rerank.Reranking`. None: no re-ranking.
  """

  mean_ap: float
  cmc: dict[int, float]
  minp: float
  num_queries: int
  num_valid_queries: int
  ap: np.ndarray
  ap_trapezoid: np.ndarray
  first_rank: np.ndarray
  reranking: rerank.Reranking | None = None

  @property
  def mean_ap_trapezoid(self):
    """The mean of `ap_trapezoid` over the valid queries, 0 to 1."""
    return float(self.ap_trapezoid[self.first_rank > 0].mean())

  def metrics(self):
    """Returns {"mAP": ..., "rank1": ..., "mINP": ...}. After re-ranking, the names end in "_reranked"."""
    values = {"mAP": self.mean_ap, **{f"rank{k}": share for k, share in self.cmc.items()}, "mINP": self.minp}
    suffix = "" if self.reranking is None else "_reranked"
    return {f"{name}{suffix}": value for name, value in values.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class RankList:
  """The k closest gallery entries of every query, closest first.

  Attributes:
    index: [Q, k] int64, index of the entry in the gallery.
    distance: [Q, k] float64, squared Euclidean distance of the unit vectors, 2 - 2 cos, 0 to 4.
    score: [Q, k] float64, cosine similarity, -1 to 1.
    verdict: [Q, k] words of `identities.VERDICTS`; None if no identities were given.
  """

  index: np.ndarray
  distance: np.ndarray
  score: np.ndarray
  verdict: np.ndarray | None


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
  own_index=None,
  reranking=None,
):
  """Scores a retrieval: every query ranks the gallery by cosine similarity.

  Three kinds of gallery entries are left out of the list of a query: entries of the query's identity under
  the query's camera, entries of junk identities, and the query's own entry. A query without a match counts in
  `num_queries`, but not in the means. Equal features keep the order of the gallery.

  Let p_k be the rank of the k-th of R matches. AP = (1/R) sum_k k / p_k. The trapezoidal rule takes the mean
  of the precisions at the match and before it: (1/R) sum_k (k / p_k + (k - 1) / (p_k - 1)) / 2. The precision
  before rank 1 counts as 1.

  This is the protocol of Market-1501 and MSMT17 (Zheng et al., ICCV 2015). AP is computed as in current
  papers. The first MATLAB script of Market-1501 and the official code of text ReID use the trapezoidal rule.
  mINP is defined in arXiv 2001.04193.

  The result is exact for a gallery of any size. The similarities are computed in blocks of 64 MiB, and only
  the ranks of the matches are kept in memory.

  Args:
    query: [Q, D] features. They are scaled to unit length here.
    gallery: [G, D] features. They are scaled to unit length here.
    query_pid: [Q] whole numbers, identities of the queries.
    gallery_pid: [G] whole numbers, identities of the gallery.
    query_camid: [Q] whole numbers, cameras of the queries; None: no entry is left out because of its camera.
    gallery_camid: [G] whole numbers, cameras of the gallery; None if and only if query_camid is None.
    ranks: the ranks of the CMC.
    junk_pids: identities of the gallery that count neither as right nor as wrong.
    own_index: [Q] whole numbers, the gallery entry that belongs to the query itself, such as the picture that
      a caption was written for. This entry must have the identity of the query, and it is left out. None: no
      query has an own entry.
    reranking: a `rerank.Reranking` to rank by k-reciprocal neighbours; None: no re-ranking.
  Returns:
    `Scores`.
  Raises:
    ValueError: if features or identities have a wrong shape or type, if features are not finite, or if no
      query has a match.
  """
  if reranking is None:
    closeness = CosineSimilarity(query, gallery)
  else:
    closeness = rerank.Reranked(query, gallery, reranking)
  found = match_ranks(
    closeness,
    query_pid,
    gallery_pid,
    query_camid,
    gallery_camid,
    junk_pids=junk_pids,
    own_index=own_index,
  )
  return dataclasses.replace(score_ranks(found, ranks), reranking=reranking)


def match_ranks(
  closeness,
  query_pid,
  gallery_pid,
  query_camid=None,
  gallery_camid=None,
  *,
  junk_pids=(),
  own_index=None,
):
  """Returns the ranks of the matches of every query.

  Args:
    closeness: a `CosineSimilarity` or `rerank.Reranked`.
    query_pid, gallery_pid, query_camid, gallery_camid, junk_pids, own_index: as in `evaluate`.
  Returns:
    A list of Q arrays [R] int64: the ranks of the matches of a query from 1, ascending. The array is empty
    for a query without a match.
  """
  identities = Identities(
    closeness.num_queries,
    closeness.num_gallery,
    query_pid,
    gallery_pid,
    query_camid,
    gallery_camid,
    junk_pids,
    own_index,
  )
  found = []
  for start, rows in closeness.blocks():
    # An entry that is left out gets the last place, so it does not change the rank of any match.
    rows[:, identities.is_junk] = -np.inf
    for i, row in enumerate(rows, start):
      matches, left_out = identities.split(i)
      row[left_out] = -np.inf
      found.append(_rank(row, matches, i, closeness) if len(matches) else np.zeros(0, np.int64))
  return found


def score_ranks(match_ranks, ranks=(1, 5, 10)):
  """Returns the means of AP, CMC and INP over the valid queries.

  Args:
    match_ranks: result of the function `match_ranks`.
    ranks: the ranks of the CMC.
  Returns:
    `Scores`.
  Raises:
    ValueError: if no query has a match, or if a rank is not a whole number of at least 1.
  """
  if any(k != int(k) or k < 1 for k in ranks):
    raise ValueError(f"ranks={tuple(ranks)}: expected whole numbers of at least 1")
  is_valid = np.array([len(found) > 0 for found in match_ranks], bool)
  _check_any_match(is_valid)
  valid = [found for found in match_ranks if len(found)]
  # A query without a match gets nan, because 0 would be a valid average precision.
  ap = np.full(len(is_valid), np.nan)
  ap[is_valid] = [np.mean(np.arange(1, len(found) + 1) / found) for found in valid]
  ap_trapezoid = np.full(len(is_valid), np.nan)
  ap_trapezoid[is_valid] = [_trapezoid_ap(found) for found in valid]
  first_rank = np.zeros(len(is_valid), np.int64)
  first_rank[is_valid] = [found[0] for found in valid]
  return Scores(
    mean_ap=float(ap[is_valid].mean()),
    cmc={int(k): float((first_rank[is_valid] <= k).mean()) for k in ranks},
    minp=float(np.mean([len(found) / found[-1] for found in valid])),
    num_queries=len(is_valid),
    num_valid_queries=int(is_valid.sum()),
    ap=ap,
    ap_trapezoid=ap_trapezoid,
    first_rank=first_rank,
  )


def _trapezoid_ap(found):
  """Returns the average precision of one query with the trapezoidal rule, see `evaluate`.

  Args:
    found: [R] int64, the ranks of the matches from 1, ascending, with R at least 1.
  """
  k = np.arange(1, len(found) + 1)
  # Only the first match can have rank 1. The precision before rank 1 is 1 by definition.
  before = np.where(found > 1, (k - 1) / np.maximum(found - 1, 1), 1)
  return np.mean((k / found + before) / 2)


def chance_mean_ap(query_pid, gallery_pid, query_camid=None, gallery_camid=None, *, junk_pids=()):
  """Returns the exact expected mAP of a gallery in random order.

  Let the list of a query have N entries with R matches, and let H_N be the N-th harmonic number. Then
  E[AP] = (H_N + (R-1)/(N-1) (N - H_N)) / N. Reason: the entry at rank k is a match with probability R/N. If
  it is a match, the expected number of matches before it is (k-1)(R-1)/(N-1).

  Args:
    query_pid, gallery_pid, query_camid, gallery_camid, junk_pids: as in `evaluate`.
  Returns:
    float, 0 to 1.
  Raises:
    ValueError: if identities have a wrong shape or type, or if no query has a match.
  """
  num_queries, num_gallery = np.size(query_pid), np.size(gallery_pid)
  identities = Identities(
    num_queries, num_gallery, query_pid, gallery_pid, query_camid, gallery_camid, junk_pids
  )
  counts = np.array([[len(part) for part in identities.split(i)] for i in range(num_queries)]).reshape(-1, 2)
  has_match = counts[:, 0] > 0
  _check_any_match(has_match)
  R, num_same_camera = counts[has_match].T
  # R and N are arrays with one number per valid query. N differs between queries, because the list of a query
  # leaves out the entries of its identity under its camera.
  N = num_gallery - identities.is_junk.sum() - num_same_camera
  harmonic = np.cumsum(1 / np.arange(1, num_gallery + 1))[N - 1]
  # N = 1 implies R = 1; the maximum only avoids 0 / 0.
  return float(np.mean((harmonic + (R - 1) / np.maximum(N - 1, 1) * (N - harmonic)) / N))


def _check_any_match(has_match):
  if not has_match.any():
    raise ValueError(
      f"none of the {len(has_match)} queries has a match in the gallery that counts: junk entries do not "
      "count, entries of the same identity under the same camera do not count, and the own entry of a query "
      "does not count; check the identities and cameras of both lists"
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
  """Returns the k closest gallery entries of every query, for figures and search results.

  No entry is left out. If `evaluate` leaves an entry out, its verdict here is "same camera" or "junk".

  Args:
    query: [Q, D] features, or [D] for one query.
    gallery: [G, D] features.
    k: number of entries. If the gallery has fewer entries, all of them are returned.
    query_pid, gallery_pid: as in `evaluate`; None: the result has no verdicts.
    query_camid, gallery_camid, junk_pids: as in `evaluate`.
  Returns:
    `RankList`. Q is 1 for one query.
  Raises:
    ValueError: if features or identities have a wrong shape or type, if features are not finite, or if k is
      below 1.
  """
  if k < 1:
    raise ValueError(f"k={k}: expected at least 1 entry per query")
  similarity = CosineSimilarity(np.atleast_2d(query), gallery)
  verdict = None
  index, cosine = similarity.nearest(k)
  if (query_pid is None) != (gallery_pid is None):
    raise ValueError("identities are given for one side only: give query_pid and gallery_pid, or neither")
  if query_pid is not None:
    num_queries, num_gallery = similarity.num_queries, similarity.num_gallery
    identities = Identities(
      num_queries, num_gallery, query_pid, gallery_pid, query_camid, gallery_camid, junk_pids
    )
    verdict = np.stack([identities.judge(i, row) for i, row in enumerate(index)])
  # Rounding can move 2 - 2 cos slightly out of its range.
  return RankList(index, np.clip(2 - 2 * cosine, 0, 4), cosine, verdict)


def _rank(row, matches, i, closeness):
  """Returns the ranks of the matches of query i, from 1, ascending.

  Entries with equal values keep the order of the gallery.

  Args:
    row: [G], row i of `closeness.blocks`. Entries that are left out have the value -inf.
    matches: [R] indices of the matches in the gallery, ascending.
    i: index of the query.
    closeness: a `CosineSimilarity` or `rerank.Reranked`.
  """
  # Two values that differ by more than the margin are in the true order. Values that differ by less may be
  # swapped by rounding. So an entry above `high` is certainly before the match, and an entry below `low` is
  # certainly after it. Only the entries between `low` and `high`, called near, need exact values.
  margin = row.dtype.type(closeness.margin)
  low, high = row[matches] - margin, row[matches] + margin
  ordered = np.sort(row)  # a sort of values is many times faster than an argsort
  num_closer = len(row) - np.searchsorted(ordered, high, "right")
  num_near = len(row) - num_closer - np.searchsorted(ordered, low, "left")
  ranks = num_closer + 1
  unclear = num_near > 1  # a match is always near itself, so 1 means that no other entry is near
  if unclear.any():
    # All entries near an unclear match are collected, and their exact order is computed once.
    is_near = np.zeros(len(row), bool)
    for m in np.flatnonzero(unclear):
      is_near |= (row >= low[m]) & (row <= high[m])
    near = np.flatnonzero(is_near)
    value = row[near] if closeness.exact is None else closeness.exact(i, near)
    # `near` ascends and the sort is stable, so entries of equal value keep gallery order.
    place = np.empty(len(near), np.int64)
    place[np.argsort(-value, kind="stable")] = np.arange(len(near))
    # `place` counts the near entries before a match. Some of them are above `high` and are already part of
    # num_closer, so they are subtracted once.
    num_counted_twice = len(near) - np.searchsorted(np.sort(row[near]), high[unclear], "right")
    ranks[unclear] += place[np.searchsorted(near, matches[unclear])] - num_counted_twice
  return np.sort(ranks)
