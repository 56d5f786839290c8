"""This project's checkpoints as files: the weights and the description that later commands read.

Layout of a checkpoint's folder: state/ (Orbax) and description/ (JSON). A run keeps its whole training state
in <workdir>/checkpoints/<step>, and the variables of its best evaluation alone in <workdir>/best/<step>.
"""

import pathlib
import shutil
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

FOLDER = "checkpoints"  # in a run's workdir
_BYTES_AT_A_TIME = (
  32 << 20
)  # of a file of a checkpoint; in files of any size Orbax holds the weights twice more
_QUIET_S, _MOST_S = 0.5, 10.0  # seconds without a late write, and in all
BEST_FOLDER = "best"  # beside it: one checkpoint, of the best score so far, which nothing resumes from


def find(path):
  """Finds a checkpoint from a run's folder, its checkpoints or best folder, or one checkpoint's folder.

  Returns:
    the checkpoint's folder, of the newest step where there are several; None if there is none.
  """
  path = pathlib.Path(path)
  if (path / "description").is_dir() and (path / "state").is_dir():
    return path
  folder = path / FOLDER if (path / FOLDER).is_dir() else path
  steps = [p for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
  return max(steps, key=lambda p: int(p.name), default=None)


def read(path):
  """Reads the weights and the description of one of this project's checkpoints, without its moments.

  Args:
    path: as for `find`.
  Returns:
    (variables, description). variables: {"params": nested dicts of float32 NumPy arrays, other collections},
    the moving average where the run kept one.
  Raises:
    ValueError: if there is no checkpoint at the path or it cannot be read.
  """
  folder, description = _find(path), read_description(path)
  try:
    # Asked of the handler: the checkpointer warns of a file that an item inside a run's step never has.
    saved = ocp.PyTreeCheckpointHandler().metadata(folder / "state").tree
    is_training_state = "opt_state" in saved
    if is_training_state:
      keys = ["ema"] if saved.get("ema") else ["params", "model_state"]
      saved = {key: saved[key] for key in keys if saved.get(key)}
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
    args = ocp.args.PyTreeRestore(item=saved, restore_args=as_numpy, partial_restore=True)
    state = ocp.PyTreeCheckpointer().restore(folder / "state", args=args)
    if is_training_state:
      state = state.get("ema") or {"params": state["params"], **state.get("model_state", {})}
    return state, description
  except (OSError, KeyError, ValueError) as error:
    raise _unreadable(folder, error) from error


def read_description(path):
  """Reads the description of one of this project's checkpoints, plain JSON values.

  Args:
    path: as for `find`.
  Raises:
    ValueError: if there is no checkpoint at the path or it cannot be read.
  """
  folder = _find(path)
  try:
    return ocp.Checkpointer(ocp.JsonCheckpointHandler()).restore(folder / "description")
  except (OSError, KeyError, ValueError) as error:
    raise _unreadable(folder, error) from error


def _find(path):
  folder = find(path)
  if folder is None:
    raise ValueError(f"{path} holds no checkpoint: expected a run's workdir or a step's folder in it")
  return folder.resolve()


def _unreadable(folder, error):
  return ValueError(f"checkpoint {folder} cannot be read; is the copy complete? ({error})")


def write(folder, variables, description):
  """Writes a checkpoint without moments, for what was not trained here; nothing is left of it after an error.

  Args:
    folder: to make; must not exist. variables: {"params": nested dicts of arrays, other collections}.
    description: plain JSON values.
  Raises:
    FileExistsError: if the folder exists. OSError, ValueError: if the disk does not take it.
  """
  folder = pathlib.Path(folder).resolve()
  folder.mkdir(parents=True)
  try:
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as writer:
      args = ocp.args.PyTreeSave(dict(variables), ocdbt_target_data_file_size=_BYTES_AT_A_TIME)
      writer.save(folder / "state", args=args)
    with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as writer:
      writer.save(folder / "description", args=ocp.args.JsonSave(description))
  except BaseException:
    _remove_while_written(folder)
    raise


def _remove_while_written(folder):
  """Removes a folder until nothing comes back to it for `_QUIET_S`.

  Orbax raises at the first array that cannot be written; its threads go on with the others, and make the
  folders they write to again.
  """
  begun = changed = time.monotonic()
  while time.monotonic() - changed < _QUIET_S and time.monotonic() - begun < _MOST_S:
    if folder.exists():
      shutil.rmtree(folder, ignore_errors=True)
      changed = time.monotonic()
    time.sleep(0.01)
