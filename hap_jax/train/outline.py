"""The training step of a configuration without data: its functions, and the shapes of its arguments."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from hap_jax.train import state as train_state
from hap_jax.train.optim import OptimizerSpec, Rule


@dataclasses.dataclass(frozen=True)
class DataSizes:
  """Sizes of a training set that shapes and durations depend on. None: the size is not known.

  Attributes:
    records: number of training records.
    persons: number of different persons.
    attributes: number of attributes.
    joints: number of joints.
  """

  records: int | None = None
  persons: int | None = None
  attributes: int | None = None
  joints: int | None = None

  def known(self):
    """Returns {name: size} of the known sizes."""
    return {name: size for name, size in dataclasses.asdict(self).items() if size is not None}

  def or_else(self, other):
    """Returns these sizes. A size that is not known comes from `other`."""
    return DataSizes(**{**other.known(), **self.known()})


NOTHING_KNOWN = DataSizes()


@dataclasses.dataclass(frozen=True)
class Outline:
  """All that `train.step` and `train.state` need from a task, made without data.

  Attributes:
    init, param_rules, optimizer, forward, loss, prepare, accumulate, ema_decay: as in `tasks.base.Task`.
    batch: {name: ShapeDtypeStruct} of the global batch, as the loader makes it.
    constants: the constants of the task, as shapes.
    lines: lines that describe the shapes of a step.
    sizes: the `DataSizes` that the shapes have. A size that is not known may be replaced by another number.
      Then one of the `lines` says so.
    schedule: stands for the schedule of the task, whose length depends on the data. It has the same arguments
      and result. The program of a step differs only in a few operations on scalars.
  """

  init: Callable
  param_rules: tuple[Rule, ...]
  optimizer: OptimizerSpec
  forward: Callable
  loss: Callable
  batch: Mapping[str, Any]
  prepare: Callable | None = None
  accumulate: int = 1
  ema_decay: float | None = None
  constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  lines: Sequence[str] = ()
  sizes: DataSizes = NOTHING_KNOWN
  schedule: Callable = lambda step, progress: progress

  @property
  def params(self):
    """Shapes and types of the parameters."""
    # eval_shape runs no computation, so a large model needs no memory for its weights.
    return jax.eval_shape(self.init, jax.random.key(0))["params"]


def abstract_batch(batch_size, image_size, **fields):
  """Returns {name: ShapeDtypeStruct} of a training batch, with the fields that every batch has.

  Args:
    batch_size: B.
    image_size: (H, W) in pixels.
    fields: name -> (shape of a row, dtype) of each further field.
  """
  fields = {"image": ((*image_size, 3), "uint8"), "index": ((), "int32"), "valid": ((), "bool"), **fields}
  return {name: jax.ShapeDtypeStruct((batch_size, *shape), dtype) for name, (shape, dtype) in fields.items()}


def trace(step, batch, constants=None):
  """Returns the shapes and types of the outputs of a training step; computes nothing.

  Args:
    step: {name: value} of the fields of an `Outline`, with "init", "forward" and optionally "prepare".
    batch: an abstract batch, as the loader makes it.
    constants: the constants of the task, as shapes.
  """
  key = jax.random.key(0)
  variables = train_state.with_constants(jax.eval_shape(step["init"], key), constants)
  if step.get("prepare") is not None:
    batch = jax.eval_shape(step["prepare"], variables, batch, key=key)
  outputs, _ = jax.eval_shape(functools.partial(step["forward"], train=True), variables, batch, key=key)
  return outputs


def shapes_of(tree):
  """Returns the shapes and types of a tree of arrays."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def size_words(name, known, used):
  """Returns words for the number of persons, attributes or joints that an outline uses.

  Args:
    name: the noun, such as "attributes".
    known: the number, or None if it is not known.
    used: the number that the outline uses.
  """
  return f"{known:,} {name}" if known else f"the number of {name} is not known here, so {used} is used"


def image_line(batch, encoder):
  """Returns the first line of an outline: the images of a step and their grid."""
  return f"image {batch['image'].shape} uint8, grid {encoder.grid}"
