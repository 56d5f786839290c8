"""The rival's step equals ours: the same weights and masks give the same loss and gradient."""

import importlib

import jax
import numpy as np
import pytest

from benchmarks import pretrain_step, workload
from hap_jax.masking.sampler import Mask

torch = pytest.importorskip("torch")
rival_torch = importlib.import_module("benchmarks.rival_torch")  # imports torch, so it comes after the check


def random_masks(B, N, L, rng):
  """Returns NumPy masks that hide half of the patches in N views of B pictures."""
  order = np.argsort(rng.random((B, N, L)), axis=-1).astype(np.int32)
  ids_restore = np.argsort(order, axis=-1).astype(np.int32)
  is_masked = ids_restore >= L // 2
  return Mask(
    is_masked=is_masked,
    ids_keep=order[..., : L // 2],
    ids_restore=ids_restore,
    cause=is_masked.astype(np.int8),
  )


@pytest.fixture(scope="module")
def start(small_config):
  """Returns (task, parameters, batch with masks). The arrays are NumPy arrays."""
  task, rng = workload.make_task(small_config), np.random.default_rng(0)
  # All parameters are noise. Initial biases are zero, and then the test would not notice two exchanged
  # biases.
  shapes = jax.eval_shape(task.init, jax.random.key(0))["params"]
  params = jax.tree.map(lambda p: rng.normal(0.1, 0.1, p.shape).astype(np.float32), shapes)
  batch = pretrain_step.make_batch(small_config)
  batch["mask"] = random_masks(small_config.batch_size, small_config.views, 32, rng)
  return task, params, batch


@pytest.fixture(scope="module")
def both(small_config, start):
  """Returns ((our loss, our gradient norm), the rival's loss as a tensor, the rival's network)."""
  task, params, batch = start

  @jax.jit
  def ours(params):
    def loss(params):
      outputs, _ = task.forward({"params": params}, batch, key=None, train=True)
      return task.loss(outputs, batch, key=None)[0]

    value, grads = jax.value_and_grad(loss)(params)
    for stack in ("encoder", "decoder"):
      grads[stack].pop("pos_embed")  # position tables are not trained
    return value, sum(jax.numpy.sum(g * g) for g in jax.tree.leaves(grads)) ** 0.5

  model = rival_torch.make_model(small_config, params)
  theirs = rival_torch.make_loss(model, small_config)(rival_torch.make_batch(batch, "cpu"))
  return ours(params), theirs, model


@pytest.mark.soak
def test_loss_equals_ours_to_five_digits(both):
  (loss, _), theirs, _ = both
  np.testing.assert_allclose(theirs.item(), float(loss), rtol=1e-5)


@pytest.mark.soak
def test_gradient_norm_equals_ours(both):
  (_, norm), theirs, model = both
  theirs.backward()
  squares = [float(p.grad.square().sum()) for p in model.parameters() if p.requires_grad]
  np.testing.assert_allclose(np.sqrt(sum(squares)), float(norm), rtol=1e-4)


def test_a_step_updates_all_parameters_except_the_position_tables(small_config, start):
  _, params, batch = start
  model = rival_torch.make_model(small_config, params)
  before = {name: p.detach().clone() for name, p in model.named_parameters()}
  step = rival_torch.make_step(
    rival_torch.make_loss(model, small_config), rival_torch.make_optimizer(model, small_config)
  )
  step(rival_torch.make_batch(batch, "cpu"))
  kept = {name for name, p in model.named_parameters() if torch.equal(p, before[name])}
  assert kept == {"pos_embed", "decoder_pos_embed"}


def test_forward_passes_of_both_are_timed_in_turn(plain_config):
  line = rival_torch.time_both(plain_config, what="forward", warmup=2, repeats=1, steps=1)
  assert (line["what"], line["rounds"], line["ratio_of"]) == ("forward", 1, "cpu_seconds")
  assert line["ratio"] > 0
