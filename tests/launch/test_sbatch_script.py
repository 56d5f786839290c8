"""The batch script of launch/slurm.py: its exit code, and the cases in which it requeues its job."""

import signal
import subprocess

import pytest

from tests.launch.test_launchers import LINE, RUN, launch, wait_for


@pytest.fixture
def batch(tmp_path, recorder, monkeypatch):
  """Returns a function that writes the sbatch script of RUN and returns its path.

  By default, squeue prints RUNNING/None.
  """
  recorder("squeue", "echo RUNNING/None")
  monkeypatch.setenv("SLURM_JOB_ID", "17")

  def write(*words):
    script = tmp_path / "a.sbatch"
    assert launch("slurm.py", *RUN, f"--script={script}", "--job_name=a", *words).returncode == 0
    return script

  return write


def run_batch(script):
  return subprocess.run(["bash", script], cwd=script.parent, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(("status", "requeued"), [(0, []), (42, [["requeue", "17"]]), (1, [])])
def test_the_sbatch_script_calls_srun_and_requeues_only_after_42(status, requeued, recorder, batch):
  srun, scontrol = recorder("srun", f"echo $SETTING; exit {status}"), recorder("scontrol")
  ran = run_batch(batch("--setup=export SETTING='set up'"))
  assert (ran.returncode, ran.stdout) == (status, "set up\n")
  # The words before the command are options of srun and the shell of the task.
  assert [call[-len(LINE) :] for call in srun()] == [LINE]
  assert scontrol() == requeued


def test_the_sbatch_script_survives_sigterm_and_reads_the_exit_code_of_srun(tmp_path, recorder, batch):
  started = tmp_path / "started"
  recorder("srun", f"touch {started}; sleep 0.5; exit 42")
  scontrol = recorder("scontrol")
  with subprocess.Popen(["bash", batch()]) as process:
    wait_for(started)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 42
  assert scontrol() == [["requeue", "17"]]


@pytest.mark.parametrize(
  ("answer", "preempted", "requeued"),
  [
    ("RUNNING/None", "None", True),
    ("COMPLETING/TimeLimit", "None", True),
    ("COMPLETING/None", "2026-11-30T03:06:09", True),
    ("COMPLETING/None", "None", False),
    ("PENDING/BeginTime", "None", False),
  ],
)
def test_a_saved_job_is_requeued_only_if_it_was_not_cancelled(answer, preempted, requeued, recorder, batch):
  recorder("srun", "exit 42")
  squeue = recorder("squeue", f"echo {answer}")
  scontrol = recorder(
    "scontrol", f"echo '   PreemptEligibleTime=2026-11-30T03:06:02 PreemptTime={preempted}'"
  )
  ran = run_batch(batch())
  assert ran.returncode == 42
  assert squeue() == [["-h", "-j", "17", "-o", "%T/%r"]]
  assert [call for call in scontrol() if call[0] != "show"] == [["requeue", "17"]] * requeued
  assert ran.stderr == (
    "" if requeued else f"job 17 is {answer}: it was cancelled, or SLURM requeues it itself\n"
  )


def test_a_sigterm_to_all_processes_of_a_job_does_not_stop_the_requeue(recorder, batch):
  recorder("srun", "exit 42")
  # The programs send SIGTERM to themselves and survive only if they ignore it.
  recorder("squeue", "kill -TERM $$; echo COMPLETING/None")
  scontrol = recorder("scontrol", "kill -TERM $$; echo ' PreemptTime=2026-11-30T03:06:09'")
  assert run_batch(batch()).returncode == 42
  assert scontrol() == [["show", "job", "17"], ["requeue", "17"]]


def test_calls_of_a_busy_slurm_are_repeated(tmp_path, recorder, batch):
  """The first call of squeue and the first requeue fail, the second ones succeed."""
  recorder("srun", "exit 42")
  first = f'[ -e {tmp_path}/$(basename "$0") ] || {{ touch {tmp_path}/$(basename "$0"); exit 1; }}'
  pauses, scontrol = recorder("sleep"), recorder("scontrol", first)
  squeue = recorder("squeue", f"{first}; echo RUNNING/None")
  assert run_batch(batch()).returncode == 42
  assert (len(squeue()), len(scontrol()), len(pauses())) == (3, 2, 2)


def test_a_saved_job_ends_with_a_message_if_slurm_never_answers(recorder, batch):
  recorder("srun", "exit 42")
  pauses, scontrol, squeue = recorder("sleep"), recorder("scontrol"), recorder("squeue", "exit 1")
  ran = run_batch(batch())
  assert ran.returncode == 42
  assert scontrol() == []
  assert len(squeue()) == len(pauses()) == 4
  assert ran.stderr.startswith("job 17 is not requeued: SLURM does not answer")


# Replaces srun. As in the manual of SLURM, its exit code is the largest code of its tasks. A task that was
# killed by a signal has the code 128 + number of the signal.
SRUN = """while [[ $1 == --* ]]; do shift; done
largest=0
for ((rank = 0; rank < 2; rank++)); do
  SLURM_PROCID=$rank "$@"
  code=$?
  [ $code -gt $largest ] && largest=$code
done
exit $largest"""


@pytest.mark.parametrize(
  ("ends", "status"),
  [
    (("exit 0", "exit 0"), 0),
    (("exit 42", "exit 42"), 42),
    (("exit 42", "exit 0"), 42),
    (("exit 42", "exit 1"), 1),
    (("exit 41", "exit 42"), 41),
    (("exit 42", "exit 130"), 130),
    (("kill -KILL $$", "exit 42"), 128 + signal.SIGKILL),
    (("kill -SEGV $$", "exit 42"), 128 + signal.SIGSEGV),
    (("kill -TERM $PPID; exit 42", "exit 42"), 42),  # SLURM sends the signal also to the shell of a task
  ],
)
def test_the_exit_code_of_a_failed_task_has_priority_over_42(ends, status, recorder, batch):
  recorder("srun", SRUN)
  python = recorder("python", f'if [ "$SLURM_PROCID" = 0 ]; then {ends[0]}; fi; {ends[1]}')
  scontrol = recorder("scontrol")
  assert run_batch(batch()).returncode == status
  assert python() == [LINE[1:]] * 2
  assert scontrol() == [["requeue", "17"]] * (status == 42)
