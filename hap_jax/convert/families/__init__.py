"""Checkpoint families, one file each, found by listing this folder.

A file <family>.py holds FAMILY, a `family.Family`: all that is special to the family. Nothing else in this
project knows one by its name.
"""

import importlib
import pkgutil


def names():
  """Returns the names of all families in alphabetical order, a tuple; a file's underscores are hyphens."""
  found = pkgutil.iter_modules(__path__)
  return tuple(sorted(module.name.replace("_", "-") for module in found))


def load(name):
  """Returns the Family of a name.

  Raises:
    ValueError: naming the families that there are, if it is none of them.
  """
  if name not in names():
    raise ValueError(f"family {name!r} is not one of {', '.join(names())}")
  return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").FAMILY


def load_all():
  """Returns all families, a tuple."""
  return tuple(load(name) for name in names())


def find(name):
  """Returns the Family of a name, None if there is none, as of checkpoints of this project."""
  return load(name) if name in names() else None


def holding(task, subtrees):
  """Returns the family whose files can hold a checkpoint of this project whole, None if there is none.

  Of several the one with the fewest subtrees is taken, the first of these by its name.

  Args:
    task: that the checkpoint is for.
    subtrees: names of the subtrees of its parameters.
  """
  fitting = [family for family in load_all() if family.task == task and family.stacks >= set(subtrees)]
  return min(fitting, key=lambda family: len(family.stacks), default=None)
