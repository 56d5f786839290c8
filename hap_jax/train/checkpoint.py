"""Checkpoints of a run. Each one contains the whole training state and a description for later commands.

Layout: <workdir>/checkpoints/<step>/{state, description, digests.json}. <workdir>/best/<step> has the same
layout. `io/checkpoint_file.py` writes and reads one checkpoint, and `io/checkpoint_list.py` finds the whole
checkpoints. A checkpoint is called whole if it is complete and not damaged.

A checkpoint is written under a temporary name, read back, and renamed at the end. Older checkpoints are
removed only after that. So a kill at any time leaves only whole checkpoints. With several processes, only
process 0 writes. It sends the result of each save to the other processes.
"""

import concurrent.futures
import contextlib
import os
import pathlib
import re
import shutil

import jax
import numpy as np

from hap_jax import distributed, sharding
from hap_jax.description import Description
from hap_jax.io import checkpoint_digests, checkpoint_file, checkpoint_list, unfinished
from hap_jax.io.checkpoint_file import BEST_FOLDER, FOLDER


class UnsavedError(OSError):
  """Raised if the last save of a run failed. The older checkpoints are kept."""


class Checkpoints:
  """Saves and restores the states of one run.

  Use it as a context manager. Its exit waits for the last save. With several processes, all of them must call
  the same methods in the same order.
  """

  def __init__(self, workdir, *, keep_last, keep_every=0, say=print):
    """Opens <workdir>/checkpoints, and finds the newest whole checkpoint.

    Process 0 creates the folder if it is missing. It removes the files that a killed save left, and renames
    damaged checkpoints.

    Args:
      workdir: the folder of the run.
      keep_last: number of newest checkpoints that are kept.
      keep_every: a checkpoint is never deleted if its step is a multiple of this number. 0: off.
      say: prints one line for the user.
    Raises:
      ValueError: if keep_last is below 1, if checkpoints exist but none of them is whole, or if the folder
        cannot be read or written.
    """
    if keep_last < 1:
      raise ValueError(f"config.keep_last={keep_last}: expected at least 1: the newest is always kept")
    self._workdir = pathlib.Path(workdir).resolve()
    self._keep_last, self._keep_every, self._say = keep_last, keep_every, say
    self._is_writer = jax.process_index() == 0
    # The thread writes and checks a checkpoint while the training continues.
    self._thread = concurrent.futures.ThreadPoolExecutor(1)
    self._saving = None
    self._failures = {}  # {folder: message} of the folders in which the last save failed; only in process 0
    self._best, self._is_best_open = None, False  # the score of the best checkpoint; only in process 0
    found = distributed.from_first_process(self._open() if self._is_writer else None)
    if "error" in found:
      raise ValueError(found["error"])
    self._newest = found["step"]

  def __enter__(self):
    return self

  def __exit__(self, kind, *_):
    try:
      if kind is None:
        self.finish()
      else:
        self._wait()  # no `finish`, because after an error the other processes may be in other code
    finally:
      self._thread.shutdown()

  @property
  def folder(self):
    """The folder with one sub-folder per saved step."""
    return self._workdir / FOLDER

  def latest_step(self):
    """Returns the step of the newest whole checkpoint, or None if there is no checkpoint."""
    return self._newest

  def description(self):
    """Returns the `Description` of the newest whole checkpoint."""
    values = checkpoint_file.read_json(self.folder / str(self._newest))
    return Description.from_json(values, self._workdir)

  def save(self, step, state, description):
    """Starts to save a checkpoint. Returns when the state is copied to the host; a thread writes the files.

    If the earlier save is not complete yet, this method waits for it. If a save fails, a line says why, and
    the run continues.

    Args:
      step: the step of the state.
      state: the TrainState.
      description: the Description of the task.
    """
    self._wait()
    # If a stop comes right after a regular save, this step is already saved.
    if distributed.from_first_process(step == self._newest):
      return
    state = _to_host(state)
    if self._is_writer:
      values = {**description.to_json(), "step": step}
      self._saving = self._thread.submit(self._write_newest, step, state, values)

  def finish(self):
    """Waits for the last save.

    Raises:
      UnsavedError: if the last save of a state or of the best weights failed. All processes raise it.
    """
    self._wait()
    failures = distributed.from_first_process(list(self._failures.values()))
    if failures:
      raise UnsavedError("; ".join(failures))

  def keep_best(self, step, state, description, scores, select):
    """Saves the weights in <workdir>/best if their score is better than all earlier scores.

    The weights are the `eval_variables` of the state. The optimizer's moments are not saved, because no run
    resumes from this folder. The scores are recorded in the description. If the save fails, or an earlier
    best checkpoint is damaged, a line says so, and the run continues.

    Args:
      step: the step of the state.
      state: the TrainState.
      description: the Description of the task.
      scores: {metric: float} of this step.
      select: (metric, "max" or "min"). None: the run selects no best checkpoint, and nothing is saved.
    Returns:
      True if the weights were saved.
    """
    if select is None:
      return False
    if not distributed.from_first_process(self._is_writer and self._is_better(scores, select)):
      return False
    variables = _to_host(dict(state.eval_variables))
    # The caller records the scores after this call, and a resumed run does not score a recorded step again.
    # So the save must be complete before this function returns.
    values = {**description.to_json(), "scores": scores, "step": step}
    is_saved = self._is_writer and self._write_best(step, variables, values, scores[select[0]])
    return distributed.from_first_process(is_saved)

  def restore(self, step, abstract_state):
    """Reads the state of a step and puts it on the devices that `abstract_state` gives.

    Raises:
      ValueError: see `read_state`.
    """
    return read_state(self.folder / str(step), abstract_state)

  def _open(self):
    """Prepares the folder in process 0. Returns {"step": newest step or None}, or {"error": message}."""
    try:
      self.folder.mkdir(parents=True, exist_ok=True)
      checkpoint_list.remove_leftovers(self.folder)
      whole, damaged = checkpoint_list.find_whole(self.folder)
      if whole is None and (damaged or checkpoint_list.set_aside(self.folder)):
        return {"error": checkpoint_list.explain_none_whole(self.folder, damaged)}
      self._rename(damaged)
      if whole is None:
        return {"step": None}
      if whole.note:
        self._say(f"checkpoint {whole.path}: {whole.note}")
      return {"step": int(whole.path.name)}
    except OSError as error:
      return {"error": f"{self.folder}: the checkpoints cannot be used: {error}"}

  def _rename(self, damaged):
    for found in damaged:
      new = checkpoint_list.rename_damaged(found.path)
      self._say(f"checkpoint {found.path} is damaged: {found.damage}. It is kept as {new.name}")

  def _wait(self):
    """Waits until the thread has ended the earlier save. Raises an error that the thread did not expect."""
    saving, self._saving = self._saving, None
    if saving is not None:
      saving.result()

  def _write_newest(self, step, state, description):
    """Writes a checkpoint in the thread, and then removes older ones."""
    if self._write(self.folder / str(step), state, description):
      self._newest = step
      older = list(checkpoint_list.steps(self.folder).items())[self._keep_last :]
      self._remove([p for n, p in older if not (self._keep_every and n % self._keep_every == 0)])

  def _write(self, path, state, description):
    """Writes a checkpoint. Returns True. If this fails, prints a line with the reason and returns False."""
    try:
      path.parent.mkdir(exist_ok=True)
      with unfinished.named_at_end(path, replace=True) as part:
        checkpoint_file.write(part, state, description)
      checkpoint_digests.flush(path.parent)
    except (OSError, ValueError) as error:
      self._failures[path.parent.name] = f"{path} was not saved: {_explain(path.parent, state, error)}"
      self._say(f"{self._failures[path.parent.name]}. Older checkpoints are kept. The next save tries again")
      return False
    self._failures.pop(path.parent.name, None)
    return True

  def _remove(self, paths):
    for path in paths:
      try:
        checkpoint_list.remove(path)
      except OSError as error:
        self._say(f"{path}: this older checkpoint could not be removed: {error}")

  def _is_better(self, scores, select):
    """Returns True if there is no best checkpoint yet, or the scores are better than its scores."""
    metric, mode = select
    if not self._is_best_open:
      self._best, self._is_best_open = self._open_best(metric), True
    if self._best is None:
      return True
    gain = scores[metric] - self._best
    return bool(gain > 0 if mode == "max" else gain < 0)

  def _open_best(self, metric):
    """Returns the score of the best checkpoint so far, or None if there is no whole one. Never fails."""
    folder = self._workdir / BEST_FOLDER
    if not folder.is_dir():  # most runs select no best checkpoint
      return None
    try:
      checkpoint_list.remove_leftovers(folder)
      whole, damaged = checkpoint_list.find_whole(folder)
      self._rename(damaged)
      if whole is None:
        return None
      try:
        return float(checkpoint_file.read_json(whole.path)["scores"][metric])
      except (KeyError, TypeError, ValueError):  # possible only without digests, as in older versions
        self._rename([checkpoint_list.Checked(whole.path, damage=f"its description records no {metric}")])
    except OSError as error:
      self._say(f"{folder}: the best checkpoint cannot be used: {error}. The next scores start a new one")
    return None

  def _write_best(self, step, variables, description, score):
    path = self._workdir / BEST_FOLDER / str(step)
    if not self._write(path, variables, description):
      return False
    self._best = score
    # After a resume from an earlier step, an older best checkpoint may have a higher step.
    self._remove([other for other in checkpoint_list.steps(path.parent).values() if other != path])
    return True


def read_state(folder, abstract_state):
  """Reads the whole state of a checkpoint and puts it on devices. All processes must call it together.

  Each array is compared with the digest of the array that was saved.

  Args:
    folder: pathlib.Path of the checkpoint.
    abstract_state: the shape, type and sharding of each array, see `state.abstract`.
  Returns:
    the TrainState.
  Raises:
    ValueError: if the checkpoint is damaged, or if the model or the optimizer of the checkpoint differs from
      `abstract_state`.
  """
  expected, loaded = checkpoint_digests.name_arrays(abstract_state), {}
  for arrays in checkpoint_file.read_state(folder):
    _check_fit(folder, arrays, expected)
    # The arrays of this part leave the host before the next part is read.
    loaded |= sharding.put(arrays, {name: expected[name].sharding for name in arrays})
  if loaded.keys() != expected.keys():
    raise _unfit(folder, f"the checkpoint has no array {min(expected.keys() - loaded.keys())}")
  return jax.tree.unflatten(jax.tree.structure(abstract_state), [loaded[name] for name in expected])


def _check_fit(folder, arrays, expected):
  for name, array in arrays.items():
    if name not in expected:
      raise _unfit(folder, f"the configuration has no array {name}")
    shape, dtype = expected[name].shape, expected[name].dtype
    if (array.shape, array.dtype) != (shape, dtype):
      raise _unfit(folder, f"{name} is {array.dtype} {list(array.shape)}, expected {dtype} {list(shape)}")


def _unfit(folder, reason):
  return ValueError(
    f"checkpoint {folder} does not fit this configuration's model and optimizer; use the configuration of "
    f"that run, or another --workdir: {reason}"
  )


def _to_host(tree):
  """Copies a pytree of arrays to the host. All processes must call it together."""
  tree = sharding.fetch(tree)
  # On a CPU, the result may share its memory with the array on the device, and the next step overwrites it.
  return jax.tree.map(np.array, tree) if jax.default_backend() == "cpu" else tree


def _explain(folder, state, error):
  """Returns the reason why a state could not be saved, with the size that it needs."""
  size = sum(array.nbytes for array in jax.tree.leaves(state))
  # Orbax puts the number of the error of the operating system into a long text.
  number = re.search(r"os_error_code='(\d+)'", str(error))
  text = os.strerror(int(number[1])) if number else getattr(error, "strerror", None) or str(error)
  free = ""
  with contextlib.suppress(OSError):
    free = f", and the disk has {shutil.disk_usage(folder).free / 1e6:,.2f} MB left"
  return f"{' '.join(text.split())} (it needs {size / 1e6:,.2f} MB{free})"
