"""The demo learns to fill in people with three seeds, and learns nothing from shuffled pixels."""

import os
import pathlib
import subprocess
import sys

import pytest

from configs import pretrain_demo
from hap_jax.train.report import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHUFFLED_RATIO = 0.94  # a run on shuffled pixels reaches no lower ratio


def run_demo(workdir, *flags):
  """Runs the demo command on one device and returns the last ratio on held-out pictures."""
  # XLA_FLAGS simulates eight devices in tests; a user's run has one.
  env = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
  command = [
    sys.executable,
    "-m",
    "hap_jax.main",
    "--config=configs/pretrain_demo.py",
    f"--workdir={workdir}",
  ]
  subprocess.run([*command, *flags], cwd=ROOT, env=env, check=True)
  return read_metrics(workdir)[-1]["val_ratio"]


@pytest.mark.soak
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_demo_learns_to_fill_in_people(tmp_path, seed):
  assert run_demo(tmp_path, f"--config.seed={seed}") <= pretrain_demo.get_config().learned_ratio


@pytest.mark.soak
def test_demo_learns_nothing_from_shuffled_pixels(tmp_path):
  assert run_demo(tmp_path, "--config.data.shuffle_pixels=True") >= SHUFFLED_RATIO
