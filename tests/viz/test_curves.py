"""Training curves show every metric of a run; a run without metrics is an error."""

import numpy as np
import pytest

from hap_jax.viz.curves import curves


def make_rows(scores=True):
  rows = [
    {"step": step, "loss": 2 / step, "lr": 1e-3, "grad_norm": 1.0, "images_per_s": 9.0}
    for step in range(1, 61)
  ]
  if scores:
    rows[29] |= {"mAP": 0.4, "rank1": 0.6}
    rows[59] |= {"mAP": 0.3, "rank1": float("nan")}
  return rows


def test_every_metric_gets_a_panel_except_the_speed_of_the_machine():
  tall, low = curves(make_rows()), curves(make_rows(scores=False))
  assert tall.dtype == low.dtype == np.uint8
  assert tall.shape[2] == low.shape[2] == 3
  assert tall.shape[0] > 1.5 * low.shape[0]  # five panels stand in two rows, three in one


def test_the_best_value_is_marked_only_for_the_selected_score():
  plain, marked = curves(make_rows()), curves(make_rows(), select=("mAP", "max"))
  least = curves(make_rows(), select=("mAP", "min"))
  assert (plain != marked).any()
  assert (marked != least).any()


def test_a_score_at_every_step_is_still_drawn_as_a_score():
  rows = [{"step": step, "loss": 2 / step, "mAP": 0.1 * step} for step in range(1, 6)]
  assert (curves(rows) != curves(rows, select=("mAP", "max"))).any()


def test_rows_without_metrics_are_an_error():
  with pytest.raises(ValueError, match="nothing to draw"):
    curves([{"step": 1, "images_per_s": 3.0}])
