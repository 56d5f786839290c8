"""A run continues if a checkpoint cannot be saved, and ends with an error if the last state was not saved.

The fault is a file in place of the folder of the checkpoints. Each save fails until the folder exists again.
"""

import dataclasses
import signal
import time

import jax
import pytest

from hap_jax.io import checkpoint_list
from hap_jax.train import preemption
from hap_jax.train.checkpoint import UnsavedError
from tests.train import regressor


class Disk:
  """Makes the folder of the checkpoints unusable after the log line of one step, and repairs it later."""

  def __init__(self, workdir, fails_at, works_at=None, after_save=None, then=lambda: None):
    self.lines, self._folder, self._fails_at, self._works_at = [], workdir / "checkpoints", fails_at, works_at
    self._after_save, self._then = after_save, then

  def say(self, line):
    self.lines.append(line)
    if f" {self._fails_at}/" in line:
      while self._after_save and not (self._folder / str(self._after_save)).exists():
        time.sleep(0.01)  # the thread still saves this step
      self._folder.rename(self._folder.with_name("away"))
      self._folder.write_text("")
      self._then()
    if f" {self._works_at}/" in line:
      self.repair()

  def repair(self):
    self._folder.unlink()
    self._folder.with_name("away").rename(self._folder)


def train(workdir, disk, save=2):
  cadence = dataclasses.replace(regressor.CADENCE, save=save)
  return regressor.train(workdir, cadence=cadence, say=disk.say, devices=jax.devices()[:2])


def test_the_run_continues_and_the_next_save_tries_again(tmp_path):
  disk = Disk(tmp_path, fails_at=1, works_at=5)
  assert "val_error" in train(tmp_path, disk)
  failed = [line for line in disk.lines if "was not saved" in line]
  assert failed[0].startswith(f"{tmp_path}/checkpoints/2 was not saved: File exists (it needs")
  assert "best/3" not in str(failed)  # the best checkpoint is in another folder
  # The thread may try to save step 4 before or after the log line of step 5.
  assert list(checkpoint_list.steps(tmp_path / "checkpoints")) in ([6], [6, 4])


def test_a_last_save_that_fails_is_an_error_and_the_next_start_repeats_the_steps(tmp_path):
  disk = Disk(tmp_path, fails_at=5, after_save=4)
  with pytest.raises(UnsavedError, match="checkpoints/6 was not saved: File exists"):
    train(tmp_path, disk)
  disk.repair()
  again = Disk(tmp_path, fails_at=None)
  train(tmp_path, again)
  assert "resuming at step 4" in again.lines
  assert next(iter(checkpoint_list.steps(tmp_path / "checkpoints"))) == 6


def test_a_stopped_run_whose_state_cannot_be_saved_does_not_say_that_it_is_saved(tmp_path, monkeypatch):
  """The exit code is then 1 and not 42, because a start of the same command may fail again."""
  watch = preemption.StopSignals()
  monkeypatch.setattr(preemption, "_watch", watch)
  disk = Disk(tmp_path, fails_at=2, then=lambda: watch.handle(signal.SIGTERM))
  with pytest.raises(UnsavedError, match="checkpoints/3 was not saved"):
    train(tmp_path, disk, save=0)
