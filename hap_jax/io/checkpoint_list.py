"""Finds the whole checkpoints among all checkpoints in one folder.

The folder has one sub-folder per step. A checkpoint is whole if it is complete and not damaged. Its digest
file shows this, see `checkpoint_digests.py`. A checkpoint without a digest file is unfinished, if another
checkpoint in the folder has a digest file. If no checkpoint in the folder has one, an older version wrote
them all. Such checkpoints cannot be checked, and they are used.
"""

import dataclasses
import pathlib
import shutil

from hap_jax.io import checkpoint_digests, unfinished

DAMAGED = ".damaged"  # part of the name of a checkpoint that a run renamed
_ORBAX_PART = ".orbax-checkpoint-tmp"  # part of the name of a checkpoint that older versions did not finish
NO_DIGESTS = "no digests.json, because an older version wrote it: damage would not be noticed"


@dataclasses.dataclass(frozen=True)
class Checked:
  """One checkpoint in a folder.

  Attributes:
    path: the folder of the checkpoint.
    damage: a text that names the damaged or missing part. "": no damage was found.
    note: a text for the user about a checkpoint that can be used, or "".
  """

  path: pathlib.Path
  damage: str = ""
  note: str = ""

  @property
  def state(self):
    """The result of the check as text."""
    return f"damaged: {self.damage}" if self.damage else self.note or "whole"


def steps(folder):
  """Returns {step: path} of the checkpoints in a folder, the newest first. Nothing is checked."""
  folder = pathlib.Path(folder)
  found = [path for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []
  return {int(path.name): path for path in sorted(found, key=lambda path: int(path.name), reverse=True)}


def set_aside(folder):
  """Returns the paths of the checkpoints in a folder that a run renamed because of damage."""
  return sorted(pathlib.Path(folder).glob(f"*{DAMAGED}*"))


def check(folder):
  """Checks the checkpoints in a folder, the newest first. Yields a `Checked` for each of them.

  Each checkpoint is read only when the caller asks for it.
  """
  found, renamed = steps(folder).values(), set_aside(folder)
  has_digests = any(map(checkpoint_digests.exists, (*found, *renamed)))
  for path in found:
    if checkpoint_digests.exists(path):
      yield Checked(path, damage=checkpoint_digests.find_damage(path) or "")
    elif has_digests:
      yield Checked(path, damage=f"{checkpoint_digests.FILE} is missing: the save or the copy did not end")
    else:
      yield Checked(path, note=NO_DIGESTS)


def find_whole(folder):
  """Finds the newest whole checkpoint in a folder.

  Returns:
    (`Checked` of this checkpoint, list of the `Checked` of all newer checkpoints, which are damaged). The
    first value is None if no checkpoint is whole.
  """
  damaged = []
  for checked in check(folder):
    if not checked.damage:
      return checked, damaged
    damaged.append(checked)
  return None, damaged


def explain_none_whole(folder, damaged):
  """Returns an error message that lists all checkpoints of a folder in which no checkpoint is whole.

  Args:
    folder: the folder of the checkpoints.
    damaged: a list of `Checked`.
  """
  listed = [f"{found.path.name} ({found.damage})" for found in damaged]
  listed += [f"{path.name} (renamed by an earlier start)" for path in set_aside(folder)]
  return (
    f"{folder} has no whole checkpoint: {', '.join(listed)}: restore one of them from a copy, or use another "
    "--workdir to start again"
  )


def rename_damaged(path):
  """Renames a damaged checkpoint, so that no command uses it. Returns its new path."""
  number, new = 1, path.with_name(path.name + DAMAGED)
  while new.exists():
    number += 1
    new = path.with_name(f"{path.name}{DAMAGED}-{number}")
  return path.rename(new)


def remove(path):
  """Removes a checkpoint. If a kill interrupts this, the rest has a hidden name and is no checkpoint."""
  hidden = unfinished.hidden_path(path)
  path.rename(hidden)
  shutil.rmtree(hidden)


def remove_leftovers(folder):
  """Removes parts of checkpoints that a killed run left: unfinished saves and unfinished removals."""
  for path in pathlib.Path(folder).iterdir():
    if unfinished.is_hidden_path(path) or _ORBAX_PART in path.name:
      shutil.rmtree(path, ignore_errors=True)
