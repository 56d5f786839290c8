"""The loop saves before it evaluates, stops at a signal, and computes missing scores after a resume."""

import dataclasses
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax import sharding
from hap_jax.data.sources import base
from hap_jax.io import checkpoint_file
from hap_jax.train import loop, preemption
from hap_jax.train.checkpoint import Checkpoints
from hap_jax.train.report import read_metrics
from hap_jax.viz.curves import Guide, Mark, curves
from tests.train import regressor
from tests.train.regressor import make_task

# The run has six steps. Steps 3 and 6 are evaluated, and only the last step is saved.
CADENCE = loop.Cadence(log=1, save=100, evaluate=3, panel=0)


def train(workdir, *, cadence=CADENCE, lines=None, **task):
  """Trains the regressor on two devices. Returns {metric: float} of the last evaluation."""
  say = [].append if lines is None else lines.append
  return regressor.train(workdir, cadence=cadence, say=say, devices=jax.devices()[:2], **task)


def after_start(lines):
  """Returns the lines without the table at the start of a run. It ends with the checkpoints."""
  names = [line.split(" ")[0] for line in lines]
  return lines[names.index("checkpoints") + 1 :]


def logged_lines(workdir):
  return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def weights(folder):
  return checkpoint_file.read(folder)[0]["params"]["w"]


def once(action, at):
  """Returns a function that runs `action` at its first call with the value `at`."""
  left = [at]

  def call(index):
    if left == [index]:
      left.clear()
      action()

  return call


def send(signum):
  return lambda: os.kill(os.getpid(), signum)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "whole"
  train(workdir)
  return workdir


def test_a_scored_step_has_a_line_with_its_loss_and_one_with_its_scores(uninterrupted):
  lines = [line for line in logged_lines(uninterrupted) if line["step"] == 3]
  assert ["loss" in line for line in lines] == [True, False]
  assert lines[1].keys() == {"step", "val_error"}
  rows = read_metrics(uninterrupted)
  assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
  assert ["val_error" in row for row in rows] == [False, False, True, False, False, True]
  assert all("loss" in row for row in rows)


def test_no_step_is_lost_if_the_evaluation_after_the_last_step_fails(uninterrupted, tmp_path):
  def fail(rows):
    raise ValueError("gallery/0005.jpg: no such file")

  # The last step is saved before its evaluation, so the failed evaluation loses no step.
  with pytest.raises(ValueError, match="0005"):
    train(tmp_path / "run", score=fail, cadence=loop.Cadence(log=1, save=100, evaluate=6, panel=0))
  np.testing.assert_array_equal(weights(tmp_path / "run"), weights(uninterrupted))

  lines = []
  scores = train(tmp_path / "run", lines=lines)
  assert scores == {"val_error": read_metrics(uninterrupted)[-1]["val_error"]}
  assert read_metrics(tmp_path / "run")[-1]["val_error"] == scores["val_error"]
  assert "the best val_error" in "\n".join(lines)


@pytest.mark.parametrize(
  ("signum", "code", "name"),
  [
    (signal.SIGTERM, preemption.EXIT_PREEMPTED, "SIGTERM"),
    (signal.SIGINT, preemption.EXIT_INTERRUPTED, "Ctrl-C"),
  ],
)
def test_a_signal_between_the_batches_of_an_evaluation_stops_the_run(
  uninterrupted, tmp_path, signum, code, name
):
  read = []
  stop = once(send(signum), at=1)

  def read_held_out(index):
    read.append(index)
    stop(index)

  with pytest.raises(preemption.StoppedError, match=f"stopped by {name}: step 3 is saved") as stopped:
    train(tmp_path / "run", read_held_out=read_held_out)
  assert stopped.value.exit_code == code
  assert read == [0, 1]  # only the first of three batches of two records
  assert not any("val_error" in line for line in logged_lines(tmp_path / "run"))
  # Only a complete evaluation may select a best checkpoint.
  assert not (tmp_path / "run" / "best").exists()

  with pytest.raises(preemption.StoppedError, match="step 3 is saved"):
    train(tmp_path / "run", read_held_out=once(send(signum), at=3))  # a second signal, after the resume
  lines = []
  train(tmp_path / "run", lines=lines)
  lines = after_start(lines)
  assert lines[0] == "resuming at step 3"
  assert lines[1].startswith("step 3: val_error")  # the missing evaluation comes before step 4
  assert [line["step"] for line in logged_lines(tmp_path / "run")] == [1, 2, 3, 3, 4, 5, 6, 6]
  np.testing.assert_array_equal(weights(tmp_path / "run"), weights(uninterrupted))
  np.testing.assert_array_equal(weights(tmp_path / "run" / "best"), weights(uninterrupted / "best"))
  scores = [[row.get("val_error") for row in read_metrics(run)] for run in (uninterrupted, tmp_path / "run")]
  assert scores[0] == scores[1]


def test_after_a_signal_before_an_evaluation_the_next_start_computes_the_scores(tmp_path):
  read = []

  def say(line):
    if "step 2/6" in line:
      os.kill(os.getpid(), signal.SIGTERM)

  class Lines(list):
    append = staticmethod(say)

  with pytest.raises(preemption.StoppedError, match="step 3 is saved"):
    train(tmp_path, lines=Lines(), read_held_out=read.append)
  assert read == []
  train(tmp_path, read_held_out=read.append)
  assert [line["step"] for line in logged_lines(tmp_path)] == [1, 2, 3, 3, 4, 5, 6, 6]


def test_a_signal_during_the_evaluation_skips_the_pictures(tmp_path):
  drawn = []

  def score(rows):
    os.kill(os.getpid(), signal.SIGTERM)
    return {"val_error": 1.0}

  def draw(_):
    drawn.append(1)
    return {}

  every = loop.Cadence(log=1, save=100, evaluate=3, panel=3)
  with pytest.raises(preemption.StoppedError, match="step 3 is saved"):
    train(tmp_path, score=score, row_figures=draw, figures=draw, cadence=every)
  assert not drawn
  assert logged_lines(tmp_path)[-1] == {"step": 3, "val_error": 1.0}
  assert checkpoint_file.read(tmp_path / "best")[1]["step"] == 3
  # The scores were recorded before the stop, so the next start does not compute them again.
  lines = []
  train(tmp_path, lines=lines, row_figures=draw, figures=draw, cadence=every)
  assert "step 4/6" in after_start(lines)[1]
  assert len(drawn) == 2


def test_a_resumed_run_does_not_compute_recorded_scores_again(uninterrupted, tmp_path):
  every = loop.Cadence(log=1, save=3, evaluate=3, panel=0)
  train(tmp_path, cadence=every, total_steps=3)
  lines = []
  train(tmp_path, cadence=every, lines=lines)
  lines = after_start(lines)
  assert lines[0] == "resuming at step 3"
  assert "step 4/6" in lines[1]
  np.testing.assert_array_equal(weights(tmp_path), weights(uninterrupted))


def test_the_signal_handlers_of_a_caller_are_restored_after_the_run(tmp_path):
  before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
  train(tmp_path)
  assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_the_curves_of_a_run_show_the_guides_of_its_task(tmp_path):
  guides = {"val_error": Guide(Mark("zero", 14.0), Mark("fitted", 0.1))}
  train(tmp_path, guides=guides, total_steps=3)
  drawn, rows = base.read_image(tmp_path / "curves.png"), read_metrics(tmp_path)
  options = {"select": ("val_error", "min"), "title": tmp_path.name}
  np.testing.assert_array_equal(drawn, curves(rows, guides=guides, **options))
  assert (drawn != curves(rows, **options)).any()


def test_a_run_ends_with_its_scores_if_its_metrics_and_pictures_cannot_be_written(uninterrupted, tmp_path):
  run = tmp_path / "run"
  run.mkdir()
  (run / "metrics.jsonl").mkdir()  # also the user root cannot write these
  (run / "tensorboard").write_text("")
  (run / "panels").write_text("")
  lines, picture = [], {"panel": np.zeros((4, 4, 3), np.uint8)}
  cadence = loop.Cadence(log=1, save=100, evaluate=3, panel=3)
  scores = train(run, lines=lines, cadence=cadence, figures=lambda variables: picture)
  assert scores == {"val_error": read_metrics(uninterrupted)[-1]["val_error"]}
  assert any(line.startswith("step 6: val_error") for line in lines)
  np.testing.assert_array_equal(weights(run), weights(uninterrupted))


def test_a_batch_with_a_non_finite_loss_stops_the_run_and_the_earlier_state_is_kept(tmp_path):
  """Only the batch of step 5 has a NaN loss. The loop checks the loss at steps 4 and 6."""
  task = make_task()
  bad = task.train.batch(4)["index"]

  def loss(outputs, batch, *, key):
    total, metrics = task.loss(outputs, batch, key=key)
    # The records identify the batch, because a step does not see its own number.
    return jnp.where(jnp.all(batch["index"] == bad), jnp.nan, total), metrics

  broken, cadence = dataclasses.replace(task, loss=loss), loop.Cadence(log=6, save=4, evaluate=0, panel=0)
  mesh = sharding.make_mesh(devices=jax.devices()[:2])
  with Checkpoints(tmp_path, keep_last=3) as kept, pytest.raises(loop.NonFiniteLossError) as error:
    loop.run(broken, workdir=tmp_path, seed=0, mesh=mesh, checkpoints=kept, cadence=cadence, say=[].append)
  message = str(error.value)
  assert message.startswith("step 5 gave a loss or gradient that is not finite: loss nan, ")
  assert all(name in message for name in task.train.names(bad))
  assert checkpoint_file.read(tmp_path)[1]["step"] == 4
  assert np.isfinite(weights(tmp_path)).all()
