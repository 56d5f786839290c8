"""Reads damaged and hostile checkpoints. The test `test_mutations` starts this program.

  python -m tests.convert.read_mutations COUNT SEED FOLDER

It prints one line of JSON. A crash, or more than ten seconds of computing for one file, ends the process by a
signal. The last line on stderr then names the file. If reading a file imports a module, compiles or runs
code, starts a process, opens a socket or writes a file, the program ends with an error.
"""

import json
import os
import pathlib
import signal
import sys
import time

from hap_jax.convert import read
from hap_jax.convert.container import open_container
from tests.convert import mutations_checkpoints

_SECONDS = 10  # limit of computing time for one file
# Beginnings of the events of Python that show that code runs, see `sys.addaudithook`.
_FORBIDDEN = (
  *(
    "import",
    "compile",
    "exec",
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "os.remove",
  ),
  *(
    "subprocess.",
    "socket.",
    "ctypes.",
    "pty.",
    "marshal.",
    "pickle.",
    "shutil.",
    "code.",
    "builtins.breakpoint",
    "os.putenv",
  ),
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class Watch:
  """Notes forbidden events while a file is read."""

  def __init__(self):
    self.is_on, self.seen = False, []
    sys.addaudithook(self._note)

  def _note(self, event, arguments):
    if not self.is_on:
      return
    is_write = event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITES
    if is_write or event.startswith(_FORBIDDEN):
      self.seen.append(f"{event} {arguments!r:.200}")


def peak_memory():
  """Returns the largest memory of this process in bytes."""
  status = pathlib.Path("/proc/self/status").read_text()
  return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) * 1024


def read_all(path):
  """Reads a file as every command does. Its pickle is also read if no encoder is found in it."""
  content = open_container(path).content
  read.read(path)
  return content


def main(count, seed, folder):
  signal.signal(signal.SIGPROF, signal.SIG_DFL)
  watch, folder = Watch(), pathlib.Path(folder)
  for number, (suffix, data) in enumerate(mutations_checkpoints.base_files()):
    path = folder / f"whole_{number}{suffix}"
    path.write_bytes(data)
    read_all(path)  # the files without damage are read, and all modules are imported
  found, start, before = {"read": 0, "refused": 0}, time.process_time(), peak_memory()
  largest = 0
  for number, (suffix, data) in enumerate(mutations_checkpoints.cases(count, seed)):
    path = folder / f"damaged{suffix}"
    path.write_bytes(data)
    largest = max(largest, len(data))
    print(f"file {number} of seed {seed}", file=sys.stderr, flush=True)
    signal.setitimer(signal.ITIMER_PROF, _SECONDS)
    watch.is_on = True
    message = str(path)
    try:
      read_all(path)
      found["read"] += 1
    except ValueError as error:
      found["refused"] += 1
      message = str(error)
    watch.is_on = False
    signal.setitimer(signal.ITIMER_PROF, 0)
    assert not watch.seen, watch.seen
    assert str(path) in message, message
  seconds = time.process_time() - start
  print(json.dumps({**found, "bytes": peak_memory() - before, "largest": largest, "seconds": seconds}))


if __name__ == "__main__":
  main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
