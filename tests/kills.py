"""Kills a run again and again, damages its newest checkpoint, and lets it end."""

import dataclasses
import os
import pathlib
import resource
import signal
import time

import numpy as np

from hap_jax.io import checkpoint_file, checkpoint_list, unfinished
from hap_jax.train.report import read_metrics
from tests import damage

_POLL_S = 0.002
_SAVE_S = 0.5  # seconds: a kill that is aimed into a save comes at most this long after the start of a save
_HANG_S = 600
_FOLDERS = ("checkpoints", "best")


@dataclasses.dataclass(frozen=True)
class Kill:
  """One kill.

  Attributes:
    is_aimed: True: it comes when a save has begun. False: at a random moment of the run.
    damages: True: the newest checkpoint is damaged after the kill.
  """

  is_aimed: bool = False
  damages: bool = False


@dataclasses.dataclass
class Result:
  """The result of the runs of a test.

  Attributes:
    kills: number of kills.
    in_a_save: the number of these kills that left a part of a checkpoint behind.
    damaged: a text for each damage.
    owed: number of damages that must come after a later kill, because there was no older whole checkpoint.
    runs: number of workdirs in which a run was started.
    starts: number of starts.
  """

  kills: int = 0
  in_a_save: int = 0
  damaged: list[str] = dataclasses.field(default_factory=list)
  owed: int = 0
  runs: int = 0
  starts: int = 0


def plan(random, aimed, damages, rng):
  """Returns a list of `Kill` in random order. Damage follows after random ones of all kills."""
  is_aimed = rng.permutation([False] * random + [True] * aimed)
  has_damage = rng.permutation(np.arange(random + aimed) < damages)
  return [Kill(bool(a), bool(d)) for a, d in zip(is_aimed, has_damage, strict=True)]


def survive(start, folder, kills, rng, seconds, per_run=10):
  """Starts runs, kills each of them several times, and then lets it end.

  Args:
    start: function (workdir) -> list of the processes of the run. Each leads its own process group.
    folder: folder for the workdirs.
    kills: list of `Kill`.
    rng: NumPy generator.
    seconds: the time that a run takes without a kill.
    per_run: number of kills of one run.
  Returns:
    (workdirs of the runs that ended, `Result`).
  """
  left, result, workdirs = list(kills), Result(), []
  while left:
    workdir = pathlib.Path(folder) / f"run_{result.runs}"
    result.runs += 1
    for _ in range(min(per_run, len(left))):
      if _start_and_kill(start, workdir, left[0], rng, seconds, result):
        left.pop(0)
      else:
        break  # the run ended first, so the kill is left for the next run
    result.starts += 1
    finish(start(workdir))
    workdirs.append(workdir)
  return workdirs, result


def _start_and_kill(start, workdir, kill, rng, seconds, result):
  """Returns False if the run ended before the moment of the kill."""
  processes = start(workdir)
  result.starts += 1
  moment = time.monotonic() + rng.uniform(0, seconds)
  while (not _parts(workdir)) if kill.is_aimed else time.monotonic() < moment:
    if any(process.poll() is not None for process in processes):
      finish(processes)
      return False
    time.sleep(_POLL_S)
  if kill.is_aimed:
    time.sleep(rng.uniform(0, _SAVE_S))
  if all(process.poll() is not None for process in processes):
    finish(processes)
    return False
  for process in rng.permutation(np.array(processes, object)):
    try:
      os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:  # it does not lead its group yet
      os.kill(process.pid, signal.SIGKILL)
    time.sleep(rng.uniform(0, 0.2) if len(processes) > 1 else 0)
  for process in processes:
    process.communicate()
  result.kills += 1
  result.in_a_save += bool(_parts(workdir))
  result.owed += kill.damages
  whole = [found.path for found in checkpoint_list.check(workdir / "checkpoints") if not found.damage]
  if result.owed and len(whole) > 1:  # no run survives the damage of its only checkpoint
    result.damaged.append(damage.damage_any(whole[0], rng))
    result.owed -= 1
  return True


def finish(processes):
  """Waits for the end of a run. Each process must succeed and print no traceback."""
  for process in processes:
    output, _ = process.communicate(timeout=_HANG_S)
    assert process.returncode == 0, output
    assert "Traceback" not in output, output


def _parts(workdir):
  folders = [workdir / name for name in _FOLDERS]
  return [
    path
    for folder in folders
    if folder.is_dir()
    for path in folder.iterdir()
    if unfinished.is_hidden_path(path)
  ]


def bits_of(workdir):
  """Returns everything that must not depend on kills: {name: bytes, or numbers of metrics.jsonl}."""
  bits = {}
  for name in _FOLDERS:
    for folder in list(checkpoint_list.steps(workdir / name).values())[:1]:
      for arrays in checkpoint_file.read_state(folder):
        bits |= {f"{name}/{folder.name}/{key}": array.tobytes() for key, array in arrays.items()}
  for row in read_metrics(workdir):
    bits[f"metrics {row['step']}"] = {
      key: value for key, value in row.items() if key not in ("images_per_s", "data_wait")
    }
  return bits


def assert_same(workdir, whole):
  """Checks that two runs ended with the same bits, and that nothing of a killed save is left."""
  one, other = bits_of(workdir), bits_of(whole)
  assert one.keys() == other.keys()
  assert [name for name in one if one[name] != other[name]] == []
  assert _parts(workdir) == []


def child_seconds():
  """Returns the CPU time of the processes that ended."""
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime
