"""Training on any mesh gives the same result as on one device, up to rounding errors of float32."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax import sharding
from hap_jax.losses.alignment import alignment_loss
from hap_jax.models import vit
from hap_jax.tasks import pretrain
from hap_jax.train import optim, state, step

EPS = 1.2e-7  # machine epsilon of float32
NUM_STEPS = 5
# ((data, fsdp, tensor), number of keys that the alignment loss handles at a time; 0: all at once)
MESHES = [((8, 1, 1), 3), ((4, 2, 1), 0), ((2, 2, 2), 3)]


@functools.cache
def one_device():
  return sharding.make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def make_task(tiny_config):
  """Returns a function (overrides -> pre-training task with two blocks and eight pictures per batch)."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(vit.VARIANTS, "two blocks", vit.Variant(32, 2, 2))
    tiny = {"data__num_val": 0, "model__variant": "two blocks"}
    yield lambda **overrides: pretrain.make(tiny_config(**tiny, **overrides))


def train(task, mesh, num_steps=NUM_STEPS):
  """Returns (state, losses) after `num_steps` steps from the initial state of the task."""
  train_step = step.make_train_step(task, mesh, seed=3)
  now, losses = state.create(task, 3, mesh), []
  for i in range(num_steps):
    batch = sharding.put_batch(task.train.batch(i), mesh)
    progress = sharding.put_scalar(task.train.progress(i), "float32", mesh)
    now, metrics = train_step(now, {}, batch, sharding.put_scalar(i, "int32", mesh), progress)
    losses.append(float(metrics["loss"][0]))
  # The output shardings of a step are the input shardings of the next one, so the step compiles only once.
  assert train_step._cache_size() == 1
  return now, losses


def named(tree):
  """Returns {path: host array}."""
  return {optim.path_name(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(tree)}


def test_the_tests_have_eight_devices():
  assert len(jax.devices()) == 8


@pytest.fixture(scope="module")
def make_sgd_task(make_task):
  # The learning rate is 0.1 in all steps: there is no warm-up, and the cosine is too long to fall noticeably.
  sgd = {"optimizer__kind": "sgd", "base_lr": 0.1 * 256 / 8, "warmup_epochs": 0.0, "total_steps": 10**9}
  return lambda **overrides: make_task(**sgd, **overrides)


@pytest.fixture(scope="module")
def sgd_alone(make_sgd_task):
  """Returns ({path: initial parameter}, {path: parameter after plain SGD on one device})."""
  task = make_sgd_task()
  first = named(state.create(task, 3, one_device()).params)
  return first, named(train(task, one_device())[0].params)


@pytest.fixture(scope="module")
def make_adamw_task(make_task):
  """Returns a function (overrides -> task with AdamW whose batches go through the model in two parts)."""
  return lambda **overrides: make_task(base_lr=3e-2, batch_size=16, accumulate=2, **overrides)


@pytest.fixture(scope="module")
def adamw_alone(make_adamw_task):
  return train(make_adamw_task(), one_device())[1]


@pytest.mark.soak
@pytest.mark.parametrize(("sizes", "align_block"), MESHES)
def test_parameters_agree_after_steps_of_plain_sgd(make_sgd_task, sgd_alone, sizes, align_block):
  first, one = sgd_alone
  now, _ = train(make_sgd_task(align_block=align_block), sharding.make_mesh(*sizes))
  for name, many in named(now.params).items():
    # The error may be 1e-5 of the largest change plus the rounding of the parameter itself.
    bound = 1e-5 * np.abs(one[name] - first[name]).max() + 2 * EPS * np.abs(one[name]).max()
    assert np.abs(one[name] - many).max() <= bound, name


@pytest.mark.soak
@pytest.mark.parametrize(
  ("sizes", "align_block"),
  [*(pytest.param(*mesh, marks=pytest.mark.soak) for mesh in MESHES[:-1]), MESHES[-1]],
)
def test_losses_agree_under_adamw(make_adamw_task, adamw_alone, sizes, align_block):
  _, many = train(make_adamw_task(align_block=align_block), sharding.make_mesh(*sizes))
  np.testing.assert_allclose(adamw_alone, many, rtol=1e-5)


def bytes_of(tree, device):
  """Returns the bytes of a tree's arrays: (on one device, of all arrays, of arrays that are not matrices)."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  here = sum(s.data.nbytes for _, x in leaves for s in x.addressable_shards if s.device == device)
  rest = sum(x.nbytes for path, x in leaves if not optim.path_name(path).endswith("kernel"))
  return here, sum(x.nbytes for _, x in leaves), rest


def test_fsdp_splits_parameters_and_moments(make_task):
  """Biases, scales, tokens and tables are not split. Every device has a copy of them."""
  mesh = sharding.make_mesh(data=1, fsdp=8)
  now = state.create(make_task(), 3, mesh)  # a step returns it in the same places
  for tree in (now.params, now.opt_state):
    for device in jax.devices():
      here, total, rest = bytes_of(tree, device)
      assert here <= (total - rest) / 8 + rest
      assert rest < 0.1 * total  # for a ViT of this width; for a B/16 it is less than 0.01


def make_compute(task):
  """Returns a jitted function (state, batch, key) -> (loss, metrics, {path: gradient}) of a task."""
  jitted = jax.jit(functools.partial(step.loss_and_grads, task))

  def compute(now, batch, key):
    (loss, (_, metrics)), grads = jitted(now, {}, batch, key)
    return float(loss), jax.device_get(metrics), named(grads)

  return compute


def assert_same_gradients(one, other):
  for name, gradient in one.items():
    bound = 1e-5 * np.abs(gradient).max() + 1e-9
    assert np.abs(gradient - other[name]).max() <= bound, name


@pytest.mark.soak
def test_accumulation_computes_the_mean_over_its_parts(make_task):
  task, key = make_task(align_weight=0.5), jax.random.key(1)
  now, batch = state.create(task, 3, one_device()), task.train.batch(0)
  loss, metrics, grads = make_compute(dataclasses.replace(task, accumulate=4))(now, batch, key)

  drawn = jax.jit(task.prepare)({}, batch, key=jax.random.split(key)[1])
  compute = make_compute(dataclasses.replace(task, prepare=None))
  rows = [jax.tree.map(lambda x, start=start: x[start : start + 2], drawn) for start in (0, 2, 4, 6)]
  parts = [compute(now, part, key) for part in rows]
  assert loss == pytest.approx(np.mean([part[0] for part in parts]), rel=1e-6)
  # Counts are summed over the parts: eight pictures in all.
  assert metrics["loss_align"][1] == 8
  assert_same_gradients(jax.tree.map(lambda *g: np.mean(g, axis=0), *[part[2] for part in parts]), grads)


@pytest.mark.soak
def test_accumulation_without_alignment_equals_the_whole_batch(make_task):
  task, key = make_task(align_weight=0.0), jax.random.key(1)
  now, batch = state.create(task, 3, one_device()), task.train.batch(0)
  whole, parts = (make_compute(dataclasses.replace(task, accumulate=n))(now, batch, key) for n in (1, 4))
  assert whole[0] == pytest.approx(parts[0], rel=1e-6)
  assert_same_gradients(whole[2], parts[2])


# One policy is enough: of the two, only "released" depends on the other rows of the batch.
@pytest.mark.parametrize("policy", [pytest.param("uniform", marks=pytest.mark.soak), "released"])
def test_masks_do_not_depend_on_devices(make_task, policy):
  """With "released", a group has consecutive rows of the global batch, for any number of devices."""
  task = make_task(mask__part_policy=policy, mask__released_group=4)
  prepare = jax.jit(lambda batch: task.prepare({}, batch, key=jax.random.key(2))["mask"])
  masks = [
    jax.device_get(prepare(sharding.put_batch(task.train.batch(0), mesh)))
    for mesh in (one_device(), sharding.make_mesh())
  ]
  jax.tree.map(np.testing.assert_array_equal, *masks)


def test_no_device_stores_all_logits_of_a_blockwise_alignment():
  """The test reads the array shapes in the compiled program: 8 devices, 64 pictures, 16 keys at a time."""
  mesh = sharding.make_mesh()
  place = sharding.batch_split(mesh)

  def loss(first, second, block):
    with sharding.on(mesh):
      return alignment_loss(first, second, block=block).mean()

  rows = jax.ShapeDtypeStruct((64, 128), jnp.float32)
  texts = [
    jax.jit(jax.grad(functools.partial(loss, block=block)), in_shardings=(place, place))
    .lower(rows, rows)
    .compile()
    .as_text()
    for block in (0, 16)
  ]
  assert "f32[8,64]" in texts[0]
  assert "f32[8,64]" not in texts[1]
  assert "f32[64,64]" not in texts[1]
  assert "f32[8,16]" in texts[1]
