"""Tests of the scores of text-to-image retrieval."""

import numpy as np
import pytest

from hap_jax.metrics import text_retrieval


def on_circle(*degrees):
  angle = np.deg2rad(degrees)
  return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def test_scores_of_a_hand_computed_case():
  # Person 1 has two pictures, with three captions in all. Person 2 has one picture with one caption.
  images, image_pid = on_circle(0, 40, 25), [1, 1, 2]
  captions, text_pid = on_circle(2, 5, 21, 14), [1, 1, 1, 2]
  # The lists of the captions, by identity: 1 2 1, 1 2 1, 2 1 1, and for the caption of person 2: 2 1 1.
  # The lists of the pictures start with the captions at 2, 21 and 21 degrees, all of person 1.
  scores = text_retrieval.evaluate(images, captions, image_pid, text_pid)
  assert list(scores) == ["mAP", "rank1", "rank5", "rank10", "mINP", "mAP_trapezoid", "rank1_image_to_text"]
  assert scores["rank1"] == 3 / 4
  assert scores["rank5"] == scores["rank10"] == 1
  assert scores["mAP"] == pytest.approx(((1 + 2 / 3) / 2 * 2 + (1 / 2 + 2 / 3) / 2 + 1) / 4)
  trapezoid = (1 + (2 / 3 + 1 / 2) / 2) / 2 * 2 + ((1 / 2 + 0) / 2 + (2 / 3 + 1 / 2) / 2) / 2 + 1
  assert scores["mAP_trapezoid"] == pytest.approx(trapezoid / 4)
  assert scores["mINP"] == pytest.approx((2 / 3 + 2 / 3 + 2 / 3 + 1) / 4)
  assert scores["rank1_image_to_text"] == pytest.approx(2 / 3)


def test_equal_pictures_are_ranked_in_the_order_of_the_gallery():
  same = np.ones((4, 3))
  scores = text_retrieval.evaluate(same, same[:2], [5, 6, 7, 8], [5, 8])
  assert (scores["rank1"], scores["rank5"]) == (0.5, 1)
  assert scores["mAP"] == (1 + 1 / 4) / 2
  # Two pictures have no caption of their person, so only two pictures are queries that count.
  assert scores["rank1_image_to_text"] == 0.5


def test_lists_without_a_common_person_are_an_error():
  with pytest.raises(ValueError, match="none of the 2 queries has a match"):
    text_retrieval.evaluate(np.eye(3), np.eye(3)[:2], [1, 2, 3], [4, 5])
