"""Scores a checkpoint in the same way as the training loop, but without an optimizer."""

import json
import pathlib

import ml_collections

from hap_jax import config as config_lib
from hap_jax import config_values as values
from hap_jax import sharding
from hap_jax.convert import read as reading
from hap_jax.evaluation.evaluate import make_evaluate
from hap_jax.io import picture_file
from hap_jax.io.progress import SILENT
from hap_jax.train.state import with_constants


def score(path, *, config=None, overrides=None, out=None, say=print, progress=SILENT):
  """Runs the evaluation of the checkpoint's task.

  Args:
    path: a checkpoint that `convert.read.read` can read. This project must be able to evaluate its task.
    config: ConfigDict. It replaces the configuration that the checkpoint records. The network is always the
      network of the checkpoint.
    overrides: {key: value} of the configuration, such as "data.root".
    out: folder to make for scores.json and pictures. None: no file is written.
    say: prints a line.
    progress: a `Progress`. This function starts and ends it.
  Returns:
    {metric: float}.
  Raises:
    ValueError: if one of these holds:
      the checkpoint records no configuration, and `config` is None;
      the checkpoint and the configuration have different tasks;
      the sizes of the encoder are not all known, or a part of the network is missing;
      an override names a key that does not exist;
      the configuration has no held-out records;
      `out` exists.
  """
  if out is not None and pathlib.Path(out).exists():
    raise ValueError(f"--out={out} exists; give another folder, or move it away")
  with progress:
    config, scores, pictures = _score(path, config, overrides or {}, out is not None, progress)
  width = max(map(len, scores))
  for name, value in scores.items():
    say(f"{name:{width}s}  {value:.4f}")
  if out is not None:
    _write(pathlib.Path(out), path, config, scores, pictures)
    say(f"written: {out}")
  return scores


def _score(path, config, overrides, has_pictures, progress):
  """Returns (finalized config, {metric: float}, {name: picture}).

  The arguments are the same as in `score`, but `progress` must be started. If `has_pictures` is False, no
  pictures are drawn.
  """
  progress.stage("reading the checkpoint")
  weights = reading.read(path)
  config = configure(path, weights, config, overrides)
  mesh = sharding.make_mesh()
  sharding.check_batch_size(config.eval_batch_size, mesh, "config.eval_batch_size")
  _check_known(path, weights.description.encoder)
  progress.stage("opening the data")
  evaluation = config_lib.load("tasks", config.task).make_evaluation(config, weights.description)
  if not evaluation.evals:
    raise ValueError(f"{path}: its configuration has no held-out records; pass --set data.num_val=N")
  variables = with_constants(weights.variables, evaluation.constants)
  variables = sharding.put_replicated(variables, mesh)
  scores, rows = make_evaluate(evaluation, mesh)(variables, progress=progress)
  pictures = {}
  if has_pictures:
    progress.stage("drawing the pictures")
    pictures |= evaluation.row_figures(rows) if evaluation.row_figures else {}
    pictures |= evaluation.figures(variables) if evaluation.figures else {}
  return config, scores, pictures


def configure(path, weights, config, overrides):
  """Returns the finalized configuration for the evaluation of a checkpoint.

  Args:
    path: the checkpoint, for error messages.
    weights: the `convert.weights.Weights` of the checkpoint.
    config: as in `score`.
    overrides: as in `score`.
  """
  recorded = weights.description.config
  if config is None and recorded is None:
    raise ValueError(
      f"{path} ({weights.family}) records no configuration: pass --config=FILE, a file of configs/ for task "
      f"{weights.task}"
    )
  if config is None:
    config = config_lib.from_recorded(recorded, path)
  else:
    config = ml_collections.ConfigDict(config.to_dict())
  if config.task != weights.task:
    raise ValueError(f"{path} is a checkpoint for {weights.task}, but the configuration is for {config.task}")
  with config.ignore_type():  # the recorded dtype may have another type, but it is overwritten
    config.model.dtype = "auto"  # the recorded dtype was chosen for the training machine, not for this one
  config.lock()  # after this, an unknown key in `overrides` is an error
  for key, value in overrides.items():
    try:
      config.update_from_flattened_dict({key: value})
    except (AttributeError, KeyError, TypeError) as error:
      reason = str(error.args[0]).partition(" Other fields present")[0]  # cuts off the list of all keys
      if not values.has(config, key):
        reason += f"; {values.suggest(key, values.flatten(config), prefix='')}"
      raise ValueError(f"--set {key}={value!r}: {reason}") from error
  return config_lib.finalize(config)


def _check_known(path, encoder):
  """Raises ValueError if the grid or the number of heads of an encoder is not known."""
  if encoder.grid is None or encoder.num_heads is None:
    raise ValueError(
      f"{path}: the grid is {encoder.grid} and the number of heads is {encoder.num_heads}, but both must be "
      "known: first convert the checkpoint with hap convert --source_grid=HxW --num_heads=N"
    )


def _write(out, path, config, scores, pictures):
  data = {"name": config.data.source, "root": config.data.root}
  facts = {"checkpoint": str(path), "task": config.task, "data": data, "scores": scores}
  out.mkdir(parents=True)
  (out / "scores.json").write_text(json.dumps(facts, indent=2) + "\n")
  for name, picture in pictures.items():
    picture_file.write(out / f"{name}.png", picture)
