"""A run that is killed and started again ends as if nothing had happened, whatever reads its data."""

import json
import pathlib
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from hap_jax.train import checkpoint
from hap_jax.train.report import read_metrics

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOTAL, KILL_AT = 20, 7


def start(workdir, overrides, workers):
  overrides = {**overrides, "total_steps": TOTAL, "save_every": 2, "data.workers": workers, "data.num_val": 0}
  flags = [f"--config.{key}={value}" for key, value in overrides.items()]
  command = [
    sys.executable,
    "-m",
    "hap_jax.main",
    "--config=configs/pretrain_demo.py",
    f"--workdir={workdir}",
  ]
  return subprocess.Popen(
    [*command, *flags], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
  )


def finish(process):
  output, _ = process.communicate(timeout=300)
  assert process.returncode == 0, output
  return output


def read_steps(workdir):
  path = workdir / "metrics.jsonl"
  return [row["step"] for row in read_metrics(path)] if path.exists() else []


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tiny_overrides):
  workdir = tmp_path_factory.mktemp("whole")
  finish(start(workdir, tiny_overrides, workers=0))
  return workdir


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_killed_run_continues_bit_for_bit(uninterrupted, tmp_path, tiny_overrides, workers):
  process = start(tmp_path, tiny_overrides, workers)
  while process.poll() is None and not any(step >= KILL_AT for step in read_steps(tmp_path)):
    time.sleep(0.01)
  process.send_signal(signal.SIGKILL)
  process.wait()
  if checkpoint.find(tmp_path) is None or int(checkpoint.find(tmp_path).name) == TOTAL:
    pytest.fail("the run was killed too early or too late to tell anything")

  output = finish(start(tmp_path, tiny_overrides, workers))
  assert "resuming at step" in output
  params = [checkpoint.read(workdir)[0] for workdir in (uninterrupted, tmp_path)]
  jax.tree.map(np.testing.assert_array_equal, *params)
  rows = [read_metrics(workdir / "metrics.jsonl") for workdir in (uninterrupted, tmp_path)]
  for whole, pieced in zip(*rows, strict=True):
    timeless = whole.keys() - {"images_per_s", "data_wait"}
    assert {k: whole[k] for k in timeless} == {k: pieced[k] for k in timeless}
  repeated = [
    json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").open() if line.endswith("}\n")
  ]
  assert sorted(set(repeated)) == list(range(1, TOTAL + 1))
