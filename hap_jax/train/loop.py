"""The training loop, the only one of the project."""

import contextlib
import dataclasses
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
from absl import logging

from hap_jax import sharding
from hap_jax.data import pipeline
from hap_jax.train import state as train_state
from hap_jax.train.evaluate import make_evaluate
from hap_jax.train.preemption import PreemptedError, Preemption
from hap_jax.train.report import Progress, open_writer
from hap_jax.train.step import make_train_step


class NonFiniteLossError(RuntimeError):
  """The loss or its gradient is not a number; the message tells step, loss terms and the batch's records."""


class Due(NamedTuple):
  """What a step is followed by."""

  log: bool
  save: bool
  evaluate: bool
  panel: bool


@dataclasses.dataclass(frozen=True)
class Cadence:
  """Every how many steps the loop logs, saves, evaluates and draws, the last step included; 0: never.

  `evaluate_epochs` evaluates at the end of every so many epochs too.
  """

  log: int
  save: int
  evaluate: int
  panel: int
  evaluate_epochs: int = 0

  def due(self, step, task):
    """Returns what follows `step` of a task; a task without evaluators is never evaluated."""
    is_last = step == task.total_steps

    def hits(count, every):
      return every > 0 and (is_last or (count > 0 and count % every == 0))

    is_eval = hits(step, self.evaluate) or hits(task.train.ends_epoch(step), self.evaluate_epochs)
    is_eval = is_eval and bool(task.evaluation.evals)
    return Due(hits(step, self.log), hits(step, self.save), is_eval, hits(step, self.panel))


def run(task, *, workdir, seed, mesh, checkpoints, cadence, load_params=None, say=print):
  """Trains a task from where its workdir stands to its last step.

  Where the parameters come from, in order: the newest checkpoint in the workdir (exact resume), else
  `load_params` (weights of another model, fitted to this one's), else the task's own init.

  With several processes each calls this alike; the first one writes what people read.

  Args:
    task: a `Task`. workdir: the run's folder. seed: the run's. mesh: from `sharding.make_mesh`.
    checkpoints: an open `Checkpoints`. cadence: a `Cadence`.
    load_params: NumPy params -> NumPy params, or None.
    say: prints one line for the person who watches.
  Returns:
    (final TrainState, {metric: float} of the last evaluation).
  Raises:
    NonFiniteLossError: the run stops, its checkpoints stay.
    PreemptedError: the run was told to end by SIGTERM to one of its processes, and saved.
  """
  total = task.total_steps
  state, start = _start_state(task, seed, mesh, checkpoints, load_params, say)
  train_step = make_train_step(task, mesh, seed)
  evaluate = make_evaluate(task.evaluation, mesh)
  progress = Progress(total_steps=total, batch_size=task.train.sampler.batch_size, start_step=start)
  scores = {}
  with contextlib.closing(open_writer(workdir, jax.process_index())) as writer:
    with (
      pipeline.device_batches(task.train, mesh, start, total) as batches,
      Preemption() as preemption,
      jax.transfer_guard("disallow"),
    ):
      for step in range(start + 1, total + 1):
        before = time.perf_counter()
        batch = next(batches)
        progress.waited(time.perf_counter() - before)
        state, metrics = train_step(state, batch, *_clock(task, step - 1, mesh))

        # Order: look at the loss first, so that nothing of a broken step is logged, scored, drawn or saved;
        # then the speed, before slower work spoils it; a checkpoint comes last, when its step is all told,
        # and only an early end after it.
        due, is_end = cadence.due(step, task), preemption.reached(step)
        if not (any(due) or is_end):
          continue
        _check_finite(task, state, step, train_step, mesh)
        line, row = progress.report(step, _divide(metrics))
        with jax.transfer_guard("allow"), progress.paused():
          if due.log:
            say(line)
          if due.evaluate:
            scores, rows = evaluate(state.eval_variables)
            say(f"step {step}: " + ", ".join(f"{name} {value:.4f}" for name, value in scores.items()))
            row |= scores
            if checkpoints.keep_best(step, state, task.description, scores, task.evaluation.select):
              say(f"step {step}: the best {task.evaluation.select[0]} so far")
            if task.evaluation.row_figures:
              writer.write_images(step, task.evaluation.row_figures(rows))
          if due.log or due.evaluate:
            writer.write_scalars(step, row)
          if due.evaluate or (due.log and step == total):
            writer.write_curves(task.evaluation.select)
          if due.panel and task.evaluation.figures:
            writer.write_images(step, task.evaluation.figures(state.eval_variables))
          if due.save or is_end:
            checkpoints.save(step, state, task.description)
        if is_end and step < total:
          raise PreemptedError(f"told to end: step {step} is saved; start again with the same --workdir")
    if start >= total:
      say(f"the run in {workdir} already ended at step {start}")
      scores = evaluate(state.eval_variables)[0] if task.evaluation.evals else {}
  return state, scores


def _start_state(task, seed, mesh, checkpoints, load_params, say):
  """Returns (state, step): resume goes before loaded parameters, which go before scratch."""
  step = checkpoints.latest_step()
  if step is not None:
    say(f"resuming at step {step}")
    return checkpoints.restore(step, train_state.abstract(task, mesh)), step
  state = train_state.create(task, seed, mesh)
  if load_params is not None:
    params = load_params(sharding.fetch(state.params))
    params = sharding.put(params, sharding.places(params, mesh))
    # The average starts where the parameters do.
    ema = {**state.ema, "params": jax.tree.map(jnp.copy, params)} if state.ema else {}
    state = state.replace(params=params, ema=ema)
  return state, 0


def _clock(task, step, mesh):
  """Puts the number of steps made and the epochs that they are on the devices."""
  epochs = task.train.progress(step)
  return sharding.put_scalar(step, "int32", mesh), sharding.put_scalar(epochs, "float32", mesh)


def _divide(metrics):
  """Fetches {name: (sum, count)} and returns {name: mean}, the loss and its terms first."""
  metrics = jax.device_get(metrics)  # sorted by name, as every pytree of a dict
  names = sorted(metrics, key=lambda name: (not name.startswith("loss"), name == "grad_norm"))
  return {name: float(metrics[name][0]) / max(float(metrics[name][1]), 1e-9) for name in names}


def _check_finite(task, state, step, train_step, mesh):
  """Raises NonFiniteLossError if the state stopped before `step`, with the facts of the step that broke."""
  good = int(jax.device_get(state.step))
  if good == step:
    return
  with jax.transfer_guard("allow"):
    batch = task.train.batch(good)
    _, metrics = train_step(state, sharding.put_batch(batch, mesh), *_clock(task, good, mesh))
    terms = ", ".join(f"{name} {value:g}" for name, value in _divide(metrics).items())
  names = task.train.names(batch["index"])
  shown = ", ".join(names[:16]) + (f" and {len(names) - 16} more" if len(names) > 16 else "")
  logging.error("records of the step that broke: %s", ", ".join(names))
  raise NonFiniteLossError(
    f"step {good + 1} gave a loss or gradient that is not finite: {terms}. Records of its batch: {shown}. "
    "The last checkpoint stays; lower config.base_lr, lengthen config.warmup_epochs or look at the records."
  )
