"""A run without a network, for kills: each step changes a few arrays and saves them. It starts in 0.3 s."""

import json
import os

import numpy as np

from hap_jax.description import Description, Encoder
from hap_jax.io import checkpoint_file
from hap_jax.train.checkpoint import Checkpoints

DESCRIPTION = Description("reid", Encoder(width=3, depth=1, num_heads=1, grid=(1, 1), patch=1))
KEPT = 3


def first_state():
  params = {f"w_{i}": np.random.default_rng(i).normal(size=(40, 50)).astype(np.float32) for i in range(4)}
  return {"step": np.int32(0), "params": params, "opt_state": {"mu": dict(params)}, "ema": {"params": params}}


def next_state(state):
  """Returns the state after one more step. Each bit depends on the earlier state."""
  step, params, mu = int(state["step"]) + 1, state["params"], state["opt_state"]["mu"]
  mu = {name: np.float32(0.9) * mu[name] + np.sin(params[name] + np.float32(step)) for name in mu}
  params = {name: params[name] - np.float32(0.1) * mu[name] for name in params}
  ema = {name: np.float32(0.5) * (value + params[name]) for name, value in state["ema"]["params"].items()}
  return {"step": np.int32(step), "params": params, "opt_state": {"mu": mu}, "ema": {"params": ema}}


def run(workdir, total):
  """Runs to the step `total`, and saves after each step. Leads its own process group."""
  os.setsid()
  with Checkpoints(workdir, keep_last=KEPT, say=lambda line: None) as checkpoints:
    state, newest = first_state(), checkpoints.latest_step()
    if newest is not None:
      loaded = {}
      for arrays in checkpoint_file.read_state(checkpoints.folder / str(newest)):
        loaded |= arrays
      state = _nested(loaded)
    with (workdir / "metrics.jsonl").open("a") as rows:
      for step in range(int(state["step"]) + 1, total + 1):
        state = next_state(state)
        rows.write(json.dumps({"step": step, "loss": float(state["params"]["w_0"][0, 0])}) + "\n")
        rows.flush()
        checkpoints.save(step, state, DESCRIPTION)


def _nested(arrays):
  tree = {}
  for name, array in arrays.items():
    *parents, leaf = name.split("/")
    place = tree
    for parent in parents:
      place = place.setdefault(parent, {})
    place[leaf] = array
  return tree
