"""A signal makes a run save and stop, and the run resumes with other devices and processes."""

import os
import shutil
import signal
import sys
import time

import jax
import numpy as np
import pytest

from hap_jax import run as runner
from hap_jax.io import checkpoint_file
from hap_jax.train import optim, preemption
from hap_jax.train.report import read_metrics
from tests import programs

EPS = 1.2e-7  # machine epsilon of float32
SAVED, LAST = 3, 8  # step of the checkpoint to resume from, and last step to compare


@pytest.fixture(scope="module")
def endless(tiny_overrides):
  """Returns the overrides of a run that is too long to end without a signal."""
  run = {"total_steps": 5000, "save_every": 3, "base_lr": 3e-2, "keep_last": 9}
  return {**tiny_overrides, **run}


@pytest.fixture(scope="module")
def ended(endless, tiny_config, tmp_path_factory):
  """Returns the workdir of a run that got SIGTERM at step LAST. Eight devices split its parameters."""
  workdir = tmp_path_factory.mktemp("runs") / "eight"
  config = tiny_config(**{**endless, "mesh.fsdp": 8, "mesh.data": 1})

  def say(line):
    if f" {LAST}/" in line:
      os.kill(os.getpid(), signal.SIGTERM)
    assert f" {LAST + 9}/" not in line, "the run ignored the signal"

  before = signal.getsignal(signal.SIGTERM)
  with pytest.raises(preemption.StoppedError, match=rf"stopped by SIGTERM: step {LAST + 1} is saved"):
    runner.run(config, workdir, say)
  assert signal.getsignal(signal.SIGTERM) is before
  return workdir


def losses(workdir):
  return {row["step"]: row["loss"] for row in read_metrics(workdir) if "loss" in row}


def copy_at(workdir, step, to):
  """Copies a workdir, but without the checkpoints and metrics rows after `step`."""
  shutil.copytree(workdir, to)
  for folder in (to / "checkpoints").iterdir():
    if int(folder.name) > step:
      shutil.rmtree(folder)
  rows = (to / "metrics.jsonl").read_text().splitlines(keepends=True)
  (to / "metrics.jsonl").write_text("".join(rows[:step]))
  return to


def start(workdir, overrides, devices, extra=()):
  """Starts the training command in a new session, so that its process group can get signals."""
  command = [
    sys.executable,
    "-m",
    "hap_jax.main",
    "--config=configs/pretrain_demo.py",
    f"--workdir={workdir}",
  ]
  command += [f"--config.{key}={value}" for key, value in overrides.items()]
  return programs.start([*command, *extra], devices=devices)


def start_two(workdir, overrides):
  """Starts two processes of one run with four devices each."""
  return [start(workdir, overrides, 4, flags) for flags in programs.joined(2)]


def finish(*processes):
  """Returns the exit code and the output of each process."""
  outputs = [process.communicate(timeout=300)[0] for process in processes]
  return [process.returncode for process in processes], outputs


def wait_for(step, workdir, *processes):
  deadline = time.monotonic() + 300
  while step not in losses(workdir) and time.monotonic() < deadline:
    if any(process.poll() is not None for process in processes):
      for process in processes:
        process.kill()  # if one has ended, the other would wait for it
      pytest.fail("\n".join(process.communicate()[0] for process in processes))
    time.sleep(0.1)


def assert_same_losses(one, other):
  steps = range(SAVED + 1, LAST + 1)
  np.testing.assert_allclose([losses(other)[i] for i in steps], [losses(one)[i] for i in steps], rtol=1e-5)


@pytest.mark.soak
@pytest.mark.parametrize(
  ("signum", "name", "code"),
  [
    (signal.SIGTERM, "SIGTERM", preemption.EXIT_PREEMPTED),
    (signal.SIGINT, "Ctrl-C", preemption.EXIT_INTERRUPTED),
  ],
)
def test_a_run_of_eight_devices_resumes_on_four(endless, ended, tmp_path, signum, name, code):
  """The whole process group gets the signal: SIGTERM as from SLURM, or SIGINT as from a terminal."""
  workdir = copy_at(ended, SAVED, tmp_path / "four")
  process = start(workdir, {**endless, "data.workers": 1}, 4)
  wait_for(LAST, workdir, process)
  os.killpg(process.pid, signum)
  codes, (output,) = finish(process)
  assert codes == [code], output
  assert f"resuming at step {SAVED}" in output
  assert_same_losses(ended, workdir)
  step = checkpoint_file.read(workdir)[1]["step"]
  assert output.splitlines()[-1].startswith(f"stopped by {name}: step {step} is saved")


@pytest.mark.soak
def test_a_run_of_one_process_resumes_in_two_and_one_signal_stops_both(endless, ended, tmp_path):
  """A SIGINT to one process becomes a SIGTERM for both."""
  workdir = copy_at(ended, SAVED, tmp_path / "two")
  pair = start_two(workdir, {**endless, "mesh.fsdp": 4, "align_block": 3, "panel_every": 5, "eval_every": 2})
  wait_for(LAST, workdir, *pair)
  pair[1].send_signal(signal.SIGINT)
  codes, outputs = finish(*pair)
  assert codes == [preemption.EXIT_PREEMPTED, preemption.EXIT_INTERRUPTED], outputs
  assert_same_losses(ended, workdir)
  assert (workdir / "panels" / "reconstruction_00000005.png").exists()
  step = checkpoint_file.read(workdir)[1]["step"]
  assert f"stopped by SIGTERM: step {step} is saved" in outputs[0]
  # Evaluations also took place: there, both processes check for a signal before each batch.
  assert sum("val_ratio" in row for row in read_metrics(workdir)) >= (LAST - SAVED) // 2


@pytest.mark.soak
def test_two_processes_compute_the_same_steps_as_one(tiny_overrides, tiny_config, tmp_path):
  """Both runs make five steps of plain SGD. The first learning rate is 0.1."""
  sgd = {**tiny_overrides, "total_steps": 5, "optimizer.kind": "sgd", "base_lr": 0.1 * 256 / 8}
  sgd |= {"warmup_epochs": 0.0, "data.num_val": 0, "panel_every": 0}
  pair = start_two(tmp_path / "two", {**sgd, "mesh.fsdp": 2, "align_block": 3})
  config = tiny_config(**sgd, **{"mesh.data": 8})
  runner.run(config, tmp_path / "one", lambda line: None)
  codes, outputs = finish(*pair)
  assert codes == [0, 0], outputs

  from hap_jax.tasks import pretrain as pretrain_task

  first = jax.jit(pretrain_task.make(config).init)(jax.random.key(config.seed))
  params = [checkpoint_file.read(tmp_path / name)[0]["params"] for name in ("one", "two")]
  for (path, start_value), one, two in zip(
    jax.tree_util.tree_leaves_with_path(first["params"]), *map(jax.tree.leaves, params), strict=True
  ):
    bound = 1e-5 * np.abs(one - start_value).max() + 2 * EPS * np.abs(one).max()
    assert np.abs(one - two).max() <= bound, optim.path_name(path)
