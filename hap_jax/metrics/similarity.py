"""Cosine similarity of queries with a gallery, in blocks. The order does not depend on rounding errors."""

import hashlib

import numpy as np

EPSILON = 1e-12  # smallest divisor of a feature; it avoids a division by zero for features of length 0

_BLOCK_BYTES = 2**26  # size of one block of similarities
_CHUNK_ROWS = 4096  # number of features that are converted to float64 at once


class CosineSimilarity:
  """Cosine similarities of every query with every gallery feature. The full matrix is never in memory.

  The squared Euclidean distance of unit vectors is 2 - 2 cos. So similarities and distances rank the gallery
  in the same order. The blocks are float32 products. Their rounding depends on the block and on the library.
  If two values are closer than the rounding error, compare them with `exact`. It computes in float64 and
  gives equal values for equal features. An order that is built from `blocks` and `exact` depends neither on
  the block size nor on the machine.

  Attributes:
    margin: float. Two values of the same row that differ by more than `margin` are in the true order.
  """

  def __init__(self, query, gallery):
    """Checks the features and computes their norms and offsets.

    Args:
      query: [Q, D] features, real numbers of any type. They need not have unit length.
      gallery: [G, D] features, real numbers of any type. They need not have unit length.
    Raises:
      ValueError: if the features have other shapes, if there is no query or no gallery feature, or if
        features are not finite.
    """
    self._query, self._gallery = _as_features(query, "query"), _as_features(gallery, "gallery")
    if self._query.shape[1] != self._gallery.shape[1]:
      raise ValueError(
        f"query features are {self._query.shape[1]} wide and gallery features {self._gallery.shape[1]}: "
        "take both from the same model"
      )
    self._query_norm = _norms(self._query, "query")
    self._gallery_norm = _norms(self._gallery, "gallery")
    # Let m be the mean of the unit vectors of the gallery. Then q.g = (q-m).(g-m) + m.(g-m) + q.m, and q.m is
    # the same number for a whole row, so it does not change the order. The features of an untrained encoder
    # are nearly equal. Their products q.g then differ by less than the float32 rounding error, but the
    # products of the small vectors q-m and g-m have small rounding errors.
    mean = _mean_direction(self._gallery, self._gallery_norm)
    self._query_offset, query_length, _ = _subtract(self._query, self._query_norm, mean)
    self._gallery_offset, gallery_length, along_mean = _subtract(self._gallery, self._gallery_norm, mean)
    self._along_mean = along_mean.astype(np.float32)
    # The margin is twice the error of a product, because both compared values have this error. The bound of
    # the worst case grows with D and is far too large. So a statistical bound is used, which grows with the
    # square root of D (Higham and Mary 2019, SIAM J. Sci. Comput. 41(5)). It is at least five times the
    # largest error that was measured.
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
    """Yields (index of the first query of the block, [b, G] float32 rows), one row per query.

    A row is the cosines of its query minus a constant, which differs between rows. The caller may change the
    rows until it takes the next block.
    """
    for start, stop in _ranges(self.num_queries, max(1, _BLOCK_BYTES // (4 * self.num_gallery))):
      rows = self._query_offset[start:stop] @ self._gallery_offset.T
      rows += self._along_mean
      yield start, rows

  def exact(self, query_index, gallery_index):
    """Returns the cosines of a query with gallery entries, [n] float64. Equal features give equal values.

    Args:
      query_index: index of one query.
      gallery_index: [n] indices of gallery entries.
    """
    # The cosine of equal features is computed once. If all features are equal, one product is enough.
    distinct, place = np.unique(self._first_equal[gallery_index], return_inverse=True)
    query = self._query[query_index].astype(np.float64)
    value = np.empty(len(distinct))
    for start, stop in _ranges(len(distinct), _CHUNK_ROWS):
      rows = distinct[start:stop]
      value[start:stop] = np.einsum("gd,d->g", self._gallery[rows].astype(np.float64), query)
    return (value / self._gallery_norm[distinct] / self._query_norm[query_index])[place]

  def nearest(self, k):
    """Returns the k most similar gallery entries of every query. Equal features keep the gallery order.

    Returns:
      (index [Q, k] int64, cosine [Q, k] float64), most similar first. If k is above G, the second axis is G.
    """
    index, cosine = zip(*(self.nearest_in(start, rows, k) for start, rows in self.blocks()), strict=True)
    return np.concatenate(index), np.concatenate(cosine)

  def nearest_in(self, start, rows, k):
    """Returns the result of `nearest` for the queries of one block (start, rows) of `blocks`."""
    k = min(k, self.num_gallery)
    index, cosine = np.empty((len(rows), k), np.int64), np.empty((len(rows), k))
    least = np.partition(rows, self.num_gallery - k, axis=1)[:, self.num_gallery - k]
    for n, row in enumerate(rows):
      # An entry below the k-th value by more than the margin cannot be one of the k nearest.
      candidates = np.flatnonzero(row >= least[n] - np.float32(self.margin))
      value = self.exact(start + n, candidates)
      order = np.argsort(-value, kind="stable")[:k]
      index[n], cosine[n] = candidates[order], value[order]
    return index, cosine


def _as_features(features, name):
  """Returns features as a float32 or float64 array [N, D]; `name` is for the error message.

  Raises:
    ValueError: if the shape is not [N, D] with N and D of at least 1.
  """
  features = np.asarray(features)
  if features.ndim != 2 or 0 in features.shape:
    raise ValueError(f"{name} features are {list(features.shape)}; expected [N, D] with N and D at least 1")
  return features if features.dtype in (np.float32, np.float64) else features.astype(np.float32)


def _norms(features, name):
  """Returns the length of every feature, [N] float64, at least EPSILON; `name` is for the error message.

  Raises:
    ValueError: if a feature is not finite.
  """
  norm = np.empty(len(features))
  for start, stop in _ranges(len(features), _CHUNK_ROWS):
    rows = features[start:stop].astype(np.float64)
    norm[start:stop] = np.sqrt(np.einsum("nd,nd->n", rows, rows))
  # A nan or inf anywhere in a feature makes its norm nan or inf, so checking the norms is enough.
  bad = np.flatnonzero(~np.isfinite(norm))
  if len(bad):
    raise ValueError(
      f"{len(bad)} of {len(features)} {name} features contain nan or inf, the first is number {bad[0]}: "
      "check the weights of the model and the pictures of these rows"
    )
  return np.maximum(norm, EPSILON)


def _mean_direction(features, norm):
  """Returns the mean of the unit vectors, [D] float64."""
  ranges = _ranges(len(features), _CHUNK_ROWS)
  return sum((features[i:j] / norm[i:j, None]).sum(axis=0) for i, j in ranges) / len(features)


def _subtract(features, norm, mean):
  """Subtracts `mean` [D] from the unit vectors of features [N, D].

  Returns:
    (offset [N, D] float32, largest length of an offset, product of `mean` with each offset [N] float64).
  """
  offset = np.empty(features.shape, np.float32)
  length, along_mean = 0.0, np.empty(len(features))
  for i, j in _ranges(len(features), _CHUNK_ROWS):
    rows = features[i:j] / norm[i:j, None] - mean
    length = max(length, np.sqrt(np.einsum("nd,nd->n", rows, rows).max()))
    along_mean[i:j] = np.einsum("nd,d->n", rows, mean)
    offset[i:j] = rows
  return offset, length, along_mean


def _find_first_equals(features):
  """Returns for every feature the index of the first feature with the same bytes, [N] int64."""
  features = np.ascontiguousarray(features)
  # A dict of hashes needs one pass; a comparison of all pairs would need N^2 comparisons.
  first = {}
  for i, row in enumerate(features):
    first.setdefault(hashlib.blake2b(row, digest_size=16).digest(), []).append(i)
  result = np.empty(len(features), np.int64)
  for same in first.values():
    result[same] = same[0]
  return result


def _ranges(total, size):
  """Returns a list of (start, stop) that cuts `total` items into pieces of at most `size`."""
  return [(start, min(start + size, total)) for start in range(0, total, size)]
