"""Damaged and hostile pictures end in a BadRecordError or a picture, in little time and memory."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
COUNT = 600

_CHILD = """
import json, resource, sys, time
from hap_jax.data.sources import base
from hap_jax.io import picture_header
from tests.data import mutations_pictures
from tests.io.test_picture_header import claiming

def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # MiB

sides = [(kind, side) for kind in ("JPEG", "PNG", "BMP") for side in (60_000, 30_000)]
files = [(f"{kind} {side}", claiming(kind, side, side)) for kind, side in sides]
files.append(("WebP", claiming("WebP, lossy", 16_383, 16_383)))
start, found, slowest = peak(), {}, 0.0
for name, data in (*files, *mutations_pictures.cases(int(sys.argv[1]), seed=0)):
  print(name, file=sys.stderr, flush=True)
  began = time.monotonic()
  try:
    image = base.decode_image(data, name)
    assert image.shape == (*picture_header.read_header(data)[:2], 3)
    found["picture"] = found.get("picture", 0) + 1
  except base.BadRecordError as error:
    assert str(error).startswith(name)
    found["bad record"] = found.get("bad record", 0) + 1
  slowest = max(slowest, time.monotonic() - began)
  if name == "WebP":
    claimed = peak() - start
print(json.dumps({"found": found, "slowest": slowest, "peak": peak(), "claimed": claimed}))
"""


@pytest.fixture(scope="module")
def result():
  """Reads all files in a child process, so that a crash of a decoder fails a test and does not end pytest."""
  words = [sys.executable, "-c", _CHILD, str(COUNT)]
  done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=300)
  assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr[-2000:]}"
  return json.loads(done.stdout)


def test_damaged_pictures_are_bad_records_or_pictures(result):
  assert sum(result["found"].values()) == COUNT + 7
  assert min(result["found"].values()) > COUNT / 10  # both occur often


def test_damaged_pictures_take_little_memory(result):
  assert result["peak"] < 2560


def test_sizes_above_the_limit_are_refused_without_memory(result):
  assert result["claimed"] < 100


def test_no_damaged_picture_is_a_hang(result):
  assert result["slowest"] < 10
