"""Checkpoints: the whole training state, and a description that later commands read instead of asking.

Layout: <workdir>/checkpoints/<step>/{state, description}, and <workdir>/best/<step> alike;
`io/checkpoint_file.py` reads them. Orbax writes to a temporary name and renames, so a kill in the middle of a
save leaves the older checkpoints and no half of a new one.
"""

import pathlib

import jax
import orbax.checkpoint as ocp

from hap_jax.description import Description
from hap_jax.io.checkpoint_file import BEST_FOLDER, FOLDER


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
    self._workdir = pathlib.Path(workdir).resolve()
    self._manager = _open_manager(
      self._workdir / FOLDER, max_to_keep=keep_last, keep_period=keep_every or None
    )
    # Opened when the first score comes: most runs choose no best checkpoint.
    self._best_manager, self._best = None, None

  def __enter__(self):
    return self

  def __exit__(self, *_):
    for manager in (self._manager, self._best_manager):
      if manager is not None:
        manager.wait_until_finished()
        manager.close()

  def latest_step(self):
    """Returns the newest whole checkpoint's step, or None."""
    return self._manager.latest_step()

  def description(self):
    """Returns the `Description` of the newest checkpoint."""
    return Description.from_json(_read_description(self._manager))

  def save(self, step, state, description):
    """Starts writing a checkpoint; returns once the state is copied, the disk is written meanwhile."""
    if step not in self._manager.all_steps():
      _save(self._manager, step, state, description.to_json())

  def keep_best(self, step, state, description, scores, select):
    """Keeps the variables to use of `state` in <workdir>/best if no earlier score was as good.

    They have no moments: nothing resumes there. The description gets the scores.

    Args:
      scores: {metric: float} of this step. select: (metric, "max" or "min"), or None: nothing is kept.
    Returns:
      whether they were kept.
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
        # The run went on from a checkpoint before it, so that step is still to come, a rounding away perhaps.
        self._best_manager.wait_until_finished()
        self._best_manager.delete(self._best["step"])
    self._best = {"step": step, "scores": scores}
    _save(self._best_manager, step, dict(state.eval_variables), {**description.to_json(), "scores": scores})
    # The caller records the scores next: a resumed run does not score a step again whose scores it finds.
    self._best_manager.wait_until_finished()
    return True

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


def _open_manager(folder, **options):
  return ocp.CheckpointManager(
    folder, options=ocp.CheckpointManagerOptions(**options), item_names=("state", "description")
  )


def _read_description(manager):
  args = ocp.args.Composite(description=ocp.args.JsonRestore())
  return manager.restore(manager.latest_step(), args=args)["description"]


def _one_copy(state):
  """Returns the state as one device holds it: of n copies, Orbax would write an n-th each, in pieces."""
  if jax.process_count() > 1:
    return state  # there every process has to take part

  def one(x):
    return x.addressable_data(0) if isinstance(x, jax.Array) and x.is_fully_replicated else x

  return jax.tree.map(one, state)


def _save(manager, step, state, description):
  state = _one_copy(state)
  items = ocp.args.Composite(
    state=ocp.args.StandardSave(state), description=ocp.args.JsonSave({**description, "step": step})
  )
  manager.save(step, args=items, force=True)
