"""Predict per batch, order by record, score on the host."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from hap_jax import distributed, sharding
from hap_jax.data.loader import Loader
from hap_jax.train.step import make_predict_step


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
class Evaluation:
  """How a task's weights are scored.

  Attributes:
    evals: name -> EvalSplit; empty is fine.
    score: {split: {name: [N, ...]}} -> {metric: float}; plain NumPy, called in process 0 only. Besides what
      `predict` returned, each split has `index` [N], ascending record numbers.
    figures: variables -> {name: [H, W, 3] uint8 picture}, or None; drawn every so many steps.
    row_figures: what `score` takes -> {name: [H, W, 3] uint8 picture}, or None; called in process 0 only, at
      every evaluation.
    select: (metric, "max" or "min"), which of several checkpoints is the best one; None: no such thing.
    constants: the constants of the Task that `predict` and `figures` need, for commands without a Task.
  """

  evals: Mapping[str, EvalSplit]
  score: Callable[[Mapping], Mapping[str, float]]
  figures: Callable | None = None
  row_figures: Callable | None = None
  select: tuple[str, str] | None = None
  constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def make_evaluate(evaluation, mesh):
  """Makes (variables, before_batch) -> ({metric: float}, rows) over all splits; each predict compiles once.

  Every process predicts its rows, process 0 scores them and sends the scores to the others.

  Padding rows are dropped, rows are ordered by their record's index, and a record counts once (one that
  stands in for an unreadable one comes twice): a score depends on no batch size, device or process.
  `rows` is what was scored: {split: {name: [N, ...]}}. `before_batch` is called without arguments before each
  batch; an exception that it raises ends the evaluation.
  """
  passes = {name: make_pass(split, mesh) for name, split in evaluation.evals.items()}

  def evaluate(variables, before_batch=_do_nothing):
    rows = {name: run_pass(variables, before_batch) for name, run_pass in passes.items()}
    return _score_in_first_process(evaluation.score, rows), rows

  return evaluate


def make_pass(split, mesh):
  """Makes (variables, before_batch) -> {name: [N, ...]} of an `EvalSplit`'s N records, with their `index`."""
  predict_step, loader = make_predict_step(split.predict, mesh), split.loader

  def run_pass(variables, before_batch=_do_nothing):
    outputs = []
    with contextlib.closing(loader.iterate(0, loader.num_steps)) as batches:
      for batch in batches:
        before_batch()
        outputs.append(jax.device_get(predict_step(variables, sharding.put_batch(batch, mesh))))
    columns = {key: np.concatenate([rows[key] for rows in outputs]) for key in outputs[0]}
    valid = np.flatnonzero(columns["valid"])
    _, first = np.unique(columns["index"][valid], return_index=True)
    order = valid[first]
    return {key: values[order] for key, values in columns.items() if key != "valid"}

  return run_pass


def _do_nothing():
  """Is called before each batch where nothing stops an evaluation."""


def _score_in_first_process(score, rows):
  """Returns the scores that process 0 computes, the same in every process.

  Raises:
    whatever `score` raises, in process 0; RuntimeError with its message in the others.
  """
  if jax.process_count() == 1:
    return dict(score(rows))
  outcome, error = {}, None
  if jax.process_index() == 0:
    try:
      outcome = {"scores": {name: float(value) for name, value in score(rows).items()}}
    except Exception as raised:  # raised again once the others, which wait, know of it
      error, outcome = raised, {"error": f"{type(raised).__name__}: {raised}"}
  outcome = distributed.from_first_process(outcome)
  if error is not None:
    raise error
  if "error" in outcome:
    raise RuntimeError(f"process 0 failed to score: {outcome['error']}")
  return outcome["scores"]
