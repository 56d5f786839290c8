"""Scores a checkpoint without an optimizer, as the training loop does."""

import json
import pathlib

import ml_collections

from hap_jax import config as config_lib
from hap_jax import config_values as values
from hap_jax import sharding
from hap_jax.convert import read as reading
from hap_jax.io import picture_file
from hap_jax.train.evaluate import make_evaluate


def score(path, *, config=None, overrides=None, out=None, say=print):
  """Runs the evaluation of the task that a checkpoint is for.

  Args:
    path: a checkpoint that conversion reads, of a task that this project evaluates.
    config: ConfigDict in place of the one that the checkpoint records; the sizes of the model are the
      checkpoint's in any case. overrides: {key: value} of the configuration, such as "data.root".
    out: folder to make for scores.json and pictures; None: nothing is written. say: prints a line.
  Returns:
    {metric: float}.
  Raises:
    ValueError: if the checkpoint records no configuration and none is given, is of another task or of sizes
      that none can name, lacks a decoder that is scored, an override has no such key, nothing is held out, or
      `out` exists.
  """
  if out is not None and pathlib.Path(out).exists():
    raise ValueError(f"--out={out} exists; give another, or move it away")
  weights = reading.read(path)
  config = configure(path, weights, config, overrides or {})
  mesh = sharding.make_mesh()
  sharding.check_batch_size(config.eval_batch_size, mesh, "config.eval_batch_size")
  evaluation = config_lib.load("tasks", config.task).make_evaluation(config)
  if not evaluation.evals:
    raise ValueError(f"{path}: its configuration holds no records out; pass --set data.num_val=N")
  variables = sharding.put_replicated(weights.variables, mesh)
  scores, rows = make_evaluate(evaluation, mesh)(variables)
  width = max(map(len, scores))
  for name, value in scores.items():
    say(f"{name:{width}s}  {value:.4f}")
  if out is not None:
    pictures = evaluation.row_figures(rows) if evaluation.row_figures else {}
    pictures |= evaluation.figures(variables) if evaluation.figures else {}
    _write(pathlib.Path(out), path, config, scores, pictures)
    say(f"written: {out}")
  return scores


def configure(path, weights, config, overrides):
  """Returns the finalized configuration under which a checkpoint is scored."""
  recorded, encoder = weights.description.config, weights.description.encoder
  if config is None and recorded is None:
    raise ValueError(
      f"{path} ({weights.family}) records no configuration: pass --config=FILE, one of configs/ for "
      f"{weights.task}"
    )
  if config is None:
    config = config_lib.from_recorded(recorded, path)
  else:
    config = ml_collections.ConfigDict(config.to_dict())
  if config.task != weights.task:
    raise ValueError(f"{path} is a checkpoint for {weights.task}, the configuration is one for {config.task}")
  if encoder.variant is None or encoder.image_size is None:
    raise ValueError(
      f"{path}: an encoder {weights.width} wide with {weights.depth} blocks of {weights.num_heads} heads on "
      f"a grid of {weights.grid} is none that a configuration can name"
    )
  with config.ignore_type():  # a recorded value of another type does not matter here
    config.model.variant, config.model.patch = encoder.variant, encoder.patch
    config.model.image_size = encoder.image_size
    if "decoder_width" in config.model:
      _copy_decoder(path, weights.decoder, config.model)
    if "locality" in config.model:
      config.model.locality = weights.description.network["locality"]
    config.model.dtype = "auto"  # this machine's, not the one's it was trained on
  config.lock()  # a key that is not there is an error
  for key, value in overrides.items():
    try:
      config.update_from_flattened_dict({key: value})
    except (AttributeError, KeyError, TypeError) as error:
      reason = str(error.args[0]).partition(" Other fields present")[0]  # all of them, with their values
      if not values.has(config, key):
        reason += f"; {values.suggest(key, values.flatten(config), prefix='')}"
      raise ValueError(f"--set {key}={value!r}: {reason}") from error
  return config_lib.finalize(config)


def _copy_decoder(path, decoder, model):
  """Puts the sizes of a checkpoint's decoder into a configuration's model."""
  if decoder is None:
    raise ValueError(f"{path} has no decoder, without which pre-training is not scored")
  model.decoder_width, model.decoder_depth = decoder["width"], decoder["depth"]
  if decoder["num_heads"] is not None:  # else the configuration alone tells
    model.decoder_heads = decoder["num_heads"]


def _write(out, path, config, scores, pictures):
  data = {"name": config.data.source, "root": config.data.root}
  told = {"checkpoint": str(path), "task": config.task, "data": data, "scores": scores}
  out.mkdir(parents=True)
  (out / "scores.json").write_text(json.dumps(told, indent=2) + "\n")
  for name, picture in pictures.items():
    picture_file.write(out / f"{name}.png", picture)
