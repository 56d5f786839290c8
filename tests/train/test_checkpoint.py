"""The best checkpoint of a run that resumes from an earlier step."""

import types

import jax.numpy as jnp
import numpy as np

from hap_jax.description import Description, Encoder
from hap_jax.io import checkpoint_file
from hap_jax.train import checkpoint

DESCRIPTION = Description("reid", Encoder(width=3, depth=1, num_heads=1, grid=(1, 1), patch=1))


def keep(workdir, step, value):
  """Calls `keep_best` with weights that all equal `step`. Returns True if they were saved."""
  state = types.SimpleNamespace(eval_variables={"params": {"w": jnp.full(3, float(step))}})
  with checkpoint.Checkpoints(workdir, keep_last=1) as checkpoints:
    return checkpoints.keep_best(step, state, DESCRIPTION, {"mAP": value}, ("mAP", "max"))


def best(workdir):
  variables, description = checkpoint_file.read(workdir / checkpoint.BEST_FOLDER)
  np.testing.assert_array_equal(variables["params"]["w"], np.full(3, description["step"]))
  return description["step"], description["scores"]["mAP"]


def test_a_resumed_run_replaces_the_best_checkpoint_at_the_same_or_an_earlier_step(tmp_path):
  assert keep(tmp_path, 20, 0.5)
  assert not keep(tmp_path, 10, 0.5)
  assert best(tmp_path) == (20, 0.5)
  assert keep(tmp_path, 20, 0.5000001)  # the same step on other devices may differ by a rounding error
  assert best(tmp_path) == (20, 0.5000001)
  assert keep(tmp_path, 10, 0.6)
  assert best(tmp_path) == (10, 0.6)
  assert keep(tmp_path, 20, 0.7)
  assert best(tmp_path) == (20, 0.7)
