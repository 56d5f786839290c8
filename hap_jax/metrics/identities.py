"""Identities of queries and gallery: which gallery entries are matches, and which are left out of a list."""

import numpy as np

_MAX_ID = np.iinfo(np.int64).max
# Verdicts on a gallery entry. Entries with the last two verdicts are left out of the ranks.
VERDICTS = ("match", "wrong", "same camera", "junk")


class Identities:
  """Identities and cameras of queries and gallery.

  Finds the matches of a query, and the gallery entries that are left out of its list.
  """

  def __init__(
    self,
    num_queries,
    num_gallery,
    query_pid,
    gallery_pid,
    query_camid=None,
    gallery_camid=None,
    junk_pids=(),
    own_index=None,
  ):
    """Checks the identities and cameras.

    Args:
      num_queries, num_gallery: Q and G.
      query_pid, gallery_pid, query_camid, gallery_camid, junk_pids, own_index: see `retrieval.evaluate`.
    Raises:
      ValueError: if a shape or a type is wrong, if cameras are given for one side only, or if the own
        entry of a query has another identity.
    """
    if (query_camid is None) != (gallery_camid is None):
      raise ValueError("cameras are given for one side only: give query_camid and gallery_camid, or neither")
    self._query_pid = _as_ids(query_pid, num_queries, "query_pid", "query")
    self._gallery_pid = _as_ids(gallery_pid, num_gallery, "gallery_pid", "gallery")
    self._query_camid = self._gallery_camid = None
    if query_camid is not None:
      self._query_camid = _as_ids(query_camid, num_queries, "query_camid", "query")
      self._gallery_camid = _as_ids(gallery_camid, num_gallery, "gallery_camid", "gallery")
    self._own_index = own_index
    if own_index is not None:
      self._own_index = _as_ids(own_index, num_queries, "own_index", "query")
      self._check_own()
    junk_pids = tuple(junk_pids)
    self.is_junk = np.isin(self._gallery_pid, _as_ids(junk_pids, len(junk_pids), "junk_pids", "junk"))
    # In a gallery sorted by identity, the entries of one identity are one slice, so no query needs a search.
    self._by_pid = np.argsort(self._gallery_pid, kind="stable")
    ordered = self._gallery_pid[self._by_pid]
    self._start = np.searchsorted(ordered, self._query_pid, "left")
    self._stop = np.searchsorted(ordered, self._query_pid, "right")

  def split(self, i):
    """Returns (matches, entries that are left out) of query i, both of its identity.

    The entries under the query's camera and the query's own entry are left out. Both arrays are ascending
    gallery indices without junk entries.
    """
    # The sort of the gallery is stable, so the indices of one identity ascend.
    same = self._by_pid[self._start[i] : self._stop[i]]
    same = same[~self.is_junk[same]]
    is_left_out = np.zeros(len(same), bool)
    if self._query_camid is not None:
      is_left_out |= self._gallery_camid[same] == self._query_camid[i]
    if self._own_index is not None:
      is_left_out |= same == self._own_index[i]
    return same[~is_left_out], same[is_left_out]

  def judge(self, i, index):
    """Returns the verdict, a word of `VERDICTS`, on each of the gallery entries `index` for query i.

    The verdict needs identities without own entries.
    """
    matches, same_camera = self.split(i)
    cases = [self.is_junk[index], np.isin(index, same_camera), np.isin(index, matches)]
    return np.select(cases, ["junk", "same camera", "match"], "wrong")

  def _check_own(self):
    """Raises ValueError if an own entry is not in the gallery, or has another identity than its query."""
    own, num_gallery = self._own_index, len(self._gallery_pid)
    if len(own) and not 0 <= own.min() <= own.max() < num_gallery:
      raise ValueError(
        f"own_index has the numbers {own.min()} to {own.max()}; expected numbers of gallery entries, 0 to "
        f"{num_gallery - 1}"
      )
    differs = np.flatnonzero(self._gallery_pid[own] != self._query_pid)
    if len(differs):
      i = differs[0]
      raise ValueError(
        f"query {i} has the identity {self._query_pid[i]}, but its own gallery entry {own[i]} has the "
        f"identity {self._gallery_pid[own[i]]}: check own_index and the identities"
      )


def _as_ids(ids, count, name, side):
  """Returns `ids`, [count] whole numbers, as int64; `name` and `side` are for the error message.

  Raises:
    ValueError: if the shape differs, if the numbers are not whole, or if a number exceeds int64.
  """
  ids = np.asarray(ids)
  if ids.shape != (count,) or not (ids.dtype.kind in "iu" or count == 0):
    raise ValueError(
      f"{name} is {ids.dtype} {list(ids.shape)}; expected one whole number of at most 64 bits for each "
      f"of the {count} {side} features"
    )
  # A larger uint64 would become negative in the cast.
  if ids.dtype.kind == "u" and ids.size and ids.max() > _MAX_ID:
    raise ValueError(f"{name} holds {ids.max()}; expected whole numbers of at most {_MAX_ID} (int64)")
  return ids.astype(np.int64)
