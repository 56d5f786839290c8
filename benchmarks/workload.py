"""The step of pre-training that benchmarks time: its configuration, its task without data, its pictures."""

import argparse
import pathlib

import jax
import ml_collections
import numpy as np

from benchmarks import measure
from hap_jax import config as config_lib
from hap_jax.models import layers
from hap_jax.tasks import pretrain
from hap_jax.tasks.base import Task
from hap_jax.train import optim

_CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
# The option of each key that has one; the values of the configuration stay where nothing is said.
_KEYS = {
  "image_size": "model.image_size",
  "scan": "model.scan",
  "attention": "model.attention",
  "remat": "model.remat",
  "accumulate": "accumulate",
  "blockwise": "align_block",
}


def add_model(parser):
  """Adds what the step is made of."""
  parser.add_argument(
    "--size", default="B", choices=("S", "B", "L", "H"), help="configs/pretrain_<size>16.py"
  )
  parser.add_argument("--batch", type=int, default=8, help="pictures a step")
  parser.add_argument("--image_size", type=measure.parse_size, metavar="HxW", help="in pixels")
  parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
  parser.add_argument("--scan", action=argparse.BooleanOptionalAction, help="one compiled block for all")
  parser.add_argument("--attention", choices=layers.ATTENTIONS)
  parser.add_argument("--remat", choices=tuple(layers.REMAT_POLICIES))
  parser.add_argument("--accumulate", type=int, help="parts in which a batch goes through the model")
  parser.add_argument("--blockwise", type=int, metavar="KEYS", help="alignment with so many keys at a time")


def add_repeats(parser):
  """Adds how often: as seldom as a figure bears it on a CPU, more often elsewhere."""
  parser.add_argument("--warmup", type=int, help="untimed rounds: 5, on a CPU 2")
  parser.add_argument("--repeats", type=int, help="timed rounds, all variants in each: 20, on a CPU 5")
  parser.add_argument("--steps", type=int, help="steps a round, awaited together: 5, on a CPU 1")


def repeats(args):
  """Returns (untimed rounds, timed rounds, steps a round).

  Raises:
    ValueError: if one of them is too small for a figure.
  """
  usual = (2, 5, 1) if jax.default_backend() == "cpu" else (5, 20, 5)
  chosen = (args.warmup, args.repeats, args.steps)
  chosen = tuple(default if value is None else value for value, default in zip(chosen, usual, strict=True))
  # From the second step on nothing may compile; so the first two are never timed.
  if chosen[0] * chosen[2] < 2 or min(chosen) < 1:
    raise ValueError(f"--warmup, --repeats, --steps: {chosen}: expected 1 or more each, and 2 untimed steps")
  return chosen


def make_config(args):
  """Returns the configuration, finalized, of what the command line says."""
  config = config_lib.read_file(_CONFIGS / f"pretrain_{args.size.lower()}16.py")
  said = {key: getattr(args, name) for name, key in _KEYS.items() if getattr(args, name) is not None}
  config.update_from_flattened_dict({"batch_size": args.batch, "model.dtype": args.dtype, **said})
  return config_lib.finalize(config)


def changed(config, values):
  """Returns a finalized configuration with {key: value} set, finalized again."""
  config = ml_collections.ConfigDict(config.to_dict())
  config.update_from_flattened_dict(values)
  return config_lib.finalize(config)


def make_task(config):
  """Makes the task of `pretrain.make` without data: all that the step asks for."""
  description = pretrain.describe(config)
  return Task(
    **pretrain.make_step(config, description),
    schedule=lambda _, progress: optim.warmup_cosine(
      progress,
      peak=config.base_lr * config.batch_size / 256,
      warmup=config.warmup_epochs,
      total=config.total_epochs,
    ),
    train=None,
    total_steps=0,
    evaluation=None,
    description=description,
  )


def make_batch(config):
  """Makes a batch of noise, every joint somewhere in its picture; NumPy, fields as in `tasks.pretrain`."""
  B, (H, W) = config.batch_size, config.model.image_size
  rng = np.random.default_rng(0)
  return {
    "image": rng.integers(0, 256, (B, H, W, 3), np.uint8),
    "keypoints_xy": rng.uniform(0, (W, H), (B, 17, 2)).astype(np.float32),
    "keypoints_visible": np.ones((B, 17), bool),
    "index": np.arange(B, dtype=np.int32),
    "valid": np.ones(B, bool),
  }


def settings(config):
  """Returns what of a configuration a figure depends on."""
  model = config.model
  return {
    "size": model.variant,
    "image_size": list(model.image_size),
    "batch": config.batch_size,
    "dtype": model.dtype,
    "scan": model.scan,
    "attention": model.attention,
    "remat": model.remat,
    "accumulate": config.accumulate,
    "align_block": config.align_block,
    "views": config.views,
  }
