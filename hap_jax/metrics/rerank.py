"""k-reciprocal re-ranking (Zhong et al., CVPR 2017, arXiv 1701.08398) with sparse encodings, in blocks."""

import dataclasses

import numpy as np

from hap_jax.metrics.similarity import CosineSimilarity

_LEAST_DISTANCE = 1e-12  # by which distances are divided where all features are alike


@dataclasses.dataclass(frozen=True)
class Reranking:
  """Settings of the re-ranking; the paper's.

  Attributes:
    k1: neighbours among which reciprocal ones are sought.
    k2: neighbours whose encodings are averaged; 1: a feature's own alone.
    weight: lambda, share of the original distance in the final one.
  """

  k1: int = 20
  k2: int = 6
  weight: float = 0.3

  def __post_init__(self):
    if self.k1 < 1 or not 1 <= self.k2 <= self.k1 + 1 or not 0 <= self.weight <= 1:
      raise ValueError(f"{self}: expected k1 at least 1, k2 from 1 to k1 + 1, weight from 0 to 1")


class Reranked:
  """Re-ranked closeness of every query to every gallery feature, with the face of a `CosineSimilarity`.

  Final distance (1 - weight) d_J + weight d. d_ij is the squared distance of unit vectors, each row divided
  by its largest. d_J is the Jaccard distance of the encodings V_i of k-reciprocal neighbours. Queries are
  neighbours too, so the result depends on the whole query set.

  Three choices are the authors' code's, from which published numbers come, where the paper leaves them open
  or says otherwise: a feature counts among its own k1 + 1 neighbours, distances are divided by the row's
  largest, and a neighbour's set joins if it overlaps by *more* than two thirds.

  Attributes:
    margin: 0: a block's rows are the order themselves. exact: None, so there is nothing finer to ask.
  """

  margin = 0.0
  exact = None

  def __init__(self, query, gallery, reranking):
    """Takes features as `CosineSimilarity` does and encodes them; raises ValueError as it does."""
    self._similarity = CosineSimilarity(query, gallery)
    self.num_queries, self.num_gallery = self._similarity.num_queries, self._similarity.num_gallery
    self._weight = reranking.weight
    everyone = np.concatenate([query, gallery])
    encodings, self._farthest = _encode(CosineSimilarity(everyone, everyone), reranking)
    self._query_encodings = encodings[: self.num_queries]
    self._postings = _invert(encodings[self.num_queries :], len(encodings))

  def blocks(self):
    """Yields (index of the first query, [b, G] float32): minus the final distance."""
    for start, rows in self._similarity.blocks():
      for i, row in enumerate(rows, start):
        # Known to the row up to a constant, which one exact value gives back.
        cosine = row + (self._similarity.exact(i, [0]) - row[0])
        distance = (1 - cosine) / max(1 - self._farthest[i], _LEAST_DISTANCE)
        row[:] = -((1 - self._weight) * self._jaccard(i) + self._weight * distance)
      yield start, rows

  def _jaccard(self, i):
    """Returns 1 - sum_j min(V_ij, V_gj) / sum_j max(V_ij, V_gj) of query i, [G] float64."""
    offsets, entries, weights = self._postings
    shared = np.zeros(self.num_gallery)
    for j, weight in zip(*self._query_encodings[i], strict=True):
      here = slice(offsets[j], offsets[j + 1])
      shared[entries[here]] += np.minimum(weight, weights[here])
    return 1 - shared / (2 - shared)  # min + max is the sum of both encodings, which is 1 + 1


def _encode(similarity, reranking):
  """Encodes each of N features by its k-reciprocal neighbours, V_ij ~ exp(-d_ij), summing to 1.

  Args:
    similarity: of all N with all N.
  Returns:
    (N pairs (index [n] ascending, weight [n] float64), cosine with the least similar feature [N]).
  """
  N = similarity.num_queries
  neighbors = np.empty((N, min(reranking.k1 + 1, N)), np.int64)
  farthest = np.empty(N)
  for start, rows in similarity.blocks():
    stop = start + len(rows)
    neighbors[start:stop] = similarity.nearest_in(start, rows, reranking.k1 + 1)[0]
    for i, last in enumerate(rows.argmin(axis=1), start):
      farthest[i] = similarity.exact(i, [last])[0]
  is_near = _find_reciprocal(neighbors)
  half = neighbors[:, : int(np.around(reranking.k1 / 2)) + 1]
  is_half = _find_reciprocal(half)
  encodings = []
  for i in range(N):
    index = _expand(neighbors[i][is_near[i]], half, is_half)
    distance = (1 - similarity.exact(i, index)) / max(1 - farthest[i], _LEAST_DISTANCE)
    weight = np.exp(-distance)
    encodings.append((index, weight / weight.sum()))
  if reranking.k2 > 1:
    encodings = [_average([encodings[j] for j in row[: reranking.k2]]) for row in neighbors]
  return encodings, farthest


def _find_reciprocal(neighbors):
  """Tells for each neighbour [N, k] of i whether i is a neighbour of it, [N, k] bool."""
  return np.stack([(neighbors[row] == i).any(axis=1) for i, row in enumerate(neighbors)])


def _expand(index, half, is_half):
  """Adds to reciprocal neighbours the smaller reciprocal sets of them that they cover by more than 2/3."""
  candidates, is_member = half[index], is_half[index]  # [n, k1/2 + 1]
  is_shared = (candidates[..., None] == index).any(axis=-1) & is_member
  # Parity: "more than" is the authors' code; the paper says "at least".
  joins = 3 * is_shared.sum(axis=1) > 2 * is_member.sum(axis=1)
  return np.unique(np.concatenate([index, candidates[joins][is_member[joins]]]))


def _average(encodings):
  """Averages sparse encodings."""
  index, place = np.unique(np.concatenate([index for index, _ in encodings]), return_inverse=True)
  weight = np.bincount(place, np.concatenate([weight for _, weight in encodings]))
  return index, weight / len(encodings)


def _invert(encodings, width):
  """Lists for every column the rows that have a weight in it.

  Returns:
    (offsets [width + 1], rows, weights): column j's rows and weights are at offsets[j] to offsets[j + 1].
  """
  columns = np.concatenate([index for index, _ in encodings])
  weights = np.concatenate([weight for _, weight in encodings])
  rows = np.repeat(np.arange(len(encodings), dtype=np.int32), [len(index) for index, _ in encodings])
  order = np.argsort(columns, kind="stable")
  offsets = np.searchsorted(columns[order], np.arange(width + 1))
  return offsets, rows[order], weights[order].astype(np.float32)
