"""Metrics of attributes on NumPy arrays, per attribute (mA, label F1) and per picture (accuracy, F1)."""

import dataclasses

import numpy as np

EPS = 1e-20  # Parity: the official code adds this number to each denominator, so 0/0 gives 0


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
  """Scores of predicted attributes. All scores are shares between 0 and 1.

  In the formulas, t is the set of true attributes of a picture and y the set of predicted attributes. Both
  contain only attributes whose label is known for this picture.

  Attributes:
    num_known: [A] int64, the number of pictures with a known label of each attribute. If it is 0, the other
      values of this attribute are 0, and the means over attributes do not include the attribute.
    label_mean_accuracy: [A] float64, (recall of positives + recall of negatives) / 2.
    positive_recall, negative_recall, label_precision, label_accuracy, label_f1: [A] float64.
    false_negatives, false_positives: [A] int64, counts of pictures.
    accuracy: mean of |t & y| / |t | y| over the pictures with a known label.
    precision: mean of |t & y| / |y| over the same pictures.
    recall: mean of |t & y| / |t| over the same pictures.
  """

  num_known: np.ndarray
  label_mean_accuracy: np.ndarray
  positive_recall: np.ndarray
  negative_recall: np.ndarray
  label_precision: np.ndarray
  label_accuracy: np.ndarray
  label_f1: np.ndarray
  false_negatives: np.ndarray
  false_positives: np.ndarray
  accuracy: float
  precision: float
  recall: float

  @property
  def f1(self):
    # Parity: the official F1 is computed from mean precision and mean recall. It is not the mean of the F1
    # scores of the pictures.
    return float(_ratio(2 * self.precision * self.recall, self.precision + self.recall))

  def metrics(self):
    """Returns {"mA": ..., "accuracy": ..., "precision": ..., "recall": ..., "F1": ..., "label_F1": ...}."""
    return {
      "mA": self._mean(self.label_mean_accuracy),
      "accuracy": self.accuracy,
      "precision": self.precision,
      "recall": self.recall,
      "F1": self.f1,
      "label_F1": self._mean(self.label_f1),
      "label_positive_recall": self._mean(self.positive_recall),
      "label_negative_recall": self._mean(self.negative_recall),
    }

  def _mean(self, values):
    """Returns the mean of [A] values over the attributes that have a known label."""
    return float(values[self.num_known > 0].mean())


def _ratio(above, below):
  return above / (below + EPS)


def positive_share(labels, known=None):
  """Returns the share of positive labels of each attribute among its known labels.

  Args:
    labels: [N, A] bool.
    known: [N, A] bool; None: all labels are known.
  Returns:
    [A] float64. An attribute without known labels has the share 0.
  """
  if known is None:
    return labels.mean(axis=0)
  return (labels & known).sum(axis=0) / np.maximum(known.sum(axis=0), 1)


def check_labels(labels, known=None):
  """Returns labels as bool.

  Args:
    labels: [N, A] bool, or numbers that are 0 or 1.
    known: [N, A] bool; None: all labels are known. Unknown labels may have any value.
  Returns:
    [N, A] bool. Unknown labels are False.
  Raises:
    ValueError: if the labels have another shape or type, or if a known label is neither 0 nor 1, such as -1,
      2 or NaN. The message gives the first wrong value and its place.
  """
  labels = np.asarray(labels)
  if labels.ndim != 2 or labels.dtype.kind not in "biuf":
    raise ValueError(
      f"labels of attributes have shape {labels.shape} and type {labels.dtype}; expected [pictures, "
      "attributes] of bool or of numbers that are 0 or 1"
    )
  # NaN is different from 0 and from 1, so this comparison also finds NaN.
  is_wrong = (labels != 0) & (labels != 1)
  if known is not None:
    known = _check_known(known, labels.shape)
    is_wrong &= known
  wrong = np.argwhere(is_wrong)
  if len(wrong):
    row, column = wrong[0]
    raise ValueError(
      f"{len(wrong)} labels of attributes are neither 0 nor 1; the first is {labels[row, column]} in row "
      f"{row}, column {column}; expected 0 (absent) or 1 (present), or booleans: convert the labels first"
    )
  return labels.astype(bool) if known is None else (labels == 1) & known


def _check_known(known, shape):
  """Returns the mask `known` as an array. Raises ValueError if it has another shape or type."""
  known = np.asarray(known)
  if known.dtype != bool or known.shape != shape:
    raise ValueError(
      f"the mask of known labels has shape {known.shape} and type {known.dtype}; expected {shape}, "
      "the shape of the labels, and type bool"
    )
  return known


def score(probability, labels, known=None, *, threshold=0.5):
  """Scores predictions. An attribute is predicted if its probability is strictly above the threshold.

  A picture without positive labels, or without predicted attributes, has the score 0 in the means over
  pictures. An attribute without positive labels has positive recall 0, so its mean accuracy is at most 0.5.
  Unknown labels change no score.

  Args:
    probability: [N, A] float, sigmoid of the logits.
    labels: [N, A] bool or 0/1.
    known: [N, A] bool; None: all labels are known. Unknown labels may have any value.
    threshold: a number in [0, 1].
  Returns:
    Scores.
  Raises:
    ValueError: if the arrays do not have the same shape [N, A] with at least one picture and one attribute,
      if a prediction is not finite, if a known label is neither 0 nor 1, or if no label is known.
  """
  probability, labels = np.asarray(probability), np.asarray(labels)
  if probability.ndim != 2 or probability.shape != labels.shape or not probability.size:
    raise ValueError(
      f"expected predictions and labels of the same shape [pictures, attributes]; got {probability.shape} "
      f"predictions and {labels.shape} labels: check that both hold the same attributes"
    )
  bad = np.flatnonzero(~np.isfinite(probability).all(axis=1))
  if bad.size:
    raise ValueError(
      f"predictions of {bad.size} pictures are not finite, the first in row {bad[0]}; expected finite "
      "numbers: check the weights of the network"
    )
  true, found = check_labels(labels, known), probability > threshold
  known = np.ones(true.shape, bool) if known is None else np.asarray(known)
  if not known.any():
    raise ValueError(
      f"none of the {known.size} labels is known; expected at least one: check the mask of known labels"
    )
  # If the label of an attribute is unknown in a picture, both sets of this picture leave the attribute out.
  found = found & known
  hit, either = true & found, true | found
  tp, fp, fn = hit.sum(0), (found & ~true).sum(0), (true & ~found).sum(0)
  positive_recall = _ratio(tp, tp + fn)
  negative_recall = _ratio((known & ~either).sum(0), (known & ~true).sum(0))
  label_precision = _ratio(tp, tp + fp)
  # Sums over axis 0 are per attribute, sums over axis 1 per picture.
  hits, is_scored = hit.sum(1), known.any(axis=1)
  return Scores(
    num_known=known.sum(0),
    label_mean_accuracy=(positive_recall + negative_recall) / 2,
    positive_recall=positive_recall,
    negative_recall=negative_recall,
    label_precision=label_precision,
    label_accuracy=_ratio(tp, tp + fp + fn),
    label_f1=_ratio(2 * label_precision * positive_recall, label_precision + positive_recall),
    false_negatives=fn,
    false_positives=fp,
    accuracy=float(_ratio(hits, either.sum(1))[is_scored].mean()),
    precision=float(_ratio(hits, found.sum(1))[is_scored].mean()),
    recall=float(_ratio(hits, true.sum(1))[is_scored].mean()),
  )
