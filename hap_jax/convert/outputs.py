"""Defines `Outputs`: how to compute the outputs of a network besides tokens, in NumPy and in JAX.

The proof of a conversion computes these outputs for the source and for the result.
"""

import dataclasses
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Outputs:
  """Outputs that the proof compares by name.

  Attributes:
    needs: {output: subtree of our parameters or constants that the output depends on}.
    in_numpy: `numpy_vit.Forward` -> {output: array}. It runs with a file's tensors and with our parameters.
    in_jax: (network of the task, its variables, `verify.Batch`, their Description) -> {output: array}.
  """

  needs: Mapping[str, str]
  in_numpy: Callable
  in_jax: Callable

  def are_of(self, subtrees):
    """Returns True if these subtrees of the parameters are enough to compute all of the outputs."""
    return subtrees >= set(self.needs.values())
