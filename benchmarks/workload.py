"""What benchmarks of a step share: the command line's configuration, its task, a state, repeated steps."""

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
# Name in a printed line -> key of the configuration. A task that lacks a key leaves it out of its lines.
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
  """Adds --batch and --set.

  Args:
    parser: of the command line.
    batch: pictures per step; None: as the configuration says.
  """
  parser.add_argument("--batch", type=int, default=batch, help="pictures per step")
  parser.add_argument(
    "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="of the configuration"
  )


def add_repeats(parser):
  """Adds how often steps are timed: few times on a CPU, where a step is slow, more often elsewhere."""
  parser.add_argument("--warmup", type=int, help="untimed rounds: 5, on a CPU 2")
  parser.add_argument("--repeats", type=int, help="timed rounds, all variants in each: 20, on a CPU 5")
  parser.add_argument("--steps", type=int, help="steps per round, awaited together: 5, on a CPU 1")


def repeats(args):
  """Returns {"warmup": untimed rounds, "repeats": timed rounds, "steps": steps per round}.

  Raises:
    ValueError: if one of them is too small for a figure.
  """
  usual = (2, 5, 1) if jax.default_backend() == "cpu" else (5, 20, 5)
  given = (args.warmup, args.repeats, args.steps)
  chosen = tuple(default if value is None else value for value, default in zip(given, usual, strict=True))
  # From the second step on nothing may compile; so the first two are never timed.
  if chosen[0] * chosen[2] < 2 or min(chosen) < 1:
    raise ValueError(f"--warmup, --repeats, --steps: {chosen}: expected 1 or more each, and 2 untimed steps")
  return dict(zip(("warmup", "repeats", "steps"), chosen, strict=True))


def make_config(path, args, defaults=None):
  """Returns the finalized configuration of a file and a command line; its people are drawn by default.

  Args:
    path: the file.
    args: with the options of `add_settings`.
    defaults: {key: value}, used where the command line sets nothing.
  Raises:
    ValueError: if --set names a key that does not exist or gives it a value of another type.
  """
  values = {"data.source": "synthetic", **(defaults or {})}
  if args.batch is not None:
    values["batch_size"] = args.batch
  return changed(config_lib.read_file(path), {**values, **_options.settings(args.settings)})


def changed(config, values):
  """Returns a finalized copy of a configuration with {key: value} set."""
  config = ml_collections.ConfigDict(config.to_dict()).lock()  # a key that does not exist is an error
  try:
    config.update_from_flattened_dict(values)
  except (AttributeError, KeyError, TypeError) as error:
    raise ValueError(f"--set: {' '.join(str(error).split())}") from error
  return config_lib.finalize(config)


def settings(config):
  """Returns what a figure depends on of a configuration."""
  flat = config_values.flatten(config)
  return {name: flat[key] for name, key in _SETTINGS.items() if key in flat}


def make_task(config):
  """Makes the task of a finalized configuration."""
  return config_lib.load("tasks", config.task).make(config)


def one_device():
  """Returns the mesh of this process's first device."""
  return sharding.make_mesh(devices=jax.devices()[:1])


@dataclasses.dataclass(frozen=True)
class Program:
  """What is timed.

  Attributes:
    function: jitted.
    pick: (state, batch, step, progress) -> what the function takes.
    trains: whether the function uses up the state and returns (new state, result).
  """

  function: Callable
  pick: Callable
  trains: bool = False


def make_step(task, mesh, seed=0):
  """Makes the Program of the training step, the one that the loop runs."""
  constants = sharding.put_replicated(task.constants, mesh)
  return Program(
    train_step.make_train_step(task, mesh, seed),
    lambda state, batch, *clock: (state, constants, batch, *clock),
    trains=True,
  )


class Training:
  """A state on a mesh, and the count of the steps that changed it."""

  def __init__(self, task, mesh, seed=0):
    self.mesh, self.made = mesh, 0
    self.state = train_state.create(task, seed, mesh)

  def arguments(self, program, batch):
    """Returns what a program's function takes next; step and progress are on the device, as in the loop."""
    step = sharding.put_scalar(self.made, "int32", self.mesh)
    progress = sharding.put_scalar(self.made / 1000, "float32", self.mesh)
    return program.pick(self.state, batch, step, progress)

  def start(self, program, batch):
    """Runs a program once without waiting for its result, and returns that."""
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
    """Raises ValueError if a loss was not finite: the step then leaves the state as it is."""
    if int(self.state.step) != self.made:
      raise ValueError(
        f"a loss was not finite after {int(self.state.step)} of {self.made} steps: nothing to time"
      )
