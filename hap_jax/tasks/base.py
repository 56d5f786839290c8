"""The Task record: all that the training loop knows about a task.

The loop, the step and the evaluation know these fields and nothing else. A task is a module in this folder
with `make(config) -> Task`. When a task does not fit, the record grows by a field, for all tasks; the loop
never grows a branch.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from hap_jax.data.loader import Loader
from hap_jax.train.optim import OptimizerSpec, Rule


@dataclasses.dataclass(frozen=True)
class EvalSplit:
  """One pass over held-out records.

  Attributes:
    loader: an ordered `Loader`; its last batch is padded and marked in `valid`.
    predict: (variables, batch) -> {name: [B, ...]}, pure and jitted by the evaluation. Any randomness is a
      function of batch["index"], so a record's result depends on the record alone.
  """

  loader: Loader
  predict: Callable[[Mapping, Mapping], Mapping]


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
    evals: name -> EvalSplit; empty is fine.
    score: {split: {name: [N, ...]}} -> {metric: float}; plain NumPy, on the host.
    figures: variables -> {name: [H, W, 3] uint8 picture}, or None.
    description: what a checkpoint must tell later commands; plain JSON values.
  """

  init: Callable
  param_rules: tuple[Rule, ...]
  optimizer: OptimizerSpec
  schedule: Callable
  forward: Callable
  loss: Callable
  train: Loader
  total_steps: int
  evals: Mapping[str, EvalSplit]
  score: Callable[[Mapping], Mapping[str, float]]
  figures: Callable | None
  description: Mapping[str, Any]
