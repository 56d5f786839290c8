"""The best checkpoint of a run that is resumed before it."""

import types

import jax.numpy as jnp
import numpy as np

from hap_jax.description import Description, Encoder
from hap_jax.io import checkpoint_file
from hap_jax.train import checkpoint

DESCRIPTION = Description("reid", Encoder(width=3, depth=1, num_heads=1, grid=(1, 1), patch=1))


def keep(workdir, step, value):
  """Offers variables full of `step`; returns whether they were kept."""
  state = types.SimpleNamespace(eval_variables={"params": {"w": jnp.full(3, float(step))}})
  with checkpoint.Checkpoints(workdir, keep_last=1) as checkpoints:
    return checkpoints.keep_best(step, state, DESCRIPTION, {"mAP": value}, ("mAP", "max"))


def best(workdir):
  variables, description = checkpoint_file.read(workdir / checkpoint.BEST_FOLDER)
  np.testing.assert_array_equal(variables["params"]["w"], np.full(3, description["step"]))
  return description["step"], description["scores"]["mAP"]


def test_best_step_is_replaced_when_a_resumed_run_scores_better_at_it_or_before(tmp_path):
  assert keep(tmp_path, 20, 0.5)
  assert not keep(tmp_path, 10, 0.5)
  assert best(tmp_path) == (20, 0.5)
  assert keep(tmp_path, 20, 0.5000001)  # again, on other devices
  assert best(tmp_path) == (20, 0.5000001)
  assert keep(tmp_path, 10, 0.6)
  assert best(tmp_path) == (10, 0.6)
  assert keep(tmp_path, 20, 0.7)
  assert best(tmp_path) == (20, 0.7)
