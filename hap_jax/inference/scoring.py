"""Scores a checkpoint in the same way as the training loop, or scores a results file from any program."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from hap_jax import config as config_lib
from hap_jax import config_parts, sharding
from hap_jax import config_values as values
from hap_jax.convert import read as reading
from hap_jax.convert.selection import WHOLE
from hap_jax.evaluation.evaluate import Evaluation, make_evaluate
from hap_jax.inference import unfit, verifying
from hap_jax.io import picture_file, unfinished
from hap_jax.io.progress import SILENT
from hap_jax.train.state import with_constants

_RESULTS = (".json", ".mat")  # endings of results files; no checkpoint has these endings


def score(
  path,
  *,
  config=None,
  overrides=None,
  dataset="",
  out=None,
  verify=None,
  selection=WHOLE,
  say=print,
  progress=SILENT,
):
  """Runs the evaluation of the checkpoint's task.

  Args:
    path: a checkpoint that `convert.read.read` can read, of a task with an evaluation. Or a results file in
      the format of the data set, for a task with the constant RESULTS.
    config: ConfigDict that replaces the recorded configuration of the checkpoint. The network is always the
      network of the checkpoint. A results file needs it.
    overrides: {key: value} of the configuration, such as "data.root". With `dataset`, these are keys of a
      configuration with one data set.
    dataset: label of the data set, if the configuration or the network has several. "": all data sets of the
      configuration. If it has one, the network is that for the first data set of the checkpoint.
    out: folder to make for scores.json, pictures and results. None: no file is written.
    verify: a `verifying.Settings`, to measure the searches of the evaluation as a verification. None: they
      are not measured.
    selection: a `Selection`, the part of the checkpoint to read. A results file has no parts.
    say: prints a line.
    progress: a `Progress`. This function starts and ends it.
  Returns:
    {metric: float}.
  Raises:
    ValueError: in these cases:
      `config` is None, and the checkpoint records no configuration or `path` is a results file;
      the checkpoint and the configuration have different tasks;
      a size of the encoder is unknown, or a part of the network is missing;
      the key of an override does not exist;
      there is no data set with the label `dataset`;
      the configuration has no held-out records;
      `verify` is given, but the task does not search for persons;
      `out` exists.
  """
  if out is not None and pathlib.Path(out).exists():
    raise ValueError(f"--out={out} exists; give another folder, or move it away")
  is_results = pathlib.Path(path).suffix in _RESULTS
  with progress:
    if is_results:
      is_verified = verify is not None
      found = _score_results(path, config, overrides or {}, dataset, progress, has_searches=is_verified)
    else:
      progress.stage("reading the checkpoint")
      weights = reading.read(path, selection=selection)
      stored = verify and verifying.find_stored(verify, path, weights)
      found = score_weights(
        path, weights, config, overrides or {}, progress, dataset=dataset, has_searches=verify is not None
      )
    measured = {}
    if verify is not None:
      progress.stage("comparing all pairs")
      measured = verifying.measure(found.evaluation.searches(found.rows), prior=verify.prior, stored=stored)
    pictures = _draw(found, measured, progress) if out is not None else {}
  width = max(map(len, found.scores))
  for name, value in found.scores.items():
    say(f"{name:{width}s}  {value:.4f}")
  for note in found.evaluation.notes:
    say(note)
  for line in verifying.describe(measured):
    say(line)
  if out is not None:
    _write(pathlib.Path(out), path, found, pictures, measured)
    say(f"written: {out}")
  return found.scores


@dataclasses.dataclass(frozen=True)
class Found:
  """The result of an evaluation.

  Attributes:
    config: the finalized configuration.
    evaluation: the `Evaluation`.
    scores: {metric: float}.
    rows: the input of `evaluation.score`. None: a results file was scored.
    variables: the variables of the checkpoint, or None.
  """

  config: Any
  evaluation: Evaluation
  scores: Mapping[str, float]
  rows: Mapping | None = None
  variables: Any = None


def _score_results(path, config, overrides, dataset, progress, *, has_searches):
  """Scores a results file. Returns a `Found`. The arguments are the same as in `score_weights`."""
  if has_searches:
    raise ValueError(f"{path}: a results file has no features to compare: remove --verify")
  if config is None:
    raise ValueError(f"{path}: a results file needs --config=FILE, the configuration for its data set")
  config = config_lib.finalize(_with_overrides(config, overrides, dataset))
  task = config_lib.load("tasks", config.task)
  endings = getattr(task, "RESULTS", ())
  if pathlib.Path(path).suffix not in endings:
    expected = f"a file that ends with {' or '.join(endings)}" if endings else "a checkpoint"
    raise ValueError(f"{path}: expected {expected}, for the task {config.task} of --config")
  progress.stage("opening the data")
  if config_parts.joins(config.data.source):
    labels = ", ".join(config.data[config.data.source].parts)
    raise ValueError(f"{path}: a results file is of one data set: give --dataset=LABEL, one of {labels}")
  evaluation = task.make_evaluation(config, None)
  if evaluation.read_results is None:
    raise ValueError(
      "; ".join((f"{path}: the records of {config.data.source} cannot be scored", *evaluation.notes))
    )
  progress.stage("scoring")
  return Found(config, evaluation, evaluation.read_results(path))


def score_weights(path, weights, config, overrides, progress, *, dataset="", has_searches=False):
  """Scores the weights of a checkpoint.

  Args:
    path: the checkpoint, for error messages.
    weights: the `convert.weights.Weights` of the checkpoint.
    config, overrides, dataset: same as in `score`.
    progress: a started `Progress`.
    has_searches: True if the task must search for persons.
  Returns:
    `Found`.
  Raises:
    ValueError: see `score`.
  """
  config = configure(path, weights, config, overrides, dataset)
  task = config_lib.load("tasks", config.task)
  if _has_parts(config.task) and not config_parts.joins(config.data.source):
    weights = task.of_data_set(weights, dataset)
  mesh = sharding.make_mesh()
  sharding.check_batch_size(config.eval_batch_size, mesh, "config.eval_batch_size")
  _check_known(path, weights.description.encoder)
  progress.stage("opening the data")
  evaluation = task.make_evaluation(config, weights.description)
  if not evaluation.evals:
    reason = "; ".join(evaluation.notes) or "pass --set data.num_val=N"
    raise ValueError(f"{path}: its configuration has no records that can be scored: {reason}")
  if has_searches and evaluation.searches is None:
    raise ValueError(
      f"{path} is a checkpoint for {weights.task}, which does not search for persons: expected a checkpoint "
      "with a trained embedding of persons"
    )
  variables = with_constants(weights.variables, evaluation.constants)
  variables = sharding.put_replicated(variables, mesh)
  with unfit.named(path):
    scores, rows = make_evaluate(evaluation, mesh)(variables, progress=progress)
  return Found(config, evaluation, scores, rows, variables)


def _draw(found, measured, progress):
  """Returns the pictures of a `Found` and of its verification, {name: picture}."""
  if found.rows is None:
    return {}
  progress.stage("drawing the pictures")
  evaluation, pictures = found.evaluation, {}
  pictures |= evaluation.row_figures(found.rows) if evaluation.row_figures else {}
  pictures |= evaluation.figures(found.variables) if evaluation.figures else {}
  return pictures | verifying.draw(measured)


def configure(path, weights, config, overrides, dataset=""):
  """Returns the finalized configuration for the evaluation of a checkpoint.

  Args:
    path: the checkpoint, for error messages.
    weights: the `convert.weights.Weights` of the checkpoint.
    config, overrides, dataset: same as in `score`.
  """
  recorded = weights.description.config
  if config is None and recorded is None:
    raise ValueError(
      f"{path} ({weights.family}) records no configuration: pass --config=FILE, a file of configs/ for task "
      f"{weights.task}"
    )
  if config is None:
    config = config_lib.from_recorded(recorded, path)
  if config.task != weights.task:
    raise ValueError(f"{path} is a checkpoint for {weights.task}, but the configuration is for {config.task}")
  # With a configuration of one data set, the label chooses a part of the network.
  is_of_network = _has_parts(config.task) and not config_parts.joins(config.data.source)
  return config_lib.finalize(_with_overrides(config, overrides, "" if is_of_network else dataset))


def _has_parts(task):
  """Returns True if networks of the task may have parts for single data sets."""
  return hasattr(config_lib.load("tasks", task), "of_data_set")


def _with_overrides(config, overrides, dataset):
  """Returns a copy of a ConfigDict with new values for some keys, and with the dtype for this machine.

  If `dataset` is not "", the copy has only the data set with this label.

  Raises:
    ValueError: if there is no such data set, or if the key of an override does not exist.
  """
  if dataset:
    config = config_parts.only(config_lib.finalize(config), dataset)
  config = ml_collections.ConfigDict(config.to_dict())
  with config.ignore_type():  # the recorded dtype may be of another type, and is overwritten
    config.model.dtype = "auto"  # the recorded dtype was for the training machine
  values.override(config, overrides)
  return config


def _check_known(path, encoder):
  """Raises ValueError if the grid or the number of heads of an encoder is not known."""
  if encoder.grid is None or encoder.num_heads is None:
    raise ValueError(
      f"{path}: the grid is {encoder.grid} and the number of heads is {encoder.num_heads}, but both must be "
      "known: first convert the checkpoint with hap convert --source_grid=HxW --num_heads=N"
    )


def _write(out, path, found, pictures, measured):
  config = found.config
  sets = [{"name": part.data.source, "root": part.data.root} for part in config_parts.parts_of(config)]
  data = sets[0] if len(sets) == 1 else sets
  scored = "checkpoint" if found.rows is not None else "results"
  facts = {scored: str(path), "task": config.task, "data": data, "scores": dict(found.scores)}
  if found.evaluation.notes:
    facts["notes"] = list(found.evaluation.notes)
  if measured:
    facts["verification"] = {kind: one.to_json() for kind, one in measured.items()}
  out.parent.mkdir(parents=True, exist_ok=True)
  with unfinished.new_folder(out) as part:
    (part / "scores.json").write_text(json.dumps(facts, indent=2) + "\n")
    if found.rows is not None and found.evaluation.write_results is not None:
      found.evaluation.write_results(found.rows, part)
    for name, picture in pictures.items():
      picture_file.write(part / f"{name}.png", picture)
