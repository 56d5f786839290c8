"""Evaluates weights: predicts batches on the devices, sorts the rows by record, scores them on the host."""

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from hap_jax import distributed, sharding
from hap_jax.data.loader import Loader
from hap_jax.io.progress import SILENT
from hap_jax.viz.curves import Guide


@dataclasses.dataclass(frozen=True)
class EvalSplit:
  """One pass over held-out records.

  Attributes:
    loader: an ordered `Loader`. Its last batch is padded, and `valid` marks the padding.
    predict: a pure function (variables, batch) -> {name: [B, ...]}. The evaluation compiles it with jax.jit.
      Its random numbers depend only on batch["index"], so the result of a record does not depend on other
      records.
  """

  loader: Loader
  predict: Callable[[Mapping, Mapping], Mapping]


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
  """Queries and the gallery that they search: the arguments of `metrics.verification.evaluate`.

  Attributes:
    query, gallery: [Q, D] and [G, D] features.
    query_pid, gallery_pid: [Q] and [G] persons.
    query_camid, gallery_camid: [Q] and [G] cameras. None: the data set has no cameras.
    own_index: [Q] the gallery entry that is the query itself. None: no query is in the gallery.
  """

  query: np.ndarray
  gallery: np.ndarray
  query_pid: np.ndarray
  gallery_pid: np.ndarray
  query_camid: np.ndarray | None = None
  gallery_camid: np.ndarray | None = None
  own_index: np.ndarray | None = None

  def arguments(self):
    """Returns the attributes as {name: value}."""
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """The evaluation of a task: its splits, its score function and its pictures.

  Attributes:
    evals: {name: EvalSplit}. It may be empty.
    score: {split: {name: [N, ...]}} -> {metric: float}. Plain NumPy, called in process 0 only. Each split has
      the outputs of `predict`, and `index` [N], the record indices in ascending order.
    figures: variables -> {name: [H, W, 3] uint8 picture}, or None. Called every `panel_every` steps.
    row_figures: the input of `score` -> {name: [H, W, 3] uint8 picture}, or None. Called in process 0 only,
      after every evaluation.
    select: (metric, "max" or "min"): the metric that selects the best checkpoint. None: no best checkpoint.
    guides: {metric: Guide}, baseline and goal in the curve of the metric. It may be empty.
    constants: arrays that are not trained, but that `predict` and `figures` need as the collection
      "constants" of their variables. They are repeated here for commands that evaluate without a Task.
    notes: texts that are printed with the scores, such as the origin of the boxes.
    write_results: function (input of `score`, folder) that writes the predictions into the folder, in the
      file format of the data set. None: the data set has no such format.
    read_results: function path -> {metric: float} that scores a file in this format from any program. None:
      the data set has no such format.
    searches: function of the input of `score` -> {kind of query: Search} of the test persons. The kinds are
      "picture" and "text". None: the task does not search for persons.
  """

  evals: Mapping[str, EvalSplit]
  score: Callable[[Mapping], Mapping[str, float]]
  figures: Callable | None = None
  row_figures: Callable | None = None
  select: tuple[str, str] | None = None
  guides: Mapping[str, Guide] = dataclasses.field(default_factory=dict)
  constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()
  write_results: Callable | None = None
  read_results: Callable | None = None
  searches: Callable[[Mapping], Mapping[str, Search]] | None = None


def make_evaluate(evaluation, mesh):
  """Returns a function (variables, before_batch, progress) -> ({metric: float}, rows).

  The returned function evaluates all splits. Each `predict` is compiled once, also if several splits have the
  same one.

  Each process predicts its own rows. Process 0 scores all rows and sends the scores to the other processes.

  Padding rows are dropped. The rows are sorted by the index of their record. The loader replaces an
  unreadable record by another record, which then has two rows. The second row is dropped, so each record
  counts once. Therefore a score does not depend on the batch size, the devices or the processes.

  Args:
    evaluation: an `Evaluation`.
    mesh: from `sharding.make_mesh`.
  Returns:
    the function. Its arguments and results:
      variables: the variables of the network.
      before_batch: called without arguments before each batch. If it raises an error, the evaluation ends.
      progress: a started `Progress` that counts the records of all splits.
      rows: the scored rows, {split: {name: [N, ...]}}.
  """
  steps = {split.predict: make_predict_step(split.predict, mesh) for split in evaluation.evals.values()}
  passes = {
    name: _make_pass(split.loader, steps[split.predict], mesh) for name, split in evaluation.evals.items()
  }

  def evaluate(variables, before_batch=_do_nothing, progress=SILENT):
    progress.begin(sum(len(split.loader.source) for split in evaluation.evals.values()), "pictures")
    rows = {name: run_pass(variables, before_batch, progress) for name, run_pass in passes.items()}
    progress.stage("scoring")
    return _score_in_first_process(evaluation.score, rows), rows

  return evaluate


def make_predict_step(predict, mesh):
  """Returns a compiled function (variables, batch) -> {name: [B, ...]}.

  The returned function adds the fields `index` and `valid` of the batch to the result of `predict`. Its
  result is replicated: every device gets the rows of the whole global batch. So each process has the rows of
  all processes.
  """

  def predict_step(variables, batch):
    with sharding.on(mesh):
      return {**predict(variables, batch), "index": batch["index"], "valid": batch["valid"]}

  # None means that the variables keep the sharding that they already have.
  return jax.jit(
    predict_step, in_shardings=(None, sharding.batch_split(mesh)), out_shardings=sharding.replicated(mesh)
  )


def make_pass(split, mesh):
  """Returns a function (variables, before_batch, progress) -> {name: [N, ...]}.

  The returned function predicts the N readable records of an `EvalSplit`. Its result has one row per record,
  in ascending order of the record indices. The result includes these indices as `index` [N]. For
  `before_batch` and `progress`, see `make_evaluate`.
  """
  return _make_pass(split.loader, make_predict_step(split.predict, mesh), mesh)


def _make_pass(loader, predict_step, mesh):
  """Returns the function of `make_pass` for a result of `make_predict_step`."""

  def run_pass(variables, before_batch=_do_nothing, progress=SILENT):
    outputs = []
    # If before_batch raises an error, closing stops the worker processes of the loader.
    with contextlib.closing(loader.iterate(0, loader.num_steps)) as batches:
      for batch in batches:
        before_batch()
        outputs.append(jax.device_get(predict_step(variables, sharding.put_batch(batch, mesh))))
        progress.add(int(outputs[-1]["valid"].sum()))
    columns = {key: np.concatenate([rows[key] for rows in outputs]) for key in outputs[0]}
    valid = np.flatnonzero(columns["valid"])
    # np.unique sorts, so `first` has one row per record in the order of the records.
    _, first = np.unique(columns["index"][valid], return_index=True)
    order = valid[first]
    return {key: values[order] for key, values in columns.items() if key != "valid"}

  return run_pass


def _do_nothing():
  """Does nothing. It is the default of `before_batch`, for commands that signals need not stop early."""


def _score_in_first_process(score, rows):
  """Returns the scores that process 0 computes. Every process gets the same scores.

  Raises:
    Exception: in process 0, any exception of `score`.
    RuntimeError: in the other processes, with the message of that exception.
  """
  if jax.process_count() == 1:
    return dict(score(rows))
  outcome, error = {}, None
  if jax.process_index() == 0:
    try:
      # JSON cannot represent NumPy numbers.
      outcome = {"scores": {name: float(value) for name, value in score(rows).items()}}
    except Exception as raised:  # raised again below, after the waiting processes have received the message
      error, outcome = raised, {"error": f"{type(raised).__name__}: {raised}"}
  outcome = distributed.from_first_process(outcome)
  if error is not None:
    raise error
  if "error" in outcome:
    raise RuntimeError(f"process 0 failed to score: {outcome['error']}")
  return outcome["scores"]
