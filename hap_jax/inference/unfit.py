"""A clear error for checkpoints whose description does not fit their arrays."""

import contextlib

import flax.errors


@contextlib.contextmanager
def named(path):
  """Turns the errors of Flax about the shape or the name of a parameter into a ValueError of one line.

  Args:
    path: the checkpoint.
  """
  try:
    yield
  except (flax.errors.ScopeParamShapeError, flax.errors.ScopeParamNotFoundError) as error:
    reason = str(error).partition(" (http")[0]
    raise ValueError(f"{path}: its description does not fit its arrays: {reason}") from error
