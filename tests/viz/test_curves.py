"""Training curves show every metric of a run; a run without metrics is an error."""

import numpy as np
import pytest

from hap_jax.viz.curves import Guide, Mark, curves, make_figure


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
  assert tall.shape[0] > 1.5 * low.shape[0]  # five panels are in two rows, three panels in one row


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


def panels(rows, **options):
  """Returns {name of the metric: matplotlib axes} of the drawn panels."""
  figure = make_figure(rows, **options)
  figure.canvas.draw()
  return {axes.get_title("left").partition(",")[0]: axes for axes in figure.axes if axes.axison}


def names_of_lines(axes):
  """Returns the names that the reader sees: of the legend, then of the texts in the panel."""
  return [text.get_text() for text in (*axes.get_legend().get_texts(), *axes.texts)]


@pytest.mark.parametrize("num_steps", [1, 2, 3, 60, 300_000])
def test_marks_of_the_step_axis_are_whole_steps(num_steps):
  steps = sorted({1, num_steps // 3 + 1, num_steps // 2 + 1, num_steps})
  drawn = panels([{"step": step, "loss": 2 / step, "mAP": 0.1} for step in steps])
  for axes in drawn.values():
    low, high = axes.get_xlim()
    marks = list(zip(axes.get_xticks(), axes.get_xticklabels(), strict=True))
    marks = [(tick, label.get_text()) for tick, label in marks if low <= tick <= high]
    assert 1 <= len(marks) <= 6  # more numbers of seven digits would overlap
    assert all(tick == round(tick) and text == f"{tick:,.0f}" for tick, text in marks)


def test_every_line_has_a_name():
  drawn = panels(make_rows(), select=("mAP", "max"), guides={"mAP": Guide(Mark("chance", 0.02))})
  assert names_of_lines(drawn["loss"]) == ["logged step", "mean of 3 logged steps"]
  assert names_of_lines(drawn["mAP"]) == ["recorded value", "best", "baseline: chance 0.02"]
  for axes in drawn.values():
    assert len(names_of_lines(axes)) == len(axes.get_lines())


def test_baseline_and_goal_are_dashed_lines_in_the_panel_of_their_score():
  guides = {
    "mAP": Guide(Mark("chance", 0.02), Mark("published", 0.9)),
    "other": Guide(goal=Mark("good", 3.0)),
  }
  drawn = panels(make_rows(), guides=guides)
  dashed = {
    name: [line.get_ydata()[0] for line in axes.get_lines() if line.get_linestyle() == "--"]
    for name, axes in drawn.items()
  }
  assert dashed == {"loss": [], "lr": [], "grad_norm": [], "mAP": [0.02, 0.9], "rank1": []}
  assert names_of_lines(drawn["mAP"])[1:] == ["baseline: chance 0.02", "goal: published 0.9"]
  low, high = drawn["mAP"].get_ylim()
  assert low < 0.02 < 0.9 < high  # both are inside the panel though all scores are between them


def test_a_guide_may_have_only_a_goal():
  drawn = panels(make_rows(), guides={"rank1": Guide(goal=Mark("published", 0.95))})
  assert names_of_lines(drawn["rank1"]) == ["recorded value", "goal: published 0.95"]


def test_a_single_logged_step_is_a_visible_point():
  (line,) = panels([{"step": 20, "loss": 0.5, "lr": 1.39e-5}])["loss"].get_lines()
  assert line.get_marker() == "o"


def test_small_numbers_are_written_out_at_their_marks():
  drawn = panels([{"step": step, "lr": 1e-5 * step} for step in range(1, 9)])["lr"]
  assert drawn.yaxis.get_offset_text().get_text() == ""
  assert "8e\N{MINUS SIGN}05" in [label.get_text() for label in drawn.get_yticklabels()]
