"""A lock on a folder, so that only one run writes into it. A crash of the run releases the lock.

The lock is an flock on the file LOCK_FILE. The kernel releases it when the process ends, even after SIGKILL.
The file contains the host, the process and the start time of the run that has the lock. The file remains in
the folder after the end of the run.

Some file systems do not support flock. On these, the lock is the file HEARTBEAT_FILE. Its owner changes the
modification time of the file every few seconds. The next run takes the lock in two cases: if this time does
not change for `_SILENT_S` seconds, or if the owner ran on this machine and its process has ended.
"""

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import secrets
import socket
import threading
import time

from absl import logging

LOCK_FILE, HEARTBEAT_FILE = "run.lock", "run.heartbeat"
_NO_FLOCK = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
_BEAT_S = 5.0  # seconds between two heartbeats
_SILENT_S = 60.0  # after this time without a heartbeat, the owner has ended
_SETTLE_S = 1.0  # longest time between the decision of another run to take the lock and its write to the file
_NAME_S = 1.0  # longest time between the moment when an owner takes the lock and the write of its name


@contextlib.contextmanager
def hold(folder, *, flock=fcntl.flock, beat_s=_BEAT_S, silent_s=_SILENT_S, settle_s=_SETTLE_S):
  """Context manager: keeps the lock of a folder until its exit. Creates the folder if it is missing.

  With flock, it takes the lock or raises an error at once. Without flock, it waits up to `silent_s` seconds
  for a heartbeat of an earlier owner.

  Args:
    folder: the folder.
    flock: the function `fcntl.flock`, or a replacement for tests.
    beat_s: seconds between two heartbeats. Used only without flock.
    silent_s: seconds without a heartbeat after which the owner has ended. Used only without flock.
    settle_s: seconds to wait before this run checks that no other run took the lock. Used only without flock.
  Raises:
    ValueError: if another run has the lock, or if the folder cannot be written. The message names the host
      and the process of the other run, and the time of its start.
  """
  folder = pathlib.Path(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
  except OSError as error:
    raise ValueError(
      f"{folder}: the folder of the run cannot be written: {error.strerror}; give another --workdir"
    ) from error
  try:
    if not _lock(descriptor, flock, folder):
      with _heartbeat(folder, beat_s, silent_s, settle_s):
        yield
      return
    with contextlib.suppress(OSError):  # on a full disk, the lock is valid, but the file has no name
      os.ftruncate(descriptor, 0)
      os.pwrite(descriptor, json.dumps(_own_name()).encode(), 0)
    yield
    with contextlib.suppress(OSError):
      os.ftruncate(descriptor, 0)
  finally:
    os.close(descriptor)  # releases the lock


def _lock(descriptor, flock, folder):
  """Takes the flock of an open file. Returns False if the file system has no flock."""
  try:
    flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    raise _held_by(_read_soon(folder / LOCK_FILE), folder) from None
  except OSError as error:
    if error.errno in _NO_FLOCK:
      return False
    raise ValueError(f"{folder / LOCK_FILE} cannot be locked: {error.strerror}") from error
  return True


def _held_by(owner, folder):
  if owner is None:
    owner = dict.fromkeys(("process", "host", "since"), "(unknown)")
  return ValueError(
    f"{folder}: another run uses this folder: process {owner['process']} on {owner['host']}, since "
    f"{owner['since']}. Stop that run or wait for its end, or give another --workdir"
  )


def _own_name():
  """Returns the facts that identify this process, as JSON values. In this module they are its name."""
  return {
    "host": socket.gethostname(),
    "process": os.getpid(),
    "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
    "machine": _machine(),
    "began": _begin_of(os.getpid()),
    "token": secrets.token_hex(8),
  }


def _machine():
  """Returns a text that is equal only for processes that see the same process numbers. None: unknown."""
  try:
    # Two containers may have the same host name, but different process numbers.
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"
  except OSError:
    return None


def _begin_of(process):
  """Returns the start time of a process in clock ticks since boot, as text. None: no such process."""
  try:
    # The name of the program is in parentheses, and may contain spaces. The start time is field 22.
    return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
  except (OSError, IndexError):
    return None


def _read(path):
  """Returns the recorded name of an owner, or None if the file is missing or has no valid name."""
  try:
    owner = json.loads(path.read_text())
  except (OSError, ValueError, RecursionError):
    return None
  is_name = (
    isinstance(owner, dict) and {"host", "process", "since", "machine", "began", "token"} <= owner.keys()
  )
  return owner if is_name else None


def _read_soon(path):
  """Returns the recorded name of an owner. Waits up to `_NAME_S` seconds until the owner has written it."""
  end = time.monotonic() + _NAME_S
  while (owner := _read(path)) is None and time.monotonic() < end:
    time.sleep(0.02)
  return owner


@contextlib.contextmanager
def _heartbeat(folder, beat_s, silent_s, settle_s):
  """Context manager: keeps the lock of a folder on a file system without flock."""
  path, own = folder / HEARTBEAT_FILE, _own_name()
  _acquire(path, own, folder, beat_s, silent_s, settle_s)
  ended = threading.Event()
  thread = threading.Thread(target=_beat, args=(path, own, ended, beat_s), daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()
    if _read(path) == own:
      with contextlib.suppress(OSError):
        path.unlink()


def _acquire(path, own, folder, beat_s, silent_s, settle_s):
  """Writes the name of this process into the heartbeat file. Raises ValueError if another run still runs."""
  while True:
    try:
      with path.open("x") as file:
        file.write(json.dumps(own))
      return
    except FileExistsError:
      pass
    owner = _read_soon(path)
    if not _has_ended(owner) and _shows_life(path, beat_s, silent_s):
      raise _held_by(owner, folder)
    if path.exists() and _read(path) == owner:
      part = path.with_name(f".{own['token']}.part")
      part.write_text(json.dumps(own))
      part.rename(path)
      # Another run may take the lock at the same time. The run that writes last keeps it. After this wait,
      # the file has the name of that run.
      time.sleep(settle_s)
      if _read(path) == own:
        return


def _has_ended(owner):
  """Returns True if the owner ran on this machine and its process has ended."""
  if owner is None or owner["machine"] is None or owner["machine"] != _machine():
    return False
  return _begin_of(owner["process"]) != owner["began"]


def _shows_life(path, beat_s, silent_s):
  """Waits up to `silent_s` seconds for a heartbeat. Returns False if none comes or the file was removed."""

  def stamp():
    try:
      # Network file systems cache the times of a file. Opening the file refreshes them.
      with path.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime_ns, file.read()
    except FileNotFoundError:
      return None

  first, end = stamp(), time.monotonic() + silent_s
  while first is not None and time.monotonic() < end:
    time.sleep(beat_s / 4)
    if (now := stamp()) != first:
      return now is not None
  return False


def _beat(path, own, ended, beat_s):
  """Changes the time of the heartbeat file again and again, until `ended` is set."""
  while not ended.wait(beat_s):
    owner = _read(path)
    if owner is not None and owner["token"] != own["token"]:
      logging.error(
        "%s: process %s on %s has taken over the folder of this run, because this run was silent: stop one "
        "of the two runs",
        *(path, owner["process"], owner["host"]),
      )
      return
    with contextlib.suppress(OSError):  # the next heartbeat may succeed
      os.utime(path)
