"""`hap evaluate` of files without a recorded configuration: the network has the sizes of the file."""

import json
import os
import re

import numpy as np
import pytest

from hap_jax import config as config_lib
from hap_jax.cli.__main__ import main
from hap_jax.convert import read, write
from hap_jax.data.sources import base
from hap_jax.evaluation.evaluate import Evaluation
from hap_jax.inference import scoring
from hap_jax.models import posemb
from tests.convert.reference_state import family_state
from tests.io import torch_bytes

CONFIG = "configs/pretrain_demo.py"
FEW = {"data.num_val": 8, "data.synthetic.num_train": 16, "baseline_records": 8, "eval_batch_size": 8}
FEW |= {"views": 1, "align_weight": 0.0, "mask.blocks": False, "mask.parts": False}  # compiles faster


@pytest.fixture
def checkpoint(tmp_path):
  """Returns a function that writes an official file for pictures of 16 x 8 pixels and returns its path."""

  def write_file(family="mae"):
    path = tmp_path / f"{family}.pth"
    state = family_state(family, width=128, depth=4)
    state["pos_embed"] = posemb.sincos_table((4, 2), 128)
    path.write_bytes(torch_bytes.zip_file({"model": state}))
    return path

  return write_file


def test_evaluation_uses_the_decoder_of_the_checkpoint(checkpoint, tmp_path, capsys, eager_progress):
  own = tmp_path / "own"
  words = ["--from=mae", "--decoder_heads=4", "--no_real_class"]
  assert main(["convert", str(checkpoint()), f"--out={own}", *words]) == 0
  settings = [f"--set={key}={value}" for key, value in FEW.items()]
  assert main(["evaluate", str(own), f"--config={CONFIG}", *settings]) == 0
  captured = capsys.readouterr()
  assert "val_ratio" in captured.out
  assert re.search(r"^convert: \d of 4 steps, \d+ %, ", captured.err, re.MULTILINE)
  assert re.search(r"^evaluate: \d of 8 pictures, \d+ %, ", captured.err, re.MULTILINE)


def scores_of(path, **overrides):
  settings = FEW | {key.replace("__", "."): value for key, value in overrides.items()}
  config = config_lib.read_file(CONFIG)
  return scoring.score(path, config=config, overrides=settings, say=lambda _: None)


def test_a_decoder_with_unknown_heads_gets_the_number_of_the_configuration(checkpoint):
  """An MAE file does not record the number of heads of its decoder, but the configuration does."""
  path = checkpoint()
  # Different numbers of heads give different scores, so the configured number is really used.
  assert read.read(path, family="mae").decoder["num_heads"] is None
  assert scores_of(path, model__decoder_heads=2) != scores_of(path, model__decoder_heads=4)


def test_a_checkpoint_without_a_decoder_cannot_be_scored_for_pretraining(checkpoint, capsys):
  assert main(["evaluate", str(checkpoint("timm")), f"--config={CONFIG}"]) == 1
  assert "timm.pth: no decoder" in capsys.readouterr().err


def test_a_task_that_does_not_search_for_persons_has_no_thresholds(checkpoint, capsys):
  settings = [f"--set={key}={value}" for key, value in {**FEW, "model.decoder_heads": 2}.items()]
  assert main(["evaluate", str(checkpoint()), f"--config={CONFIG}", "--verify", *settings]) == 1
  assert "mae.pth is a checkpoint for pretrain, which does not search for persons" in capsys.readouterr().err
  assert main(["evaluate", "keypoints.json", f"--config={CONFIG}", "--verify"]) == 1
  assert "keypoints.json: a results file has no features to compare" in capsys.readouterr().err


def test_an_encoder_is_scored_with_its_own_number_of_heads(checkpoint, tmp_path):
  weights = read.read(checkpoint(), family="mae")
  for heads in (2, 4):
    # The configuration names variant Mu, whose number of heads differs from at least one of these.
    write.write(tmp_path / str(heads), weights.with_encoder(num_heads=heads), write.OWN)
  assert scores_of(tmp_path / "2") != scores_of(tmp_path / "4")


@pytest.mark.parametrize("key", ["foo", "data.synthetic.foo", "batch_size.foo"])
def test_an_unknown_configuration_key_is_a_short_error(checkpoint, capsys, key):
  assert main(["evaluate", str(checkpoint()), f"--config={CONFIG}", f"--set={key}=1"]) == 1
  error = capsys.readouterr().err
  assert f"--set {key}=1: Key " in error
  assert len(error) < 200


def test_an_error_while_the_scores_are_written_leaves_no_folder(tmp_path):
  def write_results(rows, folder):
    raise ValueError("the results cannot be written")

  evaluation = Evaluation(evals={}, score=lambda rows: {}, write_results=write_results)
  found = scoring.Found(config_lib.read_file(CONFIG), evaluation, {"loss": 0.5}, rows={})
  with pytest.raises(ValueError, match="cannot be written"):
    scoring._write(tmp_path / "more" / "out", tmp_path / "checkpoint", found, {}, {})
  assert os.listdir(tmp_path / "more") == []


def test_scores_and_pictures_go_to_a_folder_whose_name_is_not_utf8(tmp_path):
  out = tmp_path / os.fsdecode(b"out\xe9")
  config = config_lib.read_file(CONFIG)
  config.data.root = os.fsdecode(b"/data/m\xfcnster")
  picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
  evaluation = Evaluation(evals={}, score=lambda rows: {"loss": 0.5})
  found = scoring.Found(config, evaluation, {"loss": 0.5}, rows={})
  scoring._write(out, tmp_path / "checkpoint", found, {"panel": picture}, {})
  found = json.loads((out / "scores.json").read_bytes().decode("utf-8"))
  assert os.fsencode(found["data"]["root"]) == b"/data/m\xfcnster"
  np.testing.assert_array_equal(base.read_image(out / "panel.png"), picture)
