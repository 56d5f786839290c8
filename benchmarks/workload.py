"""Functions for benchmarks of a step: configuration from the command line, task, state, repeated steps."""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable

import jax
import ml_collections

from hap_jax import config as config_lib
from hap_jax import config_values, sharding
from hap_jax.cli import _options
from hap_jax.train import state as train_state
from hap_jax.train import step as train_step

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
# {name in a printed line: key of the configuration}. A line contains only the keys that its task has.
_SETTINGS = {
  "task": "task",
  "size": "model.variant",
  "image_size": "model.image_size",
  "batch": "batch_size",
  "dtype": "model.dtype",
  "scan": "model.scan",
  "attention": "model.attention",
  "remat": "model.remat",
  "locality": "model.locality",
  "accumulate": "accumulate",
  "align_block": "align_block",
  "views": "views",
}


def add_settings(parser, batch=None):
  """Adds the options --batch and --set.

  Args:
    parser: parser of the command line.
    batch: default number of pictures per step. None: the number in the configuration.
  """
  parser.add_argument("--batch", type=int, default=batch, help="pictures per step")
  parser.add_argument(
    "--set",
    dest="settings",
    action="append",
    default=[],
    metavar="KEY=VALUE",
    help="sets a key of the configuration",
  )


def add_repeats(parser):
  """Adds the options --warmup, --repeats and --steps. A CPU is slow, so its defaults are smaller."""
  parser.add_argument("--warmup", type=int, help="untimed rounds; default 5, on a CPU 2")
  parser.add_argument("--repeats", type=int, help="timed rounds of all variants; default 20, on a CPU 5")
  parser.add_argument(
    "--steps", type=int, help="steps per round; a round waits only for its last step; default 5, on a CPU 1"
  )


def repeats(args):
  """Returns {"warmup": untimed rounds, "repeats": timed rounds, "steps": steps per round}.

  Raises:
    ValueError: if one of the numbers is too small for a result.
  """
  usual = (2, 5, 1) if jax.default_backend() == "cpu" else (5, 20, 5)
  given = (args.warmup, args.repeats, args.steps)
  chosen = tuple(default if value is None else value for value, default in zip(given, usual, strict=True))
  # Programs may be compiled in the first two steps, so these steps are never timed.
  if chosen[0] * chosen[2] < 2 or min(chosen) < 1:
    raise ValueError(
      f"--warmup, --repeats, --steps: {chosen}; expected 1 or more each, and --warmup times --steps 2 or more"
    )
  return dict(zip(("warmup", "repeats", "steps"), chosen, strict=True))


def make_config(path, args, defaults=None):
  """Returns the finalized configuration of a file and a command line. The default source is "synthetic".

  Args:
    path: path of the configuration file.
    args: parsed command line with the options of `add_settings`.
    defaults: {key: value} for the keys that the command line does not set.
  Raises:
    ValueError: if --set names an unknown key or gives a value of the wrong type.
  """
  values = {"data.source": "synthetic", **(defaults or {})}
  if args.batch is not None:
    values["batch_size"] = args.batch
  return changed(config_lib.read_file(path), {**values, **_options.settings(args.settings)})


def changed(config, values):
  """Returns a finalized copy of a configuration with the new `values` {key: value}."""
  config = ml_collections.ConfigDict(config.to_dict()).lock()  # the lock makes an unknown key an error
  try:
    config.update_from_flattened_dict(values)
  except (AttributeError, KeyError, TypeError) as error:
    raise ValueError(f"--set: {' '.join(str(error).split())}") from error
  return config_lib.finalize(config)


def settings(config):
  """Returns the settings of a configuration that a result depends on, for the printed line."""
  flat = config_values.flatten(config)
  return {name: flat[key] for name, key in _SETTINGS.items() if key in flat}


def make_task(config):
  """Returns the task of a finalized configuration."""
  return config_lib.load("tasks", config.task).make(config)


def one_device():
  """Returns the mesh of this process's first device."""
  return sharding.make_mesh(devices=jax.devices()[:1])


@dataclasses.dataclass(frozen=True)
class Program:
  """A function to time, and a function that chooses its arguments.

  Attributes:
    function: the jitted function.
    pick: (state, batch, step, progress) -> arguments of the function.
    trains: True if the function deletes the given state and returns (new state, result).
  """

  function: Callable
  pick: Callable
  trains: bool = False


def make_step(task, mesh, seed=0):
  """Returns the `Program` of the training step, the same step as in the training loop."""
  constants = sharding.put_replicated(task.constants, mesh)
  return Program(
    train_step.make_train_step(task, mesh, seed),
    lambda state, batch, *clock: (state, constants, batch, *clock),
    trains=True,
  )


class Training:
  """A training state on a mesh, and the number of steps that updated it."""

  def __init__(self, task, mesh, seed=0):
    self.mesh, self.made = mesh, 0
    self.state = train_state.create(task, seed, mesh)

  def arguments(self, program, batch):
    """Returns the next arguments of a program's function. Step and progress are arrays on the device."""
    # Each call makes new scalars, because the training loop does this too. Their cost is part of the step.
    step = sharding.put_scalar(self.made, "int32", self.mesh)
    progress = sharding.put_scalar(self.made / 1000, "float32", self.mesh)
    return program.pick(self.state, batch, step, progress)

  def start(self, program, batch):
    """Runs a program once. Returns its result without waiting for it."""
    result = program.function(*self.arguments(program, batch))
    if program.trains:
      self.state, result = result
      self.made += 1
    return result

  def run(self, program, batches, count=1):
    """Runs a program `count` times, each with the next batch, and waits for the last result."""
    result = None
    for batch in itertools.islice(batches, count):
      result = self.start(program, batch)
    return jax.block_until_ready(result)

  def check(self):
    """Raises ValueError if a loss was not finite, because the state then counts fewer steps than were run."""
    if int(self.state.step) != self.made:
      raise ValueError(
        f"a loss was not finite after {int(self.state.step)} of {self.made} steps; expected finite losses, "
        "because a step without update cannot be timed"
      )
