"""Ctrl-C ends a command with one line and exit code 130, and leaves no incomplete result."""

import os
import signal
import subprocess
import sys
import time


def test_an_interrupted_command_prints_one_line_and_leaves_no_folder(tmp_path):
  """A terminal sends SIGINT to the whole process group, so also to the processes that draw people."""
  command = [sys.executable, "-m", "hap_jax.cli", "prepare", "synthetic", f"--out={tmp_path / 'people'}"]
  process = subprocess.Popen(
    [*command, "--workers=2"],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  deadline = time.monotonic() + 100
  # The command first makes its folder under a temporary name, so any entry shows that the work has started.
  while not any(tmp_path.iterdir()) and time.monotonic() < deadline:
    time.sleep(0.05)
  os.killpg(process.pid, signal.SIGINT)
  output, errors = process.communicate(timeout=100)
  assert (process.returncode, output, errors) == (130, "", "stopped by Ctrl-C\n")
  assert not any(tmp_path.iterdir())
