"""What a run carries from step to step."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from hap_jax import sharding
from hap_jax.train import optim


@struct.dataclass
class TrainState:
  """Attributes:
  step: int32 scalar, optimizer steps made. It stops before a step whose loss is not finite, see `step.py`.
  params: float32 parameters, nested dicts.
  model_state: the model's other collections (batch statistics ...), {} if none.
  opt_state: the optimizer's moments.
  ema: moving average of `variables`, {} if the task keeps none.
  """

  step: jax.Array
  params: Any
  model_state: Any
  opt_state: Any
  ema: Any

  @property
  def variables(self):
    """The collections that train, as a Linen module takes them."""
    return {"params": self.params, **self.model_state}

  @property
  def eval_variables(self):
    """The collections to score and to use: the moving average where there is one."""
    return self.ema or self.variables


def with_constants(variables, constants):
  """Returns variables with the collection "constants", unchanged if there are no constants."""
  return {**variables, "constants": constants} if constants else variables


def _create(task, key):
  variables = dict(task.init(key))
  params = variables.pop("params")
  direction = optim.make_direction(task.optimizer, optim.match_rules(params, task.param_rules))
  state = TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    model_state=variables,
    opt_state=direction.init(params),
    ema={},
  )
  return state if task.ema_decay is None else state.replace(ema=jax.tree.map(jnp.array, state.variables))


def create(task, seed, mesh):
  """Makes the initial state under jit, so that it is born where it belongs on the mesh."""
  make = jax.jit(lambda key: _create(task, key), out_shardings=places(task, mesh))
  return make(jax.random.key(seed))


def abstract(task, mesh):
  """Returns the state's shapes, types and places without computing anything."""
  shapes = jax.eval_shape(lambda key: _create(task, key), jax.random.key(0))
  return jax.tree.map(
    lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
    shapes,
    sharding.places(shapes, mesh),
  )


def places(task, mesh):
  """Returns the sharding of each array of the state."""
  return jax.tree.map(lambda x: x.sharding, abstract(task, mesh))
