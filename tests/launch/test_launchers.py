"""Launchers: their command line, their calls of srun, sbatch and gcloud, and the exit codes of local.sh."""

import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from launch import command, slurm

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCHERS = {
  "local.sh": ("launch/local.sh",),
  "slurm.py": (sys.executable, "launch/slurm.py"),
  "xmanager.py": (sys.executable, "launch/xmanager.py"),
  "tpu_vm.sh": ("launch/tpu_vm.sh",),
}
RUN = ("--config=configs/pretrain_demo.py", "--workdir=runs/it's here", "--config.model.image_size=(384,128)")
LINE = [*("python", "-m", "hap_jax.main"), *RUN]

# Replaces the training program: it records its flags. The name of its workdir selects its behaviour.
PROGRAM = """
import pathlib, signal, sys, time
flags = dict(word.split("=", 1) for word in sys.argv[1:])
rank, folder = flags.get("--process_id", "0"), pathlib.Path(flags["--workdir"])
def stop(*_):
  (folder / f"stopped{rank}").touch()
  sys.exit(7 if folder.name == "breaks" and rank == "1" else 42)
signal.signal(signal.SIGTERM, signal.SIG_IGN if folder.name == "deaf" else stop)
(folder / f"flags{rank}.part").write_text("\\n".join(sys.argv[1:]))
(folder / f"flags{rank}.part").rename(folder / f"flags{rank}")
if folder.name == "fails" and rank == "1":
  sys.exit(7)
if folder.name != "ends":
  time.sleep(60)
"""


def launch(name, *words, **kwargs):
  return subprocess.run(
    [*LAUNCHERS[name], *words], cwd=ROOT, capture_output=True, text=True, timeout=60, **kwargs
  )


def wait_for(*paths):
  deadline = time.monotonic() + 30
  while not all(path.exists() for path in paths):
    assert time.monotonic() < deadline, f"not all of {paths} were written"
    time.sleep(0.05)


@pytest.fixture
def interpreter(tmp_path, monkeypatch):
  """Sets PYTHON to a program that runs PROGRAM instead of `-m hap_jax.main`, and this Python otherwise."""
  program, path = tmp_path / "program.py", tmp_path / "python"
  program.write_text(PROGRAM)
  me = shlex.quote(sys.executable)
  path.write_text(f'#!/bin/bash\n[ "$1" = -m ] && shift 2 && exec {me} -S {program} "$@"\nexec {me} "$@"\n')
  path.chmod(0o755)
  monkeypatch.setenv("PYTHON", str(path))


@pytest.mark.parametrize("name", LAUNCHERS)
def test_every_launcher_prints_the_same_command_in_a_dry_run(name):
  done = launch(name, *RUN, "--dry_run")
  assert (done.returncode, done.stderr) == (0, "")
  # The workdir has a blank and a quote, so this also checks the quoting.
  assert done.stdout == shlex.join(LINE) + "\n"


@pytest.mark.parametrize("name", LAUNCHERS)
def test_bad_flags_are_one_line_errors(name):
  for words, message in (
    (RUN[:1], "--workdir is missing"),
    (RUN[1:], "--config is missing"),
    (("--config=configs/none.py", RUN[1]), "--config=configs/none.py: no such file"),
    ((RUN[0], "--workdir=gs://bucket/run"), "--workdir=gs://bucket/run: expected a folder"),
    ((*RUN, "--wrokdir=x"), "--wrokdir=x: expected"),
  ):
    done = launch(name, *words)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_command_accepts_flags_in_any_order_but_only_as_single_words():
  words = command.build([RUN[2], "--verbosity=0", RUN[1], RUN[0]])
  assert words == [*LINE[:5], RUN[2], "--verbosity=0"]
  assert command.run_name(words) == "it's here"
  assert command.build(["--config=configs/pretrain_demo.py:tiny", "--workdir=w/"])[3].endswith(":tiny")
  with pytest.raises(ValueError, match=r"write --config\.seed=VALUE"):
    command.build([*RUN, "--config.seed", "1"])


def test_the_sbatch_script_has_its_directives_and_is_submitted(tmp_path, recorder):
  sbatch, script = recorder("sbatch", "echo Submitted batch job 17"), tmp_path / "slurm" / "a.sbatch"
  flags = ("--nodes=2", "--gpus_per_node=4", "--cpus_per_task=6", "--time=1:00:00", "--signal_before=300")
  done = launch(
    "slurm.py",
    *RUN,
    *flags,
    "--partition=gpu",
    f"--script={script}",
    "--job_name=a",
    "--submit",
    "--setup=true",
  )
  assert (done.returncode, done.stdout) == (0, f"wrote {script}\nSubmitted batch job 17\n")
  assert sbatch() == [[str(script)]]
  found = re.findall(r"^#SBATCH --(.*)$", script.read_text(), re.MULTILINE)
  assert set(found) == {
    *("job-name=a", f"output={script.parent}/a-%j.log", "open-mode=append", "requeue", "signal=TERM@300"),
    *("nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "cpus-per-task=6", "time=1:00:00", "partition=gpu"),
  }
  assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
  # A second call must not overwrite the script.
  again = launch("slurm.py", *RUN, f"--script={script}", "--job_name=b")
  assert again.returncode == 1
  assert f"{script} exists" in again.stderr
  assert "job-name=a" in script.read_text()


def test_slurm_refuses_wrong_directive_values_and_numbers():
  for words, message in (
    (RUN, "a directive (#SBATCH --job-name) cannot contain blanks"),
    ((*RUN, "--job_name=a", "--nodes=0"), "--nodes=0: expected 1 or more"),
    ((*RUN, "--nodes=two"), "argument --nodes: invalid int value"),
  ):
    done = launch("slurm.py", *words)
    assert done.returncode == 1
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_submit_without_sbatch_is_an_error_but_the_script_stays(tmp_path, monkeypatch):
  monkeypatch.setenv("PATH", str(tmp_path))
  script = tmp_path / "a.sbatch"
  with pytest.raises(ValueError, match="sbatch is not on this machine"):
    slurm.main([*RUN, f"--script={script}", "--job_name=a", "--submit"])
  assert script.exists()


@pytest.mark.parametrize("create", [True, False])
def test_tpu_vm_creates_a_vm_copies_the_code_and_starts_the_run_on_all_workers(create, recorder, tmp_path):
  kept = tmp_path / "kept.tar.gz"
  gcloud = recorder("gcloud", f'[ "$4" = scp ] && cp "$5" {kept}; exit 0')
  made = ("--accelerator_type=v5litepod-16",) if create else ()
  done = launch("tpu_vm.sh", *RUN, "--name=vm", "--zone=z", "--project=p", *made)
  assert (done.returncode, done.stderr) == (0, "")
  calls = gcloud()
  assert all(call[:3] == ["compute", "tpus", "tpu-vm"] for call in calls)
  assert all(call[-2:] == ["--zone=z", "--project=p"] for call in calls)
  assert [call[3] for call in calls] == ["create"] * create + ["scp", "ssh"]
  if create:
    assert calls[0][4:7] == ["vm", "--accelerator-type=v5litepod-16", "--version=tpu-ubuntu2204-base"]
  assert calls[-2][5:7] == ["vm:", "--worker=all"]
  assert calls[-1][4:6] == ["vm", "--worker=all"]
  remote = calls[-1][6].removeprefix("--command=")
  assert remote.splitlines()[-1] == "exec " + shlex.join(LINE)
  assert subprocess.run(["bash", "-n", "-c", remote], check=False).returncode == 0
  held = subprocess.run(["tar", "-tzf", kept], capture_output=True, text=True, check=True).stdout.split()
  assert {"hap_jax/main.py", "configs/pretrain_demo.py", "requirements.txt"} <= set(held)
  assert not [path for path in held if "__pycache__" in path]


def test_tpu_vm_needs_a_name_and_stops_at_the_first_failure(recorder):
  assert "--name is missing" in launch("tpu_vm.sh", *RUN, "--zone=z").stderr
  # The first call of gcloud is the copy of the code, because no VM is created.
  gcloud = recorder("gcloud", "exit 3")
  done = launch("tpu_vm.sh", *RUN, "--zone=z", "--name=vm")
  assert (done.returncode, done.stderr) == (1, "error: cannot copy the code to the VM\n")
  assert len(gcloud()) == 1


def test_xmanager_is_imported_only_for_a_start_and_its_absence_is_an_error(tmp_path):
  if shutil.which("xmanager"):
    pytest.skip("XManager is installed here")
  for where in (("--where=local",), ("--where=slurm", "--ssh=me@host", "--image=i")):
    done = launch("xmanager.py", *RUN, *where)
    assert done.returncode == 1
    assert done.stderr.startswith("error: xm")
    assert "requirements-launch.txt" in done.stderr
    assert done.stderr.count("\n") == 1
  assert (
    "--gpus has no effect with --where=local" in launch("xmanager.py", *RUN, "--gpus=2", "--dry_run").stderr
  )
  assert "--image is missing" in launch("xmanager.py", *RUN, "--where=slurm", "--ssh=me@host").stderr


def local(workdir, *words):
  workdir.mkdir()
  return [*LAUNCHERS["local.sh"], RUN[0], f"--workdir={workdir}", *words, RUN[2]]


def test_local_starts_processes_that_can_connect(tmp_path, interpreter):
  folder = tmp_path / "ends"
  done = subprocess.run(
    local(folder, "--num_processes=3"), cwd=ROOT, capture_output=True, text=True, timeout=60
  )
  assert (done.returncode, done.stderr) == (0, "")
  flags = [(folder / f"flags{rank}").read_text().splitlines() for rank in range(3)]
  meet = flags[0][3]
  assert re.fullmatch(r"--coordinator_address=127\.0\.0\.1:\d+", meet)
  for rank in range(3):
    given = [RUN[0], f"--workdir={folder}", RUN[2]]
    assert flags[rank] == [*given, meet, "--num_processes=3", f"--process_id={rank}"]


# There is no case with SIGINT and one process: Python then replaces the script and handles SIGINT itself.
@pytest.mark.parametrize(
  ("count", "number", "name", "status"),
  [
    (1, signal.SIGTERM, "waits", 42),
    (2, signal.SIGTERM, "waits", 42),
    (2, signal.SIGINT, "waits", 130),  # a launcher would start a run with exit code 42 again
    (2, signal.SIGINT, "breaks", 7),  # one of the processes fails during its save
  ],
)
def test_a_signal_reaches_all_local_processes_and_sets_the_exit_code(
  count, number, name, status, tmp_path, interpreter
):
  folder = tmp_path / name
  command = local(folder, f"--num_processes={count}")
  with subprocess.Popen(command, cwd=ROOT) as process:
    wait_for(*(folder / f"flags{rank}" for rank in range(count)))
    process.send_signal(number)
    assert process.wait(120) == status
  assert all((folder / f"stopped{rank}").exists() for rank in range(count))


@pytest.mark.soak  # the result depends on the time between the signals, which a busy machine changes
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 128 + signal.SIGKILL), (signal.SIGINT, 130)])
def test_a_second_signal_kills_processes_that_ignore_the_first(number, status, tmp_path, interpreter):
  folder = tmp_path / "deaf"
  with subprocess.Popen(local(folder, "--num_processes=2"), cwd=ROOT) as process:
    wait_for(*(folder / f"flags{rank}" for rank in range(2)))
    process.send_signal(number)
    time.sleep(0.6)
    process.send_signal(number)  # so soon after the first signal that it does not count
    time.sleep(2.4)
    assert process.poll() is None
    process.send_signal(number)
    assert process.wait(120) == status


def test_a_failed_local_process_ends_the_others_and_sets_the_exit_code(tmp_path, interpreter):
  folder = tmp_path / "fails"
  began = time.monotonic()
  done = subprocess.run(local(folder, "--num_processes=2"), cwd=ROOT, capture_output=True, timeout=60)
  assert done.returncode == 7
  assert time.monotonic() - began < 30  # the other process would have slept for a minute
  assert not (folder / "stopped0").exists()


def test_local_prints_one_command_per_process_in_a_dry_run():
  lines = launch("local.sh", *RUN, "--num_processes=2", "--port=1234", "--dry_run").stdout.splitlines()
  meet = ["--coordinator_address=127.0.0.1:1234", "--num_processes=2"]
  assert [shlex.split(line) for line in lines] == [
    [*LINE, *meet, f"--process_id={rank}"] for rank in range(2)
  ]
  assert "--num_processes=0: expected" in launch("local.sh", *RUN, "--num_processes=0").stderr
