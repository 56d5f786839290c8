"""Linear probe: one logistic regression per attribute on the features of a frozen encoder."""

import dataclasses

import numpy as np
import scipy.optimize
import scipy.special

from hap_jax.metrics import attributes as metrics

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4)  # tried strengths of the penalty
_HELD_OUT = 5  # a fifth (1 / _HELD_OUT) of the training pictures is used to select the penalty
_MAX_STEPS = 300


@dataclasses.dataclass(frozen=True, eq=False)
class LinearProbe:
  """A logistic regression of A attributes on D features.

  Attributes:
    kernel: [D, A] float64.
    bias: [A].
    mean: [D], mean of the training features.
    scale: [D], standard deviation of the training features.
    penalty: strength of the L2 penalty on the kernel.
  """

  kernel: np.ndarray
  bias: np.ndarray
  mean: np.ndarray
  scale: np.ndarray
  penalty: float

  def probability(self, features):
    """Returns the probabilities [N, A] float64 of the attributes for features [N, D]."""
    return scipy.special.expit((features - self.mean) / self.scale @ self.kernel + self.bias)


def fit(features, labels, penalty, known=None):
  """Fits the regression. The problem is convex, so the result does not depend on a random start.

  This function minimises sum_a mean_i w_ia bce_ia + penalty / 2 |kernel|^2, where bce_ia is the binary cross
  entropy of attribute a in picture i. The mean is over the pictures whose label of attribute a is known. The
  weights w_ia are the weights of the attribute task: exp(1 - r_a) for a positive label and exp(r_a) for a
  negative label. r_a is the share of positive labels among the known labels of attribute a. An attribute
  without known labels gets the probability 0.5 for every picture.

  Args:
    features: [N, D] float. This function standardises them.
    labels: [N, A] bool or 0/1.
    penalty: strength of the penalty, above 0.
    known: [N, A] bool, True for known labels; other labels are ignored. None: all labels are known.
  Returns:
    LinearProbe.
  Raises:
    ValueError: if a known label is neither 0 nor 1, or there are not N rows of labels.
  """
  labels = _check_labels(features, labels, known)
  mean, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
  scale = np.where(scale > 0, scale, 1.0)  # a constant feature becomes 0, not NaN
  x = ((features - mean) / scale).astype(np.float32)
  (N, D), A = x.shape, labels.shape[1]
  ratio = metrics.positive_share(labels, known)
  weights = np.where(labels, np.exp(1 - ratio), np.exp(ratio)).astype(np.float32)
  if known is not None:
    # The loss divides by N. This factor turns it into a mean over known labels. The factor is 1 if all labels
    # are known.
    weights *= known * (N / np.maximum(known.sum(axis=0), 1)).astype(np.float32)

  def loss_and_gradient(flat):
    kernel, bias = flat[: D * A].reshape(D, A), flat[D * A :]
    logits = x @ kernel.astype(np.float32) + bias.astype(np.float32)
    # This form of the cross entropy does not overflow for large logits.
    entropy = np.logaddexp(0, logits) - logits * labels
    error = weights * (scipy.special.expit(logits) - labels) / N
    loss = (weights * entropy).sum(dtype=np.float64) / N + penalty / 2 * (kernel**2).sum()
    gradient = x.T @ error + penalty * kernel
    return loss, np.concatenate([gradient.ravel(), error.sum(axis=0, dtype=np.float64)])

  found = scipy.optimize.minimize(
    loss_and_gradient, np.zeros((D + 1) * A), jac=True, method="L-BFGS-B", options={"maxiter": _MAX_STEPS}
  )
  return LinearProbe(found.x[: D * A].reshape(D, A), found.x[D * A :], mean, scale, penalty)


def choose_and_fit(features, labels, known=None):
  """Fits the regression with the best penalty of STRENGTHS.

  The best penalty has the highest mA on the last fifth of the rows, after a fit on the other rows. In most
  data sets the pictures of a person follow each other. With random rows in place of the last fifth, the same
  person would be in both parts.

  Args:
    features: [N, D] float.
    labels: [N, A] bool or 0/1.
    known: [N, A] bool, True for known labels; other labels are ignored. None: all labels are known.
  Returns:
    LinearProbe, fitted on all rows.
  Raises:
    ValueError: if there are fewer rows than _HELD_OUT, if the last fifth has no known label, or if the labels
      are wrong, see `fit`.
  """
  labels = _check_labels(features, labels, known)
  if len(features) < _HELD_OUT:
    raise ValueError(f"the training split has {len(features)} pictures; expected {_HELD_OUT} or more")
  stop = len(features) - len(features) // _HELD_OUT

  learnt, held_out = (None, None) if known is None else (known[:stop], known[stop:])

  def held_out_accuracy(penalty):
    probe = fit(features[:stop], labels[:stop], penalty, learnt)
    return metrics.score(probe.probability(features[stop:]), labels[stop:], held_out).metrics()["mA"]

  return fit(features, labels, max(STRENGTHS, key=held_out_accuracy), known)


def _check_labels(features, labels, known):
  """Returns the labels as [N, A] bool.

  Raises:
    ValueError: if a known label is neither 0 nor 1, or if there is not one row per picture.
  """
  labels = metrics.check_labels(labels, known)
  if len(labels) != len(features):
    raise ValueError(f"{len(labels)} rows of labels for {len(features)} pictures; expected one per picture")
  return labels
