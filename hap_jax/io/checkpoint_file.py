"""Reads and writes this project's checkpoints: the weights, and the description that later commands read.

The folder of a checkpoint has the sub-folders state/ (Orbax) and description/ (JSON), and the file
digests.json. This file shows that the checkpoint is whole: complete and not damaged
(`checkpoint_digests.py`). A run stores its whole training state in
<workdir>/checkpoints/<step>. It also stores the variables with the best score so far, without the rest of the
training state, in <workdir>/best/<step>.
"""

import contextlib
import math
import pathlib
import shutil
import sys
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from hap_jax.io import checkpoint_digests, checkpoint_list

FOLDER = "checkpoints"  # in a run's workdir
# The size of one file in a checkpoint. Without this limit, Orbax needs memory for two more copies of the
# weights.
_BYTES_AT_A_TIME = 32 << 20
_SMALL = 256 << 20  # bytes of arrays that are read together
# Seconds. `_remove_while_written` ends when nothing was written for _QUIET_S, or after _MOST_S in all.
_QUIET_S, _MOST_S = 0.5, 10.0
BEST_FOLDER = "best"  # in a run's workdir: the checkpoint of the best score so far. No run resumes from it


def find(path):
  """Finds the newest whole checkpoint. Changes nothing.

  Args:
    path: a run's workdir, its folder checkpoints/ or best/, or the folder of one checkpoint.
  Returns:
    the folder of the checkpoint, or None if there is no checkpoint.
  Raises:
    ValueError: if checkpoints were found, but none of them is whole. The message lists them.
  """
  path = pathlib.Path(path)
  if is_checkpoint(path):
    _check_one(path)
    return path
  folder = folder_of(path)
  whole, damaged = checkpoint_list.find_whole(folder)
  if whole is None:
    if damaged or checkpoint_list.set_aside(folder):
      raise ValueError(checkpoint_list.explain_none_whole(folder, damaged))
    return None
  for found in damaged:
    logging.warning("checkpoint %s is damaged: %s; using %s", found.path, found.damage, whole.path.name)
  if whole.note:
    logging.warning("checkpoint %s: %s", whole.path, whole.note)
  return whole.path


def is_checkpoint(path):
  """Returns True if a path is the folder of one checkpoint."""
  return (path / "description").is_dir() and (path / "state").is_dir()


def folder_of(path):
  """Returns the folder checkpoints/ of a workdir. If a path has no such folder, returns the path."""
  return path / FOLDER if (path / FOLDER).is_dir() else path


def check_all(path):
  """Checks all checkpoints at a path, and compares all bytes of their files with their digests.

  Args:
    path: see `find`.
  Returns:
    a list of {"name": path of a checkpoint relative to `path`, "state": text}. In each folder, the newest
    checkpoint comes first, and renamed checkpoints come last. If `path` is the folder of one checkpoint, the
    name is the name of this folder.
  """
  path = pathlib.Path(path)
  if is_checkpoint(path):
    return [{"name": path.name, "state": _state_of_one(path)}]
  folders = [path / name for name in (FOLDER, BEST_FOLDER) if (path / name).is_dir()] or [path]
  found = []
  for folder in folders:
    found += [(checked.path, checked.state) for checked in checkpoint_list.check(folder)]
    found += [(renamed, "damaged: a run renamed it") for renamed in checkpoint_list.set_aside(folder)]
  return [{"name": str(place.relative_to(path)), "state": state} for place, state in found]


def _state_of_one(folder):
  if not checkpoint_digests.exists(folder):
    return checkpoint_list.Checked(folder, note=checkpoint_list.NO_DIGESTS).state
  return checkpoint_list.Checked(folder, damage=checkpoint_digests.find_damage(folder) or "").state


def read(path):
  """Reads the weights and the description of one of this project's checkpoints, without optimizer moments.

  Args:
    path: see `find`.
  Returns:
    (variables, description). `variables` is a dict of NumPy arrays in nested dicts: the entry "params" has
    float32 arrays, and other entries are other collections. If the run computed a moving average of the
    weights, the variables are this average.
  Raises:
    ValueError: if there is no whole checkpoint at the path or it cannot be read.
  """
  folder = _find(path)
  description = read_json(folder)
  try:
    parts = _parts(folder)
    if "opt_state" not in parts:
      return _read_parts(folder, parts), description
    keys = ["ema"] if parts.get("ema") else ["params", "model_state"]
    state = _read_parts(folder, {key: parts[key] for key in keys if parts.get(key)})
    return state.get("ema") or {"params": state["params"], **state.get("model_state", {})}, description
  except (OSError, KeyError, ValueError) as error:
    raise _unreadable(folder, error) from error


def read_description(path, *, is_checked=True):
  """Returns the description of one of this project's checkpoints, as plain JSON values.

  Args:
    path: see `find`.
    is_checked: True: the newest whole checkpoint is used. False: the newest checkpoint is used even if it is
      damaged. This is fast, because the files of its arrays are not read.
  Raises:
    ValueError: if there is no such checkpoint at the path, or its description cannot be read.
  """
  return read_json(_find(path) if is_checked else _newest(path))


def read_state(folder):
  """Reads all arrays of a checkpoint, and compares each of them with the digest of the array that was saved.

  The arrays are read in a few parts, so that the caller can move each part to its devices before the next one
  is read.

  Args:
    folder: pathlib.Path of the checkpoint.
  Yields:
    {name: NumPy array} of each part. A name is the path of the array in the state, with slashes.
  Raises:
    ValueError: if the checkpoint cannot be read, or an array differs from its digest.
  """
  try:
    digests = checkpoint_digests.read_arrays(folder)
    for group in _groups(_parts(folder)):
      arrays = checkpoint_digests.name_arrays(_read_parts(folder, group))
      if digests:
        _compare(arrays, digests)
      yield arrays
  except (OSError, KeyError, ValueError) as error:
    raise _unreadable(folder, error) from error


def _parts(folder):
  """Returns the metadata of the arrays of a checkpoint, as {name of an entry at the top level: tree}."""
  # The metadata is read with the handler. A checkpointer would warn that a file is missing, but the
  # checkpoint of a run never has this file.
  return ocp.PyTreeCheckpointHandler().metadata(folder / "state").tree


def _groups(parts):
  """Yields the entries of {name: tree of metadata} in groups. Each group has one entry or is small."""
  group, size = {}, 0
  for name, tree in parts.items():
    added = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
    if group and size + added > _SMALL:
      yield group
      group, size = {}, 0
    group[name], size = tree, size + added
  if group:
    yield group


def _read_parts(folder, parts):
  """Reads some entries of the top level of a state as NumPy arrays."""
  # jax arrays would need as many devices as on the machine that saved them, and this machine may have fewer.
  as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), parts)
  args = ocp.args.PyTreeRestore(item=parts, restore_args=as_numpy, partial_restore=True)
  return ocp.PyTreeCheckpointHandler().restore(folder / "state", args=args)


def _compare(arrays, digests):
  """Raises ValueError if an array of {name: array} differs from its digest in {name: digest}."""
  for name, array in arrays.items():
    if checkpoint_digests.digest_array(array) != digests.get(name):
      raise ValueError(f"array {name} differs from the array that was saved")


def _read_back(folder, digests):
  """Reads all arrays of a checkpoint. Raises ValueError if one is missing or differs from its digest."""
  names = set()
  for group in _groups(_parts(folder)):
    arrays = checkpoint_digests.name_arrays(_read_parts(folder, group))
    _compare(arrays, digests)
    names |= arrays.keys()
  if names != digests.keys():
    raise ValueError(f"array {min(digests.keys() - names)} is missing")


def read_json(folder):
  """Returns the description in the folder of one checkpoint, as plain JSON values. Checks no digest.

  Raises:
    ValueError: if it cannot be read.
  """
  try:
    return ocp.JsonCheckpointHandler().restore(folder / "description")
  except (OSError, KeyError, ValueError) as error:
    raise _unreadable(folder, error) from error


def _find(path):
  return _resolved(path, find(path))


def _newest(path):
  path = pathlib.Path(path)
  found = path if is_checkpoint(path) else next(iter(checkpoint_list.steps(folder_of(path)).values()), None)
  return _resolved(path, found)


def _resolved(path, folder):
  if folder is None:
    raise ValueError(f"{path} holds no checkpoint: expected a run's workdir or the folder of a checkpoint")
  return folder.resolve()


def _check_one(folder):
  """Raises ValueError if one checkpoint is damaged."""
  if checkpoint_digests.exists(folder):
    damage = checkpoint_digests.find_damage(folder)
    if damage:
      raise ValueError(f"checkpoint {folder} is damaged: {damage}; use another checkpoint, or copy it again")


def _unreadable(folder, error):
  return ValueError(f"checkpoint {folder} cannot be read; is the copy complete? ({error})")


def write(folder, state, description):
  """Writes a checkpoint, reads it back, and adds its digest file. After an error, nothing remains.

  Only the process that calls this function writes. Other processes of the run need not call it.

  Args:
    folder: the folder to create. It must not exist.
    state: pytree of whole arrays, such as a TrainState. Or variables without optimizer moments: a dict with
      the entry "params", which is nested dicts of arrays, and entries for other collections.
    description: plain JSON values.
  Raises:
    FileExistsError: if the folder exists.
    OSError, ValueError: if the disk is full, the folder cannot be written, or an array that is read back
      differs from the array that was written.
  """
  folder = pathlib.Path(folder).resolve()
  folder.mkdir(parents=True)
  with _without_tracebacks():
    try:
      _write(folder, state, description)
    except BaseException:
      _remove_while_written(folder)
      raise


def _write(folder, state, description):
  state = jax.device_get(state)  # Orbax would need a Checkpointer for arrays on devices
  names = checkpoint_digests.name_arrays(state)
  digests = {name: checkpoint_digests.digest_array(array) for name, array in names.items()}
  # A Checkpointer would wait for the other processes of a run. The handlers do not.
  for name in ("state", "description"):
    (folder / name).mkdir()
  arrays, texts = ocp.PyTreeCheckpointHandler(), ocp.JsonCheckpointHandler()
  args = ocp.args.PyTreeSave(state, ocdbt_target_data_file_size=_BYTES_AT_A_TIME)
  arrays.save(folder / "state", args=args)
  arrays.finalize(folder / "state")
  texts.save(folder / "description", args=ocp.args.JsonSave(description))
  # The files are probably read from the page cache, so this does not test the disk. It tests that Orbax can
  # restore the arrays from these files.
  _read_back(folder, digests)
  checkpoint_digests.write(folder, digests)


@contextlib.contextmanager
def _without_tracebacks():
  """Context manager: if a write fails, hides the tracebacks that Orbax and its threads print.

  The caller gets the first error. Other threads that are still writing then end with errors, too.
  """
  before = sys.unraisablehook

  def hook(ignored):
    # Orbax closes its event loop after the first error, so the later errors cannot be delivered.
    if "Event loop is closed" not in str(ignored.exc_value):
      before(ignored)

  def is_shown(record):
    return record.levelname != "ERROR" or "orbax" not in record.pathname

  sys.unraisablehook = hook
  logging.get_absl_logger().addFilter(is_shown)
  try:
    yield
  finally:
    logging.get_absl_logger().removeFilter(is_shown)
    sys.unraisablehook = before


def _remove_while_written(folder):
  """Removes a folder again and again, until no thread has created it again for `_QUIET_S` seconds.

  Orbax raises an error for the first array that it cannot write. But its threads continue to write the other
  arrays, and create the folder again. After `_MOST_S` seconds, this function stops in any case.
  """
  begun = changed = time.monotonic()
  while time.monotonic() - changed < _QUIET_S and time.monotonic() - begun < _MOST_S:
    if folder.exists():
      shutil.rmtree(folder, ignore_errors=True)
      changed = time.monotonic()
    time.sleep(0.01)
