"""Linear probe: a logistic regression of each attribute on the features of a frozen encoder."""

import dataclasses

import numpy as np
import scipy.optimize
import scipy.special

from hap_jax.metrics import attributes as metrics

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4)  # of the penalty that are tried
_HELD_OUT = 5  # one training picture in so many chooses the penalty
_MAX_STEPS = 300


@dataclasses.dataclass(frozen=True, eq=False)
class LinearProbe:
  """A logistic regression of A attributes on D features.

  Attributes:
    kernel: [D, A] float64. bias: [A]. mean, scale: [D], of the features that it was learnt from.
    penalty: strength of the penalty on the kernel.
  """

  kernel: np.ndarray
  bias: np.ndarray
  mean: np.ndarray
  scale: np.ndarray
  penalty: float

  def probability(self, features):
    """Returns [N, A] float64 of features [N, D]."""
    return scipy.special.expit((features - self.mean) / self.scale @ self.kernel + self.bias)


def fit(features, labels, penalty):
  """Learns the regression to its optimum, a convex problem, so nothing in it is random.

  It minimises sum_a mean_i w_ia bce_ia + penalty / 2 |kernel|^2, with the weights of the attribute task:
  exp(1 - r_a) for positives and exp(r_a) for negatives of an attribute of which a share r_a is positive.

  Args:
    features: [N, D] float; standardised here. labels: [N, A] bool or 0/1. penalty: above 0.
  Returns:
    LinearProbe.
  Raises:
    ValueError: if a label is neither 0 nor 1, or there are not N rows of labels.
  """
  labels = _check_labels(features, labels)
  mean, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
  scale = np.where(scale > 0, scale, 1.0)
  x = ((features - mean) / scale).astype(np.float32)
  (N, D), A = x.shape, labels.shape[1]
  ratio = labels.mean(axis=0)
  weights = np.where(labels, np.exp(1 - ratio), np.exp(ratio)).astype(np.float32)

  def loss_and_gradient(flat):
    kernel, bias = flat[: D * A].reshape(D, A), flat[D * A :]
    logits = x @ kernel.astype(np.float32) + bias.astype(np.float32)
    entropy = np.logaddexp(0, logits) - logits * labels
    error = weights * (scipy.special.expit(logits) - labels) / N
    loss = (weights * entropy).sum(dtype=np.float64) / N + penalty / 2 * (kernel**2).sum()
    gradient = x.T @ error + penalty * kernel
    return loss, np.concatenate([gradient.ravel(), error.sum(axis=0, dtype=np.float64)])

  found = scipy.optimize.minimize(
    loss_and_gradient, np.zeros((D + 1) * A), jac=True, method="L-BFGS-B", options={"maxiter": _MAX_STEPS}
  )
  return LinearProbe(found.x[: D * A].reshape(D, A), found.x[D * A :], mean, scale, penalty)


def choose_and_fit(features, labels):
  """Learns the regression with the penalty of STRENGTHS that predicts the last fifth of the rows best, by mA.

  The last rows, not drawn ones, because pictures of one person follow each other in most data sets.

  Args:
    features: [N, D] float. labels: [N, A] bool or 0/1.
  Returns:
    LinearProbe, learnt from all rows.
  Raises:
    ValueError: if there are fewer rows than _HELD_OUT, or labels as in `fit`.
  """
  labels = _check_labels(features, labels)
  if len(features) < _HELD_OUT:
    raise ValueError(f"{len(features)} pictures to learn attributes from; expected {_HELD_OUT} or more")
  stop = len(features) - len(features) // _HELD_OUT

  def held_out_accuracy(penalty):
    probe = fit(features[:stop], labels[:stop], penalty)
    return metrics.score(probe.probability(features[stop:]), labels[stop:]).metrics()["mA"]

  return fit(features, labels, max(STRENGTHS, key=held_out_accuracy))


def _check_labels(features, labels):
  """Returns labels as [N, A] bool; raises ValueError unless they are 0 or 1, one row per picture."""
  labels = metrics.check_labels(labels)
  if len(labels) != len(features):
    raise ValueError(f"{len(labels)} rows of labels for {len(features)} pictures; expected one per picture")
  return labels
