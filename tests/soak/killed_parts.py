"""Kills a command that works part by part, and compares its output with an uninterrupted command."""

import os
import re
import signal
import sys
import time

from tests import programs

_POLL_S = 0.002
_HANG_S = 600
_MADE = re.compile(r"^(poses-\S+\.npz): [\d,]+ people", re.MULTILINE)


def start(rows, words):
  """Starts a command of `hap` whose parts have `rows` rows. Returns its process, with one device."""
  command = [sys.executable, "-m", "tests.soak.small_parts_main", str(rows), *map(str, words)]
  return programs.start(command, devices=1, env={"PYTHONUNBUFFERED": "1"})


def finish(process):
  """Waits for the end of a command, which must succeed. Returns its output."""
  output, _ = process.communicate(timeout=_HANG_S)
  assert process.returncode == 0, (process.returncode, output)
  return output


def parts_made(output):
  """Returns the names of the parts that a command made."""
  return _MADE.findall(output)


def kill_after(process, out, count):
  """Kills a command with SIGKILL as soon as its folder has `count` parts. Returns its output."""
  deadline = time.monotonic() + _HANG_S
  while len(list(out.glob("poses-*.npz"))) < count:
    assert process.poll() is None, process.communicate()[0]
    assert time.monotonic() < deadline
    time.sleep(_POLL_S)
  os.killpg(process.pid, signal.SIGKILL)
  return process.communicate()[0]


def check_kills(rows, words, out, whole):
  """Kills a command twice, ends it as two shards, and compares its output with an uninterrupted command.

  Args:
    rows: rows of a part. The command must have at least five parts.
    words: the command without --out.
    out, whole: pathlib.Path of two new folders.
  """
  names = parts_made(finish(start(rows, [*words, f"--out={whole}"])))
  assert len(names) == len(set(names)) >= 5
  command = [*words, f"--out={out}"]
  made = []
  for count in (1, 3):
    made += parts_made(kill_after(start(rows, command), out, count))
  assert not (out / "poses.json").exists()
  shards = [start(rows, [*command, f"--shard={k}/2"]) for k in (1, 2)]
  for shard in shards:
    made += parts_made(finish(shard))
  # A kill may come between the end of a part and its line in the output.
  assert len(made) == len(set(made))
  assert set(made) <= set(names)
  assert len(names) - len(made) <= 2
  assert files_of(out) == files_of(whole)


def files_of(folder):
  """Returns {path below the folder: bytes}."""
  return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
