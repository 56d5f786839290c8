"""Checkpoints of a run. Each one holds the whole training state and a description for later commands.

Layout: <workdir>/checkpoints/<step>/{state, description}. <workdir>/best/<step> has the same layout.
`io/checkpoint_file.py` reads the checkpoints of both folders. Orbax writes a checkpoint under a temporary
name and renames the folder at the end. So a kill during a save leaves only complete checkpoints.
"""

import pathlib

import jax
import orbax.checkpoint as ocp

from hap_jax.description import Description
from hap_jax.io.checkpoint_file import BEST_FOLDER, FOLDER


class Checkpoints:
  """Saves and restores the states of one run.

  Use it as a context manager. Its exit waits for the last save.
  """

  def __init__(self, workdir, *, keep_last, keep_every=0):
    """Opens <workdir>/checkpoints and creates the folder if it is missing.

    Args:
      workdir: the folder of the run.
      keep_last: number of newest checkpoints that are kept.
      keep_every: checkpoints of steps that are a multiple of this number are never deleted. 0: off.
    Raises:
      ValueError: if keep_last is below 1.
    """
    if keep_last < 1:
      raise ValueError(f"config.keep_last={keep_last}: expected at least 1: the newest is always kept")
    self._workdir = pathlib.Path(workdir).resolve()
    self._manager = _open_manager(
      self._workdir / FOLDER, max_to_keep=keep_last, keep_period=keep_every or None
    )
    # The folder of the best checkpoint is opened at the first score, because most runs select no best one.
    self._best_manager, self._best = None, None

  def __enter__(self):
    return self

  def __exit__(self, *_):
    for manager in (self._manager, self._best_manager):
      if manager is not None:
        manager.wait_until_finished()
        manager.close()

  @property
  def folder(self):
    """The folder with one sub-folder per saved step."""
    return self._workdir / FOLDER

  def latest_step(self):
    """Returns the step of the newest complete checkpoint, or None if there is no checkpoint."""
    return self._manager.latest_step()

  def description(self):
    """Returns the `Description` of the newest checkpoint."""
    return Description.from_json(_read_description(self._manager), self._workdir)

  def save(self, step, state, description):
    """Starts to save a checkpoint. Returns when the state is copied; the files are written later."""
    # If a stop comes right after a regular save, this step is already saved.
    if step not in self._manager.all_steps():
      _save(self._manager, step, state, description.to_json())

  def keep_best(self, step, state, description, scores, select):
    """Saves the weights in <workdir>/best if their score is better than all earlier scores.

    The weights are the `eval_variables` of the state. The optimizer's moments are not saved, because no run
    resumes from this folder. The scores are recorded in the description.

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
    metric, mode = select
    if self._best_manager is None:
      self._best_manager = _open_manager(self._workdir / BEST_FOLDER, max_to_keep=1)
      if self._best_manager.latest_step() is not None:
        self._best = _read_description(self._best_manager)
    if self._best is not None:
      gain = scores[metric] - self._best["scores"][metric]
      if not (gain > 0 if mode == "max" else gain < 0):
        return False
      if self._best["step"] >= step:
        # The run resumed from a checkpoint before the best step. Orbax keeps only the checkpoint with the
        # highest step in this folder. So the old best checkpoint must be deleted before this one is saved.
        self._best_manager.wait_until_finished()
        self._best_manager.delete(self._best["step"])
    self._best = {"step": step, "scores": scores}
    _save(self._best_manager, step, dict(state.eval_variables), {**description.to_json(), "scores": scores})
    # The caller records the scores after this call, and a resumed run does not score a recorded step again.
    # So the save must be complete before this function returns.
    self._best_manager.wait_until_finished()
    return True

  def restore(self, step, abstract_state):
    """Reads the state of a step and puts it on the devices that `abstract_state` gives.

    Raises:
      ValueError: if the model or the optimizer of the checkpoint differs from `abstract_state`.
    """
    args = ocp.args.Composite(state=ocp.args.StandardRestore(abstract_state))
    try:
      return self._manager.restore(step, args=args)["state"]
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f"checkpoint {self._manager.directory / str(step)} does not fit this configuration's model and "
        f"optimizer; use the configuration of that run, or another --workdir. Orbax reports: {error}"
      ) from error


class _Manager(ocp.CheckpointManager):
  """A CheckpointManager that never asks the coordination service whether a signal stops the run.

  The service compares the number in each question with the number at which all processes stop. Orbax asks
  with the step, and the loop asks with a larger number (see `preemption.StopSignals.reached`). If both ask,
  the service can choose a number that the loop has already passed, and then the run does not stop.
  """

  def reached_preemption(self, step):
    del step
    return False


def _open_manager(folder, **options):
  # If there are several processes, they wait for each other at barriers. The name of a barrier contains the
  # step. Both folders may save the same step at the same time, so their barriers need different names.
  names = ocp.options.MultiprocessingOptions(barrier_sync_key_prefix=folder.name)
  options = ocp.CheckpointManagerOptions(multiprocessing_options=names, **options)
  return _Manager(folder, options=options, item_names=("state", "description"))


def _read_description(manager):
  args = ocp.args.Composite(description=ocp.args.JsonRestore())
  return manager.restore(manager.latest_step(), args=args)["description"]


def _one_copy(state):
  """Returns the state with one copy of each replicated array.

  If Orbax gets n copies of an array, it cuts the array into n pieces and writes each piece separately. This
  function avoids that.
  """
  if jax.process_count() > 1:
    return state  # with several processes, each of them has to take part in the save

  def one(x):
    return x.addressable_data(0) if isinstance(x, jax.Array) and x.is_fully_replicated else x

  return jax.tree.map(one, state)


def _save(manager, step, state, description):
  state = _one_copy(state)
  items = ocp.args.Composite(
    state=ocp.args.StandardSave(state), description=ocp.args.JsonSave({**description, "step": step})
  )
  manager.save(step, args=items, force=True)
