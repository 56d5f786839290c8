"""The Task record: all that the training loop knows about a task.

The loop, the step and the evaluation know these fields and nothing else. When a task does not fit, the record
grows by a field, for all tasks; the loop never grows a branch.

A task is a module in this folder with
  check(config)               raises ValueError for values that only this task knows to be wrong
  make(config, lineage)       -> Task
  make_evaluation(config)     -> Evaluation, without the training records where it can do without them
  outline(config)             -> (abstract params, lines that tell the shapes of a step); reads no data
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from hap_jax import config as config_lib
from hap_jax.data.loader import Loader
from hap_jax.models import layers, pixels, vit
from hap_jax.train.evaluate import Evaluation
from hap_jax.train.optim import OptimizerSpec, Rule


@dataclasses.dataclass(frozen=True)
class Task:
  """A record of functions.

  Attributes:
    init: key -> variables {"params": ..., other collections}; traced and jitted by the state's creation.
    param_rules: parameter paths -> lr scale, weight decay, trainable; the first match wins.
    optimizer: kind and constants.
    schedule: (step, progress in epochs) -> learning rate; traced.
    forward: (variables, batch, *, key, train) -> (outputs, model_state).
    loss: (outputs, batch, *, key) -> (scalar, {name: (sum, count)}).
    train: the training loader.
    total_steps: length of the run.
    evaluation: how it is scored while it trains.
    description: what a checkpoint must tell later commands; plain JSON values.
    ema_decay: an exponential moving average of all variables with this decay is kept, and is what is
      evaluated; None: no average.
    prepare: (batch, *, key) -> batch, or None; once a step, before the batch is cut into parts: what is drawn
      for each example is drawn here, so that it does not depend on the number of parts.
    accumulate: parts of a batch that go through the model one after the other; 1: the whole batch at once.
  """

  init: Callable
  param_rules: tuple[Rule, ...]
  optimizer: OptimizerSpec
  schedule: Callable
  forward: Callable
  loss: Callable
  train: Loader
  total_steps: int
  evaluation: Evaluation
  description: Mapping[str, Any]
  ema_decay: float | None = None
  prepare: Callable | None = None
  accumulate: int = 1


def run_length(config, train):
  """Works out how long a run is.

  Args:
    config: finalized. Its total_epochs are passes over the records; total_steps, if not 0, is the length in
      their place; warmup_epochs, of total_epochs, keeps its share of the run.
    train: the training loader.
  Returns:
    (steps, epochs, epochs of warm-up).
  Raises:
    ValueError: if there is no step in it.
  """
  whole_epochs = int(config.total_epochs)
  further = round((config.total_epochs - whole_epochs) * train.nominal_steps)
  # An epoch may be shorter than its nominal length.
  of_epochs = min(train.first_step(whole_epochs) + further, train.first_step(whole_epochs + 1))
  steps = config.total_steps or of_epochs
  config_lib.require(steps > 0, "total_epochs", config.total_epochs, "enough for a step")
  epochs = train.progress(steps)
  return steps, epochs, epochs * config.warmup_epochs / config.total_epochs


def compute_options(config):
  """Returns how the model of a finalized config computes: attributes of `vit.ViT` without parameters."""
  model = config.model
  return {
    "dtype": jnp.dtype(model.dtype),
    "scan": model.scan,
    "remat": model.remat,
    "attention": model.attention,
  }


def describe_encoder(config, source, lineage):
  """Returns what every checkpoint tells later commands; a task adds what is its own.

  Args:
    config: finalized. source: the training records. lineage: what the starting weights come from.
  """
  size = vit.variant(config.model.variant)
  return {
    "task": config.task,
    "config": config_lib.to_plain(config),
    "model": {
      "variant": config.model.variant,
      "width": size.width,
      "depth": size.depth,
      "num_heads": size.num_heads,
      "image_size": list(config.model.image_size),
      "patch": config.model.patch,
      "patch_padding": 0,
      "grid": list(layers.grid_of(config.model.image_size, config.model.patch)),
    },
    "normalization": {"mean": list(pixels.IMAGENET_MEAN), "std": list(pixels.IMAGENET_STD), "range": [0, 1]},
    "data": {"name": source.spec.name, "licence": source.spec.licence, "records": len(source)},
    "lineage": lineage,
  }
