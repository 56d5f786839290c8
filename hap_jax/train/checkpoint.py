"""Checkpoints: the whole training state, and a description that later commands read instead of asking.

Layout: <workdir>/checkpoints/<step>/{state, description}. Orbax writes to a temporary name and renames, so a
kill in the middle of a save leaves the older checkpoints and no half of a new one.
"""

import pathlib

import jax
import numpy as np
import orbax.checkpoint as ocp

FOLDER = "checkpoints"


class Checkpoints:
  """Saves and restores the states of one run; a context manager that waits for the last save to end."""

  def __init__(self, workdir, *, keep_last, keep_every=0):
    """Opens <workdir>/checkpoints, which may be missing yet.

    Args:
      workdir: the run's folder. keep_last: how many of the newest checkpoints stay.
      keep_every: checkpoints of steps that are a multiple of it stay for good; 0: none.
    Raises:
      ValueError: if keep_last is below 1.
    """
    if keep_last < 1:
      raise ValueError(f"config.keep_last={keep_last} must be at least 1: the newest checkpoint always stays")
    self._manager = ocp.CheckpointManager(
      pathlib.Path(workdir).resolve() / FOLDER,
      options=ocp.CheckpointManagerOptions(max_to_keep=keep_last, keep_period=keep_every or None),
      item_names=("state", "description"),
    )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._manager.wait_until_finished()
    self._manager.close()

  def latest_step(self):
    """Returns the newest whole checkpoint's step, or None."""
    return self._manager.latest_step()

  def description(self):
    """Returns the description of the newest checkpoint."""
    args = ocp.args.Composite(description=ocp.args.JsonRestore())
    return self._manager.restore(self._manager.latest_step(), args=args)["description"]

  def save(self, step, state, description):
    """Starts writing a checkpoint; returns once the state is copied, the disk is written meanwhile."""
    if step in self._manager.all_steps():
      return
    self._manager.save(
      step,
      args=ocp.args.Composite(
        state=ocp.args.StandardSave(state),
        description=ocp.args.JsonSave({**description, "step": step}),
      ),
      force=True,
    )

  def restore(self, step, abstract_state):
    """Reads the state of a step onto the devices that `abstract_state` names.

    Raises:
      ValueError: if the checkpoint holds another model or optimizer.
    """
    args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
    try:
      return self._manager.restore(step, args=args)["state"]
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f"checkpoint {self._manager.directory / str(step)} does not fit this configuration's model and "
        f"optimizer; use the configuration it was made with, or another --workdir. Orbax says: {error}"
      ) from error


def find(path):
  """Finds a checkpoint of this project from a run's folder, its checkpoints folder or one step's folder.

  Returns:
    the step's folder, the newest one where there are several; None if there is none.
  """
  path = pathlib.Path(path)
  if (path / "description").is_dir() and (path / "state").is_dir():
    return path
  folder = path / FOLDER if (path / FOLDER).is_dir() else path
  steps = [p for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
  return max(steps, key=lambda p: int(p.name), default=None)


def read(path):
  """Reads the parameters and the description of one of this project's checkpoints, without its moments.

  Args:
    path: as for `find`.
  Returns:
    (params as nested dicts of float32 NumPy arrays, description).
  Raises:
    ValueError: if there is no checkpoint at the path or it cannot be read.
  """
  folder = find(path)
  if folder is None:
    raise ValueError(f"{path} holds no checkpoint: expected a run's workdir or a step's folder in it")
  folder = folder.resolve()
  try:
    description = ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(folder / "description")
    reader = ocp.PyTreeCheckpointer()
    params = reader.metadata(folder / "state").item_metadata.tree["params"]
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), params)
    args = ocp.args.PyTreeRestore(
      item={"params": params}, restore_args={"params": as_numpy}, partial_restore=True
    )
    return reader.restore(folder / "state", args=args)["params"], description
  except (OSError, KeyError, ValueError) as error:
    raise ValueError(f"checkpoint {folder} cannot be read; is the copy complete? ({error})") from error
