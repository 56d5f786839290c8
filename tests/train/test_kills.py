"""The short version of tests/soak/test_reliability.py: kills and damage of a run that only saves."""

import multiprocessing
import time

import numpy as np

from tests import kills
from tests.train import saving_run

TOTAL = 6
KILLS = kills.plan(3, 5, 3, np.random.default_rng(0))


class Process:
  """Runs `saving_run.run` in a new process. Has the methods of a Popen that `kills.survive` uses."""

  def __init__(self, context, workdir):
    self._process = context.Process(target=saving_run.run, args=(workdir, TOTAL))
    self._process.start()
    self.pid = self._process.pid

  @property
  def returncode(self):
    return self._process.exitcode

  def poll(self):
    return self._process.exitcode

  def communicate(self, timeout=None):
    self._process.join(timeout)
    return "", None


def test_runs_that_are_killed_while_they_save_end_with_the_same_bits(tmp_path):
  # The server imports the modules once, and each run is a copy of it.
  context = multiprocessing.get_context("forkserver")
  context.set_forkserver_preload(["tests.train.saving_run"])
  kills.finish([Process(context, tmp_path / "first")])
  begun = time.monotonic()
  kills.finish([Process(context, tmp_path / "whole")])
  seconds = time.monotonic() - begun
  rng = np.random.default_rng(1)
  workdirs, result = kills.survive(
    lambda workdir: [Process(context, workdir)], tmp_path, KILLS, rng, seconds, per_run=8
  )
  for workdir in workdirs:
    kills.assert_same(workdir, tmp_path / "whole")
  assert result.kills == len(KILLS)
  assert result.in_a_save >= 2
  assert result.damaged
