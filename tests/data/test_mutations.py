"""Damaged files of every kind are read or give one clear error: no crash, no hang, little memory."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
# {kind of file: (number of files, limit of memory in MiB)}. A picture within the limit of pixels may take 2.5
# GiB.
KINDS = {
  "mat_files": (2000, 1024),
  "coco_files": (1400, 1024),
  "pictures": (1100, 2560),
  "packed_data_sets": (500, 1024),
  "claimed_sizes": (7, 400),
}


@pytest.mark.parametrize("share", [5, pytest.param(1, marks=pytest.mark.soak)])
def test_damaged_files_are_read_or_give_an_error(share, tmp_path):
  """Each kind is read in its own process, so that a crash fails the test and does not end pytest.

  By default, a fifth of the files is read. `make soak` reads all of them.
  """
  for kind, (whole, most_memory) in KINDS.items():
    count = max(whole // share, min(whole, 100))
    folder = tmp_path / kind
    folder.mkdir()
    words = [sys.executable, "-m", "tests.data.read_mutations", kind, str(count), str(folder)]
    done = subprocess.run(
      words, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=600, check=False
    )
    assert done.returncode == 0, f"{kind}: exit code {done.returncode}: {done.stderr[-2000:]}"
    found = json.loads(done.stdout.splitlines()[-1])
    print(kind, found)
    assert found["read"] + found["refused"] == count
    assert found["refused"] > count // 5
    assert found["MiB"] < most_memory, kind
