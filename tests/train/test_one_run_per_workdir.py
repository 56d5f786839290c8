"""A second start in the workdir of a running run ends with one line that names the running run."""

import os
import re
import shutil
import socket
import sys

import pytest

from hap_jax import config as config_lib
from hap_jax import run as runner
from hap_jax.cli.__main__ import main as hap
from hap_jax.io import folder_lock
from hap_jax.models import vit
from tests import programs
from tests.recorded import record

SECOND_START = """
import sys
from hap_jax import distributed
from hap_jax.io import folder_lock

address, number, folder = sys.argv[1:]
distributed.join_processes(address, 2, int(number))
try:
  with distributed.entered_by_first_process(folder_lock.hold(folder)):
    print("entered")
except ValueError as error:
  print(error)
"""
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


def test_all_processes_of_a_second_start_name_the_run_that_uses_the_workdir(tmp_path):
  address = programs.free_address()
  with folder_lock.hold(tmp_path):
    commands = [[sys.executable, "-c", SECOND_START, address, str(i), str(tmp_path)] for i in range(2)]
    pair = [programs.start(command, devices=1) for command in commands]
    outputs = [process.communicate(timeout=300)[0] for process in pair]
  for output in outputs:
    assert re.search(rf"^{tmp_path}: {HELD}", output, re.MULTILINE), outputs
  assert os.listdir(tmp_path) == ["run.lock"]
