"""The training state: the arrays that each step reads and updates."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from hap_jax import sharding
from hap_jax.train import optim


@struct.dataclass
class TrainState:
  """The state of a run after a step.

  Attributes:
    step: int32 scalar, number of optimizer steps made. Once a loss or gradient is not finite, this update and
      all later updates are skipped and not counted, see `step.py`.
    params: float32 parameters, nested dicts.
    model_state: the other collections of the model, such as batch statistics; {} if there are none.
    opt_state: the moments of the optimizer.
    ema: moving average of `variables`; {} if the task has no average.
  """

  step: jax.Array
  params: Any
  model_state: Any
  opt_state: Any
  ema: Any

  @property
  def variables(self):
    """The variables that training changes, as {collection: arrays} for a Linen module."""
    return {"params": self.params, **self.model_state}

  @property
  def eval_variables(self):
    """The variables for evaluation and later use: the moving average, or `variables` if there is none."""
    return self.ema or self.variables


def with_constants(variables, constants):
  """Returns the variables with the constants added as the collection "constants", if there are constants."""
  return {**variables, "constants": constants} if constants else variables


def _create(task, key):
  variables = dict(task.init(key))
  params = variables.pop("params")
  # The moments depend on the rules, because frozen parameters have none.
  direction = optim.make_direction(task.optimizer, optim.match_rules(params, task.param_rules))
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state=variables,
    opt_state=direction.init(params),
    ema={},
  )
  # The average needs its own arrays, because a step donates the buffers of its state.
  return state if task.ema_decay is None else state.replace(ema=jax.tree.map(jnp.array, state.variables))


def create(task, seed, mesh, shapes=None):
  """Returns the initial state. It is computed under jit, so that each array is created on its final devices.

  Args:
    task: a `Task`.
    seed: the seed of the run.
    mesh: from `sharding.make_mesh`.
    shapes: the result of `abstract`. None: `abstract` is called here.
  """
  shapes = abstract(task, mesh) if shapes is None else shapes
  make = jax.jit(lambda key: _create(task, key), out_shardings=jax.tree.map(lambda x: x.sharding, shapes))
  return make(jax.random.key(seed))


def abstract(task, mesh):
  """Returns the shapes, types and shardings of the state; computes nothing."""
  shapes = jax.eval_shape(lambda key: _create(task, key), jax.random.key(0))
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    shapes,
    sharding.places(shapes, mesh),
  )


def places(task, mesh):
  """Returns the sharding of each array of the state."""
  return jax.tree.map(lambda x: x.sharding, abstract(task, mesh))
