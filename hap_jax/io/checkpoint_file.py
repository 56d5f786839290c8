"""Reads and writes this project's checkpoints: the weights, and the description that later commands read.

The folder of a checkpoint has the sub-folders state/ (Orbax) and description/ (JSON). A run stores its whole
training state in <workdir>/checkpoints/<step>. It also stores the variables with the best score so far,
without the rest of the training state, in <workdir>/best/<step>.
"""

import pathlib
import shutil
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

FOLDER = "checkpoints"  # in a run's workdir
# The size of one file in a checkpoint. Without this limit, Orbax needs memory for two more copies of the
# weights.
_BYTES_AT_A_TIME = 32 << 20
# Seconds. `_remove_while_written` ends when nothing was written for _QUIET_S, or after _MOST_S in all.
_QUIET_S, _MOST_S = 0.5, 10.0
BEST_FOLDER = "best"  # in a run's workdir: the checkpoint of the best score so far. No run resumes from it


def find(path):
  """Finds a checkpoint.

  Args:
    path: a run's workdir, its folder checkpoints/ or best/, or the folder of one checkpoint.
  Returns:
    the folder of the checkpoint. If there are several checkpoints, the one with the highest step is
    returned. If there is no checkpoint, None is returned.
  """
  path = pathlib.Path(path)
  if (path / "description").is_dir() and (path / "state").is_dir():
    return path
  folder = path / FOLDER if (path / FOLDER).is_dir() else path
  steps = [p for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
  return max(steps, key=lambda p: int(p.name), default=None)


def read(path):
  """Reads the weights and the description of one of this project's checkpoints, without optimizer moments.

  Args:
    path: see `find`.
  Returns:
    (variables, description). The variables are a dict. Its entry "params" is nested dicts of float32 NumPy
    arrays, and it may have entries for other collections. If the run computed a moving average of the
    weights, the variables are this average.
  Raises:
    ValueError: if there is no checkpoint at the path or it cannot be read.
  """
  folder, description = _find(path), read_description(path)
  try:
    # The metadata is read with the handler. A checkpointer would warn that a file is missing, but the
    # checkpoint of a run never has this file.
    saved = ocp.PyTreeCheckpointHandler().metadata(folder / "state").tree
    is_training_state = "opt_state" in saved
    if is_training_state:
      keys = ["ema"] if saved.get("ema") else ["params", "model_state"]
      saved = {key: saved[key] for key in keys if saved.get(key)}
    # The arrays are read as NumPy arrays. jax arrays would need as many devices as on the machine that saved
    # them, and this machine may have fewer.
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
    args = ocp.args.PyTreeRestore(item=saved, restore_args=as_numpy, partial_restore=True)
    state = ocp.PyTreeCheckpointer().restore(folder / "state", args=args)
    if is_training_state:
      state = state.get("ema") or {"params": state["params"], **state.get("model_state", {})}
    return state, description
  except (OSError, KeyError, ValueError) as error:
    raise _unreadable(folder, error) from error


def read_description(path):
  """Returns the description of one of this project's checkpoints, as plain JSON values.

  Args:
    path: see `find`.
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
    raise ValueError(f"{path} holds no checkpoint: expected a run's workdir or the folder of a checkpoint")
  return folder.resolve()


def _unreadable(folder, error):
  return ValueError(f"checkpoint {folder} cannot be read; is the copy complete? ({error})")


def write(folder, variables, description):
  """Writes a checkpoint of converted weights, without optimizer moments. After an error, nothing remains.

  Args:
    folder: the folder to create. It must not exist.
    variables: dict. Its entry "params" is nested dicts of arrays, and it may have entries for other
      collections.
    description: plain JSON values.
  Raises:
    FileExistsError: if the folder exists.
    OSError, ValueError: if the disk is full, or the folder cannot be written.
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
  """Removes a folder again and again, until it has not come back for `_QUIET_S` seconds.

  Orbax raises an error for the first array that it cannot write. But its threads continue to write the other
  arrays, and create the folder again.
  """
  begun = changed = time.monotonic()
  while time.monotonic() - changed < _QUIET_S and time.monotonic() - begun < _MOST_S:
    if folder.exists():
      shutil.rmtree(folder, ignore_errors=True)
      changed = time.monotonic()
    time.sleep(0.01)
