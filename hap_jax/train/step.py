"""The training step, compiled once with explicit shardings."""

import jax
import jax.numpy as jnp
import optax

from hap_jax import sharding
from hap_jax.train import optim
from hap_jax.train import state as train_state


def loss_and_grads(task, state, constants, batch, key):
  """Returns ((loss, (model_state, metrics)), gradients) of a training step.

  The gradients of frozen parameters are zero, and no computation is spent on them.

  With task.accumulate = A > 1 the batch is split into A consecutive parts. The parts go through the model one
  after the other. Loss and gradients are means over the parts. The metrics are sums over the parts. The batch
  statistics are updated once, by the mean of the updates of the parts.

  Args:
    task: the `Task`.
    state: the `TrainState` before the step.
    constants: the constants of the task.
    batch: {name: [B, ...]}. A must divide B.
    key: the key of the step.
  """
  loss_key, forward_key = jax.random.split(key)
  if task.prepare is not None:
    # Masks and crops are drawn for the whole batch, so they do not depend on the number of parts.
    batch = task.prepare(train_state.with_constants(state.variables, constants), batch, key=forward_key)
  if task.accumulate == 1:
    return _loss_and_grads(task, state, constants, batch, loss_key, forward_key)

  def add(total, part):
    i, rows = part
    # Each part has its own keys. With equal keys, stochastic depth would drop the same branches in all parts.
    keys = jax.random.fold_in(loss_key, i), jax.random.fold_in(forward_key, i)
    return jax.tree.map(jnp.add, total, _loss_and_grads(task, state, constants, rows, *keys)), None

  count = task.accumulate
  parts = jnp.arange(count), sharding.micro_batches(batch, count)
  # The scan needs a start value with the shapes of loss, metrics and gradients.
  shapes = jax.eval_shape(
    lambda rows: _loss_and_grads(task, state, constants, rows, loss_key, forward_key),
    jax.tree.map(lambda x: x[0], parts[1]),
  )
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
  ((loss, (model_state, metrics)), grads), _ = jax.lax.scan(add, zeros, parts)
  loss, model_state, grads = jax.tree.map(lambda x: x / count, (loss, model_state, grads))
  return (loss, (model_state, metrics)), grads


def _loss_and_grads(task, state, constants, batch, loss_key, forward_key):
  matched = optim.match_rules(state.params, task.param_rules)

  def loss_fn(params):
    # stop_gradient lets the compiler remove the backward pass of frozen parameters.
    params = jax.tree.map(lambda rule, p: p if rule.trainable else jax.lax.stop_gradient(p), matched, params)
    variables = train_state.with_constants({"params": params, **state.model_state}, constants)
    outputs, model_state = task.forward(variables, batch, key=forward_key, train=True)
    loss, metrics = task.loss(outputs, batch, key=loss_key)
    return loss, (model_state, metrics)

  return jax.value_and_grad(loss_fn, has_aux=True)(state.params)


def make_train_step(task, mesh, seed):
  """Returns the compiled training step: (state, constants, batch, step, progress) -> (state, metrics).

  Each step derives its keys from fold_in(root key, step). So its randomness depends only on the seed of the
  run and on the step number.

  If the loss or the gradient is not finite, this update and all later updates are skipped. The state stays at
  the last good step. So the host does not need to check each step. The loop detects the problem later, when
  it sees that the step counter of the state is too small.

  Args:
    task: the `Task`.
    mesh: from `sharding.make_mesh`.
    seed: the seed of the run.
  Returns:
    the jitted function. Its arguments and results:
      state: a `TrainState` with the shardings of `state.places`. Its buffers are donated.
      constants: the constants of the task, replicated.
      batch: split over the data axes.
      step: int32 scalar, replicated: the number of steps made before this one.
      progress: float32 scalar, replicated: the number of epochs made before this step.
      metrics: {name: (sum, count)} of this batch, with loss, lr and grad_norm.
  """
  # fold_in makes this key different from the key of the initial parameters.
  root_key = jax.random.fold_in(jax.random.key(seed), 1)

  def train_step(state, constants, batch, step, progress):
    key = jax.random.fold_in(root_key, state.step)
    with sharding.on(mesh):
      (loss, (model_state, metrics)), grads = loss_and_grads(task, state, constants, batch, key)
    matched = optim.match_rules(state.params, task.param_rules)
    direction, opt_state = optim.make_direction(task.optimizer, matched).update(
      grads, state.opt_state, state.params
    )
    lr = task.schedule(state.step, progress)
    params = optim.apply_update(state.params, direction, lr, matched)
    grad_norm = optax.tree.norm(grads)
    # After a bad step, the counter of the state is smaller than `step`. So all later updates are skipped.
    is_good = (state.step == step) & jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    updated = state.replace(step=state.step + 1, params=params, model_state=model_state, opt_state=opt_state)
    if task.ema_decay is not None:
      decay = task.ema_decay
      ema = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, updated.variables)
      updated = updated.replace(ema=ema)
    state = jax.tree.map(lambda new, old: jnp.where(is_good, new, old), updated, state)
    one = jnp.ones((), jnp.float32)
    return state, {"loss": (loss, one), **metrics, "lr": (lr, one), "grad_norm": (grad_norm, one)}

  replicated, places = sharding.replicated(mesh), train_state.places(task, mesh)
  return jax.jit(
    train_step,
    in_shardings=(places, replicated, sharding.batch_split(mesh), replicated, replicated),
    out_shardings=(places, replicated),
    donate_argnums=0,
  )
