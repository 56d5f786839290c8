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


# Pictures by attributes. The second picture and the third attribute have no known label.
PARTLY = np.array([[1, 0, 0, 1], [1, 1, 1, 1], [0, 1, 0, 0], [1, 0, 1, 0]], bool)
PARTLY_KNOWN = np.array([[1, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 1], [1, 1, 0, 0]], bool)
PREDICTED = np.array([[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 1, 1]])


def test_labels_that_are_not_known_count_nowhere():
  scores = attributes.score(PREDICTED, PARTLY, PARTLY_KNOWN)
  assert scores.num_known.tolist() == [3, 2, 0, 2]
  # Attribute 0: labels 1, 0, 1, answers 1, 1, 0. Attribute 1: 0, 0 and 1, 0. Attribute 3: 1, 0 and 1, 0.
  np.testing.assert_allclose(scores.label_mean_accuracy, [0.25, 0.25, 0, 1])
  assert scores.false_positives.tolist() == [1, 1, 0, 0]
  assert scores.false_negatives.tolist() == [1, 0, 0, 0]
  # Picture 0: true {0, 3}, found {0, 1, 3}. Picture 2: nothing true, found {0}. Picture 3: true {0}.
  expected = {"mA": 0.5, "accuracy": 2 / 9, "precision": 2 / 9, "recall": 1 / 3}
  assert {name: scores.metrics()[name] for name in expected} == pytest.approx(expected)
  assert np.isfinite(list(scores.metrics().values())).all()


@pytest.mark.parametrize("hidden", [-1, 2, np.nan, 1, 0])
def test_labels_that_are_not_known_may_have_any_value(hidden):
  labels = np.where(PARTLY_KNOWN, PARTLY, hidden)
  found = attributes.score(PREDICTED, labels, PARTLY_KNOWN)
  assert found.metrics() == attributes.score(PREDICTED, PARTLY, PARTLY_KNOWN).metrics()


def test_a_known_label_other_than_0_and_1_is_an_error():
  labels = np.where(PARTLY_KNOWN, PARTLY, -1)
  labels[2, 3] = -1
  with pytest.raises(ValueError, match=r"1 labels .* the first is -1 in row 2, column 3"):
    attributes.score(PREDICTED, labels, PARTLY_KNOWN)


def test_with_all_labels_known_the_mask_changes_no_bit():
  rng = np.random.default_rng(0)
  labels, probability = rng.random((301, 13)) < 0.3, rng.random((301, 13))
  found = attributes.score(probability, labels, np.ones(labels.shape, bool))
  expected = attributes.score(probability, labels)
  for name, value in vars(expected).items():
    np.testing.assert_array_equal(getattr(found, name), value)
  assert found.metrics() == expected.metrics()
  np.testing.assert_array_equal(
    attributes.positive_share(labels, np.ones(labels.shape, bool)), labels.mean(axis=0)
  )


def test_share_of_positives_is_taken_over_the_known_labels():
  np.testing.assert_allclose(attributes.positive_share(PARTLY, PARTLY_KNOWN), [2 / 3, 0, 0, 1 / 2])


@pytest.mark.parametrize(
  ("known", "message"),
  [
    (np.zeros((4, 4), bool), "none of the 16 labels is known; expected at least one"),
    (np.ones((4, 3), bool), r"has shape \(4, 3\) and type bool; expected \(4, 4\)"),
    (np.ones((4, 4)), r"type float64; expected \(4, 4\), the shape of the labels, and type bool"),
  ],
)
def test_a_wrong_mask_is_an_error(known, message):
  with pytest.raises(ValueError, match=message):
    attributes.score(PREDICTED, PARTLY, known)
