"""The scores of all pairs of a query and a gallery entry, counted for the metrics of verification.

The score of a pair is the cosine similarity of its two features. A pair of one person is genuine, a pair of
two persons is an impostor pair. Pairs that retrieval leaves out are left out here, too: junk, pairs of one
person under one camera, and the own entry of a query.
"""

import dataclasses

import numpy as np

from hap_jax.metrics.identities import Identities
from hap_jax.metrics.similarity import CosineSimilarity

MAX_EXACT = 10_000_000  # more pairs than this are counted in cells of the score
CELLS = 2**20  # cells of equal width between the scores -1 and 1
_WIDTH = 2 / CELLS
# Numbers of cuts per person: their impostor pairs grow geometrically, their genuine pairs evenly.
_IMPOSTOR_CUTS, _GENUINE_CUTS = 768, 256
_HALVES = 2
_STREAM = 11  # part of the seed, so that other random numbers with the same seed are independent


@dataclasses.dataclass(frozen=True, eq=False)
class PairScores:
  """Numbers of pairs per score, per half of the persons, and per person of a query.

  Attributes:
    score: [n] float64, descending. Each is a distinct score, or the lower end of a cell with pairs.
    score_error: largest difference between a score and the score of a pair that is counted there. 0: the
      scores are exact.
    genuine: [2, n] int64, numbers of genuine pairs of both halves of the persons.
    impostor: [3, n] int64, numbers of impostor pairs: both persons in the first half, both in the second
      half, one in each half.
    cuts: [K] float64, descending scores.
    genuine_by_person: [P, K] int64, numbers of genuine pairs with a score of at least each cut, for the
      persons of the queries.
    impostor_by_person: [P, K] int64, the same for impostor pairs.
    person: [Q] int64, row of the person of each query in these tables.
    top_score: [Q] float64, score of the closest gallery entry of each query, in a gallery without the persons
      that left it. -inf: no entry is left.
    is_hit: [Q] bool, True if this entry shows the person of the query.
    has_left: [Q] bool, True for queries whose person left the gallery, and who had a match before.
    stays: [Q] bool, True for queries whose person stays in the gallery and has a match there.
    num_gallery: number of gallery entries that are not junk.
    num_staying: number of gallery entries after half of the persons left.
  """

  score: np.ndarray
  score_error: float
  genuine: np.ndarray
  impostor: np.ndarray
  cuts: np.ndarray
  genuine_by_person: np.ndarray
  impostor_by_person: np.ndarray
  person: np.ndarray
  top_score: np.ndarray
  is_hit: np.ndarray
  has_left: np.ndarray
  stays: np.ndarray
  num_gallery: int
  num_staying: int

  @property
  def num_genuine(self):
    return int(self.genuine.sum())

  @property
  def num_impostor(self):
    return int(self.impostor.sum())


def collect(
  query,
  gallery,
  query_pid,
  gallery_pid,
  query_camid=None,
  gallery_camid=None,
  *,
  junk_pids=(),
  own_index=None,
  seed=0,
  max_exact=MAX_EXACT,
):
  """Computes the scores of all pairs.

  Up to `max_exact` pairs are computed in float64 and sorted. More pairs are computed in float32 in blocks and
  counted in `CELLS` cells. Then memory depends on the features and on the numbers of persons, but not on the
  number of pairs.

  Args:
    query, gallery, query_pid, gallery_pid, query_camid, gallery_camid, junk_pids, own_index: as in
      `retrieval.evaluate`.
    seed: seed of the halves of the persons, and of the persons that leave the gallery.
    max_exact: largest number of queries times gallery entries that is sorted.
  Returns:
    `PairScores`.
  Raises:
    ValueError: if features or identities have a wrong shape or type, if features are not finite, or if there
      is no genuine pair or no impostor pair.
  """
  is_exact = len(query) * len(gallery) <= max_exact
  if not is_exact:
    query, query_pid, query_camid, own_index = _shuffle(seed, query, query_pid, query_camid, own_index)
  closeness = CosineSimilarity(query, gallery)
  count = closeness.num_queries, closeness.num_gallery
  ids = (query_pid, gallery_pid, query_camid, gallery_camid)
  identities = Identities(*count, *ids, junk_pids, own_index)
  splits = [identities.split(i) for i in range(count[0])]
  _check(splits, identities, ids)
  halves = _Halves(*(np.asarray(pid, np.int64) for pid in ids[:2]), splits, seed)
  person = np.unique(query_pid, return_inverse=True)[1]
  store = (_Sorted if is_exact else _Cells)(closeness, halves, person, identities.is_junk)
  top = []
  for start, rows in closeness.blocks():
    top += _find_top(start, rows, closeness, splits, identities.is_junk | halves.is_leaving)
    store.add(start, rows, splits)
  top_index, top_score = np.array([index for index, _ in top]), np.array([score for _, score in top])
  is_hit = (np.asarray(gallery_pid)[top_index] == query_pid) & np.isfinite(top_score)
  has_match = np.array([len(matches) > 0 for matches, _ in splits])
  return PairScores(
    **store.tables(),
    person=person,
    top_score=top_score,
    is_hit=is_hit,
    has_left=halves.query_leaves & has_match,
    stays=~halves.query_leaves & has_match,
    num_gallery=int((~identities.is_junk).sum()),
    num_staying=int((~(identities.is_junk | halves.is_leaving)).sum()),
  )


def _shuffle(seed, *columns):
  """Returns columns of the queries in one random order. None stays None.

  The cuts are chosen from the first block, so the first block must be a random sample of the queries.
  """
  order = np.random.default_rng((seed, _STREAM)).permutation(len(columns[0]))
  return [None if column is None else np.asarray(column)[order] for column in columns]


def _check(splits, identities, ids):
  """Raises ValueError if there is no genuine pair or no impostor pair."""
  query_pid, gallery_pid, query_camid, gallery_camid = ids
  num_left_out = sum(len(left_out) for _, left_out in splits)
  if not any(len(matches) for matches, _ in splits):
    reason = "no person of a query is in the gallery"
    if num_left_out:
      reason = "a pair of one person under one camera does not count, and the own entry of a query does not"
    if query_camid is not None and len(np.union1d(query_camid, gallery_camid)) == 1:
      reason = f"all pictures are by one camera ({gallery_camid[0]}), and a genuine pair needs two cameras"
    raise ValueError(
      f"no genuine pair among {len(query_pid):,} queries and {len(gallery_pid):,} gallery entries: {reason}; "
      "check the identities and cameras of both lists"
    )
  if len(np.union1d(query_pid, np.asarray(gallery_pid)[~identities.is_junk])) == 1:
    raise ValueError(
      f"no impostor pair: all queries and gallery entries show one person ({gallery_pid[0]}); expected "
      "pictures of several persons"
    )


class _Halves:
  """Two random divisions of the persons: into halves for a calibration, and into leaving and staying persons.

  Attributes:
    of_query: [Q] int64, half of the person of each query.
    of_gallery: [G] int64, half of the person of each gallery entry.
    is_leaving: [G] bool, True for entries of persons that leave the gallery.
    query_leaves: [Q] bool, the same for queries.
  """

  def __init__(self, query_pid, gallery_pid, splits, seed):
    rng = np.random.default_rng((seed, _STREAM, 1))
    persons = np.union1d(query_pid, gallery_pid)
    # Genuine pairs are needed in both halves, so the persons with genuine pairs are divided separately.
    matched = np.unique(query_pid[[len(matches) > 0 for matches, _ in splits]])
    half = np.empty(len(persons), np.int64)
    for group in (np.isin(persons, matched), ~np.isin(persons, matched)):
      half[group] = rng.permutation(int(group.sum())) % _HALVES
    self.of_query, self.of_gallery = (half[np.searchsorted(persons, pid)] for pid in (query_pid, gallery_pid))
    leaving = rng.permutation(matched)[: len(matched) // 2]
    self.is_leaving, self.query_leaves = np.isin(gallery_pid, leaving), np.isin(query_pid, leaving)
    # Row h: the group of the pair of a query of half h with each entry. 2: the persons are in both halves.
    self.groups = np.stack([np.where(self.of_gallery == h, h, _HALVES) for h in range(_HALVES)])


def _find_top(start, rows, closeness, splits, is_out):
  """Returns a list of (index, score) of the closest gallery entry of each query of a block.

  Entries with equal scores keep the order of the gallery.

  Args:
    start, rows: a block of `closeness.blocks`. The rows are not changed.
    closeness: a `CosineSimilarity`.
    splits: the results of `Identities.split` of all queries.
    is_out: [G] bool, entries that are not in the gallery.
  """
  rows = rows.copy()
  rows[:, is_out] = -np.inf
  for row, (_, left_out) in zip(rows, splits[start : start + len(rows)], strict=True):
    row[left_out] = -np.inf
  found = []
  for i, (row, highest) in enumerate(zip(rows, rows.max(axis=1), strict=True), start):
    if highest == -np.inf:
      found.append((0, -np.inf))
      continue
    near = np.flatnonzero(row >= highest - np.float32(closeness.margin))
    value = closeness.exact(i, near)
    best = int(value.argmax())
    found.append((near[best], value[best]))
  return found


def _choose_cuts(genuine, impostor):
  """Returns the entries after which pairs are counted per person, ascending and unique.

  Args:
    genuine, impostor: [n] numbers of pairs of each entry, the highest score first.
  """
  cuts = [[len(genuine) - 1]]
  for counts, levels in (
    (np.cumsum(impostor), lambda total: np.geomspace(1, max(total, 1), _IMPOSTOR_CUTS)),
    (np.cumsum(genuine), lambda total: np.linspace(1, max(total, 1), _GENUINE_CUTS)),
  ):
    # Rounding must not move the last level above the total.
    cuts.append(np.searchsorted(counts, np.minimum(levels(counts[-1]), counts[-1])))
  return np.unique(np.concatenate(cuts))


class _Sorted:
  """Collects exact scores."""

  def __init__(self, closeness, halves, person, is_junk):
    self._closeness, self._halves, self._person, self._is_junk = closeness, halves, person, is_junk
    self._genuine, self._impostor = [], []  # one (scores, groups) per query

  def add(self, start, rows, splits):
    """Adds the pairs of a block of queries."""
    everyone = np.arange(len(self._is_junk))
    for i in range(start, start + len(rows)):
      score = self._closeness.exact(i, everyone)
      groups, is_impostor = self._halves.groups[self._halves.of_query[i]], ~self._is_junk
      matches, left_out = splits[i]
      is_impostor[matches] = is_impostor[left_out] = False
      self._genuine.append((score[matches], groups[matches]))
      self._impostor.append((score[is_impostor], groups[is_impostor].astype(np.int8)))

  def tables(self):
    """Returns the attributes of `PairScores` that depend on the scores of all pairs."""
    sides = {"genuine": self._genuine, "impostor": self._impostor}
    scores = {name: np.concatenate([score for score, _ in side]) for name, side in sides.items()}
    score, entry = np.unique(np.concatenate(list(scores.values())), return_inverse=True)
    n = len(score)
    # Scores descend from here on.
    entries = dict(zip(sides, np.split(n - 1 - entry, [len(scores["genuine"])]), strict=True))
    score = score[::-1]
    counts, num_groups = {}, {"genuine": _HALVES, "impostor": _HALVES + 1}
    for name, side in sides.items():
      key = np.concatenate([groups for _, groups in side]).astype(np.int64) * n + entries[name]
      counts[name] = np.bincount(key, minlength=num_groups[name] * n).reshape(-1, n)
    cuts = _choose_cuts(*(counts[name].sum(axis=0) for name in sides))
    part, num_persons = np.searchsorted(cuts, np.arange(n)), self._person.max() + 1
    for name, side in sides.items():
      person = np.repeat(self._person, [len(score) for score, _ in side])
      key = person * len(cuts) + part[entries[name]]
      table = np.bincount(key, minlength=num_persons * len(cuts)).reshape(num_persons, -1)
      counts[f"{name}_by_person"] = table.cumsum(axis=1)
    return {"score": score, "score_error": 0.0, "cuts": score[cuts], **counts}


class _Cells:
  """Counts scores in cells. Cell c has the scores from -1 + c * width, with width 2 / CELLS."""

  def __init__(self, closeness, halves, person, is_junk):
    self._closeness, self._halves, self._person, self._is_junk = closeness, halves, person, is_junk
    # The last cell has the pairs that do not count.
    self._genuine = np.zeros((_HALVES, CELLS + 1), np.int64)
    self._impostor = np.zeros((_HALVES + 1, CELLS + 1), np.int64)
    self._cuts = None

  def add(self, start, rows, splits):
    """Adds the pairs of a block of queries. Overwrites the rows."""
    stop = start + len(rows)
    cells = self._cells_of(start, rows)
    cells[:, self._is_junk] = CELLS
    genuine, numbers = [], []
    for row, (matches, left_out) in zip(cells, splits[start:stop], strict=True):
      genuine.append(row[matches])
      numbers.append(len(matches))
      row[matches] = row[left_out] = CELLS
    genuine, of_row = np.concatenate(genuine), np.repeat(np.arange(len(rows)), numbers)
    half = self._halves.of_query[start:stop]
    if self._cuts is None:
      self._set_cuts(*(np.bincount(side.ravel(), minlength=CELLS + 1) for side in (genuine, cells)))
    self._count(self._genuine, half[of_row] * (CELLS + 1) + genuine)
    self._count_by_person(self._genuine_by_person, start, of_row, self._part[genuine])
    self._count_by_person(self._impostor_by_person, start, np.arange(len(rows))[:, None], self._part[cells])
    cells += (self._halves.groups * (CELLS + 1)).astype(np.int32)[half]
    self._count(self._impostor, cells.ravel())

  def tables(self):
    """Returns the attributes of `PairScores` that depend on the scores of all pairs."""
    # The highest score is first, and cells without pairs are left out.
    genuine, impostor = (table[:, :CELLS][:, ::-1] for table in (self._genuine, self._impostor))
    is_used = (genuine.sum(axis=0) + impostor.sum(axis=0)) > 0
    return {
      "score": (-1 + _WIDTH * np.arange(CELLS))[::-1][is_used],
      # A product has at most the error `margin`, and the rounding of the cell number is below half a cell.
      "score_error": float(self._closeness.margin + 2 * _WIDTH),
      "genuine": genuine[:, is_used],
      "impostor": impostor[:, is_used],
      "cuts": 1 - _WIDTH * (self._cuts + 1),
      "genuine_by_person": self._genuine_by_person[:, :-1].cumsum(axis=1),
      "impostor_by_person": self._impostor_by_person[:, :-1].cumsum(axis=1),
    }

  def _cells_of(self, start, rows):
    """Returns the cells of the pairs of a block, [b, G] int32. Overwrites the rows."""
    # A row is the cosines minus a constant, see `CosineSimilarity.blocks`. One exact cosine shows it.
    missing = [self._closeness.exact(i, [0])[0] - row[0] for i, row in enumerate(rows, start)]
    rows *= np.float32(1 / _WIDTH)
    rows += ((np.array(missing) + 1) / _WIDTH).astype(np.float32)[:, None]
    np.clip(rows, 0, CELLS - 1, out=rows)
    return rows.astype(np.int32)

  def _set_cuts(self, genuine, impostor):
    """Chooses the cuts from the numbers of pairs of the first block."""
    self._cuts = _choose_cuts(genuine[:CELLS][::-1], impostor[:CELLS][::-1])
    num_parts = len(self._cuts) + 1  # the last part has the pairs that do not count
    part = np.searchsorted(self._cuts, CELLS - 1 - np.arange(CELLS))
    self._part = np.append(part, num_parts - 1).astype(np.int32)
    shape = self._person.max() + 1, num_parts
    self._genuine_by_person, self._impostor_by_person = np.zeros(shape, np.int64), np.zeros(shape, np.int64)

  def _count_by_person(self, table, start, row, part):
    """Adds one pair for each number in `part`. `row` is the row of its query in the block."""
    num_parts = table.shape[1]
    num_rows = int(np.max(row, initial=-1)) + 1
    part = part + (np.asarray(row) * num_parts).astype(np.int32)
    found = np.bincount(part.ravel(), minlength=num_rows * num_parts).reshape(num_rows, num_parts)
    # Several queries of a block may show one person.
    np.add.at(table, self._person[start : start + num_rows], found)

  @staticmethod
  def _count(table, cells):
    table += np.bincount(cells, minlength=table.size).reshape(table.shape)
