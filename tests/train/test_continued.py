"""A run that continues another run has its state and its step, and follows the new plan."""

import json
import os
import pathlib
import shutil
import signal

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

import hap_jax.tasks
from configs import common
from hap_jax import config as config_lib
from hap_jax import run as runner
from hap_jax.convert import lineage
from hap_jax.data import samplers
from hap_jax.data.continued_order import ContinuedOrder
from hap_jax.io import checkpoint_file
from hap_jax.tasks import base
from hap_jax.train import continued, optim, preemption
from hap_jax.train.loop import NonFiniteLossError
from hap_jax.train.report import read_metrics
from tests.recorded import record

RECORDS, BATCH, STEP = 32, 8, 4  # STEP of the earlier run is continued, after one epoch
PLAN = {"base_lr": 0.05, "batch_size": 16, "total_steps": 10}  # of the run that continues


@pytest.fixture(scope="module", autouse=True)
def line_task():
  with pytest.MonkeyPatch.context() as patch:
    folder = str(pathlib.Path(__file__).parent / "line_task")
    patch.setattr(hap_jax.tasks, "__path__", [*hap_jax.tasks.__path__, folder])
    yield


def line_config(**overrides):
  config = common.run("line")
  config.total_epochs, config.warmup_epochs, config.batch_size, config.eval_batch_size = 2.0, 0.0, BATCH, 8
  config.base_lr, config.weight_decay, config.optimizer = 0.1, 0.0, common.adamw(beta2=0.99)
  config.optimizer.clip_norm, config.ema_decay = 1.0, 0.5
  config.model, config.data = common.model("Mu"), common.data()
  config.data.source, config.data.workers, config.data.train_split = "synthetic", 0, "train"
  config.data.synthetic.num_train = RECORDS
  config.log_every, config.save_every, config.eval_every, config.total_steps = 1, 2, 3, 6
  config.keep_last = 9
  config.update_from_flattened_dict(overrides)
  return config_lib.finalize(config)


def train(workdir, say=lambda line: None, **overrides):
  runner.run(line_config(**overrides), workdir, say=say)
  return workdir


def read_state(workdir, step):
  """Returns all arrays of a checkpoint."""
  folder = workdir.resolve() / "checkpoints" / str(step) / "state"
  saved = ocp.PyTreeCheckpointHandler().metadata(folder).tree
  as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), saved)
  args = ocp.args.PyTreeRestore(item=saved, restore_args=as_numpy)
  return ocp.PyTreeCheckpointer().restore(folder, args=args)


def assert_same_state(one, other, step):
  states = [read_state(workdir, step) for workdir in (one, other)]
  assert len(jax.tree.leaves(states[0])) >= 8
  jax.tree.map(np.testing.assert_array_equal, *states)


def numbers(workdir):
  """Returns the rows of the metrics, without the numbers that depend on the speed of the machine."""
  speeds = ("images_per_s", "data_wait")
  return [{k: v for k, v in row.items() if k not in speeds} for row in read_metrics(workdir)]


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
  return train(tmp_path_factory.mktemp("runs") / "earlier")


@pytest.fixture(scope="module")
def longer(earlier):
  """Returns (workdir, lines) of a run that continues STEP of the earlier run, with another plan."""
  lines, workdir = [], earlier.parent / "longer"
  # The weights of config.init_from are not read, because config.continue_from has priority.
  train(workdir, lines.append, continue_from=f"{earlier}/{STEP}", init_from="none.pth", **PLAN)
  return workdir, lines


@pytest.mark.parametrize(
  ("path", "task", "message"),
  [
    ("best", "line", "holds only weights, without the moments of the optimizer"),
    ("5", "line", "no checkpoint of this step; .*/earlier has checkpoints of the steps 2, 4, 6"),
    ("../nothing", "line", "no checkpoint found; expected the workdir of a run"),
    ("", "reid", r"expected a run with config\.task='reid', found 'line'"),
  ],
)
def test_a_path_without_a_training_state_of_the_task_is_refused(earlier, path, task, message):
  with pytest.raises(ValueError, match=rf"config\.continue_from=.*: .*{message}"):
    continued.find(f"{earlier}/{path}", task)


def test_a_continued_run_takes_over_the_whole_state(earlier, longer):
  assert_same_state(earlier, longer[0], STEP)
  state = read_state(longer[0], STEP)
  assert int(state["step"]) == STEP
  for part in ("opt_state", "ema", "model_state"):
    assert any(np.any(x) for x in jax.tree.leaves(state[part])), part


def test_steps_and_progress_continue_with_the_new_learning_rate(longer):
  workdir, lines = longer
  rows = numbers(workdir)
  assert [row["step"] for row in rows] == list(range(STEP + 1, PLAN["total_steps"] + 1))
  per_epoch = RECORDS // PLAN["batch_size"]
  for row in rows:
    epochs = STEP * BATCH / RECORDS + (row["step"] - 1 - STEP) / per_epoch
    rate = optim.warmup_cosine(epochs, peak=PLAN["base_lr"], warmup=0.0, total=1 + 6 / per_epoch)
    assert row["lr"] == pytest.approx(float(rate), rel=1e-6)
  old = optim.warmup_cosine(1.0, peak=0.1, warmup=0.0, total=1.5)
  assert (
    f"  learning rate of the next step: {float(old):.4g} in that run, {rows[0]['lr']:.4g} in this run"
    in lines
  )
  assert any("config.batch_size 8 -> 16" in line and "config.base_lr 0.1 -> 0.05" in line for line in lines)
  assert any(f"{PLAN['total_steps'] - STEP} steps left after step {STEP}" in line for line in lines)


def test_the_data_order_starts_again_at_its_beginning():
  new = samplers.ShuffledEpochs(RECORDS, 16, seed=0)
  order = ContinuedOrder(new, first=7, epochs=1.75)
  for step in range(5):
    np.testing.assert_array_equal(order.indices(7 + step), new.indices(step))
    assert order.valid(7 + step).all()
  assert [order.epoch(7 + step) for step in range(5)] == [0, 0, 1, 1, 2]
  assert [order.first_step(epoch) for epoch in range(3)] == [7, 9, 11]
  assert [order.progress(7 + step) for step in range(3)] == [1.75, 2.25, 2.75]


def test_lineage_and_configuration_record_the_earlier_run(earlier, longer):
  recorded = json.loads((longer[0] / "config.json").read_text())
  assert recorded["continue_from"] == f"{earlier}/{STEP}"
  for step in (STEP, PLAN["total_steps"]):
    description = checkpoint_file.read_description(longer[0] / "checkpoints" / str(step))
    (origin,) = description["lineage"]
    assert (origin["step"], origin["continued"], origin["task"]) == (STEP, 1.0, "line")
    assert origin["file"] == str(earlier.resolve() / "checkpoints" / str(STEP))
  assert lineage.text(origin).startswith(
    f"{origin['file']} (hap_jax, task line, step 4, continued at epoch 1): "
  )
  assert (description["epochs"], description["lr"]) == (4.0, pytest.approx(0.0, abs=1e-9))


def test_an_interrupted_continued_run_ends_with_the_same_bits(earlier, longer, tmp_path):
  """The earlier run is deleted after the start, so the resumed run cannot read it."""
  shutil.copytree(earlier, tmp_path / "earlier")
  plan = {**PLAN, "continue_from": f"{tmp_path / 'earlier'}/{STEP}", "init_from": "none.pth"}

  def stop(line):
    if line.startswith("step  7/"):
      os.kill(os.getpid(), signal.SIGTERM)

  with pytest.raises(preemption.StoppedError):
    train(tmp_path / "run", stop, **plan)
  shutil.rmtree(tmp_path / "earlier")
  lines = []
  train(tmp_path / "run", lines.append, **plan)
  assert any(line.startswith("resuming at step") for line in lines)
  assert_same_state(longer[0], tmp_path / "run", PLAN["total_steps"])
  assert numbers(longer[0]) == numbers(tmp_path / "run")


def test_a_continued_run_can_be_continued(longer, tmp_path):
  workdir = train(tmp_path / "run", continue_from=f"{longer[0]}/8", total_steps=10, batch_size=8)
  assert_same_state(longer[0], workdir, 8)
  description = checkpoint_file.read_description(workdir)
  newer, older = description["lineage"]
  # Two epochs of batches of 16 after the first epoch, then two batches of 8 of 32 records.
  assert (newer["step"], newer["continued"], older["step"], older["continued"]) == (8, 3.0, STEP, 1.0)
  assert (description["step"], description["epochs"]) == (10, 3.5)


def test_epochs_count_from_the_beginning_of_the_earlier_run(earlier):
  config = line_config(total_steps=0, total_epochs=3.5, batch_size=16)
  start = continued.find(f"{earlier}/2", "line").start
  assert start.continued == (2, 0.5)
  task = config_lib.load("tasks", "line").make(config, start)
  assert task.total_steps == 2 + 3 * 2
  assert task.train.progress(task.total_steps) == 3.5


@pytest.mark.parametrize(
  ("overrides", "message"),
  [
    ({"total_steps": 4}, r"config\.total_steps=4: expected above 4, because it counts from the beginning"),
    ({"total_steps": 0, "total_epochs": 1.0}, r"config\.total_epochs=1\.0: expected at least a step above 1"),
    (
      {"model.patch": 32},
      r"these keys change the arrays of the state: config\.model\.patch was 16, now 32\.",
    ),
    ({"ema_decay": 0.0}, r"config\.ema_decay was 0\.5, now 0\.0"),
    ({"optimizer.kind": "sgd"}, r"config\.optimizer\.kind was 'adamw', now 'sgd'"),
    ({"optimizer.clip_norm": None}, r"config\.optimizer\.clip_norm was 1\.0, now None"),
    ({"data.train_split": "trainval"}, r"other classes"),
  ],
  ids=["total_steps", "total_epochs", "width", "average", "optimizer", "clipping", "classes"],
)
def test_a_plan_that_does_not_fit_is_refused_and_its_keys_are_named(earlier, tmp_path, overrides, message):
  with pytest.raises(ValueError, match=message):
    train(tmp_path / "run", **{**PLAN, **overrides}, continue_from=f"{earlier}/{STEP}")
  assert not (tmp_path / "run/config.json").exists()  # the workdir is free for another configuration


def test_a_refused_change_and_a_loss_that_is_not_finite_name_the_command(earlier, tmp_path):
  with pytest.raises(ValueError, match=rf"--config\.continue_from={earlier}"):
    train(earlier, total_steps=12)
  plan = {"total_steps": 12, "base_lr": 1e38, "optimizer.eps": 1e-30}
  advice = rf"checkpoint of step 6 .*--config\.continue_from={tmp_path}/next"
  with pytest.raises(NonFiniteLossError, match=advice):
    train(tmp_path / "next", continue_from=str(earlier), **plan)


def test_the_progress_of_an_older_checkpoint_is_computed_from_its_data():
  """Versions before this feature recorded neither progress nor learning rate."""
  workdir = record.FOLDER / "2026-11-30c" / "reid"
  found = continued.find(str(workdir), "reid")
  config = config_lib.finalize(config_lib.read_file(workdir / "config.json"))
  task = config_lib.load("tasks", "reid").make(config, base.FROM_SCRATCH)
  assert (found.step, found.epochs) == (2, task.train.progress(2))
  assert 0 < found.learning_rate == pytest.approx(float(task.schedule(2, found.epochs)))


def test_a_damaged_record_of_the_start_is_an_error():
  for origin in ({"step": "2", "continued": 1.0}, {"step": 2, "continued": float("nan")}):
    with pytest.raises(ValueError, match="the lineage of the checkpoint states"):
      _ = base.Start((origin,)).continued
