"""A signal before the first step ends the program immediately, and a second Ctrl-C always ends it."""

import signal
import subprocess
import sys

import pytest

from hap_jax.train.preemption import EXIT_INTERRUPTED, EXIT_PREEMPTED

# The program waits at `work` until the test has sent its signals.
PROGRAM = """
import sys, time
from hap_jax.train import preemption
preemption.install()
{setup}
print("ready", flush=True)
{work}
"""
SLEEP = "time.sleep(60)"
# As in a compilation, the interpreter runs no signal handler during this call: ctypes releases the lock and
# does not check for signals.
LONG_CALL = "import ctypes; ctypes.CDLL(None).usleep(59_000_000)"
# Simulates a run that trains. It prints "ready" again after it received the first signal.
TRAINING = """
while not preemption._watch.reached():
  time.sleep(0.01)
print("ready", flush=True)
time.sleep(60)
"""


def run(work, *signals, setup="", ignore=False):
  """Starts the program and sends each signal when the program is ready.

  Returns:
    (exit code, lines on stderr).
  """
  command = [sys.executable, "-c", PROGRAM.format(setup=setup, work=work)]
  before = signal.getsignal(signal.SIGINT)
  signal.signal(signal.SIGINT, signal.SIG_IGN if ignore else before)  # new processes inherit SIG_IGN
  process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
  signal.signal(signal.SIGINT, before)
  for number in signals:
    assert process.stdout.readline() == "ready\n", process.communicate()
    process.send_signal(number)
  _, errors = process.communicate(timeout=50)
  return process.returncode, errors.splitlines()


@pytest.mark.parametrize(
  ("signum", "code", "name"),
  [(signal.SIGTERM, EXIT_PREEMPTED, "SIGTERM"), (signal.SIGINT, EXIT_INTERRUPTED, "Ctrl-C")],
)
def test_a_signal_before_the_first_step_ends_the_program_with_one_line(signum, code, name):
  found, errors = run(SLEEP, signum)
  assert (found, len(errors)) == (code, 1)
  assert f"stopped by {name} before the first step" in errors[0]


def test_a_signal_ends_the_program_during_a_long_compilation():
  code, errors = run(LONG_CALL, signal.SIGTERM, setup="preemption._PATIENCE_SECONDS = 0.2")
  assert (code, len(errors)) == (EXIT_PREEMPTED, 1)


def test_a_signal_ends_the_program_even_where_python_ignores_exceptions():
  # Python ignores exceptions in __del__, so a SystemExit that a handler raises there has no effect.
  setup = "class Deleted:\n  def __del__(self): time.sleep(2)\ndeleted = [Deleted()]"
  code, errors = run(f"deleted.clear()\n{SLEEP}", signal.SIGTERM, setup=setup)
  assert (code, len(errors)) == (EXIT_PREEMPTED, 1), errors


def test_a_second_ctrl_c_ends_a_run_that_trains():
  code, errors = run(TRAINING, signal.SIGINT, signal.SIGINT, setup="preemption._watch.began()")
  assert (code, errors) == (EXIT_INTERRUPTED, ["stopped by a second Ctrl-C: the last checkpoint is kept"])


def test_an_interrupt_that_the_parent_process_ignores_stays_ignored():
  """A shell makes background jobs ignore Ctrl-C."""
  code, errors = run("time.sleep(0.5)", signal.SIGINT, ignore=True)
  assert (code, errors) == (0, [])
