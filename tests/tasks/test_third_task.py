"""A third task, defined only by tasks/box.py and predict/box.py in the folder `third`.

It trains, resumes, evaluates, predicts and is described, although no file of hap_jax names it.
"""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import hap_jax.inference.predict
import hap_jax.tasks
from configs import common
from hap_jax import config as config_lib
from hap_jax import run as runner
from hap_jax.cli.__main__ import main as hap
from hap_jax.data.sources import synthetic
from hap_jax.io import checkpoint_file
from hap_jax.train.report import read_metrics

HERE = pathlib.Path(__file__).parent / "third"


@pytest.fixture(scope="module", autouse=True)
def third_task():
  # The packages find the files of the third task as if they were in the folders of hap_jax.
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(hap_jax.tasks, "__path__", [*hap_jax.tasks.__path__, str(HERE / "tasks")])
    package = hap_jax.inference.predict
    patch.setattr(package, "__path__", [*package.__path__, str(HERE / "predict")])
    yield


def box_config(**overrides):
  config = common.run("box")
  config.total_epochs, config.warmup_epochs, config.batch_size, config.eval_batch_size = 1.0, 0.0, 16, 16
  config.base_lr, config.weight_decay, config.optimizer = 0.01, 0.0, common.adamw(beta2=0.99)
  config.model, config.data = common.model("Mu"), common.data()
  config.model.image_size, config.model.patch = (32, 16), 8
  config.data.source, config.data.workers = "synthetic", 0
  # Few pictures that stay in memory: to draw new ones takes more time than the run.
  values = {"num_train": 64, "num_test": 32, "image_size": (40, 20), "hold_in_memory": True}
  config.update_from_flattened_dict({f"data.synthetic.{key}": value for key, value in values.items()})
  config.log_every, config.save_every, config.eval_every, config.total_steps = 1, 20, 20, 40
  config.update_from_flattened_dict(overrides)
  return config_lib.finalize(config)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Returns (workdir, scores) of a finished run."""
  workdir = tmp_path_factory.mktemp("box") / "run"
  return workdir, runner.run(box_config(), workdir, say=lambda _: None)


def test_the_third_task_learns_and_its_frozen_encoder_stays(trained):
  workdir, scores = trained
  rows = read_metrics(workdir)
  scored = {row["step"]: row["error_px"] for row in rows if row["step"] in (20, 40)}
  assert scores["error_px"] == scored[40] < 0.9 * rows[0]["loss"]
  first, last = (checkpoint_file.read(workdir / f"checkpoints/{step}")[0] for step in (20, 40))
  assert last.keys() == {"params"}  # the constants are in no checkpoint
  jax.tree.map(np.testing.assert_array_equal, first["params"]["encoder"], last["params"]["encoder"])
  assert np.abs(first["params"]["box"]["kernel"] - last["params"]["box"]["kernel"]).max() > 0


def test_the_third_task_resumes_to_the_same_end(trained, tmp_path):
  workdir, scores = trained
  shutil.copytree(workdir, tmp_path / "run")
  # Without its last checkpoint, the run has to resume from step 20.
  shutil.rmtree(tmp_path / "run/checkpoints/40")
  lines = []
  assert runner.run(box_config(), tmp_path / "run", say=lines.append) == scores
  assert "resuming at step 20" in lines
  whole, pieced = (checkpoint_file.read(path)[0] for path in (workdir, tmp_path / "run"))
  jax.tree.map(np.testing.assert_array_equal, whole, pieced)


def test_another_run_starts_from_the_encoder_of_the_third_task(trained, tmp_path):
  lines = []
  config = box_config(init_from=str(trained[0]), total_steps=1, eval_every=0)
  runner.run(config, tmp_path / "run", say=lines.append)
  assert any("kept at their initial values: 2 (box/bias, box/kernel)" in line for line in lines)


def test_the_third_task_is_evaluated_predicted_and_described(trained, tmp_path, capsys):
  workdir, scores = trained
  assert hap(["evaluate", str(workdir), f"--out={tmp_path / 'scores'}"]) == 0
  assert json.loads((tmp_path / "scores/scores.json").read_text())["scores"] == scores

  person = synthetic.open_source(split="test", num_test=1, image_size=(40, 20))[0]
  Image.fromarray(person["image"]).save(tmp_path / "person.png")
  out = tmp_path / "out"
  assert hap(["predict", str(workdir), str(tmp_path / "person.png"), f"--out={out}"]) == 0
  assert np.abs(np.array(json.loads((out / "box.json").read_text())) - person["box"]).max() < 15
  with pytest.raises(SystemExit):
    hap(["predict", str(workdir), "--help"])
  assert "picture of one person" in capsys.readouterr().out

  assert hap(["describe", str(workdir)]) == 0
  text = capsys.readouterr().out
  assert "fine-tuned for box, step 40" in text
  assert "box (128 -> 4)" in text
  assert f"hap evaluate {workdir}" in text
