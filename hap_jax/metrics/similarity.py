"""Cosine similarity of queries with a gallery: in blocks, in an order that does not depend on rounding."""

import hashlib

import numpy as np

EPSILON = 1e-12  # least norm by which a feature is divided

_BLOCK_BYTES = 2**26  # of one block of similarities
_CHUNK_ROWS = 4096  # features in float64 at a time


class CosineSimilarity:
  """Every query against every gallery feature; the full matrix is never held.

  Order among similarities is order among squared Euclidean distances of the unit vectors, which are
  2 - 2 cos. Blocks come from float32 products, which round differently from block to block and from library
  to library. What lies closer together than their rounding is told apart in float64 by `exact`, where equal
  features give equal values: an order built from both depends neither on blocks nor on the machine.

  Attributes:
    margin: float; two values of a block's row that differ by more are in the true order.
  """

  def __init__(self, query, gallery):
    """Takes query features [Q, D] and gallery features [G, D], real numbers of any kind and length.

    Raises:
      ValueError: for other shapes, no query, no gallery, or features that are not finite.
    """
    self._query, self._gallery = _as_features(query, "query"), _as_features(gallery, "gallery")
    if self._query.shape[1] != self._gallery.shape[1]:
      raise ValueError(
        f"query features are {self._query.shape[1]} wide and gallery features {self._gallery.shape[1]}: "
        "take both from the same model"
      )
    self._query_norm = _norms(self._query, "query")
    self._gallery_norm = _norms(self._gallery, "gallery")
    # With m the mean of the gallery's unit vectors, q.g = (q-m).(g-m) + m.(g-m) + q.m, and the last term is
    # one number for a whole row. Of features that are nearly alike, as an untrained encoder's are, only these
    # small vectors have products whose float32 rounding is small beside their differences.
    mean = _mean_direction(self._gallery, self._gallery_norm)
    self._query_offset, query_length, _ = _subtract(self._query, self._query_norm, mean)
    self._gallery_offset, gallery_length, along_mean = _subtract(self._gallery, self._gallery_norm, mean)
    self._along_mean = along_mean.astype(np.float32)
    # Twice the error of a product. The worst case grows with D and never comes near; the root is the
    # statistical bound (Higham and Mary 2019, SIAM J. Sci. Comput. 41(5)), at least five times what was seen.
    size = query_length * gallery_length + np.abs(along_mean).max()
    self.margin = 2 * (np.sqrt(len(mean)) + 8) * (2**-24 * size + 2**-53)
    self._first_equal = _find_first_equals(self._gallery)

  @property
  def num_queries(self):
    return len(self._query)

  @property
  def num_gallery(self):
    return len(self._gallery)

  def blocks(self):
    """Yields (index of the first query, [b, G] float32): cosines, less a number that is one for a whole row.

    The rows may be written to; they are the caller's until the next block.
    """
    for start, stop in _ranges(self.num_queries, max(1, _BLOCK_BYTES // (4 * self.num_gallery))):
      rows = self._query_offset[start:stop] @ self._gallery_offset.T
      rows += self._along_mean
      yield start, rows

  def exact(self, query_index, gallery_index):
    """Returns the cosines of a query with some gallery entries, [n] float64; the same for equal features."""
    # Duplicates share one computation: collapsed features, all alike, are then no work at all.
    distinct, place = np.unique(self._first_equal[gallery_index], return_inverse=True)
    query = self._query[query_index].astype(np.float64)
    value = np.empty(len(distinct))
    for start, stop in _ranges(len(distinct), _CHUNK_ROWS):
      rows = distinct[start:stop]
      value[start:stop] = np.einsum("gd,d->g", self._gallery[rows].astype(np.float64), query)
    return (value / self._gallery_norm[distinct] / self._query_norm[query_index])[place]

  def nearest(self, k):
    """Finds every query's k most similar gallery entries; equal ones in gallery order.

    Returns:
      (index [Q, k] int64, cosine [Q, k] float64), most similar first; k is at most G.
    """
    index, cosine = zip(*(self.nearest_in(start, rows, k) for start, rows in self.blocks()), strict=True)
    return np.concatenate(index), np.concatenate(cosine)

  def nearest_in(self, start, rows, k):
    """As `nearest`, for the queries of one block (start, rows)."""
    k = min(k, self.num_gallery)
    index, cosine = np.empty((len(rows), k), np.int64), np.empty((len(rows), k))
    least = np.partition(rows, self.num_gallery - k, axis=1)[:, self.num_gallery - k]
    for n, row in enumerate(rows):
      candidates = np.flatnonzero(row >= least[n] - np.float32(self.margin))
      value = self.exact(start + n, candidates)
      order = np.argsort(-value, kind="stable")[:k]
      index[n], cosine[n] = candidates[order], value[order]
    return index, cosine


def _as_features(features, name):
  """Returns features as a float32 or float64 array [N, D]; `name` is for the error.

  Raises:
    ValueError: for other shapes, and for no feature at all.
  """
  features = np.asarray(features)
  if features.ndim != 2 or 0 in features.shape:
    raise ValueError(f"{name} features are {list(features.shape)}; expected [N, D] with N and D at least 1")
  return features if features.dtype in (np.float32, np.float64) else features.astype(np.float32)


def _norms(features, name):
  """Returns the length of every feature, [N] float64, at least EPSILON; raises if one is not finite."""
  norm = np.empty(len(features))
  for start, stop in _ranges(len(features), _CHUNK_ROWS):
    rows = features[start:stop].astype(np.float64)
    norm[start:stop] = np.sqrt(np.einsum("nd,nd->n", rows, rows))
  bad = np.flatnonzero(~np.isfinite(norm))
  if len(bad):
    raise ValueError(
      f"{len(bad)} of {len(features)} {name} features hold nan or inf, the first is number {bad[0]}: "
      "look at the model's weights and at the pictures of these rows"
    )
  return np.maximum(norm, EPSILON)


def _mean_direction(features, norm):
  """Returns the mean of the unit vectors, [D] float64."""
  ranges = _ranges(len(features), _CHUNK_ROWS)
  return sum((features[i:j] / norm[i:j, None]).sum(axis=0) for i, j in ranges) / len(features)


def _subtract(features, norm, mean):
  """Returns unit vectors less `mean` [N, D] float32, the greatest length of these, `mean` times each [N]."""
  offset = np.empty(features.shape, np.float32)
  length, along_mean = 0.0, np.empty(len(features))
  for i, j in _ranges(len(features), _CHUNK_ROWS):
    rows = features[i:j] / norm[i:j, None] - mean
    length = max(length, np.sqrt(np.einsum("nd,nd->n", rows, rows).max()))
    along_mean[i:j] = np.einsum("nd,d->n", rows, mean)
    offset[i:j] = rows
  return offset, length, along_mean


def _find_first_equals(features):
  """Returns for every feature the index of the first one with the same bytes, [N] int64."""
  features = np.ascontiguousarray(features)
  first = {}
  for i, row in enumerate(features):
    first.setdefault(hashlib.blake2b(row, digest_size=16).digest(), []).append(i)
  result = np.empty(len(features), np.int64)
  for same in first.values():
    result[same] = same[0]
  return result


def _ranges(total, size):
  """Returns [(start, stop)] that cover `total` in pieces of `size`."""
  return [(start, min(start + size, total)) for start in range(0, total, size)]
