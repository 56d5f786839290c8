"""The demo's verdict: three seeds learn to fill in people, and nothing is learned from shuffled pixels."""

import os
import pathlib
import subprocess
import sys

import pytest

from hap_jax.evaluation.held_out import LEARNED_RATIO
from hap_jax.train.report import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHUFFLED_RATIO = 0.94  # a run on pictures without structure stays at or above it


def run_demo(workdir, *flags):
  """Runs the demo as a user would, on one device; returns its last held-out ratio."""
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
  assert run_demo(tmp_path, f"--config.seed={seed}") <= LEARNED_RATIO


@pytest.mark.soak
def test_demo_learns_nothing_from_shuffled_pixels(tmp_path):
  assert run_demo(tmp_path, "--config.data.shuffle_pixels=True") >= SHUFFLED_RATIO
