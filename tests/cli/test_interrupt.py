"""Ctrl-C ends a verb with one line and exit code 130, and leaves no half of its result."""

import os
import signal
import subprocess
import sys
import time


def test_an_interrupted_verb_says_so_in_one_line_and_leaves_no_folder(tmp_path):
  """A terminal sends SIGINT to all its processes, those that draw people, too."""
  command = [sys.executable, "-m", "hap_jax.cli", "prepare", "synthetic", f"--out={tmp_path / 'people'}"]
  process = subprocess.Popen(
    [*command, "--workers=2"],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )
  deadline = time.monotonic() + 100
  while not any(tmp_path.iterdir()) and time.monotonic() < deadline:  # it makes the folder under another name
    time.sleep(0.05)
  os.killpg(process.pid, signal.SIGINT)
  output, errors = process.communicate(timeout=100)
  assert (process.returncode, output, errors) == (130, "", "stopped by Ctrl-C\n")
  assert not any(tmp_path.iterdir())
