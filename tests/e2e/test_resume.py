"""A run that was killed and started again ends with the same weights as a run without interruption."""

import json
import os
import pathlib
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest

from hap_jax.io import checkpoint_file
from hap_jax.train.report import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOTAL, KILL_AT = 20, 7

# A run that kills itself with SIGKILL as soon as the metrics row of a step is written.
KILLED = """
import os, signal
from hap_jax.train import report

write = report.MetricWriter.write_scalars

def write_and_die(self, step, scalars):
  write(self, step, scalars)
  if step == {step}:
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
  report.MetricWriter.write_scalars = write_and_die
  from absl import app
  from hap_jax import main
  app.run(main.main)
"""


def start(workdir, overrides, workers, program=("-m", "hap_jax.main")):
  overrides = {**overrides, "total_steps": TOTAL, "save_every": 2, "data.workers": workers, "data.num_val": 0}
  flags = [f"--config.{key}={value}" for key, value in overrides.items()]
  command = [sys.executable, *program, "--config=configs/pretrain_demo.py", f"--workdir={workdir}", *flags]
  # Two devices compile faster than the eight devices of other tests.
  env = {**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
  return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600, check=False)


def finish(*args):
  result = start(*args)
  assert result.returncode == 0, result.stdout + result.stderr
  return result.stdout


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tiny_overrides):
  workdir = tmp_path_factory.mktemp("whole")
  finish(workdir, tiny_overrides, 0)
  return workdir


@pytest.mark.soak
@pytest.mark.parametrize(("workers", "then"), [(2, 0), (0, 0), (2, 2)])
def test_a_killed_run_resumes_bit_for_bit(uninterrupted, tmp_path, tiny_overrides, workers, then):
  """The number of loader workers may differ before and after the kill."""
  program, workdir = tmp_path / "killed.py", tmp_path / "run"
  program.write_text(KILLED.format(step=KILL_AT))
  killed = start(workdir, tiny_overrides, workers, (str(program),))
  assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
  assert [row["step"] for row in read_metrics(workdir)] == list(range(1, KILL_AT + 1))

  output = finish(workdir, tiny_overrides, then)
  resumed = int(output.split("resuming at step ")[1].split()[0])
  # The kill may come before the newest checkpoint is complete, so the exact step varies.
  assert 2 <= resumed < KILL_AT
  weights = [checkpoint_file.read(run)[0] for run in (uninterrupted, workdir)]
  jax.tree.map(np.testing.assert_array_equal, *weights)
  rows = [read_metrics(run) for run in (uninterrupted, workdir)]
  for whole, pieced in zip(*rows, strict=True):
    timeless = whole.keys() - {"images_per_s", "data_wait"}  # these two depend on the speed of the machine
    assert {k: whole[k] for k in timeless} == {k: pieced[k] for k in timeless}
  steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").open()]
  assert steps == [*range(1, KILL_AT + 1), *range(resumed + 1, TOTAL + 1)]
