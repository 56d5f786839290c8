"""`hap train` hands its words to hap_jax.main: the same flags, errors, signals and exit codes."""

import os
import pathlib
import signal
import subprocess
import sys

import pytest

from hap_jax.train.preemption import EXIT_INTERRUPTED, EXIT_PREEMPTED

ROOT = pathlib.Path(__file__).resolve().parents[2]
TRAIN, MAIN = ("hap_jax.cli", "train"), ("hap_jax.main",)
# The training command reads this configuration after it installed its signal handlers.
WAITING = """
import time

def get_config():
  print("ready", flush=True)
  time.sleep(60)
"""


def start(program, *words, cwd):
  """Starts a program of this project in another folder, as the leader of its own process group."""
  env = {**os.environ, "PYTHONPATH": str(ROOT)}
  command = [sys.executable, "-m", *program, *words]
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  return subprocess.Popen(command, cwd=cwd, env=env, start_new_session=True, **pipes)


def end_of(process):
  output, errors = process.communicate(timeout=100)
  return process.returncode, output, errors


@pytest.mark.parametrize(
  "words",
  [
    ("--help",),
    ("--config=pretrain_dmo",),
    ("--config=pretrain_demo", "--config.lr=1"),
    ("--config=pretrain_demo", "word"),
    ("--no_such_flag",),
    (),
  ],
)
def test_the_words_have_the_same_effect_as_with_the_training_command(words, tmp_path):
  ends = [end_of(process) for process in [start(program, *words, cwd=tmp_path) for program in (TRAIN, MAIN)]]
  assert ends[0] == ends[1]
  code, output, errors = ends[0]
  assert code == 1
  assert ("--config.data.source=NAME" in output) if "--help" in words else (len(errors.splitlines()) == 1)


@pytest.mark.parametrize(
  ("signum", "code", "name"),
  [(signal.SIGTERM, EXIT_PREEMPTED, "SIGTERM"), (signal.SIGINT, EXIT_INTERRUPTED, "Ctrl-C")],
)
def test_a_signal_ends_it_with_the_exit_code_and_the_line_of_the_training_command(
  signum, code, name, tmp_path
):
  (tmp_path / "waiting.py").write_text(WAITING)
  process = start(TRAIN, "--config=waiting.py", "--workdir=run", cwd=tmp_path)
  assert process.stdout.readline() == "ready\n", process.communicate()
  os.killpg(process.pid, signum)
  line = f"stopped by {name} before the first step: there was nothing to save\n"
  assert end_of(process) == (code, "", line)
