"""A second start in the workdir of a running run ends with one line that names the running run."""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys

import pytest

from hap_jax import config as config_lib
from hap_jax import run as runner
from hap_jax.cli.__main__ import main as hap
from hap_jax.io import folder_lock
from hap_jax.models import vit
from tests.recorded import record

ROOT = pathlib.Path(__file__).resolve().parents[2]
HELD = rf"another run uses this folder: process {os.getpid()} on {re.escape(socket.gethostname())}, since 20"


def test_a_second_start_changes_nothing_and_reading_needs_no_lock(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(vit, "VARIANTS", dict(vit.VARIANTS))
  record.shrink(vit.VARIANTS)
  workdir = tmp_path / "run"
  shutil.copytree(record.FOLDER / "2026-11-29" / "pretrain", workdir)
  with folder_lock.hold(workdir):
    before = sorted(workdir.rglob("*"))
    with pytest.raises(ValueError, match=HELD):
      runner.run(config_lib.finalize(record.config_of("pretrain")), workdir)
    assert hap(["describe", str(workdir)]) == 0
    assert sorted(workdir.rglob("*")) == before
  assert "step 2" in capsys.readouterr().out


def test_all_processes_of_a_second_start_end_with_exit_code_1(tmp_path):
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{probe.getsockname()[1]}"
  command = [sys.executable, "-m", "hap_jax.main", "--config=pretrain_demo", f"--workdir={tmp_path}"]
  command += [f"--coordinator_address={address}", "--num_processes=2"]
  env = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
  with folder_lock.hold(tmp_path):
    pair = [
      subprocess.Popen([*command, f"--process_id={i}"], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
      for i in range(2)
    ]
    errors = [process.communicate(timeout=300)[1] for process in pair]
  assert [process.returncode for process in pair] == [1, 1], errors
  for text in errors:
    assert re.search(rf"^error: {tmp_path}: {HELD}", text, re.MULTILINE), errors
  assert os.listdir(tmp_path) == ["run.lock"]
