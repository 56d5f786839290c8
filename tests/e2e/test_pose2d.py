"""2D pose from tiny files in the format of each data set to scores, results and checkpoints."""

import functools
import json
import shutil

import jax
import numpy as np
import pytest

from configs import (
  finetune_pose2d_aic_b16,
  finetune_pose2d_coco_b16,
  finetune_pose2d_demo,
  finetune_pose2d_mpii_b16,
)
from hap_jax import config as config_lib
from hap_jax import run as runner
from hap_jax.cli.__main__ import main as hap
from hap_jax.data.sources import base
from hap_jax.io import checkpoint_file
from hap_jax.train.report import read_metrics
from tests import damage
from tests.data import pose_files

pytestmark = pytest.mark.usefixtures("small_model")

TINY = {
  "total_steps": 2,
  "batch_size": 8,
  "log_every": 1,
  "save_every": 1,
  "eval_batch_size": 8,
  "eval_every_epochs": 0,
  "eval_every": 2,
  "model.variant": "Mu",
  "model.remat": "none",
  "model.image_size": (32, 24),
  "model.patch": 8,
  "model.head_channels": 8,
  "data.workers": 0,
}
NUM_PEOPLE = 8


def write_coco(root):
  for split in ("train", "val"):
    people = [pose_files.make_person(number) for number in range(1, NUM_PEOPLE + 1)]
    pose_files.write_coco(root, pose_files.make_coco(*people), split)


def write_aic(root):
  people = [pose_files.make_aic_person(number) for number in range(1, NUM_PEOPLE + 1)]
  for split in ("train", "val"):
    content = pose_files.make_coco(*people)
    pose_files.write_aic(root, annotations=f"{split}.json", images=split, content=content)


def write_mpii(root):
  entries = [{**pose_files.make_entries()[k % 3], "scale": 0.1 + k / 100} for k in range(NUM_PEOPLE)]
  for split in ("train", "val"):
    pose_files.write_mpii(root, entries, pose_files.make_truth(entries), split)


AIC_PLACES = {
  f"data.aic_pose.{split}_{what}": f"{split}.json" if what == "annotations" else split
  for split in ("train", "val")
  for what in ("annotations", "images")
}
FORMATS = {
  "coco": (write_coco, finetune_pose2d_coco_b16, {}, "keypoints.json", "AP"),
  "aic": (write_aic, finetune_pose2d_aic_b16, AIC_PLACES, "keypoints.json", "AP"),
  "mpii": (write_mpii, finetune_pose2d_mpii_b16, {}, "pred.mat", "PCKh"),
}


def tiny(file, **overrides):
  config = file.get_config()
  config.update_from_flattened_dict(TINY | overrides)
  return config_lib.finalize(config)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Returns a function (format -> (config, workdir, scores, lines) of a run). Each run is made once."""

  @functools.cache
  def make(name):
    write, file, places, *_ = FORMATS[name]
    root, lines = tmp_path_factory.mktemp(name), []
    write(root)
    config, workdir = tiny(file, **{"data.root": str(root), **places}), root / "run"
    return config, workdir, runner.run(config, workdir, say=lines.append), lines

  return make


# One format is enough for the loop. The other formats differ in their sources, which have their own tests.
@pytest.mark.parametrize(
  "name", [pytest.param(name, marks=() if name == "coco" else pytest.mark.soak) for name in FORMATS]
)
def test_each_format_trains_resumes_and_is_scored_again(name, trained, tmp_path):
  config, whole, scores, lines = trained(name)
  *_, results, metric = FORMATS[name]
  assert scores[metric] >= 0
  assert {"loss", "acc_pose", "lr"} <= read_metrics(whole)[0].keys()
  assert any("boxes of the annotations" in line for line in lines) == (metric == "AP")

  pieced, again = tmp_path / "pieced", []
  shutil.copytree(whole, pieced)
  damage.largest(pieced / "checkpoints" / "2").unlink()
  shutil.rmtree(pieced / "best")
  assert runner.run(config, pieced, say=again.append) == scores
  assert "resuming at step 1" in again
  jax.tree.map(np.testing.assert_array_equal, checkpoint_file.read(whole)[0], checkpoint_file.read(pieced)[0])

  out = tmp_path / "scores"
  assert hap(["evaluate", str(whole), f"--out={out}"]) == 0
  assert json.loads((out / "scores.json").read_text())["scores"] == scores
  for picture in ("joints", "worst"):
    assert base.read_image(out / f"{picture}.png").shape[0] > 100
    assert (whole / "panels" / f"{picture}_{2:08d}.png").is_file()
  # The file of results has the same score without the checkpoint.
  again = tmp_path / "again"
  words = ["evaluate", str(out / results), f"--config={whole / 'config.json'}", f"--out={again}"]
  assert hap(words) == 0
  found = json.loads((again / "scores.json").read_text())
  assert found["results"] == str(out / results)
  assert found["scores"][metric] == pytest.approx(scores[metric], abs=1e-6)


def test_predict_in_the_boxes_of_an_evaluation_finds_its_joints(trained, tmp_path):
  """The detector's file is also the file of --boxes. `evaluate` removes people that are found twice."""
  workdir, root = trained("coco")[1], tmp_path / "data"
  write_coco(root)
  pose_files.write_picture(root / "val2017" / "1.jpg")
  rng = np.random.default_rng(0)
  boxes = [
    {"image_id": 1, "category_id": 1, "bbox": [*corner, *size], "score": score}
    for corner, size, score in zip(
      rng.uniform(-3, 15, (9, 2)).tolist(),
      rng.uniform(9, 30, (9, 2)).tolist(),
      rng.random(9).tolist(),
      strict=True,
    )
  ]
  pose_files.write_json(root / "boxes.json", boxes)
  words = [f"--data.root={root}", "--set", "data.coco_pose.detections=boxes.json"]
  assert hap(["evaluate", str(workdir), *words, f"--out={tmp_path / 'scores'}"]) == 0
  # `predict` has other pictures besides, and the evaluation reads the picture under another name.
  words = [str(root / "val2017"), f"--boxes={root / 'boxes.json'}", "--batch_size=8"]
  assert hap(["predict", str(workdir), *words, f"--out={tmp_path / 'found'}"]) == 0
  scored, found = (
    json.loads((tmp_path / folder / "keypoints.json").read_text()) for folder in ("scores", "found")
  )
  assert len(found) == 9
  assert scored
  by_region = {tuple(entry["center"] + entry["scale"]): entry for entry in found}
  for entry in scored:
    same = by_region[tuple(entry["center"] + entry["scale"])]
    np.testing.assert_allclose(same["keypoints"], entry["keypoints"], rtol=1e-5, atol=1e-4)
    assert same["score"] == pytest.approx(entry["score"], rel=1e-5)
    assert same["image_id"] == entry["image_id"]


def test_a_checkpoint_of_other_joints_than_the_data_set_is_an_error(trained, tmp_path, capsys):
  workdir = trained("coco")[1]
  write_mpii(tmp_path)
  words = ["--data.source=mpii_pose", f"--data.root={tmp_path}"]
  assert hap(["evaluate", str(workdir), *words]) == 1
  error = capsys.readouterr().err
  assert "the checkpoint predicts 17 joints (coco17), data set mpii_pose has 16 (mpii16)" in error


def test_mpii_without_its_truth_is_trained_and_says_that_it_is_not_scored(tmp_path, capsys):
  write_mpii(tmp_path)
  (tmp_path / "annotations" / "mpii_gt_val.mat").unlink()
  task = config_lib.load("tasks", "pose2d")
  evaluation = task.make_evaluation(tiny(finetune_pose2d_mpii_b16, **{"data.root": str(tmp_path)}), None)
  assert not evaluation.evals
  assert evaluation.notes == ("mpii_pose has no truth for its split val, so nothing is scored",)


@pytest.mark.soak
def test_a_run_without_the_truth_of_mpii_trains_to_its_end_without_scores(tmp_path, caplog):
  write_mpii(tmp_path)
  (tmp_path / "annotations" / "mpii_gt_val.mat").unlink()
  config = tiny(finetune_pose2d_mpii_b16, **{"data.root": str(tmp_path)})
  assert runner.run(config, tmp_path / "run", say=lambda _: None) == {}
  assert "so this run cannot be scored: set config.data.mpii_pose.truth" in caplog.text
  assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2]


def test_a_file_of_results_needs_a_configuration_for_a_task_with_results(tmp_path, capsys):
  path = tmp_path / "keypoints.json"
  path.write_text("[]")
  assert hap(["evaluate", str(path)]) == 1
  assert "a results file needs --config=FILE" in capsys.readouterr().err
  assert hap(["evaluate", str(path), "--config=configs/finetune_reid_demo.py"]) == 1
  assert "expected a checkpoint, for the task reid" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("name", "file", "message"),
  [
    ("coco", "pred.mat", "expected a .json file for this data set (COCO's list of results): check --config"),
    ("mpii", "keypoints.json", "expected a .mat file for this data set (the pred.mat of MPII)"),
  ],
)
def test_a_file_of_results_of_another_data_set_is_an_error(name, file, message, tmp_path, capsys):
  write, recipe, *_ = FORMATS[name]
  write(tmp_path)
  path = tmp_path / file
  path.write_text("[]")
  config = recipe.__name__.rpartition(".")[2]
  assert hap(["evaluate", str(path), f"--config={config}", f"--data.root={tmp_path}"]) == 1
  assert f"{file}: {message}" in capsys.readouterr().err


def test_a_picture_that_cannot_be_read_counts_as_missed(trained, tmp_path):
  _, workdir, scores, _ = trained("coco")
  root = tmp_path / "data"
  write_coco(root)
  content = json.loads((root / "annotations" / "person_keypoints_val2017.json").read_text())
  content["images"].append({**content["images"][0], "id": 2, "file_name": "missing.jpg"})
  content["annotations"].append({**content["annotations"][0], "id": 99, "image_id": 2})
  (root / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(content))
  out = tmp_path / "scores"
  words = [f"--data.root={root}", "--set", "data.max_bad_share=0.5", f"--out={out}"]
  assert hap(["evaluate", str(workdir), *words]) == 0
  found = json.loads((out / "scores.json").read_text())["scores"]
  assert found["unread"] == 1
  assert found["PCK@0.1"] == pytest.approx(scores["PCK@0.1"] * NUM_PEOPLE / (NUM_PEOPLE + 1))


@pytest.mark.soak
def test_the_demo_learns_the_joints_of_drawn_people(tmp_path):
  """The loss of a tiny demo falls, and the drops of the learning rate keep their share of the run."""
  few = {
    "total_steps": 60,
    "data.synthetic.num_train": 64,
    "data.num_val": 16,
    "log_every": 1,
    "eval_every": 60,
  }
  runner.run(tiny(finetune_pose2d_demo, **few), tmp_path, say=lambda _: None)
  rows = read_metrics(tmp_path)
  assert rows[-1]["loss"] < rows[0]["loss"]
  rates = [row["lr"] for row in rows if "lr" in row]
  drop = int(np.ceil(60 * 9.5 / 12))
  np.testing.assert_allclose([rates[drop - 1], rates[drop]], [1e-3, 1e-4], rtol=1e-5)
