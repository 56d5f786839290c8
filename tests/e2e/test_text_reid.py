"""Text ReID from tiny files in the official layouts to scores, rank lists and checkpoints."""

import json
import os
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from configs import common
from hap_jax import config as config_lib
from hap_jax import run as runner
from hap_jax.cli.__main__ import main as hap
from hap_jax.convert import text_encoder
from hap_jax.data import word_piece
from hap_jax.inference import scoring
from hap_jax.io import checkpoint_file, torch_file, torch_writer
from hap_jax.models import bert
from hap_jax.train.report import read_metrics
from tests.data import text_files
from tests.e2e import test_resume

pytestmark = pytest.mark.usefixtures("small_model")

TINY = {
  "total_steps": 2,
  "batch_size": 8,
  "log_every": 1,
  "save_every": 1,
  "eval_every": 2,
  "eval_every_epochs": 0,
  "eval_batch_size": 8,
  "panel_rows": 2,
  "model.variant": "Mu",
  "model.image_size": (32, 16),
  "model.patch": 8,
  "model.remat": "none",
  "model.embedding_dim": 16,
  "text.max_tokens": 12,
  "data.workers": 0,
  "data.pad": 1,
}


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
  """Returns a BERT folder of random weights whose words are those of the tiny captions."""
  captions = [text for record in text_files.make_records() for text in record["captions"]]
  words = word_piece.learn_words(captions, min_count=1)
  sizes = bert.Sizes(width=8, depth=1, num_heads=2, hidden=16, vocab_size=len(words), max_positions=16)
  ids = np.zeros((1, 4), np.int32)
  init = jax.jit(bert.Bert(**sizes.to_json()).init)  # one program compiles faster than its parts
  params = init(jax.random.key(0), ids, np.ones(1, np.int32))["params"]
  encoder = text_encoder.TextEncoder(sizes, jax.device_get(params), tuple(words))
  return text_encoder.write_folder(tmp_path_factory.mktemp("bert"), encoder)


def tiny(source, root, **overrides):
  config = common.text_reid(source)
  config.update_from_flattened_dict({**TINY, "data.root": str(root), **overrides})
  return config_lib.finalize(config)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, bert_folder, small_model):
  """Returns (config, workdir, scores, lines) of a run on CUHK-PEDES' layout with a frozen text encoder.

  The BERT folder that the run was started with does not exist any more.
  """
  root, lines = tmp_path_factory.mktemp("cuhk"), []
  text_files.write_cuhk(root)
  folder = root / "bert"
  shutil.copytree(bert_folder, folder)
  config = tiny("cuhk_pedes", root, **{"text.init_from": str(folder), "data.cuhk_pedes.drop_ids": ()})
  scores = runner.run(config, root / "run", say=lines.append)
  shutil.rmtree(folder)
  return config, root / "run", scores, lines


def test_a_run_is_scored_on_both_splits_and_in_both_directions(trained):
  _, workdir, scores, lines = trained
  names = {"rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP", "rank1_image_to_text"}
  assert names | {f"val_{name}" for name in names} == scores.keys()
  assert {"loss", "loss_id", "loss_ranking", "lr"} <= read_metrics(workdir)[0].keys()
  assert any("the best val_rank1 so far" in line for line in lines)
  assert (workdir / "panels" / "ranks_00000002.png").exists()
  variables, description = checkpoint_file.read(workdir)
  assert variables["params"].keys() == {"encoder", "lstm", "projection", "head"}
  assert description["model"]["text_digest"] == next((workdir / "text_encoder").iterdir()).name
  assert description["vocabulary"][0] == "[PAD]"


def test_a_run_resumes_to_the_same_end_without_the_bert_folder(trained, tmp_path):
  config, whole, scores, _ = trained
  pieced, lines = tmp_path / "pieced", []
  shutil.copytree(whole, pieced)
  shutil.rmtree(pieced / "checkpoints" / "2")
  shutil.rmtree(pieced / "best")
  assert runner.run(config, pieced, say=lines.append) == scores
  assert "resuming at step 1" in lines
  jax.tree.map(np.testing.assert_array_equal, checkpoint_file.read(whole)[0], checkpoint_file.read(pieced)[0])


@pytest.mark.soak
def test_a_killed_run_resumes_bit_for_bit_without_the_bert_folder(tmp_path, bert_folder):
  text_files.write_cuhk(tmp_path / "data")
  folder, killed = tmp_path / "bert", tmp_path / "killed.py"
  shutil.copytree(bert_folder, folder)
  killed.write_text(test_resume.KILLED.format(step=3))

  def start(workdir, program):
    overrides = {**TINY, "total_steps": 4, "eval_every": 4, "text.init_from": folder}
    overrides |= {"data.root": tmp_path / "data", "data.cuhk_pedes.drop_ids": "()"}
    flags = [f"--config.{key}={value}" for key, value in overrides.items()]
    command = [sys.executable, *program, "--config=configs/finetune_text_reid_cuhk_pedes_b16.py"]
    env = {**os.environ, "PYTHONPATH": str(test_resume.ROOT), "XLA_FLAGS": ""}
    return subprocess.run(
      [*command, f"--workdir={workdir}", *flags],
      cwd=test_resume.ROOT,
      env=env,
      capture_output=True,
      text=True,
      timeout=600,
      check=False,
    )

  main, workdirs = ("-m", "hap_jax.main"), (tmp_path / "whole", tmp_path / "pieced")
  whole = start(workdirs[0], main)
  assert whole.returncode == 0, whole.stdout + whole.stderr
  first = start(workdirs[1], (str(killed),))
  assert first.returncode == -signal.SIGKILL, first.stdout + first.stderr
  shutil.rmtree(folder)
  second = start(workdirs[1], main)
  assert second.returncode == 0, second.stdout + second.stderr
  assert "resuming at step" in second.stdout
  jax.tree.map(np.testing.assert_array_equal, *(checkpoint_file.read(workdir)[0] for workdir in workdirs))
  scores = [read_metrics(workdir)[-1] for workdir in workdirs]
  assert {**scores[0], "images_per_s": 0, "data_wait": 0} == {**scores[1], "images_per_s": 0, "data_wait": 0}


# One path is enough in `make test`, because each evaluation compiles the network again.
@pytest.mark.parametrize(
  "part", ["best", *(pytest.param(part, marks=pytest.mark.soak) for part in ("", "checkpoints/2"))]
)
def test_every_path_of_a_checkpoint_finds_its_text_encoder(trained, tmp_path, part):
  _, workdir, scores, _ = trained
  out = tmp_path / "scores"
  assert hap(["evaluate", str(workdir / part), f"--out={out}"]) == 0
  assert json.loads((out / "scores.json").read_text())["scores"] == scores


def test_a_checkpoint_without_its_text_encoder_names_the_places_and_the_digest(trained, tmp_path, capsys):
  workdir = trained[1]
  shutil.copytree(workdir / "checkpoints" / "2", tmp_path / "alone" / "below" / "2")
  assert hap(["evaluate", str(tmp_path / "alone" / "below" / "2")]) == 1
  error = capsys.readouterr().err
  digest = next((workdir / "text_encoder").iterdir()).name
  assert f"(digest {digest})" in error
  assert str(tmp_path / "alone" / "text_encoder" / digest) in error


def test_an_official_file_of_the_weights_has_the_same_scores(trained, tmp_path):
  config, workdir, scores, _ = trained
  file, back, out = tmp_path / "best.pth.tar", tmp_path / "back", tmp_path / "scores"
  written = tmp_path / "written.pth.tar"
  assert hap(["convert", str(workdir), "--to=text-reid", f"--out={written}", "--no_real_class"]) == 0
  content = torch_file.load(written)
  # Official files have no record of this project.
  torch_writer.save(file, {name: value for name, value in content.items() if name != "hap_jax"})
  bert_folder = next((workdir / "text_encoder").iterdir())
  facts = ["--source_grid=4x2", f"--text_encoder={bert_folder}"]
  assert hap(["convert", str(file), f"--out={back}", *facts]) == 0
  shutil.move(back, tmp_path / "moved")
  found = scoring.score(tmp_path / "moved", config=config, out=out, say=lambda _: None)
  assert found == scores
  assert hap(["evaluate", str(file), "--config=configs/finetune_text_reid_demo.py"]) == 1


def test_scores_on_another_data_set_and_embeddings_of_pictures(trained, tmp_path):
  workdir = trained[1]
  text_files.write_icfg(tmp_path / "icfg")
  out = tmp_path / "scores"
  words = ["--data.source=icfg_pedes", f"--data.root={tmp_path / 'icfg'}", f"--out={out}"]
  assert hap(["evaluate", str(workdir), *words]) == 0
  assert "rank1_on_test" in json.loads((out / "scores.json").read_text())["scores"]
  vectors = tmp_path / "vectors.npz"
  assert hap(["embed", str(workdir), str(tmp_path / "icfg"), f"--out={vectors}", "--workers=0"]) == 0
  with np.load(vectors) as file:
    np.testing.assert_allclose(np.linalg.norm(file["feature"], axis=1), 1, rtol=1e-5)
    assert file["feature"].shape == (12, 16)


def test_another_run_starts_from_a_text_checkpoint_and_takes_its_text_encoder(trained, tmp_path):
  workdir, lines = trained[1], []
  text_files.write_rstp(tmp_path)
  few = {"init_from": str(workdir), "total_steps": 1, "eval_every": 0, "data.train_split": "trainval"}
  runner.run(tiny("rstpreid", tmp_path, **few), tmp_path / "run", say=lines.append)
  assert any("the heads of the file are not used: it has other classes" in line for line in lines)
  assert not any("lstm/" in line for line in lines if "kept at their initial values" in line)
  digest = next((workdir / "text_encoder").iterdir()).name
  assert (tmp_path / "run" / "text_encoder" / digest).is_dir()


def test_a_frozen_text_encoder_must_come_from_somewhere(tmp_path):
  text_files.write_rstp(tmp_path)
  task = config_lib.load("tasks", "text_reid")
  with pytest.raises(ValueError, match=r"config\.text\.init_from is empty: set it to a BERT folder"):
    task.make(tiny("rstpreid", tmp_path))


def test_captions_longer_than_the_position_table_are_an_error(tmp_path, bert_folder):
  text_files.write_rstp(tmp_path)
  task = config_lib.load("tasks", "text_reid")
  with pytest.raises(ValueError, match=r"config\.text\.max_tokens=17: the text encoder has 16 positions"):
    task.make(tiny("rstpreid", tmp_path, **{"text.init_from": str(bert_folder), "text.max_tokens": 17}))


@pytest.mark.soak
def test_a_text_encoder_is_trained_from_the_bert_folder(tmp_path, bert_folder):
  text_files.write_rstp(tmp_path)
  trained = {"text.init_from": str(bert_folder), "text.lr_scale": 1e-6}
  runner.run(tiny("rstpreid", tmp_path, **trained), tmp_path / "run", say=lambda _: None)
  variables, description = checkpoint_file.read(tmp_path / "run")
  start = text_encoder.read_folder(bert_folder).params
  found = variables["params"]["bert"]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), start, found)
  assert any(np.abs(a - b).max() > 0 for a, b in zip(*map(jax.tree.leaves, (start, found)), strict=True))
  assert description["model"]["text_is_trained"]
  assert not (tmp_path / "run" / "text_encoder").exists()
  assert hap(["evaluate", str(tmp_path / "run")]) == 0
