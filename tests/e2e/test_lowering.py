"""The training step can be lowered for accelerators that this machine does not have."""

import re

import jax
import jax.numpy as jnp
import pytest

from hap_jax import sharding
from hap_jax.tasks import pretrain
from hap_jax.train import state, step

pytestmark = pytest.mark.usefixtures("small_model")

# XLA supports these custom calls on every platform. Any other one would be a kernel of one vendor.
PORTABLE = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape", "annotate_device_placement"}


@pytest.mark.parametrize("sizes", [pytest.param((1, 1, 1), marks=pytest.mark.soak), (2, 2, 2)])
def test_the_training_step_lowers_for_other_platforms(tiny_config, sizes):
  """The step uses bfloat16, two views, masks, blockwise alignment, full remat, accumulation and AdamW."""
  options = {"model__dtype": "bfloat16", "model__remat": "full", "align_block": 4}
  task = pretrain.make(tiny_config(data__num_val=0, accumulate=2, batch_size=16, **options))
  mesh = sharding.make_mesh(*sizes, devices=jax.devices()[: sizes[0] * sizes[1] * sizes[2]])
  place = sharding.batch_split(mesh)
  batch = {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place) for name, x in task.train.batch(0).items()
  }
  clock = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)
  train_step = step.make_train_step(task, mesh, seed=0)
  # One export for both platforms traces the step once. The program contains the code for each of them.
  exported = jax.export.export(train_step, platforms=["tpu", "cuda"])(
    state.abstract(task, mesh), {}, batch, *clock
  )
  text = exported.mlir_module()
  assert exported.platforms == ("tpu", "cuda")
  assert exported.nr_devices == mesh.size
  assert set(re.findall(r"custom_call @(\w+)", text)) <= PORTABLE
  assert "bf16" in text
  # A host callback would not run on every platform.
  assert "callback" not in text
