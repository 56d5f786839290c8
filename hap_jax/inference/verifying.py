"""Measures the searches of a checkpoint as a verification: thresholds, open-set rates and probabilities."""

import dataclasses

from hap_jax.evaluation.evaluate import Search
from hap_jax.inference import calibration_file
from hap_jax.metrics import calibration, roc, verification
from hap_jax.viz import verification as viz


def check_prior(prior):
  """Raises ValueError if a prior is not between 0 and 1."""
  if not 0 < prior < 1:
    raise ValueError(f"--prior={prior:g}: expected a probability above 0 and below 1")


@dataclasses.dataclass(frozen=True)
class Settings:
  """The settings of a verification.

  Attributes:
    prior: the probability of one person before two pictures are compared.
    calibration: the value of --calibration, see `calibration_file.find`.
  """

  prior: float
  calibration: str = ""

  def __post_init__(self):
    check_prior(self.prior)


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
  """A calibration from other data, and its results on the data of this evaluation.

  Attributes:
    made: the `calibration_file.QueryCalibration`.
    data: the data source that it was made on.
    at: the `verification.AtThreshold` of its threshold.
    log_loss: the log loss of its probabilities.
  """

  made: calibration_file.QueryCalibration
  data: str
  at: verification.AtThreshold
  log_loss: float

  def to_json(self):
    """Returns the results as plain JSON values."""
    values = {"data": self.data, "far_of_calibration": self.made.far, "log_loss": self.log_loss}
    return values | self.at.to_json()


@dataclasses.dataclass(frozen=True, eq=False)
class Measured:
  """The results of one kind of query.

  Attributes:
    camera_rule: the rule for pairs of one person under one camera, as text.
    verification: the `verification.Verification`.
    calibration: the `calibration.Calibration`, or None if there are too few persons.
    problem: the reason why there is no calibration, or "".
    stored: the `Stored` calibration of the checkpoint, or None.
  """

  camera_rule: str
  verification: verification.Verification
  calibration: calibration.Calibration | None
  problem: str = ""
  stored: Stored | None = None

  def to_json(self):
    """Returns the results as plain JSON values."""
    calibrated = {"problem": self.problem} if self.calibration is None else self.calibration.to_json()
    values = {"camera_rule": self.camera_rule, **self.verification.to_json(), "calibration": calibrated}
    return values if self.stored is None else {**values, "stored_calibration": self.stored.to_json()}


def find_stored(settings, path, weights):
  """Returns the `CalibrationFile` of a checkpoint, or None.

  Args:
    settings: the `Settings`.
    path, weights: as in `calibration_file.find`.
  """
  found = calibration_file.find(settings.calibration, path, weights)
  return None if found is None else found[1]


def measure(searches, *, prior, fars=verification.FARS, stored=None):
  """Measures all kinds of queries of an evaluation.

  Args:
    searches: {kind of query: Search}, from the field `searches` of an Evaluation.
    prior: the probability of one person before two pictures are compared.
    fars: the shares of impostor pairs at which thresholds are computed.
    stored: the `calibration_file.CalibrationFile` to measure on this data, or None.
  Returns:
    {kind of query: Measured}.
  Raises:
    ValueError: if the prior is not between 0 and 1, or if a kind has no genuine or no impostor pair.
  """
  check_prior(prior)
  return {kind: _measure(kind, search, prior, fars, stored) for kind, search in searches.items()}


def _measure(kind, search: Search, prior, fars, stored):
  try:
    found = verification.evaluate(**search.arguments(), fars=fars)
  except ValueError as error:
    raise ValueError(f"{kind} queries: {error}") from error
  rule = "pairs of one person under one camera do not count"
  if search.query_camid is None:
    rule = "none, because the data has no cameras"
  made, problem = None, ""
  try:
    made = calibration.calibrate(found.pairs, prior)
  except ValueError as error:
    problem = str(error)
  return Measured(rule, found, made, problem, _measure_stored(stored, kind, found))


def _measure_stored(stored, kind, found):
  """Returns the `Stored` calibration of a kind of query, or None."""
  if stored is None or kind not in stored.queries:
    return None
  made, pairs = stored.queries[kind], found.pairs
  counts = [side.sum(axis=0) for side in (pairs.genuine, pairs.impostor)]
  loss = calibration.log_loss(made.curve.probability(pairs.score, made.prior), *counts, made.prior)
  return Stored(made, stored.data, verification.at_threshold(found, made.threshold), loss)


def draw(measured):
  """Returns {name: picture} of the results, one picture for each kind of query."""
  return {
    f"verification_{kind}": viz.draw(
      one.verification, one.calibration, title=f"{kind} queries: one person or two?"
    )
    for kind, one in measured.items()
  }


def describe(measured):
  """Returns the results as lines of text."""
  return [line for kind, one in measured.items() for line in _describe(kind, one)]


def _describe(kind, measured):
  found, pairs = measured.verification, measured.verification.pairs
  yield (
    f"{kind} queries: {len(pairs.person):,} of {found.num_persons:,} persons, {pairs.num_gallery:,} gallery "
    f"entries; {pairs.num_genuine:,} pairs of one person, {pairs.num_impostor:,} pairs of two persons"
  )
  yield f"  EER                 {_rate(found.eer)}"
  for goal, at in found.points.items():
    name = f"  TAR at FAR {goal:<8g} "
    if at is None:
      needed = roc.num_needed(goal)
      yield f"{name}not measured: needs {needed:,} pairs of two persons, found {pairs.num_impostor:,}"
    else:
      yield f"{name}{_rate(at.tar)}, threshold {at.threshold:.6f}"
  yield (
    f"  open set: half of the persons left the gallery; {found.num_absent:,} queries of absent and "
    f"{found.num_present:,} of present persons, {pairs.num_staying:,} gallery entries"
  )
  for goal, at in found.open_set.items():
    name = f"  DIR at FAR {goal:<8g} "
    if at is None:
      yield f"{name}not measured: needs {roc.num_needed(goal):,} queries of absent persons"
    else:
      yield f"{name}{_rate(at.dir)}, threshold {at.threshold:.6f}"
  for at in found.points.values():
    if at is not None:
      yield f"  at threshold {at.threshold:.6f}: {describe_answers(at)}"
  yield f"  {_describe_calibration(measured)}"
  if measured.stored is not None:
    yield from _describe_stored(measured.stored)


def describe_answers(at):
  """Returns the shares of the answer "not in the gallery" at an `AtThreshold`, as text."""
  shares = [
    f"{_rate(rate)} of the queries of {name} persons"
    for rate, name in ((at.absent_rejected, "absent"), (at.present_rejected, "present"))
    if rate is not None
  ]
  return f'the answer is "not in the gallery" for {" and for ".join(shares) or "no query"}'


def _describe_calibration(measured):
  made = measured.calibration
  if made is None:
    return f"no calibration: {measured.problem}"
  losses = ", ".join(f"{method} {value:.4f}" for method, value in made.log_loss.items())
  return (
    f"calibration: {made.curve.method}; log loss on other persons: {losses}, without pictures "
    f"{made.baseline:.4f} (prior {made.prior:g})"
  )


def _describe_stored(stored):
  made, at = stored.made, stored.at
  there = f"calibration on {stored.data} (FAR {made.far:g}, TAR {made.tar:.4f})"
  loss = f"log loss {stored.log_loss:.4f} (prior {made.prior:g})"
  yield f"  threshold {made.threshold:.6f} of the {there}:"
  yield f"    here FAR {_rate(at.far)}, TAR {_rate(at.tar)}, {loss}"
  yield f"    {describe_answers(at)}"


def _rate(rate):
  """Returns a Rate as text with its 95 % interval."""
  interval = (
    f" ({rate.low:.4f} to {rate.high:.4f})" if rate.low == rate.low else ""
  )  # nan is not equal to nan
  return f"{rate.value:.4f}{interval}"
