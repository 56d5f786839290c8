"""Checkpoint families, one file per family. They are found by listing this folder.

A file <family>.py defines FAMILY, a `family.Family` with all facts about the family. No other file of this
project names a family.
"""

import importlib
import pkgutil


def names():
  """Returns the names of all families in alphabetical order, as a tuple.

  A name is the name of the file with hyphens in place of underscores.
  """
  found = pkgutil.iter_modules(__path__)
  return tuple(sorted(module.name.replace("_", "-") for module in found))


def load(name):
  """Returns the Family with this name.

  Raises:
    ValueError: if there is no such family. The message lists all families.
  """
  if name not in names():
    raise ValueError(f"family {name!r} is not one of {', '.join(names())}")
  return _import(name)


def _import(name):
  return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").FAMILY


def load_all():
  """Returns all families, as a tuple."""
  return tuple(map(_import, names()))


def find(name):
  """Returns the Family with this name, or None. Checkpoints of this project have no Family."""
  return load(name) if name in names() else None


def holding(task, subtrees):
  """Returns the Family whose files can hold all subtrees of a checkpoint, or None if there is none.

  If there are several, the family with the fewest subtrees is chosen. Among families with equally many
  subtrees, the first name in alphabetical order is chosen.

  Args:
    task: the task of a checkpoint of this project.
    subtrees: the names of the subtrees of its parameters.
  """
  fitting = [family for family in load_all() if family.task == task and family.can_hold(subtrees)]
  return min(fitting, key=lambda family: len(family.stacks), default=None)
