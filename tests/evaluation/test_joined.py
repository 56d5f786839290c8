"""Evaluations of several data sets as one."""

import numpy as np
import pytest

from hap_jax.evaluation import joined
from hap_jax.evaluation.evaluate import Evaluation
from hap_jax.viz.curves import Guide, Mark


def make(name, value, **fields):
  """Returns an Evaluation of the split "val", whose score is the sum of its rows times `value`."""
  return Evaluation(
    **{
      "evals": {"val": name},
      "score": lambda splits: {"AP": value * splits["val"]["x"].sum()},
      "row_figures": lambda splits: {"worst": f"{name} {splits['val']['x'].tolist()}"},
      "select": ("AP", "max"),
      "guides": {"AP": Guide(baseline=Mark("chance", value))},
      "notes": (f"boxes of {name}",),
      "searches": lambda splits: {"picture": f"search {name}"},
      "write_results": lambda splits, folder: (folder / "file.txt").write_text(str(splits["val"]["x"].sum())),
      **fields,
    }
  )


SPLITS = {"a_val": {"x": np.array([1, 2])}, "b_val": {"x": np.array([3])}}


def test_each_name_gets_its_label():
  both = joined.join({"a": make("A", 1), "b": make("B", 10)})
  assert both.evals == {"a_val": "A", "b_val": "B"}
  assert both.score(SPLITS) == {"a_AP": 3, "b_AP": 30}
  assert both.row_figures(SPLITS) == {"a_worst": "A [1, 2]", "b_worst": "B [3]"}
  assert {name: guide.baseline.value for name, guide in both.guides.items()} == {"a_AP": 1, "b_AP": 10}
  assert both.notes == ("a: boxes of A", "b: boxes of B")
  assert both.searches(SPLITS) == {"a_picture": "search A", "b_picture": "search B"}
  assert both.figures is None


def test_the_first_evaluation_or_the_mean_selects_the_best_checkpoint():
  parts = {"a": make("A", 1), "b": make("B", 10)}
  assert joined.join(parts).select == ("a_AP", "max")
  both = joined.join(parts, mean_of="AP")
  assert both.select == ("mean_AP", "max")
  assert both.score(SPLITS) == {"a_AP": 3, "b_AP": 30, "mean_AP": pytest.approx(16.5)}


def test_each_data_set_has_its_own_folder_of_results(tmp_path):
  joined.join({"a": make("A", 1), "b": make("B", 1, write_results=None)}).write_results(SPLITS, tmp_path)
  assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.txt")] == ["a/file.txt"]


def test_a_data_set_that_cannot_be_scored_has_no_scores():
  unscored = Evaluation(evals={}, score=lambda splits: {}, notes=("no truth",))
  both = joined.join({"a": make("A", 1), "b": unscored})
  assert both.score(SPLITS) == {"a_AP": 3}
  assert both.row_figures(SPLITS) == {"a_worst": "A [1, 2]"}
  assert joined.join({"b": unscored, "a": make("A", 1)}).select is None


def test_an_evaluation_without_a_label_keeps_its_names():
  both = joined.join({"": make("A", 1, notes=()), "probe": make("B", 1)})
  assert both.evals == {"val": "A", "probe_val": "B"}
  assert both.score({"val": SPLITS["a_val"], "probe_val": SPLITS["b_val"]}) == {"AP": 3, "probe_AP": 3}
  assert both.notes == ("probe: boxes of B",)
