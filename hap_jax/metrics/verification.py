"""Verification on NumPy arrays: does a pair of pictures show one person, and is a person in the gallery?

mAP and CMC only compare entries of one rank list. The metrics here compare the scores of all pairs with one
threshold. The score of a pair is the cosine similarity of its features.
"""

import dataclasses

import numpy as np

from hap_jax.metrics import pair_scores, roc
from hap_jax.metrics.pair_scores import PairScores
from hap_jax.metrics.roc import Roc

FARS = (1e-2, 1e-3, 1e-4)  # shares of impostor pairs that pass
OPEN_SET_FARS = (1e-1, 1e-2, 1e-3)  # shares of queries of absent persons that find an entry
NUM_RESAMPLED = 1000  # bootstrap samples
_LEVELS = (2.5, 97.5)  # percentiles of a 95 % interval
_CHUNK = 250  # bootstrap samples that are computed together


@dataclasses.dataclass(frozen=True)
class Rate:
  """A measured share and its 95 % interval. The interval is nan if there are fewer than two persons."""

  value: float
  low: float
  high: float


@dataclasses.dataclass(frozen=True)
class AtThreshold:
  """The results of one threshold.

  Attributes:
    goal: the largest FAR for which the threshold was chosen. None: the threshold was given.
    threshold: the lowest score that passes.
    far: share of the impostor pairs that pass. Its interval is for this threshold.
    tar: share of the genuine pairs that pass. With a goal, its interval is for this goal: each bootstrap
      sample has its own threshold.
    absent_rejected: share of the queries of absent persons for which no entry passes. The answer "not in the
      gallery" is then right. None: no person left the gallery.
    present_rejected: share of the queries of present persons for which no entry passes. The answer is then a
      false rejection. None: no person stays in the gallery.
  """

  goal: float | None
  threshold: float
  far: Rate
  tar: Rate
  absent_rejected: Rate | None
  present_rejected: Rate | None

  def to_json(self):
    """Returns the results as plain JSON values."""
    return _plain(self)


@dataclasses.dataclass(frozen=True)
class OpenSetPoint:
  """The open-set rate of one threshold.

  Attributes:
    goal: the largest allowed share of the queries of absent persons that find an entry.
    threshold: the lowest score that passes.
    dir: detection and identification rate at rank 1: share of the queries of present persons whose closest
      entry passes and shows this person.
  """

  goal: float
  threshold: float
  dir: Rate


@dataclasses.dataclass(frozen=True, eq=False)
class Verification:
  """The results of a verification.

  Attributes:
    pairs: the `PairScores`.
    roc: the `Roc` of all pairs.
    eer: the equal error rate.
    points: {FAR: AtThreshold}, or None for a FAR that needs more impostor pairs.
    open_set: {FAR: OpenSetPoint}, or None for a FAR that needs more queries of absent persons.
    num_absent: number of queries whose person left the gallery.
    num_present: number of queries whose person stays in the gallery.
    num_persons: number of persons of the queries.
  """

  pairs: PairScores
  roc: Roc
  eer: Rate
  points: dict[float, AtThreshold | None]
  open_set: dict[float, OpenSetPoint | None]
  num_absent: int
  num_present: int
  num_persons: int

  def to_json(self):
    """Returns the numbers as plain JSON values. A number that cannot be computed is None."""
    pairs = self.pairs
    return {
      "score": "cosine similarity, -1 to 1",
      "score_error": pairs.score_error,
      "persons": self.num_persons,
      "queries": len(pairs.person),
      "gallery": pairs.num_gallery,
      "genuine_pairs": pairs.num_genuine,
      "impostor_pairs": pairs.num_impostor,
      "eer": _plain(self.eer),
      "tar_at_far": [{"goal": goal} if at is None else _plain(at) for goal, at in self.points.items()],
      "open_set": {
        "gallery": pairs.num_staying,
        "queries_of_absent_persons": self.num_absent,
        "queries_of_present_persons": self.num_present,
        "dir_at_far": [{"goal": goal} if at is None else _plain(at) for goal, at in self.open_set.items()],
      },
    }


def _plain(value):
  """Returns a dataclass as plain JSON values. A nan becomes None, because JSON has no nan."""
  if dataclasses.is_dataclass(value):
    return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
  return None if value is None or np.isnan(value) else float(value)


def evaluate(
  query,
  gallery,
  query_pid,
  gallery_pid,
  query_camid=None,
  gallery_camid=None,
  *,
  junk_pids=(),
  own_index=None,
  fars=FARS,
  open_set_fars=OPEN_SET_FARS,
  seed=0,
):
  """Measures how well one threshold separates pairs of one person from pairs of two persons.

  A value at a FAR is computed only if at least 10 / FAR pairs can be false alarms. For the open-set rate, a
  random half of the persons leaves the gallery, and the queries of these persons are the false alarms.

  The 95 % intervals are bootstrap intervals over the persons of the queries. The gallery is fixed, and so is
  the half that leaves it.

  Args:
    query, gallery, query_pid, gallery_pid, query_camid, gallery_camid, junk_pids, own_index: as in
      `retrieval.evaluate`. The same pairs are left out.
    fars: the shares of impostor pairs at which the TAR is computed.
    open_set_fars: the shares of queries of absent persons at which the open-set rate is computed.
    seed: seed of the half that leaves the gallery, and of the bootstrap.
  Returns:
    `Verification`.
  Raises:
    ValueError: see `pair_scores.collect`.
  """
  pairs = pair_scores.collect(
    query,
    gallery,
    query_pid,
    gallery_pid,
    query_camid,
    gallery_camid,
    junk_pids=junk_pids,
    own_index=own_index,
    seed=seed,
  )
  return of_pairs(pairs, fars=fars, open_set_fars=open_set_fars, seed=seed)


def of_pairs(pairs, *, fars=FARS, open_set_fars=OPEN_SET_FARS, seed=0):
  """Returns the `Verification` of `PairScores`. The arguments are the same as in `evaluate`."""
  curve = roc.of_counts(pairs.score, pairs.genuine.sum(axis=0), pairs.impostor.sum(axis=0))
  resampled = _Resampled(pairs, seed)
  eer = float(roc.equal_error_rate(curve.far, curve.tar))
  points = {}
  for goal in fars:
    is_measured = pairs.num_impostor >= roc.num_needed(goal)
    points[goal] = _at_point(resampled, roc.at_far(curve, goal), goal) if is_measured else None
  num_absent, num_present = int(pairs.has_left.sum()), int(pairs.stays.sum())
  open_set = {}
  for goal in open_set_fars:
    is_measured = num_present > 0 and num_absent >= roc.num_needed(goal)
    open_set[goal] = resampled.open_set(goal) if is_measured else None
  return Verification(
    pairs=pairs,
    roc=curve,
    eer=resampled.rate(eer, resampled.eer()),
    points=points,
    open_set=open_set,
    num_absent=num_absent,
    num_present=num_present,
    num_persons=int(pairs.person.max()) + 1,
  )


def at_threshold(verification, threshold, *, seed=0):
  """Returns the `AtThreshold` of a given threshold, such as a threshold from other data."""
  return _at_point(_Resampled(verification.pairs, seed), roc.at_threshold(verification.roc, threshold), None)


def _at_point(resampled, point, goal):
  """Returns the `AtThreshold` of a `roc.Point`."""
  pairs = resampled.pairs
  far, tar = resampled.at_threshold(point.threshold)
  if goal is not None:
    tar = resampled.tar_at_far(goal)
  is_rejected = pairs.top_score < point.threshold
  return AtThreshold(
    goal=goal,
    threshold=point.threshold,
    far=resampled.rate(point.far, far),
    tar=resampled.rate(point.tar, tar),
    absent_rejected=resampled.share(is_rejected, pairs.has_left),
    present_rejected=resampled.share(is_rejected, pairs.stays),
  )


class _Resampled:
  """Bootstrap samples of the persons of the queries. Each sample counts each person a random number of times.

  FAR and TAR are known at the cuts of `PairScores`, with straight lines between them.
  """

  def __init__(self, pairs, seed):
    self.pairs = pairs
    self._num_persons = len(pairs.genuine_by_person)
    rng = np.random.default_rng((seed, 12))
    share = np.full(self._num_persons, 1 / self._num_persons)
    self._weights = rng.multinomial(self._num_persons, share, NUM_RESAMPLED).astype(np.float64)
    self.far, self.tar = (
      _shares(self._weights, counts) for counts in (pairs.impostor_by_person, pairs.genuine_by_person)
    )

  def rate(self, value, samples):
    """Returns the Rate of a value, with the interval of its samples."""
    samples = samples[np.isfinite(samples)]
    if self._num_persons < 2 or not len(samples):
      return Rate(value, np.nan, np.nan)
    return Rate(value, *(float(x) for x in np.percentile(samples, _LEVELS)))

  def share(self, is_counted, is_member):
    """Returns the Rate of the members that are counted, among the queries; None if there are no members."""
    if not is_member.any():
      return None
    person = self.pairs.person
    counted, members = (
      self._weights @ np.bincount(person[chosen], minlength=self._num_persons)
      for chosen in (is_counted & is_member, is_member)
    )
    with np.errstate(invalid="ignore"):  # a sample may have no members
      samples = counted / members
    return self.rate(float(is_counted[is_member].mean()), samples)

  def eer(self):
    """Returns the equal error rate of each sample, [R]."""
    zero = np.zeros((len(self.far), 1))
    with np.errstate(invalid="ignore"):
      return roc.equal_error_rate(np.hstack([zero, self.far]), np.hstack([zero, self.tar]))

  def tar_at_far(self, far):
    """Returns the TAR of each sample, [R], at the threshold with this FAR in the sample."""
    pairs = zip(self.far, self.tar, strict=True)
    return np.array([np.interp(far, np.append(0, x), np.append(0, y)) for x, y in pairs])

  def at_threshold(self, threshold):
    """Returns (FAR [R], TAR [R]) of the samples, at the given threshold."""
    # np.interp needs ascending numbers, and the cuts descend. No pair passes a threshold above the first cut.
    place = float(np.interp(-threshold, -self.pairs.cuts, np.arange(len(self.pairs.cuts)), left=-1))
    k, part = int(np.floor(place)), place % 1
    if k < 0:
      return np.zeros(len(self.far)), np.zeros(len(self.tar))
    after = min(k + 1, len(self.pairs.cuts) - 1)
    return tuple((1 - part) * rows[:, k] + part * rows[:, after] for rows in (self.far, self.tar))

  def open_set(self, goal):
    """Returns the `OpenSetPoint` of a share of false alarms."""
    pairs = self.pairs
    # A query whose closest entry shows another person is a miss at every threshold.
    score = np.where(pairs.stays & ~pairs.is_hit, -np.inf, pairs.top_score)
    whole = roc.of_scores(score[pairs.stays], score[pairs.has_left])
    point = roc.at_far(whole, goal)
    # All queries in the order of their scores. Queries with equal scores pass together.
    order = np.argsort(-score, kind="stable")
    order = order[(pairs.stays | pairs.has_left)[order]]
    is_last = np.append(score[order][1:] != score[order][:-1], True)
    samples = []
    for begin in range(0, NUM_RESAMPLED, _CHUNK):
      weights = self._weights[begin : begin + _CHUNK, pairs.person[order]]
      with np.errstate(invalid="ignore"):
        far, found = (
          _shares_in_order(weights * side[order])[:, is_last] for side in (pairs.has_left, pairs.stays)
        )
      # Index of the last threshold whose FAR is at most the goal; -1 if there is none.
      last = (far <= goal).sum(axis=1) - 1
      dirs = np.where(last >= 0, np.take_along_axis(found, np.maximum(last, 0)[:, None], 1)[:, 0], 0.0)
      samples.append(np.where(np.isnan(far[:, -1]), np.nan, dirs))
    return OpenSetPoint(goal, point.threshold, self.rate(point.tar, np.concatenate(samples)))


def _shares(weights, counts):
  """Returns the share of the pairs that pass each cut in each sample, [R, K]; nan if a sample has no pairs.

  Args:
    weights: [R, P], how often each sample counts each person.
    counts: [P, K], numbers of pairs of each person that pass. All pairs pass the last cut.
  """
  passed = weights @ counts.astype(np.float64)
  with np.errstate(invalid="ignore"):
    return passed / passed[:, -1:]


def _shares_in_order(weights):
  """Returns the cumulative sums of [R, n] as shares of the whole sum."""
  passed = weights.cumsum(axis=1)
  return passed / passed[:, -1:]
