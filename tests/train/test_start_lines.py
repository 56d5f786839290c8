"""The lines at the start of a run: devices, parameters, records, length, checkpoints."""

import dataclasses

import jax
import numpy as np
import pytest

from hap_jax import sharding
from hap_jax.train import loop, start_lines
from hap_jax.train.checkpoint import Checkpoints
from hap_jax.train.optim import Rule
from tests.train.regressor import make_task


def train(workdir, *, num_devices, stop_at=None):
  """Trains the regressor for six steps, or up to `stop_at`. Returns the printed lines."""
  printed = []
  cadence = loop.Cadence(log=1, save=4, evaluate=0, panel=0)
  with Checkpoints(workdir, keep_last=9) as checkpoints:
    loop.run(
      make_task(total_steps=stop_at or 6),
      workdir=workdir,
      seed=0,
      mesh=sharding.make_mesh(devices=jax.devices()[:num_devices]),
      checkpoints=checkpoints,
      cadence=cadence,
      say=printed.append,
    )
  return printed


def test_a_new_and_a_resumed_run_print_their_plan(tmp_path):
  printed = train(tmp_path / "run", num_devices=2, stop_at=4)
  assert printed[:5] == [
    "devices      2 x cpu, mesh data=2 fsdp=1 tensor=1",
    "parameters   3, all trained",
    "records      16 for training, source numbers",
    "length       4 steps = 2 epochs, batch size 8",
    f"checkpoints  {tmp_path}/run/checkpoints, every 4 steps",
  ]
  assert printed[5].startswith("starting from scratch")
  assert "step 1/4" in printed[6]
  printed = train(tmp_path / "run", num_devices=1)
  assert printed[0] == "devices      1 x cpu"
  assert printed[3] == "length       6 steps = 3 epochs, batch size 8; 2 steps left after step 4"
  assert printed[5] == "resuming at step 4"
  assert "step 5/6" in printed[6]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_frozen_parameters_and_parts_of_a_batch_are_printed(accumulate):
  rules = (Rule("encoder/table", trainable=False), Rule(".*"))
  task = dataclasses.replace(make_task(), param_rules=rules, accumulate=accumulate)
  params = {"encoder": {"table": np.zeros((1, 129, 8)), "kernel": np.zeros((50, 20))}, "head": np.zeros(7)}
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  found = start_lines.lines(
    task, params=params, mesh=mesh, start=0, folder="runs/a/checkpoints", save_every=0
  )
  assert found[1] == "parameters   2,039, 1,007 of them trained"
  assert found[3] == "length       6 steps = 3 epochs, batch size 8" + " in 2 parts" * (accumulate == 2)
  assert found[4] == "checkpoints  runs/a/checkpoints, only if a signal stops the run"
