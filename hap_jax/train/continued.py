"""A run that continues another run under a changed configuration (`config.continue_from`).

The new run has its own workdir. It takes over the whole training state of a checkpoint of the earlier run:
parameters, moments of the optimizer, moving average, batch statistics and step number. Step number and
progress continue, but the order of the data starts again at its beginning (see `data/continued_order.py`).

The lineage in the Description of the new run records the step and the progress at which the new run took
over. A resumed run reads these two numbers from the lineage, so it no longer needs the earlier run.
"""

import dataclasses
import math
import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp

from hap_jax import config as config_lib
from hap_jax.convert import lineage
from hap_jax.description import Description
from hap_jax.io import checkpoint_file
from hap_jax.tasks import base
from hap_jax.train import checkpoint
from hap_jax.train import state as train_state

_MOST_SHOWN = 12  # number of changed keys that are printed
# The start of a run differs by design, so these keys are not listed.
_START_KEYS = ("continue_from", "init_from", "init_key", "init_prefix", "init_encoder_only")


def with_progress(task, step):
  """Returns the Description of a task with the progress and the learning rate of a step.

  A checkpoint records both numbers. So another run can continue from the checkpoint, even if the data of the
  earlier run are no longer available.

  Args:
    task: a `Task`.
    step: number of steps made.
  """
  epochs = task.train.progress(step)
  facts = {"epochs": epochs, "lr": _learning_rate(task, step, epochs)}
  return dataclasses.replace(task.description, more={**task.description.more, **facts})


def _learning_rate(task, step, epochs):
  """Returns the learning rate of the step after `step` steps, as a float."""
  return float(jax.device_get(task.schedule(np.int32(step), np.float32(epochs))))


@dataclasses.dataclass(frozen=True)
class EarlierRun:
  """A checkpoint of the run that is continued.

  Attributes:
    folder: the folder of the checkpoint.
    step: number of steps that the run had made.
    epochs: number of epochs that the run had made, as a float.
    learning_rate: the learning rate of the next step of that run.
    description: the Description of the checkpoint.
    origins: the lineage of the new run.
  """

  folder: pathlib.Path
  step: int
  epochs: float
  learning_rate: float
  description: Description
  origins: tuple

  @property
  def start(self):
    """The `tasks.base.Start` of the new run."""
    return base.Start(self.origins, self.description)

  def check(self, task, config, mesh):
    """Checks that the state of the earlier run fits the task of the new run.

    Args:
      task: the `Task` of the new run.
      config: the finalized config of the new run.
      mesh: the mesh of the new run.
    Raises:
      ValueError: if an array of the state has another shape or type, or if the network or the classes differ.
        Also if the task did not make its loader with `base.train_loader_of`. The message names the keys or
        the file to change.
    """
    if task.train.first_step(0) != self.step:
      raise self._misfit(f"tasks/{config.task}.py must make its loader with base.train_loader_of")
    found, expected = _saved_shapes(self.folder), _shapes(train_state.abstract(task, mesh))
    differ = sorted(name for name in found.keys() | expected if found.get(name) != expected.get(name))
    if differ:
      self._refuse(config, differ, found, expected)
    recorded, now = self.description.network, config_lib.as_json(task.description.network)
    for key in sorted(recorded.keys() & now.keys()):
      if recorded[key] != now[key]:
        raise self._misfit(f"its network has {key}={recorded[key]!r:.80}, and this run {now[key]!r:.80}")
    if self.description.classes != config_lib.as_json(task.description.classes):
      raise self._misfit(
        "its training data have other classes, so an output of the heads has another meaning"
      )

  def _refuse(self, config, differ, found, expected):
    """Raises ValueError for a state with other arrays. The message names the keys that cause the difference.

    Args:
      config: the finalized config of the new run.
      differ: the names of the arrays that differ.
      found: {name: "shape type"} of the arrays of the checkpoint.
      expected: {name: "shape type"} of the arrays of the new run.
    """
    changed = config_lib.changes(self.description.config, config_lib.to_plain(config))
    keys = [key for key in changed if _changes_state(config, key, changed[key][0])]
    if keys:
      listed = "; ".join(f"config.{key} was {changed[key][0]!r}, now {changed[key][1]!r}" for key in keys)
      raise self._misfit(f"these keys change the arrays of the state: {listed}")
    shown = "; ".join(f"{name} has {found.get(name)}, expected {expected.get(name)}" for name in differ[:3])
    raise self._misfit(f"its arrays differ from those of this run (shape and type): {shown}")

  def _misfit(self, reason):
    return ValueError(
      f"config.continue_from: the state in {self.folder} does not fit: {reason}. Use the same values as that "
      "run, or take over only the weights that fit: config.init_from in place of config.continue_from"
    )

  def restore(self, shapes):
    """Reads the state and puts it on the devices that `shapes` gives (see `train.state.abstract`)."""
    return checkpoint.read_state(self.folder, shapes)

  def lines(self, task):
    """Returns the lines that the new run prints at its start.

    Args:
      task: the `Task` of the new run. Its Description has the configuration.
    """
    changed = config_lib.changes(self.description.config, task.description.config)
    shown = [
      f"config.{key} {old!r} -> {new!r}" for key, (old, new) in changed.items() if key not in _START_KEYS
    ]
    if len(shown) > _MOST_SHOWN:
      shown = [*shown[:_MOST_SHOWN], f"and {len(shown) - _MOST_SHOWN} more keys"]
    rate = _learning_rate(task, self.step, self.epochs)
    return [
      f"continuing {self.folder} at step {self.step}, epoch {self.epochs:.6g}, with its whole training state",
      f"  changed: {'; '.join(shown) or 'nothing'}",
      f"  learning rate of the next step: {self.learning_rate:.4g} in that run, {rate:.4g} in this run",
    ]


def find(text, task):
  """Finds the checkpoint that `config.continue_from` names.

  Args:
    text: WORKDIR for its newest checkpoint, or WORKDIR/STEP, or the folder of a checkpoint.
    task: the name of the task of the new run.
  Returns:
    EarlierRun.
  Raises:
    ValueError: if there is no such checkpoint, if it contains only weights, if it belongs to another task, or
      if its description is incomplete.
  """
  folder, where = _find_folder(pathlib.Path(text)), f"config.continue_from={text}"
  if folder is None:
    raise ValueError(f"{where}: {_list_steps(pathlib.Path(text))}")
  recorded = checkpoint_file.read_json(folder)
  if "opt_state" not in _read_metadata(folder):
    raise ValueError(
      f"{where}: expected the whole training state of a run, but {folder} holds only weights, without the "
      "moments of the optimizer: name the workdir of the run, or use config.init_from"
    )
  description, step = Description.from_json(recorded, folder), recorded.get("step")
  if description.task != task:
    raise ValueError(
      f"{where}: expected a run with config.task={task!r}, found {description.task!r}; to take over its "
      "encoder use config.init_from"
    )
  if type(step) is not int or step < 1 or description.config is None:
    raise ValueError(f"{where}: the description of {folder} records no step or no configuration")
  epochs, rate = _progress(description, step, where)
  own, *earlier = lineage.of_own(folder, recorded)
  return EarlierRun(folder, step, epochs, rate, description, ({**own, "continued": epochs}, *earlier))


def _find_folder(path):
  """Returns the folder of a checkpoint, or None."""
  if path.name.isdigit() and (path.parent / checkpoint_file.FOLDER).is_dir():
    path = path.parent / checkpoint_file.FOLDER / path.name
  folder = checkpoint_file.find(path)
  return folder and folder.resolve()


def _list_steps(path):
  """Returns the end of the error message for a path without a checkpoint."""
  workdir = path.parent if path.name.isdigit() else path
  folder = workdir / checkpoint_file.FOLDER
  steps = sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit()) if folder.is_dir() else []
  if not steps:
    return "no checkpoint found; expected the workdir of a run (WORKDIR or WORKDIR/STEP)"
  return f"no checkpoint of this step; {workdir} has checkpoints of the steps {', '.join(map(str, steps))}"


def _progress(description, step, where):
  """Returns the (epochs, learning rate) of a checkpoint.

  Older versions did not record these two numbers. For their checkpoints, this function makes the task of the
  earlier run again and computes the numbers.
  """
  recorded = tuple(description.more.get(key) for key in ("epochs", "lr"))
  if recorded != (None, None):
    if all(type(value) in (int, float) and 0 <= value < math.inf for value in recorded):
      return recorded
    raise ValueError(
      f"{where}: the checkpoint records epochs={recorded[0]!r:.40} and lr={recorded[1]!r:.40}, expected "
      "numbers"
    )
  try:
    config = config_lib.finalize(config_lib.from_recorded(description.config, description.place))
    start = base.Start(description.lineage, description)
    task = config_lib.load("tasks", config.task).make(config, start)
  except (ValueError, OSError) as error:
    raise ValueError(
      f"{where}: an older version wrote this checkpoint without its progress, and the data of the run, from "
      f"which the progress is computed, cannot be opened: {error}"
    ) from error
  epochs = task.train.progress(step)
  return epochs, _learning_rate(task, step, epochs)


def _read_metadata(folder):
  """Returns the tree of the arrays of a state, without their values."""
  try:
    # The metadata is read with the handler, as in `checkpoint_file`. A checkpointer would warn that a file is
    # missing, but no checkpoint of a run has this file.
    return ocp.PyTreeCheckpointHandler().metadata(folder / "state").tree
  except (OSError, KeyError, ValueError) as error:
    raise ValueError(f"checkpoint {folder} cannot be read; is the copy complete? ({error})") from error


def _saved_shapes(folder):
  return _shapes(_read_metadata(folder))


def _shapes(tree):
  """Returns {path of an array: "shape type"}. Saved and abstract states have the same paths."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    "/".join(_name(key) for key in path): f"{tuple(leaf.shape)} {np.dtype(leaf.dtype)}"
    for path, leaf in leaves
  }


def _name(key):
  # A saved state has dicts and lists in place of the dataclasses and named tuples of a live state.
  return str(next(getattr(key, kind) for kind in ("key", "name", "idx") if hasattr(key, kind)))


def _changes_state(config, key, old):
  """Returns True if the old value of a config key changes the arrays of the state."""
  try:
    return _facts_of_state(config) != _facts_of_state(config_lib.replaced(config, key, old))
  except ValueError:
    return False  # the old value fits only together with other old values


def _facts_of_state(config):
  """Returns the facts of a finalized config that determine the arrays of a state. Reads no data."""
  params = config_lib.load("tasks", config.task).outline(config).params
  return {
    "params": _shapes(params),
    # These keys add or remove moments or the moving average.
    "kind": config.optimizer.get("kind"),
    "is_clipped": config.optimizer.get("clip_norm") is not None,
    "has_average": bool(config.get("ema_decay", 0.0)),
  }
