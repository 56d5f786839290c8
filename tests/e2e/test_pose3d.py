"""3D pose from drawn people to scores, a folder in 3DPW's layout, and files of predictions."""

import dataclasses
import json
import shutil

import cv2
import jax
import numpy as np
import pytest

from configs import finetune_pose3d_direct_demo
from hap_jax import config as config_lib
from hap_jax import run as runner
from hap_jax.cli.__main__ import main as hap
from hap_jax.data import body_model
from hap_jax.data.skeletons import EVAL_NAMES
from hap_jax.data.sources import synthetic
from hap_jax.io import checkpoint_file
from hap_jax.train.report import read_metrics

pytestmark = pytest.mark.usefixtures("small_model")

TINY = {
  "total_steps": 3,
  "batch_size": 8,
  "log_every": 1,
  "save_every": 1,
  "eval_batch_size": 8,
  "eval_every_epochs": 0,
  "eval_every": 3,
  "model.image_size": (32, 32),
  "model.hidden": 16,
  "model.remat": "none",
  "data.num_val": 8,
  "data.synthetic.num_train": 16,
  "data.synthetic.image_size": (64, 32),
}
SCORES = {
  *("MPJPE", "PA-MPJPE", "MPVPE", "MPJPE_mean_joints", "PA-MPJPE_one_pose"),
  *(f"{name}_{joint}" for name in ("MPJPE", "PA-MPJPE") for joint in EVAL_NAMES),
}


def tiny(**overrides):
  config = finetune_pose3d_direct_demo.get_config()
  config.update_from_flattened_dict(TINY | overrides)
  return config_lib.finalize(config)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """Returns (workdir, scores, printed lines) of a run on drawn people."""
  workdir, lines = tmp_path_factory.mktemp("pose3d") / "run", []
  return workdir, runner.run(tiny(), workdir, say=lines.append), lines


@pytest.fixture(scope="module")
def people_of_3dpw(tmp_path_factory):
  """Returns a folder of drawn people in the layout of 3DPW."""
  root = tmp_path_factory.mktemp("3dpw") / "people"
  words = ["prepare", "synthetic", "--format=3dpw", f"--out={root}", "--num_test=6"]
  assert hap([*words, "--image_size=96x48"]) == 0
  return root


def test_a_run_is_scored_and_resumes_bit_for_bit(trained, people_of_3dpw, tmp_path):
  whole, scores, _ = trained
  assert scores.keys() == SCORES
  assert all(0 < value < 2_000 for value in scores.values())
  logged = read_metrics(whole)[0].keys()
  assert {"loss", "loss_joints_2d", "loss_joints_3d", "loss_rotations", "loss_betas", "lr"} <= logged
  pieced, again = tmp_path / "pieced", []
  shutil.copytree(whole, pieced)
  for step in ("2", "3"):
    shutil.rmtree(pieced / "checkpoints" / step)
  shutil.rmtree(pieced / "best")
  # The body may come from a folder now, because it is the same body.
  assert runner.run(tiny(body=str(people_of_3dpw / "body")), pieced, say=again.append) == scores
  assert "resuming at step 1" in again
  jax.tree.map(np.testing.assert_array_equal, checkpoint_file.read(whole)[0], checkpoint_file.read(pieced)[0])


def test_no_file_of_a_run_holds_the_body(trained):
  workdir, _, _ = trained
  bodies = synthetic.own_body()
  V = bodies.of("neutral").num_vertices
  shapes = [array.shape for array in jax.tree.leaves(checkpoint_file.read(workdir)[0])]
  assert not [shape for shape in shapes if V in shape]
  config = json.loads((workdir / "config.json").read_text())
  assert config["body"] == ""


def test_the_exported_program_holds_no_array_of_the_body(trained, tmp_path):
  out = tmp_path / "exported"
  assert hap(["export", str(trained[0]), f"--out={out}"]) == 0
  template = synthetic.own_body().of("neutral").v_template
  for path in [out] if out.is_file() else out.rglob("*"):
    if path.is_file():
      assert template[:8].tobytes() not in path.read_bytes()


def test_evaluate_repeats_the_scores_and_prints_the_protocol(trained, tmp_path, capsys):
  workdir, scores, _ = trained
  out = tmp_path / "scores"
  assert hap(["evaluate", str(workdir), f"--out={out}"]) == 0
  assert json.loads((out / "scores.json").read_text())["scores"] == scores
  assert "protocol of 3DPW, in mm" in capsys.readouterr().out


def test_a_folder_in_the_layout_of_3dpw_is_scored(trained, people_of_3dpw, tmp_path, capsys):
  workdir, _, _ = trained
  out = tmp_path / "scores"
  words = ["--set", "data.eval_source=pw3d", "--set", f"data.eval_root={people_of_3dpw}"]
  words += ["--set", f"data.eval_body={people_of_3dpw / 'body'}", "--set", "data.num_val=0"]
  assert hap(["evaluate", str(workdir), f"--out={out}", *words]) == 0
  scores = json.loads((out / "scores.json").read_text())["scores"]
  assert scores.keys() == SCORES
  assert 0 < scores["PA-MPJPE"] < scores["MPJPE"]
  words[words.index(f"data.eval_body={people_of_3dpw / 'body'}")] = "data.eval_body="
  assert hap(["evaluate", str(workdir), *words]) == 1
  assert "config.data.eval_body" in capsys.readouterr().err


def test_predict_writes_parameters_that_give_the_mesh(trained, people_of_3dpw, tmp_path, capsys):
  workdir, _, _ = trained
  pictures = people_of_3dpw / "imageFiles"
  out = tmp_path / "out"
  assert hap(["predict", str(workdir), str(pictures), f"--out={out}"]) == 0
  content = json.loads((out / "people.json").read_text())
  files = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.jpg"))
  assert [person["file_name"] for person in content["people"]] == files
  assert content["body"]["digest"] == synthetic.own_body().digest
  stem = content["people"][0]["files"].removesuffix(".*")
  with np.load(out / f"{stem}.npz") as found:
    values = dict(found)
  shapes = {name: value.shape for name, value in values.items()}
  assert shapes["global_orient"] == (3,)
  assert shapes["body_pose"] == (69,)
  assert shapes["betas"] == (10,)
  vertices = np.array(
    [line.split()[1:] for line in (out / f"{stem}.obj").read_text().splitlines() if line.startswith("v ")],
    float,
  )
  assert len(vertices) == synthetic.own_body().of("neutral").num_vertices
  regressor = synthetic.own_body().joint_regressor
  np.testing.assert_allclose(regressor @ vertices, values["joints"], atol=1e-4)
  pixels = (
    values["joints"][:, :2] / values["joints"][:, 2:] * values["focal_length"] + values["principal_point"]
  )
  np.testing.assert_allclose(pixels, values["joints_2d"], atol=1e-2)
  sheet = cv2.imread(str(out / f"{stem}.png"))
  assert sheet is not None
  assert sheet.shape[1] > 1000


def test_a_damaged_description_is_one_line(trained, people_of_3dpw, tmp_path, capsys):
  variables, description = checkpoint_file.read(trained[0])
  model = json.loads(json.dumps(description["model"]))
  cases = {
    "its description does not fit its arrays": {"hidden": 32},
    "start of the network has 156 numbers": {"start": model["start"][1:]},
    "body of the network in the description is 5": {"body": 5},
    "values, each from -1000 to 1000, a finite number": {"start": [1e300, *model["start"][1:]]},
  }
  for message, change in cases.items():
    path = tmp_path / f"{len(message)}"
    checkpoint_file.write(path, variables, {**description, "model": {**model, **change}})
    assert hap(["predict", str(path), str(people_of_3dpw / "imageFiles"), f"--out={tmp_path / 'out'}"]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_weights_that_give_no_finite_person_are_one_line(trained, people_of_3dpw, tmp_path, capsys):
  variables, description = checkpoint_file.read(trained[0])
  output = variables["params"]["body_head"]["output"]
  output["bias"] = np.full_like(output["bias"], 3e38)
  checkpoint_file.write(tmp_path / "run", variables, description)
  pictures = people_of_3dpw / "imageFiles"
  assert hap(["predict", str(tmp_path / "run"), str(pictures), f"--out={tmp_path / 'out'}"]) == 1
  error = capsys.readouterr().err
  assert "mesh of the network's prediction is not finite or reaches farther than 1e+06 m" in error


def test_predict_takes_boxes_and_joints_and_names_those_it_leaves_out(
  trained, people_of_3dpw, tmp_path, capsys
):
  workdir, pictures = trained[0], people_of_3dpw / "imageFiles"
  name = sorted(pictures.rglob("*.jpg"))[0].relative_to(pictures).as_posix()
  boxes = [
    {"file_name": name, "bbox": [5, 5, 30, 60]},
    {"file_name": name, "bbox": [400, 5, 30, 60]},
    {"file_name": "other.jpg", "bbox": [5, 5, 30, 60]},
    {"file_name": name, "bbox": [5, 5, 1, 0.5]},
  ]
  (tmp_path / "boxes.json").write_text(json.dumps(boxes))
  out = tmp_path / "boxes"
  words = ["predict", str(workdir), str(pictures)]
  assert hap([*words, f"--out={out}", f"--boxes={tmp_path / 'boxes.json'}"]) == 0
  printed = capsys.readouterr().out
  assert "1 people of pictures that are not in the folder are left out (entry 3)" in printed
  assert "1 people without area in the picture are left out (entry 2)" in printed
  assert "1 people with a box of at most one pixel in the picture are left out (entry 4)" in printed
  assert len(json.loads((out / "people.json").read_text())["people"]) == 1

  joints = [10, 10, 0.9, 30, 70, 0.8, 90, 90, 0.1] + [0, 0, 0] * 14
  (tmp_path / "poses.json").write_text(json.dumps([{"file_name": name, "keypoints": joints}]))
  out = tmp_path / "poses"
  assert hap([*words, f"--out={out}", f"--poses={tmp_path / 'poses.json'}"]) == 0
  (person,) = json.loads((out / "people.json").read_text())["people"]
  # The joint with a low score does not count. The tight box of the others is 20 x 60 pixels. 1.2 and 1.25.
  np.testing.assert_allclose(person["region"], [20, 40, 90, 90], atol=2.5)


def test_a_body_that_changed_stops_the_resume(trained, tmp_path):
  pieced = tmp_path / "pieced"
  shutil.copytree(trained[0], pieced)
  body_set = synthetic.own_body()
  neutral = body_set.of("neutral")
  changed = dataclasses.replace(neutral, v_template=neutral.v_template + np.float32(0.1))
  body_set = dataclasses.replace(body_set, bodies={"neutral": changed})
  body_model.write_body_set(tmp_path / "body", body_set)
  with pytest.raises(ValueError, match=r"config\.body=.*parameters of another body"):
    runner.run(tiny(body=str(tmp_path / "body")), pieced, say=print)
