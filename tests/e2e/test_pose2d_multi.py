"""2D pose on several data sets of drawn people: training, scores, prediction and split networks.

Two data sets are enough for the loop. The networks of three have their own tests.
"""

import json
import shutil

import jax
import numpy as np
import pytest

from configs import finetune_pose2d_multi_demo
from hap_jax import config as config_lib
from hap_jax import run as runner
from hap_jax import sharding
from hap_jax.cli.__main__ import main as hap
from hap_jax.convert import read
from hap_jax.convert.weights import flatten
from hap_jax.data.skeletons import AIC14, COCO17
from hap_jax.data.sources import synthetic
from hap_jax.io import checkpoint_file, picture_file
from hap_jax.tasks import pose2d
from hap_jax.train import state, step
from hap_jax.train.report import read_metrics

pytestmark = pytest.mark.usefixtures("small_model")

SKELETONS = {"coco": COCO17, "aic": AIC14}
TINY = {
  "total_steps": 2,
  "batch_size": 8,
  "log_every": 1,
  "save_every": 1,
  "eval_every_epochs": 0,
  "eval_every": 2,
  "eval_batch_size": 8,
  "flip_test": False,
  "model.scan": True,  # compiles faster
  "model.remat": "none",  # compiles faster
  "model.image_size": (32, 24),
  "data.num_val": 8,
  "data.synthetic.image_size": (40, 20),
  "data.synthetic.hold_in_memory": False,
  "data.mixed.parts": ("coco", "aic"),
  "data.mixed.coco.num_train": 24,
  "data.mixed.aic.num_train": 16,
  "model.num_experts": 2,
}


def tiny(**overrides):
  config = finetune_pose2d_multi_demo.get_config()
  config.update_from_flattened_dict(TINY | overrides)
  return config_lib.finalize(config)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Returns (workdir, scores) of a run."""
  workdir = tmp_path_factory.mktemp("pose") / "run"
  lines = []
  scores = runner.run(tiny(), workdir, say=lines.append)
  assert "24 of coco (synthetic), 16 of aic (synthetic)" in "".join(lines)
  return workdir, scores


def scores_in(folder):
  return json.loads((folder / "scores.json").read_text())["scores"]


def test_each_data_set_has_its_scores_and_the_first_one_selects_the_best(trained):
  workdir, scores = trained
  assert {f"{label}_{name}" for label in SKELETONS for name in ("AP", "PCK@0.1")} <= scores.keys()
  rows = read_metrics(workdir)
  losses = [rows[0][f"loss_{label}"] for label in SKELETONS]
  assert rows[0]["loss"] == pytest.approx(sum(losses), rel=1e-5)
  assert min(losses) > 0
  assert checkpoint_file.read(workdir / "best")[1]["scores"]["coco_AP"] == scores["coco_AP"]
  for label in SKELETONS:
    for picture in ("joints", "worst"):
      assert (workdir / "panels" / f"{label}_{picture}_{2:08d}.png").is_file()


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


def test_evaluate_scores_all_data_sets_as_the_run_does(trained, tmp_path):
  workdir, scores = trained
  assert hap(["evaluate", str(workdir), f"--out={tmp_path / 'all'}"]) == 0
  assert scores_in(tmp_path / "all") == scores
  assert {path.parent.name for path in (tmp_path / "all").rglob("keypoints.json")} == SKELETONS.keys()


def test_a_split_network_holds_its_expert_and_head_and_has_the_same_scores(trained, tmp_path, capsys):
  workdir, scores = trained
  weights = read.read(workdir)
  assert hap(["convert", str(workdir), "--dataset=aic", f"--out={tmp_path / 'aic'}", "--no_real_class"]) == 0
  split = read.read(tmp_path / "aic")
  assert split.description.network == {
    "num_joints": 14,
    "skeleton": "aic14",
    "codec": "msra",
    "fit_aspect": True,
    "head": "simple",
    "head_channels": [],
  }
  assert split.description.classes == {"joints": list(AIC14.joints)}
  whole, own = flatten(weights.params), flatten(split.params)
  shared = 32 - 8  # a quarter of the outputs is the expert's
  for path, array in own.items():
    if path.startswith("encoder/blocks/mlp/fc2/"):
      source = whole[path]
      assert source.shape[-1] == 32 + 8
      np.testing.assert_array_equal(array[..., :shared], source[..., :shared])
      np.testing.assert_array_equal(array[..., shared:], source[..., shared + 8 : shared + 16])
    elif path.startswith("encoder/"):
      np.testing.assert_array_equal(array, whole[path])
    else:
      source = whole[path.replace("keypoint_head", "associate_keypoint_heads_0")]
      np.testing.assert_array_equal(array, source[..., :14])
  expected = {name.removeprefix("aic_"): value for name, value in scores.items() if name.startswith("aic_")}
  for path, words in ((workdir, ["--dataset=aic"]), (tmp_path / "aic", [])):
    out = tmp_path / f"scores of {path.name}"
    assert hap(["evaluate", str(path), *words, f"--out={out}"]) == 0
    assert scores_in(out) == pytest.approx(expected, abs=1e-6)


def test_predict_uses_the_chosen_expert_and_head(trained, tmp_path, capsys):
  workdir, _ = trained
  people = synthetic.open_source(num_train=8, image_size=(40, 20))
  (tmp_path / "people").mkdir()
  for i in range(3):
    picture_file.write(tmp_path / "people" / f"{i}.png", people[i]["image"])
  found = {}
  for label in ("", "aic"):
    out = tmp_path / f"out{label}"
    words = [
      str(tmp_path / "people"),
      f"--out={out}",
      "--batch_size=8",
      *([f"--dataset={label}"] if label else []),
    ]
    assert hap(["predict", str(workdir), *words]) == 0
    found[label] = json.loads((out / "keypoints.json").read_text())
  assert {len(entry["keypoints"]) for entry in found[""]} == {3 * 17}
  assert {len(entry["keypoints"]) for entry in found["aic"]} == {3 * 14}
  capsys.readouterr()
  assert (
    hap(["predict", str(workdir), str(tmp_path / "people"), "--dataset=cats", f"--out={tmp_path / 'x'}"]) == 1
  )
  assert "--dataset=cats: the checkpoint has the data sets coco, aic" in capsys.readouterr().err


@pytest.mark.soak
def test_eight_devices_give_the_numbers_of_one():
  task = pose2d.make(tiny(**{"optimizer.kind": "sgd", "optimizer.clip_norm": None, "warmup_steps": 0}))
  found = []
  for mesh in (sharding.make_mesh(devices=jax.devices()[:1]), sharding.make_mesh(2, 2, 2)):
    train_step, now = step.make_train_step(task, mesh, seed=3), state.create(task, 3, mesh)
    for i in range(2):
      batch = sharding.put_batch(task.train.batch(i), mesh)
      progress = sharding.put_scalar(task.train.progress(i), "float32", mesh)
      now, metrics = train_step(now, {}, batch, sharding.put_scalar(i, "int32", mesh), progress)
    found.append((jax.device_get(metrics), jax.device_get(now.params)))
  (one, params), (many, others) = found
  assert one["loss"][0] == pytest.approx(many["loss"][0], rel=1e-5)
  for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(params), jax.tree.leaves(others), strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(a).max() + 1e-9, err_msg=str(path))
