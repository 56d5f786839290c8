"""Calibration: from the score of a pair to the probability that the pair shows one person.

A calibration is a curve of the logarithm of the likelihood ratio,
  log p(score | one person) / p(score | two persons),
so it does not depend on the share of pairs of one person in the data. This share, the prior, is added later:
  probability = 1 / (1 + exp(-(log ratio + log(prior / (1 - prior))))).
"""

import dataclasses

import numpy as np
import scipy.optimize
import scipy.special

METHODS = ("isotonic", "platt")
_HALVES = 2
_NUM_BINS = 10  # bins of the reliability curve


@dataclasses.dataclass(frozen=True)
class Curve:
  """The logarithm of the likelihood ratio of a score: straight lines between points, constant outside.

  Attributes:
    method: a word of `METHODS`.
    score: scores of the points, ascending.
    log_ratio: natural logarithms of the likelihood ratio, ascending.
  """

  method: str
  score: tuple[float, ...]
  log_ratio: tuple[float, ...]

  def probability(self, score, prior):
    """Returns the probability that pairs with these scores show one person, float64 of the same shape.

    Args:
      score: cosine similarities.
      prior: the probability before the pictures are compared, between 0 and 1.
    """
    return scipy.special.expit(np.interp(score, self.score, self.log_ratio) + scipy.special.logit(prior))


@dataclasses.dataclass(frozen=True)
class Bin:
  """One bin of a reliability curve.

  Attributes:
    probability: mean of the computed probabilities of its pairs.
    share: share of pairs of one person among its pairs, weighted so that all pairs have the prior.
    num_genuine, num_impostor: numbers of its pairs.
  """

  probability: float
  share: float
  num_genuine: int
  num_impostor: int


@dataclasses.dataclass(frozen=True)
class Calibration:
  """A calibration, and its quality on persons that it was not fitted on.

  Attributes:
    curve: the `Curve`, fitted on all pairs.
    prior: the prior of the numbers below.
    log_loss: {method: mean log loss in nats}. Half of the persons is fitted and the other half is scored, and
      the reverse. The method with the lower value is used.
    baseline: the log loss without any picture: the entropy of the prior.
    reliability: a `Bin` per range of probabilities, from the same scores of persons that were not fitted. The
      pairs of each bin have about a tenth of all weight.
  """

  curve: Curve
  prior: float
  log_loss: dict[str, float]
  baseline: float
  reliability: tuple[Bin, ...]

  def to_json(self):
    """Returns the quality as plain JSON values, without the curve."""
    bins = [dataclasses.asdict(bin) for bin in self.reliability]
    return {
      "method": self.curve.method,
      "prior": self.prior,
      "log_loss": self.log_loss,
      "log_loss_without_pictures": self.baseline,
      "reliability": bins,
    }


def calibrate(pairs, prior=0.5):
  """Fits a `Calibration` to `pair_scores.PairScores`.

  Args:
    pairs: the scores. Both halves of the persons need genuine and impostor pairs.
    prior: the probability of one person before the pictures are compared.
  Raises:
    ValueError: if the prior is not between 0 and 1, or if a half of the persons has no genuine pair or no
      impostor pair.
  """
  if not 0 < prior < 1:
    raise ValueError(f"prior={prior}: expected a probability above 0 and below 1")
  score = pairs.score[::-1]
  genuine, impostor = pairs.genuine[:, ::-1], pairs.impostor[:_HALVES, ::-1]
  if not (genuine.sum(axis=1).all() and impostor.sum(axis=1).all()):
    raise ValueError(
      "too few persons for a calibration: it needs two halves of the persons, each with a pair of one person "
      "and a pair of two persons"
    )
  losses, held_out = {}, {}
  for method in METHODS:
    # Each half is scored with the curve of the other half.
    curves = [_FITS[method](score, genuine[1 - h], impostor[1 - h]) for h in range(_HALVES)]
    held_out[method] = [curve.probability(score, prior) for curve in curves]
    parts = zip(held_out[method], genuine, impostor, strict=True)
    losses[method] = float(np.mean([log_loss(*part, prior) for part in parts]))
  best = min(METHODS, key=losses.get)
  return Calibration(
    curve=_FITS[best](score, pairs.genuine.sum(axis=0)[::-1], pairs.impostor.sum(axis=0)[::-1]),
    prior=float(prior),
    log_loss=losses,
    baseline=float(scipy.special.entr([prior, 1 - prior]).sum()),
    reliability=_reliability(held_out[best], genuine, impostor, prior),
  )


def log_loss(probability, genuine, impostor, prior):
  """Returns the mean log loss in nats. Genuine pairs together have the weight `prior`.

  Args:
    probability: [n] probability of one person for each score.
    genuine, impostor: [n] numbers of pairs of each score.
    prior: the prior.
  """
  # entr and xlogy return 0 for no pairs, also if the probability is 0.
  of_genuine = -scipy.special.xlogy(genuine, probability).sum() / genuine.sum()
  of_impostor = -scipy.special.xlog1py(impostor, -probability).sum() / impostor.sum()
  return float(prior * of_genuine + (1 - prior) * of_impostor)


def fit_isotonic(score, genuine, impostor):
  """Fits a `Curve` by isotonic regression: the best curve that never falls.

  At both ends, one genuine and one impostor pair are added, so that no probability is 0 or 1 (Laplace's rule
  of succession). Without them, a single new pair could have an infinite log loss.

  Args:
    score: [n] distinct scores, ascending.
    genuine, impostor: [n] numbers of pairs of each score.
  """
  is_used = (genuine + impostor) > 0
  score = score[is_used]
  # Genuine and impostor pairs have the same weight together.
  counts = (np.concatenate([[1], side[is_used], [1]]) for side in (genuine, impostor))
  of_genuine, of_impostor = (side / side.sum() for side in counts)
  weights = of_genuine + of_impostor
  fitted = scipy.optimize.isotonic_regression(of_genuine / weights, weights=weights)
  value, starts = fitted.x[1:-1], fitted.blocks
  # Both ends of each block are points of the curve. The added pairs have no score of their own.
  first = np.clip(starts[:-1] - 1, 0, len(score) - 1)
  last = np.clip(starts[1:] - 2, 0, len(score) - 1)
  place = np.unique(np.concatenate([first, last]))
  return Curve("isotonic", tuple(score[place].tolist()), tuple(scipy.special.logit(value[place]).tolist()))


def fit_platt(score, genuine, impostor):
  """Fits a `Curve` by logistic regression on the score, with the targets of Platt (1999).

  The targets are (N + 1) / (N + 2) and 1 / (M + 2) for N genuine and M impostor pairs, so that the curve is
  finite if a score separates all pairs. The curve never falls. The arguments are the same as in
  `fit_isotonic`.
  """
  totals = genuine.sum(), impostor.sum()
  targets = (totals[0] + 1) / (totals[0] + 2), 1 / (totals[1] + 2)
  weights = [side / total / 2 for side, total in zip((genuine, impostor), totals, strict=True)]
  weight = weights[0] + weights[1]
  wanted = weights[0] * targets[0] + weights[1] * targets[1]
  center = (weight * score).sum()
  scale = max(np.sqrt((weight * (score - center) ** 2).sum()), 1e-9)
  x = (score - center) / scale

  def loss(parameters):
    slope, offset = parameters
    logits = slope * x + offset
    error = weight * scipy.special.expit(logits) - wanted
    value = (weight * np.logaddexp(0, logits) - wanted * logits).sum()
    return value, np.array([(error * x).sum(), error.sum()])

  found = scipy.optimize.minimize(
    loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)], tol=1e-12
  )
  slope = found.x[0] / scale
  offset = found.x[1] - slope * center
  return Curve("platt", (-1.0, 1.0), (float(offset - slope), float(offset + slope)))


_FITS = {"isotonic": fit_isotonic, "platt": fit_platt}


def _reliability(probability, genuine, impostor, prior):
  """Returns the `Bin`s of a reliability curve.

  Args:
    probability: for each half of the persons, [n] probability of each score.
    genuine, impostor: [2, n] numbers of pairs of each score.
    prior: the prior.
  """
  order = np.argsort(np.stack(probability).ravel(), kind="stable")
  probability, genuine, impostor = (np.ravel(x)[order] for x in (probability, genuine, impostor))
  weights = prior * genuine / genuine.sum(), (1 - prior) * impostor / impostor.sum()
  # All bins have the same weight, so that none has only a few pairs. Equal probabilities are in one bin.
  ends = np.cumsum(sum(weights))
  first = np.unique(probability, return_index=True, return_inverse=True)[1:]
  place = np.minimum((ends[first[0]][first[1]] * _NUM_BINS).astype(int), _NUM_BINS - 1)
  sums = [
    np.bincount(place, values, minlength=_NUM_BINS)
    for values in (*weights, sum(weights) * probability, genuine, impostor)
  ]
  return tuple(
    Bin(float(p / (g + i)), float(g / (g + i)), int(num_genuine), int(num_impostor))
    for g, i, p, num_genuine, num_impostor in zip(*sums, strict=True)
    if g + i > 0
  )
