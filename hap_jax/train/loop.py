"""The training loop. All tasks use it."""

import contextlib
import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import logging

from hap_jax import distributed, sharding
from hap_jax.data import pipeline
from hap_jax.evaluation.evaluate import make_evaluate
from hap_jax.train import continued, initial, preemption, report, start_lines
from hap_jax.train import state as train_state
from hap_jax.train.checkpoint import Checkpoints
from hap_jax.train.report import Progress, open_writer
from hap_jax.train.step import make_train_step


class NonFiniteLossError(RuntimeError):
  """Raised if the loss or its gradient is not finite. The message lists step, loss terms and records."""


class Due(NamedTuple):
  """The actions that are due after a step."""

  log: bool
  save: bool
  evaluate: bool
  panel: bool


@dataclasses.dataclass(frozen=True)
class Cadence:
  """The intervals at which the loop logs, saves, evaluates and draws. 0 turns an action off.

  Each action with an interval above 0 is also due at the last step.

  Attributes:
    log: steps between two log lines.
    save: steps between two checkpoints.
    evaluate: steps between two evaluations.
    panel: steps between two picture panels.
    evaluate_epochs: epochs between two evaluations. These evaluations come at the end of an epoch.
  """

  log: int
  save: int
  evaluate: int
  panel: int
  evaluate_epochs: int = 0

  def due(self, step, task):
    """Returns the actions that are due after `step`. A task without evaluation splits is never evaluated."""
    is_last = step == task.total_steps

    def hits(count, every):
      return every > 0 and (is_last or (count > 0 and count % every == 0))

    # If the step does not end an epoch, `ends_epoch` returns 0, and `hits` is True only at the last step.
    is_eval = hits(step, self.evaluate) or hits(task.train.ends_epoch(step), self.evaluate_epochs)
    is_eval = is_eval and bool(task.evaluation.evals)
    return Due(hits(step, self.log), hits(step, self.save), is_eval, hits(step, self.panel))


def run(task, *, workdir, seed, mesh, checkpoints, cadence, weights=None, earlier=None, say=print):
  """Trains a task to its last step. The run starts from the newest checkpoint in its workdir, or from step 0.

  The parameters come from the first of these sources that exists:
  1. the newest checkpoint in the workdir, from which the run resumes exactly;
  2. `earlier`, whose whole state the run takes over;
  3. `weights`, of which the task copies the parts that it can use;
  4. the `init` of the task.

  With several processes, each process calls this function with the same arguments. The first process writes
  the log files and pictures.

  Args:
    task: a `Task`.
    workdir: the folder of the run.
    seed: the seed of the run.
    mesh: from `sharding.make_mesh`.
    checkpoints: an open `Checkpoints`.
    cadence: a `Cadence`.
    weights: `convert.weights.Weights` to start from, or None.
    earlier: a `continued.EarlierRun` to continue, or None.
    say: prints one line for the user.
  Returns:
    (final TrainState, {metric: float} of the last evaluation).
  Raises:
    NonFiniteLossError: if the loss or its gradient is not finite. The run stops. Its checkpoints are kept.
    StoppedError: if a signal to one of the processes stopped the run. The state is saved.
    UnsavedError: if a signal stopped the run, but the state could not be saved.
    ValueError: if the state of the checkpoint does not fit the task.
  """
  total, scores = task.total_steps, {}
  state, start = _start_state(task, seed, mesh, checkpoints, cadence, weights, earlier, say)
  constants = sharding.put_replicated(task.constants, mesh)
  train_step = make_train_step(task, mesh, seed)
  with contextlib.closing(open_writer(workdir, jax.process_index())) as writer, preemption.watch() as stop:
    evaluate = make_evaluate(task.evaluation, mesh)
    after = _AfterStep(task, constants, evaluate, checkpoints, writer, stop, say)
    is_begun = start > task.train.first_step(0)  # the state at the beginning of a run is not scored
    if is_begun and cadence.due(start, task).evaluate and not _has_scores(workdir, start):
      scores = after.score(start, state)  # the run stopped after this step but before its evaluation ended
    progress = Progress(total_steps=total, batch_size=task.train.sampler.batch_size, start_step=start)
    with (
      pipeline.device_batches(task.train, mesh, start, total) as batches,
      # An accidental transfer between host and devices would make the devices wait in each step.
      jax.transfer_guard("disallow"),
    ):
      for step in range(start + 1, total + 1):
        # Only the wait for the batch is measured here. The step itself runs asynchronously.
        before = time.perf_counter()
        batch = next(batches)
        progress.waited(time.perf_counter() - before)
        state, metrics = train_step(state, constants, batch, *_clock(task, step - 1, mesh))
        stop.began()
        due, is_stopped = cadence.due(step, task), stop.reached()
        if not (any(due) or is_stopped):
          continue
        # This check comes first, so that no result of a broken step is logged, saved or scored.
        _check_finite(task, state, constants, step, train_step, mesh, checkpoints)
        line, row = progress.report(step, _divide(metrics))
        with jax.transfer_guard("allow"), progress.paused():
          if due.log:
            say(line)
            writer.write_scalars(step, row)
          scores = after.follow(step, state, due, is_stopped) or scores
    if start >= total:
      say(f"the run in {workdir} already ended at step {start}")
      if task.evaluation.evals and not scores:
        scores = after.evaluate(after.variables(state))[0]
  return state, scores


@dataclasses.dataclass(frozen=True)
class _AfterStep:
  """The slow work after a step, in this order: checkpoint, scores, best checkpoint, pictures.

  The checkpoint comes first, so that no step is lost if the evaluation fails. A resumed run starts with the
  evaluation of its checkpoint if metrics.jsonl does not have the scores of this step.

  Attributes:
    task: a `Task`.
    constants: the constants of the task, on the devices.
    evaluate: from `make_evaluate`.
    checkpoints: see `run`.
    writer: from `open_writer`.
    stop: from `preemption.watch`.
    say: see `run`.
  """

  task: Any
  constants: Any
  evaluate: Callable
  checkpoints: Checkpoints
  writer: Any
  stop: preemption.StopSignals
  say: Callable

  def variables(self, state):
    """Returns the variables that are scored and drawn."""
    return train_state.with_constants(state.eval_variables, self.constants)

  def follow(self, step, state, due, is_stopped):
    """Does the actions that are due after `step`.

    Args:
      step: number of steps made.
      state: the TrainState after `step`.
      due: a `Due`.
      is_stopped: True if a signal requests a stop. Then the run saves its state before all other work.
    Returns:
      {metric: float}, or {} if no evaluation is due.
    Raises:
      StoppedError: if a signal stopped the run before its work was complete.
    """
    evaluation, is_last = self.task.evaluation, step == self.task.total_steps
    # After a stop signal only seconds are left, but an evaluation may take minutes. So the next start of the
    # run computes the scores.
    if is_stopped and (due.evaluate or not is_last):
      raise self._saved(step, state)
    if due.save or is_stopped:
      self.checkpoints.save(step, state, continued.with_progress(self.task, step))
    scores = self.score(step, state) if due.evaluate else {}
    if due.panel and evaluation.figures:
      self.writer.write_images(step, evaluation.figures(self.variables(state)))
    if due.evaluate or (due.log and is_last):
      self.writer.write_curves(evaluation.select, evaluation.guides)
    return scores

  def score(self, step, state):
    """Scores the state after `step` and records the scores. Saves the weights if their score is the best.

    Raises:
      StoppedError: if a signal came during the evaluation. The state is saved.
    """
    evaluation = self.task.evaluation
    try:
      scores, rows = self.evaluate(self.variables(state), before_batch=self.stop.check)
    except preemption.StopRequestedError:
      raise self._saved(step, state) from None
    listed = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
    self.say("; ".join((f"step {step}: {listed}", *evaluation.notes)))
    # The best checkpoint is saved before the scores are recorded. If the run is killed between the two, the
    # scores are missing, so the run evaluates this step again when it resumes.
    if self.checkpoints.keep_best(step, state, self.task.description, scores, evaluation.select):
      self.say(f"step {step}: the best {evaluation.select[0]} so far")
    self.writer.write_scalars(step, scores)
    if self.stop.reached():
      raise self._saved(step, state)
    if evaluation.row_figures and jax.process_index() == 0:
      self.writer.write_images(step, evaluation.row_figures(rows))
    return scores

  def _saved(self, step, state):
    """Saves the state after `step` if it is not saved yet. Returns the StoppedError to raise.

    Raises:
      UnsavedError: if the save failed.
    """
    self.checkpoints.save(step, state, continued.with_progress(self.task, step))
    self.checkpoints.finish()
    return self.stop.error(step)


def _has_scores(workdir, step):
  """Returns True if the scores of a step are recorded in the log that process 0 reads."""
  return distributed.from_first_process(jax.process_index() == 0 and report.has_scores(workdir, step))


def _start_state(task, seed, mesh, checkpoints, cadence, weights, earlier, say):
  """Returns the (state, step) from which the run starts. `run` lists the sources of the state."""
  shapes = train_state.abstract(task, mesh)
  step = checkpoints.latest_step()
  # These lines are printed before the slow work, so that the user sees a wrong value early.
  start = step if step is not None else task.train.first_step(0)
  facts = {"start": start, "folder": checkpoints.folder, "save_every": cadence.save}
  for line in start_lines.lines(task, params=shapes.params, mesh=mesh, **facts):
    say(line)
  if step is not None:
    say(f"resuming at step {step}")
    return checkpoints.restore(step, shapes), step
  if earlier is not None:
    for line in earlier.lines(task):
      say(line)
    state = earlier.restore(shapes)
    # From here on, the run needs only its own workdir.
    checkpoints.save(start, state, continued.with_progress(task, start))
    return state, start
  state = train_state.create(task, seed, mesh, shapes)
  if weights is None:
    say(task.from_scratch)
  if weights is None and task.preset is None:
    return state, 0
  variables = sharding.fetch(state.variables)
  if task.preset is not None:
    variables = task.preset(variables)
  if weights is not None:
    variables, report = task.load(variables, weights)
    for line in initial.lines(weights, report):
      say(line)
  variables = sharding.put(variables, sharding.places(variables, mesh))
  # The moving average starts with the same values as the variables.
  ema = jax.tree.map(jnp.copy, variables) if state.ema else {}
  return state.replace(params=variables.pop("params"), model_state=variables, ema=ema), 0


def _clock(task, step, mesh):
  """Copies two scalars to the devices: the number of steps made, and the same progress in epochs."""
  # These transfers are explicit, because the loop forbids implicit transfers.
  epochs = task.train.progress(step)
  return sharding.put_scalar(step, "int32", mesh), sharding.put_scalar(epochs, "float32", mesh)


def _divide(metrics):
  """Fetches {name: (sum, count)} from the devices. Returns {name: mean} with the loss and its terms first."""
  # The names need a new order, because jit sorts the keys of a dict.
  metrics = jax.device_get(metrics)
  names = sorted(metrics, key=lambda name: (not name.startswith("loss"), name == "grad_norm"))
  return {name: float(metrics[name][0]) / max(float(metrics[name][1]), 1e-9) for name in names}


def _check_finite(task, state, constants, step, train_step, mesh, checkpoints):
  """Raises NonFiniteLossError if the step counter of the state stopped before `step`.

  The counter stops at the last good step. This function computes the next step again, because the message
  shows the metrics and the records of that step.
  """
  good = int(jax.device_get(state.step))
  if good == step:
    return
  with jax.transfer_guard("allow"):
    batch = task.train.batch(good)
    batch_on_devices = sharding.put_batch(batch, mesh)
    _, metrics = train_step(state, constants, batch_on_devices, *_clock(task, good, mesh))
    terms = ", ".join(f"{name} {value:g}" for name, value in _divide(metrics).items())
  names = task.train.names(batch["index"])
  shown = ", ".join(names[:16]) + (f" and {len(names) - 16} more" if len(names) > 16 else "")
  logging.error("records of the step with the non-finite loss: %s", ", ".join(names))
  raise NonFiniteLossError(
    f"step {good + 1} gave a loss or gradient that is not finite: {terms}. Records of its batch: {shown}. "
    f"Check the records. {_remedy(checkpoints)}"
  )


def _remedy(checkpoints):
  """Returns a sentence for the user: how to continue after a loss that is not finite."""
  step = checkpoints.latest_step()
  if step is None:
    return "No checkpoint was saved: start again in a new --workdir with a lower --config.base_lr"
  return (
    f"The checkpoint of step {step} is kept. To go on from it with a lower learning rate, give a new "
    f"--workdir, --config.continue_from={checkpoints.folder.parent} and a lower --config.base_lr"
  )
