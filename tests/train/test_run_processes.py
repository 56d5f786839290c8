"""Runs in separate processes: a run survives a kill and a signal, and two processes train like one process.

The regressor replaces the large tasks, because their tests of this kind are soak tests.
"""

import signal
import sys

import jax
import numpy as np
import pytest

from hap_jax.io import checkpoint_file, checkpoint_list
from hap_jax.train import preemption
from hap_jax.train.report import read_metrics
from tests import damage, programs
from tests.train import regressor

TOTAL, KILL_AT = 6, 5


def start(workdir, *options, devices=2):
  command = [sys.executable, "-m", "tests.train.regressor_run", str(workdir), *options]
  return programs.start(command, devices=devices)


def finish(*processes):
  outputs = [process.communicate(timeout=300)[0] for process in processes]
  return [process.returncode for process in processes], outputs


def train(workdir):
  """Trains in this process."""
  lines = []
  regressor.train(
    workdir, cadence=regressor.CADENCE, say=lines.append, devices=jax.devices()[:2], total_steps=TOTAL
  )
  return lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "whole"
  train(workdir)
  return workdir


def numbers(workdir):
  """Returns the rows of the metrics, without the numbers that depend on the speed of the machine."""
  speeds = ("images_per_s", "data_wait")
  return [{k: v for k, v in row.items() if k not in speeds} for row in read_metrics(workdir)]


def assert_same_end(one, other):
  weights = [checkpoint_file.read(workdir)[0]["params"]["w"] for workdir in (one, other)]
  np.testing.assert_array_equal(*weights)
  assert numbers(one) == numbers(other)


def test_a_killed_run_resumes_bit_for_bit(whole, tmp_path):
  codes, outputs = finish(start(tmp_path / "run", f"--kill_at={KILL_AT}"))
  assert codes == [-signal.SIGKILL], outputs
  lines = train(tmp_path / "run")
  # The kill may come before the newest checkpoint is complete, so the exact step varies.
  assert {"resuming at step 2", "resuming at step 4"} & set(lines)
  assert_same_end(whole, tmp_path / "run")


def test_a_signal_during_training_saves_and_the_run_resumes(whole, tmp_path):
  process = start(tmp_path / "run", "--total_steps=1000000")
  while " 3/1000000 " not in process.stdout.readline():
    assert process.poll() is None
  process.send_signal(signal.SIGTERM)
  codes, (output,) = finish(process)
  step = checkpoint_file.read(tmp_path / "run")[1]["step"]
  assert (codes, step > 2) == ([preemption.EXIT_PREEMPTED], True)
  assert output.splitlines()[-1].startswith(f"stopped by SIGTERM: step {step} is saved")
  assert numbers(whole)[:2] == numbers(tmp_path / "run")[:2]


def test_two_processes_train_like_one_process(whole, tmp_path):
  pair = [start(tmp_path / "two", *options, devices=1) for options in programs.joined(2)]
  codes, (first, second) = finish(*pair)
  assert codes == [0, 0], first + second
  assert "val_error" in first
  assert "step" not in second  # only the first process prints
  rows = [numbers(workdir) for workdir in (whole, tmp_path / "two")]
  for one, two in zip(*rows, strict=True):
    assert one.keys() == two.keys()
    np.testing.assert_allclose(list(two.values()), list(one.values()), rtol=1e-5)


def test_one_signal_stops_both_processes(tmp_path):
  """A SIGINT to one process becomes a SIGTERM for both."""
  pair = [
    start(tmp_path / "two", "--total_steps=1000000", *options, devices=1) for options in programs.joined(2)
  ]
  while " 3/1000000 " not in pair[0].stdout.readline():
    assert pair[0].poll() is None
  pair[1].send_signal(signal.SIGINT)
  codes, outputs = finish(*pair)
  assert codes == [preemption.EXIT_PREEMPTED, preemption.EXIT_INTERRUPTED], outputs
  step = checkpoint_file.read(tmp_path / "two")[1]["step"]
  assert f"stopped by SIGTERM: step {step} is saved" in outputs[0]


def start_pair(workdir):
  return [start(workdir, "--total_steps=1000000", *options, devices=1) for options in programs.joined(2)]


def read_until(text, process):
  lines = []
  while text not in "".join(lines[-1:]):
    lines.append(process.stdout.readline())
    assert process.poll() is None, "".join(lines)
  return lines


@pytest.mark.soak
def test_process_0_decides_about_damage_and_failed_saves_for_both_processes(tmp_path):
  workdir, away = tmp_path / "two", tmp_path / "away"
  pair = start_pair(workdir)
  read_until(" 9/1000000 ", pair[0])
  (workdir / "checkpoints").rename(away)
  (workdir / "checkpoints").write_text("")  # each save fails now
  read_until("was not saved", pair[0])
  read_until("step ", pair[0])  # the run continues
  pair[1].send_signal(signal.SIGTERM)
  codes, outputs = finish(*pair)
  assert codes == [1, 1], outputs
  for output in outputs:
    assert output.splitlines()[-1].startswith(f"error: {workdir}/checkpoints/")

  (workdir / "checkpoints").unlink()
  away.rename(workdir / "checkpoints")
  checkpoint_list.remove_leftovers(workdir / "checkpoints")
  newest, older = list(checkpoint_list.steps(workdir / "checkpoints"))[:2]
  damage.flip(damage.largest(workdir / f"checkpoints/{newest}"), np.random.default_rng(0))
  pair = start_pair(workdir)
  lines = read_until(f"resuming at step {older}", pair[0])
  assert any(f"It is kept as {newest}.damaged" in line for line in lines)
  read_until(f" {older + 1}/1000000 ", pair[0])
  pair[0].send_signal(signal.SIGTERM)
  codes, outputs = finish(*pair)
  assert codes == [preemption.EXIT_PREEMPTED] * 2, outputs
  step = checkpoint_file.read(workdir)[1]["step"]
  assert f"step {step} is saved" in outputs[0]
  assert checkpoint_list.find_whole(workdir / "checkpoints")[0].path.name == str(step)
