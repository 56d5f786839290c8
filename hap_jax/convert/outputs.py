"""What a network gives besides the encoder's tokens, for the proof of a conversion: computed twice."""

import dataclasses
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Outputs:
  """Outputs that the proof compares by name.

  Attributes:
    needs: {output: subtree of our parameters that it comes from}.
    in_numpy: `numpy_vit.Forward` -> {output: array}, by the names of a file or of our parameters.
    in_jax: (network of the task's module, its variables, `verify.Batch`) -> {output: array}.
  """

  needs: Mapping[str, str]
  in_numpy: Callable
  in_jax: Callable

  def are_of(self, subtrees):
    """Whether parameters with these subtrees give all of the outputs."""
    return subtrees >= set(self.needs.values())
