"""Reads the constants of a checkpoint of this project, such as a frozen text encoder.

They are not in the checkpoint itself, but in a folder near it. The task knows this folder.
"""

import dataclasses

from hap_jax import config as config_lib
from hap_jax.convert import lineage
from hap_jax.convert.family import CONSTANTS
from hap_jax.convert.weights import flatten


def read(description):
  """Returns {"constants": arrays} of a checkpoint of this project, or {} if its task has none.

  Args:
    description: the Description of the checkpoint, with its `place`.
  Raises:
    ValueError: if the constants are not found.
  """
  is_known = description.task in config_lib.names("tasks")
  task = config_lib.load("tasks", description.task) if is_known else None
  found = task.read_constants(description) if hasattr(task, "read_constants") else {}
  return {CONSTANTS: found} if found else {}


def complete(weights):
  """Adds the constants to Weights of a checkpoint of this project. Returns other Weights unchanged.

  Raises:
    ValueError: if the constants are not found.
  """
  if weights.family != lineage.OWN_FAMILY or weights.constants:
    return weights
  found = read(weights.description)
  names = {path: (path,) for tree in found.values() for path in flatten(tree)}
  return dataclasses.replace(
    weights, variables={**weights.variables, **found}, source_names={**weights.source_names, **names}
  )
