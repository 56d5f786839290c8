"""k-reciprocal re-ranking (Zhong et al., CVPR 2017, arXiv 1701.08398).

The encodings are sparse, and similarities are computed in blocks, so that large galleries fit in memory.
"""

import dataclasses

import numpy as np

from hap_jax.metrics.similarity import CosineSimilarity

_LEAST_DISTANCE = 1e-12  # smallest divisor of distances; it avoids 0 / 0 if all features are equal


@dataclasses.dataclass(frozen=True)
class Reranking:
  """Settings of the re-ranking; the defaults are the numbers of the paper.

  Attributes:
    k1: number of neighbours among which reciprocal neighbours are searched.
    k2: number of neighbours whose encodings are averaged. 1: a feature keeps its own encoding.
    weight: lambda in the paper, the share of the original distance in the final distance.
  """

  k1: int = 20
  k2: int = 6
  weight: float = 0.3

  def __post_init__(self):
    if self.k1 < 1 or not 1 <= self.k2 <= self.k1 + 1 or not 0 <= self.weight <= 1:
      raise ValueError(f"{self}: expected k1 at least 1, k2 from 1 to k1 + 1, weight from 0 to 1")


class Reranked:
  """Re-ranked closeness of every query to every gallery feature, with the interface of `CosineSimilarity`.

  The final distance is (1 - weight) d_J + weight d. d_ij is the squared distance of the unit vectors i and j,
  and each row of d is divided by its largest value. d_J is the Jaccard distance of the encodings V_i of
  k-reciprocal neighbours. Queries can also be neighbours, so the result depends on all queries.

  Three rules follow the code of the authors, because the published numbers come from that code. The paper has
  a different rule, or no rule, for these cases:
  - The k1 + 1 neighbours of a feature include the feature itself.
  - Distances are divided by the largest distance of the row.
  - The set of a neighbour is added if *more* than two thirds of it are already in the set of the feature.

  Attributes:
    margin: 0. The values of `blocks` give the order without a second comparison.
    exact: None. There are no values that are more exact than the values of `blocks`.
  """

  margin = 0.0
  exact = None

  def __init__(self, query, gallery, reranking):
    """Encodes the features.

    Args:
      query, gallery: see `CosineSimilarity`.
      reranking: a `Reranking`.
    Raises:
      ValueError: in the same cases as `CosineSimilarity`.
    """
    self._similarity = CosineSimilarity(query, gallery)
    self.num_queries, self.num_gallery = self._similarity.num_queries, self._similarity.num_gallery
    self._weight = reranking.weight
    # Neighbours are searched among queries and gallery together, as in the paper.
    everyone = np.concatenate([query, gallery])
    encodings, self._farthest = _encode(CosineSimilarity(everyone, everyone), reranking)
    self._query_encodings = encodings[: self.num_queries]
    self._postings = _invert(encodings[self.num_queries :], len(encodings))

  def blocks(self):
    """Yields (index of the first query, [b, G] float32): the negative final distances."""
    for start, rows in self._similarity.blocks():
      for i, row in enumerate(rows, start):
        # The row is the cosines minus a constant, see `CosineSimilarity.blocks`. One exact cosine is enough
        # to compute this constant.
        cosine = row + (self._similarity.exact(i, [0]) - row[0])
        # The squared distance is 2 - 2 cos. The factor 2 cancels in the division by the largest distance.
        distance = (1 - cosine) / max(1 - self._farthest[i], _LEAST_DISTANCE)
        row[:] = -((1 - self._weight) * self._jaccard(i) + self._weight * distance)
      yield start, rows

  def _jaccard(self, i):
    """Returns 1 - sum_j min(V_ij, V_gj) / sum_j max(V_ij, V_gj) of query i, [G] float64."""
    offsets, entries, weights = self._postings
    shared = np.zeros(self.num_gallery)
    # Encodings are sparse, so only the gallery entries that share a neighbour j with the query are visited.
    for j, weight in zip(*self._query_encodings[i], strict=True):
      here = slice(offsets[j], offsets[j + 1])
      shared[entries[here]] += np.minimum(weight, weights[here])
    # min + max is the sum of the two weights, and each encoding sums to 1. So sum_j max is 2 - sum_j min.
    return 1 - shared / (2 - shared)


def _encode(similarity, reranking):
  """Encodes each of N features by its k-reciprocal neighbours: V_ij is proportional to exp(-d_ij).

  Args:
    similarity: `CosineSimilarity` of all N features with all N features.
    reranking: a `Reranking`.
  Returns:
    (encodings, farthest):
    encodings: a list of N pairs (index [n], weight [n] float64). The indices ascend. The weights sum to 1.
    farthest: [N] float64, the cosine of each feature with its least similar feature.
  """
  N = similarity.num_queries
  neighbors = np.empty((N, min(reranking.k1 + 1, N)), np.int64)
  farthest = np.empty(N)
  for start, rows in similarity.blocks():
    stop = start + len(rows)
    neighbors[start:stop] = similarity.nearest_in(start, rows, reranking.k1 + 1)[0]
    # The values of a row are not cosines but have the same order, so argmin finds the least similar feature.
    for i, last in enumerate(rows.argmin(axis=1), start):
      farthest[i] = similarity.exact(i, [last])[0]
  is_near = _find_reciprocal(neighbors)
  # The sets that may be added are computed with half of k1. `np.around` rounds 2.5 to 2, as in the authors'
  # code.
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
  """Returns [N, k] bool: entry (i, n) is True if feature i is also a neighbour of its n-th neighbour."""
  return np.stack([(neighbors[row] == i).any(axis=1) for i, row in enumerate(neighbors)])


def _expand(index, half, is_half):
  """Returns a set of reciprocal neighbours, expanded by the smaller reciprocal sets of its members.

  The set of a member is added if more than 2/3 of it are already in `index`.

  Args:
    index: [n], the reciprocal neighbours of a feature.
    half: [N, k1/2 + 1], the nearest neighbours of each feature.
    is_half: [N, k1/2 + 1] bool, True if the neighbour is reciprocal.
  Returns:
    [m] indices, ascending and unique.
  """
  candidates, is_member = half[index], is_half[index]  # [n, k1/2 + 1]
  is_shared = (candidates[..., None] == index).any(axis=-1) & is_member
  # Parity: the code of the authors has "more than", but the paper has "at least". The comparison uses whole
  # numbers, so there is no rounding.
  joins = 3 * is_shared.sum(axis=1) > 2 * is_member.sum(axis=1)
  return np.unique(np.concatenate([index, candidates[joins][is_member[joins]]]))


def _average(encodings):
  """Returns the mean of sparse encodings as a pair (index, weight)."""
  index, place = np.unique(np.concatenate([index for index, _ in encodings]), return_inverse=True)
  weight = np.bincount(place, np.concatenate([weight for _, weight in encodings]))
  return index, weight / len(encodings)


def _invert(encodings, width):
  """Inverts sparse rows: returns the rows and weights of every column.

  Args:
    encodings: list of pairs (column index [n], weight [n]), one per row.
    width: number of columns.
  Returns:
    (offsets [width + 1], rows, weights). The entries of column j are at offsets[j], ..., offsets[j + 1] - 1.
  """
  columns = np.concatenate([index for index, _ in encodings])
  weights = np.concatenate([weight for _, weight in encodings])
  rows = np.repeat(np.arange(len(encodings), dtype=np.int32), [len(index) for index, _ in encodings])
  order = np.argsort(columns, kind="stable")
  offsets = np.searchsorted(columns[order], np.arange(width + 1))
  return offsets, rows[order], weights[order].astype(np.float32)
