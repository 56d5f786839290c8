"""Runs jobs of launch/slurm.py on a real SLURM: they save, restart and end as docs/launch.md describes."""

import pathlib
import re
import subprocess
import sys
import time

import pytest

from hap_jax.train.report import read_metrics
from tests.soak import slurm_cluster

pytestmark = pytest.mark.soak

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = {
  "log_every": 1,
  "save_every": 100000,  # only SIGTERM and the end of the run save
  "eval_every": 0,
  "panel_every": 0,
  "baseline_records": 16,
  "batch_size": 8,
  "data.num_val": 0,
  "data.synthetic.num_train": 64,
  "data.synthetic.image_size": "(40,20)",
  "model.variant": "Mu",
  "model.image_size": "(32,16)",
  "model.decoder_width": 16,
  "model.decoder_depth": 1,
}
NODES = ("--nodes=2", "--gpus_per_node=0", "--cpus_per_task=1")


@pytest.fixture(scope="module")
def cluster(request):
  """Yields a running cluster. Its folder stays if a test fails."""
  if reason := slurm_cluster.missing():
    pytest.skip(reason)
  # After a failure the logs in the folder are needed.
  failed = request.session.testsfailed
  with slurm_cluster.Cluster() as cluster:
    yield cluster
  if request.session.testsfailed == failed:
    cluster.remove()


@pytest.fixture
def submit(cluster):
  """Returns a function that submits a job of launch/slurm.py and returns its number, workdir and log."""

  def submit(name, *flags, python=pathlib.Path(sys.executable).parent, time="10", **overrides):
    workdir, script = cluster.folder / name, cluster.folder / f"{name}.sbatch"
    words = [f"--config.{key.replace('__', '.')}={value}" for key, value in {**TINY, **overrides}.items()]
    done = subprocess.run(
      [
        *(sys.executable, "launch/slurm.py", "--config=configs/pretrain_demo.py", f"--workdir={workdir}"),
        *(f"--script={script}", f"--setup=PATH={python}:$PATH", f"--time={time}", "--submit"),
        *(*NODES, *flags, *words),
      ],
      cwd=ROOT,
      env={**cluster.env, "JAX_COMPILATION_CACHE_DIR": str(cluster.folder / "cache")},
      capture_output=True,
      text=True,
      check=True,
    )
    number = re.search(r"^Submitted batch job (\d+)$", done.stdout, re.MULTILINE)[1]
    return number, workdir, script.with_name(f"{name}-{number}.log")

  return submit


@pytest.fixture
def program(cluster):
  """Returns a function that writes a program named python for a job, and returns the program's folder.

  In the first run of a job, each task executes its line of bash. After a restart, all tasks exit with 0.
  """

  def write(name, *lines):
    folder = cluster.folder / f"{name}.bin"
    folder.mkdir()
    path = folder / "python"
    path.write_text(
      f"#!/bin/bash\n[ ${{SLURM_RESTART_COUNT:-0}} -gt 0 ] && exit 0\n"
      f"case $SLURM_PROCID in\n0) {lines[0]} ;;\n*) {lines[1]} ;;\nesac\n"
    )
    path.chmod(0o755)
    return folder

  return write


def steps(workdir):
  """Returns the logged steps."""
  return [row["step"] for row in read_metrics(workdir)] if (workdir / "metrics.jsonl").exists() else []


def saved(workdir):
  """Returns the steps of the checkpoints."""
  return sorted(int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*"))


def test_a_run_restarts_after_its_time_limit_and_reaches_its_end(cluster, submit):
  """Measures the speed in a short run, to choose a number of steps that takes longer than the time limit."""
  number, workdir, log = submit("short", total_steps=200)
  assert cluster.wait(lambda: len(steps(workdir)) > 10, 240), log.read_text()
  began, first = time.monotonic(), len(steps(workdir))
  job = cluster.wait_until_over(number, 300)
  assert (job["JobState"], job["Restarts"], job["ExitCode"]) == ("COMPLETED", "0", "0:0"), log.read_text()
  speed = (200 - first) / (time.monotonic() - began)
  total = 200 + int(150 * speed)

  # SIGTERM comes 60 to 90 s before the end of the 3 minutes.
  number, workdir, log = submit("long", "--signal_before=60", time="3", total_steps=total)
  job = cluster.wait_until_over(number, 1200)
  text = log.read_text()
  assert (job["JobState"], job["ExitCode"]) == ("COMPLETED", "0:0"), text
  assert int(job["Restarts"]) >= 1, f"{total} steps took less than the time limit\n{text}"
  resumed = [int(step) for step in re.findall(r"^resuming at step (\d+)", text, re.MULTILINE)]
  assert len(resumed) == int(job["Restarts"])
  assert steps(workdir) == list(range(1, total + 1))
  assert saved(workdir)[-1] == total
  print(f"{total} steps at {speed:.1f} per second; resumed at {resumed}")


def test_a_run_on_two_nodes_saves_after_sigterm_and_resumes_at_the_same_step(cluster, submit):
  number, workdir, log = submit("term", total_steps=60)
  assert cluster.wait(lambda: steps(workdir), 240), log.read_text()
  cluster.run("scancel", "--signal=TERM", number)
  job = cluster.wait_until_over(number, 400)
  text = log.read_text()
  assert (job["JobState"], job["Restarts"], job["ExitCode"]) == ("COMPLETED", "1", "0:0"), text
  assert re.search(r"^resuming at step \d+", text, re.MULTILINE)
  assert steps(workdir) == list(range(1, 61))


def test_a_cancelled_run_saves_and_does_not_restart(cluster, submit):
  number, workdir, log = submit("cancelled", total_steps=100000)
  assert cluster.wait(lambda: steps(workdir), 240), log.read_text()
  cluster.run("scancel", number)
  job = cluster.wait_until_over(number, 90)
  time.sleep(20)  # a requeued job waits for 10 s
  assert cluster.job(number)["JobState"] == job["JobState"] == "CANCELLED", log.read_text()
  assert job["Restarts"] == "0"
  assert saved(workdir) == [steps(workdir)[-1]]
  assert f"job {number} is COMPLETING/None: it was cancelled" in log.read_text()


def test_a_job_with_one_failed_task_and_one_saved_task_fails(cluster, submit, program):
  # Exit code 42 is that of a task that saved after SIGTERM.
  number, _, log = submit("failed", python=program("failed", "sleep 1; exit 42", "exit 1"))
  job = cluster.wait_until_over(number, 60)
  time.sleep(20)
  assert cluster.job(number)["JobState"] == job["JobState"] == "FAILED", log.read_text()
  assert (job["Restarts"], job["ExitCode"]) == ("0", "1:0")


def test_a_save_may_end_after_the_time_limit_if_it_is_within_killwait(cluster, submit, program):
  # Each task ignores SIGTERM until the time limit is over, and then needs three more seconds.
  waits = "trap : TERM; until squeue -h -j $SLURM_JOB_ID -o %T/%r | grep -q COMPLETING/TimeLimit; "
  waits += "do sleep 1; done; sleep 3; exit 42"
  number, _, log = submit("slow", "--signal_before=20", time="1", python=program("slow", waits, waits))
  job = cluster.wait_until_over(number, 240)
  assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), log.read_text()


def test_a_preempted_job_restarts(cluster, submit, program):
  waits = "trap 'exit 42' TERM; touch $0.started; while true; do sleep 1; done"
  folder = program("preempted", waits, waits)
  number, _, log = submit("preempted", "--partition=low", "--cpus_per_task=8", python=folder)
  assert cluster.wait((folder / "python.started").exists, 60), log.read_text()
  time.sleep(2)
  # A job of the partition with priority takes both nodes.
  cluster.run("sbatch", "--nodes=2", "--exclusive", "--partition=toy", "--output=/dev/null", "--wrap=sleep 1")
  job = cluster.wait_until_over(number, 120)
  assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), log.read_text()
