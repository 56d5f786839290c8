"""One device and eight compute the same training, up to the rounding of float32."""

import functools

import jax
import numpy as np
import pytest

from hap_jax import sharding
from hap_jax.tasks import pretrain
from hap_jax.train import optim, state, step

EPS = 1.2e-7  # of float32
NUM_STEPS = 5


@functools.cache
def meshes():
  return sharding.make_mesh(devices=jax.devices()[:1]), sharding.make_mesh(devices=jax.devices())


@pytest.fixture(scope="module")
def make_task(tiny_config):
  """Returns a function: overrides -> pre-training task on drawn people, eight a batch."""
  return lambda **overrides: pretrain.make(tiny_config(data__num_val=0, **overrides))


def train(task, mesh, num_steps):
  """Returns (state after some steps from the task's init, losses)."""
  train_step = step.make_train_step(task, mesh, seed=3)
  now, losses = state.create(task, 3, mesh), []
  for i in range(num_steps):
    batch = sharding.put_batch(task.train.batch(i), mesh)
    progress = sharding.put_scalar(task.train.progress(i), "float32", mesh)
    now, metrics = train_step(now, batch, sharding.put_scalar(i, "int32", mesh), progress)
    losses.append(float(metrics["loss"][0]))
  return jax.device_get(now), losses


def test_eight_devices_are_there():
  assert len(jax.devices()) == 8


def test_loss_and_gradients_agree(make_task):
  task = make_task()
  results = []
  for mesh in meshes():
    now = state.create(task, 3, mesh)
    batch = sharding.put_batch(task.train.batch(0), mesh)
    compute = jax.jit(functools.partial(step.loss_and_grads, task), out_shardings=sharding.replicated(mesh))
    (loss, _), grads = compute(now, batch, jax.random.key(1))
    results.append((float(loss), jax.device_get(grads)))
  (one, one_grads), (eight, eight_grads) = results
  assert abs(one - eight) <= 1e-5 * abs(one)
  for (path, a), b in zip(
    jax.tree_util.tree_leaves_with_path(one_grads), jax.tree.leaves(eight_grads), strict=True
  ):
    bound = 1e-5 * np.abs(a).max()
    assert np.abs(a - b).max() <= bound, optim.path_name(path)


def test_parameters_agree_after_steps_of_plain_sgd(make_task):
  # lr 0.1 from the first step on: no warm-up, and a cosine so long that it has not begun to fall.
  task = make_task(optimizer__kind="sgd", base_lr=0.1 * 256 / 8, warmup_epochs=0.0, total_steps=10**9)
  first = jax.device_get(state.create(task, 3, meshes()[0])).params
  (one, _), (eight, _) = (train(task, mesh, NUM_STEPS) for mesh in meshes())
  for (path, start), a, b in zip(
    jax.tree_util.tree_leaves_with_path(first),
    jax.tree.leaves(one.params),
    jax.tree.leaves(eight.params),
    strict=True,
  ):
    bound = 1e-5 * np.abs(a - start).max() + 2 * EPS * np.abs(a).max()
    assert np.abs(a - b).max() <= bound, optim.path_name(path)


def test_losses_agree_under_adamw(make_task):
  task = make_task(base_lr=3e-2)
  (_, one), (_, eight) = (train(task, mesh, NUM_STEPS) for mesh in meshes())
  np.testing.assert_allclose(one, eight, rtol=1e-5)


@pytest.mark.parametrize("policy", ["uniform", "released"])
def test_masks_do_not_depend_on_devices(make_task, policy):
  """With `released`, groups are consecutive rows of the global batch, whatever the devices."""
  task = make_task(mask__part_policy=policy, mask__released_group=4)
  variables = state.create(task, 3, meshes()[0]).variables
  run = jax.jit(lambda v, b: task.forward(v, b, key=jax.random.key(2), train=True)[0].mask)
  masks = []
  for mesh in meshes():
    batch = sharding.put_batch(task.train.batch(0), mesh)
    masks.append(jax.device_get(run(jax.device_put(variables, sharding.replicated(mesh)), batch)))
  jax.tree.map(np.testing.assert_array_equal, *masks)
