"""Reads and writes this project's checkpoints: the weights, and the description that later commands read.

The folder of a checkpoint has state/ (Orbax) and description/ (JSON). A run stores its whole training state
in <workdir>/checkpoints/<step>. It stores only the variables of its best evaluation, in
<workdir>/best/<step>.
"""

import pathlib
import shutil
import time

import jax
import numpy as np
import orbax.checkpoint as ocp

FOLDER = "checkpoints"  # in a run's workdir
# The size of one file in a checkpoint. Without it, Orbax needs memory for two more copies of the weights.
_BYTES_AT_A_TIME = 32 << 20
_QUIET_S, _MOST_S = 0.5, 10.0  # seconds without a late write, and the longest wait in all
BEST_FOLDER = "best"  # in a run's workdir: the checkpoint of the best score so far. No run resumes from it


def find(path):
  """Finds a checkpoint.

  Args:
    path: a run's workdir, its folder checkpoints/ or best/, or the folder of one checkpoint.
  Returns:
    the checkpoint's folder. If there are several, it is the folder of the newest step. None if there is none.
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
    path: as for `find`.
  Returns:
    (variables, description). The variables are {"params": nested dicts of float32 NumPy arrays, other
    collections}. They are the moving average if the run kept one.
  Raises:
    ValueError: if there is no checkpoint at the path or it cannot be read.
  """
  folder, description = _find(path), read_description(path)
  try:
    # The handler reads the metadata. The checkpointer would warn about a file that a run's step never has.
    saved = ocp.PyTreeCheckpointHandler().metadata(folder / "state").tree
    is_training_state = "opt_state" in saved
    if is_training_state:
      keys = ["ema"] if saved.get("ema") else ["params", "model_state"]
      saved = {key: saved[key] for key in keys if saved.get(key)}
    # Arrays stay NumPy arrays: the checkpoint may come from more devices than this machine has.
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
  """Writes a checkpoint without optimizer moments, for converted weights. Leaves nothing after an error.

  Args:
    folder: the folder to make. It must not exist.
    variables: {"params": nested dicts of arrays, other collections}.
    description: plain JSON values.
  Raises:
    FileExistsError: if the folder exists.
    OSError, ValueError: if the disk is full or cannot be written.
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
  """Removes a folder again and again until it stays away for `_QUIET_S`.

  Orbax raises at the first array that it cannot write. Its threads go on with the other arrays and make the
  folder again.
  """
  begun = changed = time.monotonic()
  while time.monotonic() - changed < _QUIET_S and time.monotonic() - begun < _MOST_S:
    if folder.exists():
      shutil.rmtree(folder, ignore_errors=True)
      changed = time.monotonic()
    time.sleep(0.01)
