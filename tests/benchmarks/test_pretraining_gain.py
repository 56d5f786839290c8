"""Pairs of runs with and without pre-training: configurations, interval, and the untrained encoder."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from benchmarks import pretraining_gain
from hap_jax import config as config_lib
from hap_jax.convert import read
from hap_jax.tasks import pretrain

ROOT = pathlib.Path(__file__).resolve().parents[2]


def make_args(*words):
  return pretraining_gain.parse_args(["--pretrained=demo", "--out=out", *words])


@pytest.mark.parametrize("task", ["reid", "attributes", "pose2d", "text_reid", "pose3d_direct"])
def test_arms_differ_only_in_their_start_and_learning_rate(task):
  args = make_args(f"--task={task}")
  arms = {
    arm: config_lib.to_plain(pretraining_gain.make_config(args, arm, 3, lr))
    for arm, lr in (("pretrained", 1e-3), ("scratch", 2e-3))
  }
  differing = {key for key, value in arms["scratch"].items() if value != arms["pretrained"][key]}
  assert differing == {"init_from", "base_lr"}
  assert arms["scratch"]["init_from"] == ""
  assert arms["scratch"]["seed"] == 3


def test_further_arms_start_from_their_own_checkpoints():
  args = make_args("--also", "pose2d=runs/a=b", "--lr", "pose2d=3e-3")
  assert list(args.start) == ["pretrained", "scratch", "pose2d"]
  assert pretraining_gain.make_config(args, "pose2d", 1, 1e-3).init_from == "runs/a=b"
  assert [pretraining_gain.tune(args, arm)[0] for arm in args.start] == [5e-4, 2e-3, 3e-3]


def test_interval_is_students_t_interval_of_the_differences():
  scores = {"pretrained": np.array([0.5, 0.7, 0.6]), "scratch": np.array([0.4, 0.5, 0.3])}
  found = pretraining_gain.describe(scores)["minus_scratch"]["pretrained"]
  assert found["difference"] == 0.2
  half = 4.3027 * 0.1 / np.sqrt(3)  # the 0.975 quantile of t with two degrees of freedom
  np.testing.assert_allclose(found["interval_95"], [0.2 - half, 0.2 + half], atol=1e-4)


@pytest.mark.parametrize(
  ("words", "named"),
  [
    (["--frozen"], "--task=attributes"),
    (["--task=attributes", "--frozen", "--tune", "1e-3"], "tune"),
    (["--seeds", "1", "100", "--tune", "1e-3"], "--seeds"),
    (["--seeds", "1"], "two or more seeds"),
    (["--steps", "0"], "--steps"),
    (["--also", "pose2d"], "--also"),
    (["--also", "scratch=run"], "--also"),
    (["--lr", "pose2d=1e-3"], "--lr"),
  ],
)
def test_options_that_make_no_comparison_are_an_error(words, named, capsys):
  with pytest.raises(SystemExit):
    make_args(*words)
  assert named in capsys.readouterr().err


@pytest.mark.soak
def test_untrained_encoder_equals_the_initial_parameters_of_its_seed(tmp_path):
  code = f"from benchmarks import pretraining_gain as g; g.make_untrained({str(tmp_path)!r}, seed=5)"
  # A separate process with one device, because it trains a step and compiles faster there.
  subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "XLA_FLAGS": ""})
  config = config_lib.finalize(config_lib.read_file(ROOT / "configs" / "pretrain_demo.py"))
  drawn = jax.jit(pretrain.make(config).init)(jax.random.key(5))["params"]["encoder"]
  found = read.read(str(tmp_path / "untrained_seed5")).variables["params"]["encoder"]
  assert jax.tree.structure(found) == jax.tree.structure(drawn)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(drawn), strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
