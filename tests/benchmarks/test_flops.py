"""The formula of FLOPs agrees with numbers computed by hand and with XLA's own count."""

import jax
import numpy as np
import pytest

from benchmarks import flops, pretrain_step, workload
from hap_jax.masking.sampler import Mask


# GFLOP per picture of a step, computed by hand from the sizes: two views, with gradient.
@pytest.mark.parametrize(("size", "gflop"), [("S", 58.8), ("B", 109.6), ("L", 280.9), ("H", 538.1)])
def test_sizes_give_the_known_numbers(size, gflop):
  assert flops.image(size) / 1e9 == pytest.approx(gflop, abs=0.05)


def test_a_picture_of_one_and_a_half_heights_costs_slightly_more_than_one_and_a_half_times():
  growth = flops.image("B", image_size=(384, 128)) / flops.image("B")
  assert 1.5 < growth < 1.55


def xla_flops(config):
  """Returns XLA's count for one picture with gradient, from the unrolled graph before compilation."""
  config = workload.changed(config, {"model.scan": False})
  task = workload.make_task(config)
  (B, N), L = (config.batch_size, config.views), (64 // 8) * (32 // 8)
  params = jax.eval_shape(task.init, jax.random.key(0))["params"]
  batch = pretrain_step.make_batch(config)
  ids = np.tile(np.arange(L, dtype=np.int32), (B, N, 1))
  batch["mask"] = Mask(is_masked=ids >= L // 2, ids_keep=ids[..., : L // 2], ids_restore=ids, cause=ids)

  def loss(params):
    outputs, _ = task.forward({"params": params}, batch, key=None, train=True)
    return task.loss(outputs, batch, key=None)[0]

  return jax.jit(jax.grad(loss)).lower(params).cost_analysis()["flops"] / B


def test_formula_is_within_five_percent_of_the_count_of_xla(small_config):
  # The network is wide, so that matrix products cost much more than elementwise operations, as in real sizes.
  config = workload.changed(small_config, {"model.variant": "S", "model.decoder_width": 256, "batch_size": 2})
  assert flops.of_config(config) == pytest.approx(xla_flops(config), rel=0.05)
