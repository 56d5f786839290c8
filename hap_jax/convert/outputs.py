"""Defines `Outputs`: functions that compute the outputs of the heads of a network, in NumPy and in JAX.

The proof of a conversion computes these outputs for the source and for the result.
"""

import dataclasses
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Outputs:
  """The outputs of the heads, which the proof compares by name.

  Attributes:
    needs: {output: subtree of our parameters or constants that the output depends on}.
    in_numpy: `numpy_vit.Forward` -> {output: array}. It is used for tensors of a file and for our parameters.
    in_jax: (network of the task, its variables, `verify.Batch`, Description) -> {output: array}.
  """

  needs: Mapping[str, str]
  in_numpy: Callable
  in_jax: Callable

  def are_of(self, subtrees):
    """Returns True if these subtrees of the parameters are enough to compute all of the outputs."""
    return subtrees >= set(self.needs.values())
