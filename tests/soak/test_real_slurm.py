"""launch/slurm.py on a real SLURM: its jobs save, come back, stay away and end as docs/launch.md says."""

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
  "save_every": 100000,
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
  """A running cluster. Its folder stays if a test failed."""
  if reason := slurm_cluster.missing():
    pytest.skip(reason)
  failed = request.session.testsfailed
  with slurm_cluster.Cluster() as cluster:
    yield cluster
  if request.session.testsfailed == failed:
    cluster.remove()


@pytest.fixture
def submit(cluster):
  """Returns a function: submits a job of launch/slurm.py and returns its number, its workdir, its log."""

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
  """Returns a function: writes a program that stands in for python, and returns its folder.

  In the first turn of a job each task runs its line of bash. In later turns all end with 0.
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
  return [row["step"] for row in read_metrics(workdir)] if (workdir / "metrics.jsonl").exists() else []


def saved(workdir):
  return sorted(int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*"))


def test_a_run_comes_back_after_its_time_limit_and_reaches_its_end(cluster, submit):
  """A short run first: its speed gives a number of steps that takes longer than the time before SIGTERM."""
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
  print(f"{total} steps at {speed:.1f} a second; resumed at {resumed}")


def test_a_run_on_two_nodes_saves_after_sigterm_and_goes_on_where_it_was(cluster, submit):
  number, workdir, log = submit("term", total_steps=60)
  assert cluster.wait(lambda: steps(workdir), 240), log.read_text()
  cluster.run("scancel", "--signal=TERM", number)
  job = cluster.wait_until_over(number, 400)
  text = log.read_text()
  assert (job["JobState"], job["Restarts"], job["ExitCode"]) == ("COMPLETED", "1", "0:0"), text
  assert re.search(r"^resuming at step \d+", text, re.MULTILINE)
  assert steps(workdir) == list(range(1, 61))


def test_a_cancelled_run_saves_and_stays_ended(cluster, submit):
  number, workdir, log = submit("cancelled", total_steps=100000)
  assert cluster.wait(lambda: steps(workdir), 240), log.read_text()
  cluster.run("scancel", number)
  job = cluster.wait_until_over(number, 90)
  time.sleep(20)  # a requeued job waits for 10 s
  assert cluster.job(number)["JobState"] == job["JobState"] == "CANCELLED", log.read_text()
  assert job["Restarts"] == "0"
  assert saved(workdir) == [steps(workdir)[-1]]
  assert f"job {number} is COMPLETING/None: it was cancelled" in log.read_text()


def test_one_failed_task_beside_one_that_saved_ends_the_job(cluster, submit, program):
  number, _, log = submit("failed", python=program("failed", "sleep 1; exit 42", "exit 1"))
  job = cluster.wait_until_over(number, 60)
  time.sleep(20)
  assert cluster.job(number)["JobState"] == job["JobState"] == "FAILED", log.read_text()
  assert (job["Restarts"], job["ExitCode"]) == ("0", "1:0")


def test_a_save_that_ends_after_the_time_limit_is_in_time_within_killwait(cluster, submit, program):
  waits = "trap : TERM; until squeue -h -j $SLURM_JOB_ID -o %T/%r | grep -q COMPLETING/TimeLimit; "
  waits += "do sleep 1; done; sleep 3; exit 42"
  number, _, log = submit("slow", "--signal_before=20", time="1", python=program("slow", waits, waits))
  job = cluster.wait_until_over(number, 240)
  assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), log.read_text()


def test_a_job_that_gave_its_nodes_to_another_one_comes_back(cluster, submit, program):
  waits = "trap 'exit 42' TERM; touch $0.started; while true; do sleep 1; done"
  folder = program("preempted", waits, waits)
  number, _, log = submit("preempted", "--partition=low", "--cpus_per_task=8", python=folder)
  assert cluster.wait((folder / "python.started").exists, 60), log.read_text()
  time.sleep(2)
  cluster.run("sbatch", "--nodes=2", "--exclusive", "--partition=toy", "--output=/dev/null", "--wrap=sleep 1")
  job = cluster.wait_until_over(number, 120)
  assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), log.read_text()
