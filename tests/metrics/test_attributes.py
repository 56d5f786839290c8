"""Tests of the metrics of attributes: a worked example, special cases, and inputs that are errors."""

import numpy as np
import pytest

from hap_jax.metrics import attributes


def test_scores_of_the_worked_example():
  # Closed formulas give labels and logits of 50 pictures and 6 attributes.
  i, j = np.mgrid[:50, :6]
  labels = (i * (j + 3) + 2 * j) % 7 < j + 1
  labels[3] = False  # a picture without positive labels
  logits = 2 * np.sin(1.3 * i + 0.7 * i * j + j) + 1.5 * (labels - 0.5)
  scores = attributes.score(1 / (1 + np.exp(-logits)), labels)
  expected = {
    "mA": 0.6306204522,
    "accuracy": 0.4636666667,
    "precision": 0.6013333333,
    "recall": 0.6093333333,
    "F1": 0.6053069016,
    "label_F1": 0.5818069231,
  }
  assert {name: scores.metrics()[name] for name in expected} == pytest.approx(expected, abs=1e-9)
  by_attribute = [0.622024, 0.591476, 0.626437, 0.600644, 0.826531, 0.516611]
  np.testing.assert_allclose(scores.label_mean_accuracy, by_attribute, atol=1e-6)


def test_an_attribute_without_positive_labels_has_a_mean_accuracy_of_at_most_one_half():
  scores = attributes.score(np.zeros((4, 1)), np.zeros((4, 1), bool))
  assert scores.metrics()["mA"] == 0.5
  assert scores.metrics()["F1"] == 0.0


def test_a_probability_at_the_threshold_is_not_predicted():
  scores = attributes.score(np.full((1, 1), 0.5), np.ones((1, 1)))
  assert scores.false_negatives.tolist() == [1]


@pytest.mark.parametrize("shape", [(4, 3), (4,), (0, 2)])
def test_predictions_and_labels_of_different_shapes_are_an_error(shape):
  with pytest.raises(ValueError, match=r"labels: check that both hold the same attributes"):
    attributes.score(np.zeros(shape), np.zeros((4, 2) if shape != (0, 2) else shape))


def test_predictions_that_are_not_finite_are_an_error():
  probability = np.full((3, 2), 0.5)
  probability[1, 1] = np.nan
  with pytest.raises(ValueError, match="1 pictures are not finite, the first in row 1"):
    attributes.score(probability, np.ones((3, 2), bool))


@pytest.mark.parametrize(
  ("value", "dtype"),
  [(-1, np.int64), (2, np.int8), (255, np.uint8), (np.nan, float), (0.5, np.float32), (np.inf, float)],
)
def test_error_of_a_label_other_than_0_and_1_gives_its_value_and_place(value, dtype):
  labels = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype)
  labels[1, 2] = value
  with pytest.raises(ValueError, match=rf"1 labels .* the first is {value} in row 1, column 2; expected 0"):
    attributes.score(np.full((2, 3), 0.7), labels)


def test_labels_of_minus_1_and_1_are_an_error():
  # A cast to bool would make all of them True.
  labels = np.array([[-1, 1], [1, -1]])
  with pytest.raises(ValueError, match=r"2 labels .* the first is -1 in row 0, column 0"):
    attributes.score(np.full((2, 2), 0.7), labels)


@pytest.mark.parametrize("labels", [[["yes", "no"]], [[None, 1]], [[1j, 0]]])
def test_labels_that_are_not_real_numbers_are_an_error(labels):
  with pytest.raises(ValueError, match=r"expected .* bool or of numbers that are 0 or 1"):
    attributes.score(np.full((1, 2), 0.7), np.array(labels))


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, float])
def test_labels_of_0_and_1_give_the_same_scores_in_every_type(dtype):
  rng = np.random.default_rng(0)
  labels, probability = rng.random((30, 4)) < 0.4, rng.random((30, 4))
  found = attributes.score(probability, labels.astype(dtype)).metrics()
  assert found == attributes.score(probability, labels).metrics()
