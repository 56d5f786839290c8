"""Only one run writes into a folder. The end of a process releases its lock, even after SIGKILL."""

import errno
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from hap_jax.io import folder_lock

ROOT = pathlib.Path(__file__).resolve().parents[2]
FAST = {"beat_s": 0.05, "silent_s": 0.4, "settle_s": 0.05}

# Keeps the lock of a folder until the end of its input. The second argument is "flock" or "heartbeat".
HOLDER = """
import errno, fcntl, sys
from hap_jax.io import folder_lock

def no_flock(*arguments):
  raise OSError(errno.ENOLCK, "No locks available")

flock = fcntl.flock if sys.argv[2] == "flock" else no_flock
with folder_lock.hold(sys.argv[1], flock=flock, beat_s=0.05, silent_s=0.4, settle_s=0.05):
  print("held", flush=True)
  sys.stdin.read()
"""


def no_flock(*_):
  raise OSError(errno.ENOLCK, "No locks available")  # as on NFS without its lock service


def start_holder(folder, kind):
  command = [sys.executable, "-c", HOLDER, str(folder), kind]
  pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
  holder = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
  assert holder.stdout.readline() == "held\n"
  return holder


def options(kind):
  return FAST | ({} if kind == "flock" else {"flock": no_flock})


@pytest.mark.parametrize("kind", ["flock", "heartbeat"])
def test_a_second_run_is_refused_and_a_kill_releases_the_lock_at_once(tmp_path, kind):
  holder = start_holder(tmp_path, kind)
  who = rf"another run uses this folder: process {holder.pid} on {re.escape(socket.gethostname())}, since 20"
  refused = pytest.raises(ValueError, match=rf"{tmp_path}: {who}.* give another --workdir")
  with refused, folder_lock.hold(tmp_path, **options(kind)):
    pass
  holder.send_signal(signal.SIGKILL)
  holder.wait()
  before = time.monotonic()
  with folder_lock.hold(tmp_path, **options(kind)):
    assert time.monotonic() - before < 0.3  # less than the time without a heartbeat
  holder.stdin.close()
  holder.stdout.close()


@pytest.mark.parametrize("kind", ["flock", "heartbeat"])
def test_the_lock_is_free_after_the_end_of_a_run_and_after_its_error(tmp_path, kind):
  with folder_lock.hold(tmp_path / "run", **options(kind)):
    pass
  with pytest.raises(KeyError), folder_lock.hold(tmp_path / "run", **options(kind)):
    raise KeyError
  with folder_lock.hold(tmp_path / "run", **options(kind)):
    assert os.listdir(tmp_path / "run") == ["run.lock"] + ["run.heartbeat"] * (kind == "heartbeat")


def write_owner(folder, **facts):
  owner = {"host": "node7", "process": 1, "since": "2026", "machine": "other", "began": "1", "token": "a"}
  (folder / folder_lock.HEARTBEAT_FILE).write_text(json.dumps(owner | facts))


def test_a_silent_owner_on_another_machine_loses_the_lock_after_the_waiting_time(tmp_path):
  write_owner(tmp_path)
  before = time.monotonic()
  with folder_lock.hold(tmp_path, flock=no_flock, **FAST):
    assert time.monotonic() - before >= FAST["silent_s"]
    owner = json.loads((tmp_path / folder_lock.HEARTBEAT_FILE).read_text())
    assert owner["process"] == os.getpid()
  assert not (tmp_path / folder_lock.HEARTBEAT_FILE).exists()


def test_a_process_with_the_number_of_an_ended_owner_does_not_have_the_lock(tmp_path):
  write_owner(tmp_path, machine=folder_lock._machine(), process=os.getpid(), began="1")
  before = time.monotonic()
  with folder_lock.hold(tmp_path, flock=no_flock, **FAST):
    assert time.monotonic() - before < FAST["silent_s"]


@pytest.mark.parametrize("text", ["", "{", '{"host": 1}', "[]"])
def test_a_damaged_heartbeat_file_does_not_block_a_run_for_ever(tmp_path, monkeypatch, text):
  monkeypatch.setattr(folder_lock, "_NAME_S", 0.05)
  (tmp_path / folder_lock.HEARTBEAT_FILE).write_text(text)
  with folder_lock.hold(tmp_path, flock=no_flock, **FAST):
    pass


def test_a_folder_that_cannot_be_made_is_an_error_of_one_line(tmp_path):
  (tmp_path / "file").write_text("")
  refused = pytest.raises(ValueError, match=r"file/run: the folder of the run cannot be written: .*--workdir")
  with refused, folder_lock.hold(tmp_path / "file" / "run"):
    pass
