"""Damaged and hostile checkpoints are read or give one error: no code runs, no crash, little memory."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
MIB = 2**20


@pytest.mark.parametrize(("count", "seed"), [(2_000, 0), pytest.param(100_000, 1, marks=pytest.mark.soak)])
def test_no_damaged_checkpoint_runs_code_or_crashes_or_fills_the_memory(tmp_path, count, seed):
  """The files are read in another process, which ends with an error if reading one runs code."""
  words = [sys.executable, "-m", "tests.convert.read_mutations", str(count), str(seed), str(tmp_path)]
  done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
  assert done.returncode == 0, done.stderr[-2000:]
  found = json.loads(done.stdout.splitlines()[-1])
  print(found)
  assert found["read"] + found["refused"] == count
  assert found["read"] > count // 20  # a payload that becomes inert, or damage in numbers
  assert found["refused"] > count // 2
  assert found["bytes"] <= 64 * MIB + 16 * found["largest"]


def test_a_file_that_runs_code_is_noticed(tmp_path):
  """The program of the test above notices code that runs, so the test can fail."""
  program = """
import pathlib, pickle, sys
from tests.convert import read_mutations
def run(path):
  return pickle.loads(b"cos\\nsystem\\nX\\x04\\x00\\x00\\x00true\\x85R.") if "damaged" in str(path) else None
read_mutations.read_all = run
read_mutations.main(1, 0, sys.argv[1])
"""
  done = subprocess.run(
    [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
  )
  assert done.returncode == 1
  assert "os.system" in done.stderr
