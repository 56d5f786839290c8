"""Person ReID on two data sets of drawn people: training, scores of each data set, and resumption."""

import json
import shutil

import jax
import numpy as np
import pytest

from configs import finetune_reid_multi_demo
from hap_jax import config as config_lib
from hap_jax import config_parts, sharding
from hap_jax import run as runner
from hap_jax.cli.__main__ import main as hap
from hap_jax.evaluation.evaluate import make_evaluate
from hap_jax.io import checkpoint_file
from hap_jax.tasks import reid
from hap_jax.train.report import read_metrics

pytestmark = pytest.mark.usefixtures("small_model")

TINY = {
  "total_steps": 2,
  "batch_size": 8,
  "num_instances": 2,
  "log_every": 1,
  "save_every": 1,
  "eval_every_epochs": 0,
  "eval_every": 2,
  "eval_batch_size": 8,
  "panel_rows": 1,
  "model.image_size": (32, 16),
  "model.scan": True,  # compiles faster
  "model.remat": "none",  # compiles faster
  "data.synthetic.image_size": (40, 20),
  "data.synthetic.num_train": 48,
  "data.synthetic.num_test": 16,
}
LABELS = ("north", "south")


def tiny(**overrides):
  config = finetune_reid_multi_demo.get_config()
  config.update_from_flattened_dict(TINY | overrides)
  return config_lib.finalize(config)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Returns (workdir, scores) of a run."""
  workdir = tmp_path_factory.mktemp("reid") / "run"
  return workdir, runner.run(tiny(), workdir, say=lambda _: None)


def test_a_batch_has_persons_of_both_data_sets_and_never_confuses_them():
  task = reid.make(tiny())
  source, seen = task.train.source, [set(), set()]
  (_, north), (_, south) = source.parts
  assert (north.columns["pid"] == south.columns["pid"]).all()
  for step in range(12):
    batch = task.train.whole().batch(step)
    dataset = (batch["index"] >= len(north)).astype(int)
    assert step > 0 or set(dataset) == {0, 1}
    for d, pid, index in zip(dataset, batch["pid"].tolist(), batch["index"].tolist(), strict=True):
      seen[d].add(pid)
      assert source.columns["pid"][index] == pid
  assert len(seen[0]) == len(seen[1]) == 6
  assert not seen[0] & seen[1]
  assert task.description.network["num_classes"] == 12
  assert task.description.classes["pids"] == sorted(seen[0] | seen[1])
  assert task.description.data["parts"] == 2 * [{"name": "synthetic", "licence": north.spec.licence}]


def test_each_data_set_is_scored_on_its_own_queries_and_gallery():
  config = tiny()
  task, mesh = reid.make(config), sharding.make_mesh()
  variables = sharding.put_replicated(jax.tree.map(np.asarray, jax.jit(task.init)(jax.random.key(0))), mesh)
  scores, rows = make_evaluate(task.evaluation, mesh)(variables)
  assert rows.keys() == {f"{label}_{split}" for label in LABELS for split in ("query", "gallery")}
  assert task.evaluation.select == ("mean_mAP", "max")
  assert scores["mean_mAP"] == pytest.approx(np.mean([scores[f"{label}_mAP"] for label in LABELS]))
  for label in LABELS:
    alone = reid.make_evaluation(config_lib.finalize(config_parts.only(config, label)), task.description)
    own = {name.removeprefix(f"{label}_"): found for name, found in rows.items() if name.startswith(label)}
    expected = {f"{label}_{name}": value for name, value in alone.score(own).items()}
    assert {name: value for name, value in scores.items() if name.startswith(label)} == expected


@pytest.mark.soak
def test_the_highest_mean_is_the_best(trained):
  workdir, scores = trained
  assert {f"{label}_{name}" for label in LABELS for name in ("mAP", "rank1", "mINP")} <= scores.keys()
  row = read_metrics(workdir)[-1]
  assert row["mean_mAP"] == pytest.approx(np.mean([scores[f"{label}_mAP"] for label in LABELS]))
  assert checkpoint_file.read(workdir / "best")[1]["scores"]["mean_mAP"] == row["mean_mAP"]
  for label in LABELS:
    assert (workdir / "panels" / f"{label}_ranks_{2:08d}.png").is_file()


@pytest.mark.soak
def test_a_resumed_run_ends_with_the_same_weights(trained, tmp_path):
  workdir, scores = trained
  pieced, lines = tmp_path / "pieced", []
  shutil.copytree(workdir, pieced)
  shutil.rmtree(pieced / "checkpoints" / "2")
  assert runner.run(tiny(), pieced, say=lines.append) == scores
  assert "resuming at step 1" in lines
  jax.tree.map(
    np.testing.assert_array_equal, checkpoint_file.read(workdir)[0], checkpoint_file.read(pieced)[0]
  )


@pytest.mark.soak
def test_evaluate_scores_all_data_sets_or_a_single_one(trained, tmp_path, capsys):
  workdir, scores = trained
  assert hap(["evaluate", str(workdir), f"--out={tmp_path / 'all'}"]) == 0
  found = json.loads((tmp_path / "all" / "scores.json").read_text())
  assert found["scores"] == scores
  assert found["data"] == 2 * [{"name": "synthetic", "root": ""}]
  assert hap(["evaluate", str(workdir), "--dataset=south", f"--out={tmp_path / 'one'}"]) == 0
  found = json.loads((tmp_path / "one" / "scores.json").read_text())["scores"]
  assert found == {name.removeprefix("south_"): value for name, value in scores.items() if "south" in name}
  capsys.readouterr()
  assert hap(["evaluate", str(workdir), "--dataset=east"]) == 1
  assert "--dataset=east: expected a data set of the configuration: north, south" in capsys.readouterr().err


@pytest.mark.soak
def test_a_calibration_needs_a_single_data_set(trained, tmp_path, capsys):
  workdir, _ = trained
  words = ["calibrate", str(workdir), "--far=0.1", f"--out={tmp_path / 'calibration.json'}"]
  assert hap(words) == 1
  assert "its configuration has several data sets: choose one with --dataset=LABEL" in capsys.readouterr().err
  hap([*words, "--dataset=south"])  # there may be too few persons, but the data set is opened
  assert "several data sets" not in capsys.readouterr().err
