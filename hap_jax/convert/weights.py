"""The weights of one checkpoint under this project's names, whatever file they came from."""

import collections.abc
import dataclasses
from typing import Any

from hap_jax.convert import licences
from hap_jax.convert import lineage as lineages
from hap_jax.models import vit


@dataclasses.dataclass(frozen=True)
class Weights:
  """What conversion knows of a checkpoint.

  Attributes:
    variables: {"params": {"encoder": ..., "decoder" and heads if the file has them}, "batch_stats" if any},
      nested dicts of float32 arrays.
    source_names: {path in a collection, with slashes: names in the file, several where ours joins them}.
    family: of names, a key of `names.FAMILIES`; "hap_jax" for this project's own.
    task: what the weights are trained for, a file of `hap_jax/tasks`.
    grid: (Gh, Gw) of the position tables in patches; None: the file does not tell.
    grid_from: how the grid was found, or why not.
    patch, width, depth: of the encoder.
    num_heads: of the encoder; None: neither the file nor the variant of this size tells it.
    decoder: {"width", "depth", "num_heads" (or None)}; None: there is no decoder.
    normalization: {"mean", "std", "range", "from": how that is known}.
    unused: names in the file that this project has no use for.
    lineage: the checkpoints that the weights come from, newest first, see `lineage.py`.
    recorded: the description that the file carries, {} if none.
  """

  variables: dict
  source_names: dict[str, tuple[str, ...]]
  family: str
  task: str
  grid: tuple[int, int] | None
  grid_from: str
  patch: int
  width: int
  depth: int
  num_heads: int | None
  decoder: dict[str, int | None] | None
  normalization: dict[str, Any]
  unused: tuple[str, ...]
  lineage: tuple[dict[str, Any], ...]
  recorded: dict[str, Any]

  @property
  def params(self):
    return self.variables["params"]

  @property
  def made_from(self):
    """All data sets and weights of all stages with their licences, the most restrictive first, a list."""
    return lineages.sources(self.lineage)

  @property
  def licence(self):
    """One line of text from the licences of all stages, the most restrictive first."""
    return licences.line(self.made_from)

  @property
  def heads(self):
    """Names of what stands beside encoder and decoder."""
    return tuple(name for name in self.params if name not in ("encoder", "decoder"))

  @property
  def variant(self):
    """Name of the `vit.VARIANTS` that the encoder is, its heads included; None: it is none of them."""
    name = variant_of(self.width, self.depth)
    return name if name and vit.VARIANTS[name].num_heads == self.num_heads else None

  def description(self):
    """Returns what a checkpoint of these weights tells later commands, plain JSON values."""
    model = {
      **self.recorded.get("model", {}),
      "variant": self.variant,
      "width": self.width,
      "depth": self.depth,
      "num_heads": self.num_heads,
      "image_size": self.grid and [side * self.patch for side in self.grid],
      "patch": self.patch,
      "patch_padding": 0,
      "grid": self.grid and list(self.grid),
      "decoder": self.decoder,
    }
    own = {"task": self.task, "model": model, "normalization": self.normalization}
    kept = {key: value for key, value in self.recorded.items() if key != "family"}
    return {**kept, **own, "lineage": list(self.lineage)}


def variant_of(width, depth):
  """Returns the name of the `vit.VARIANTS` of this size, None if there is none."""
  return next((name for name, v in vit.VARIANTS.items() if (v.width, v.depth) == (width, depth)), None)


def count_blocks(stack):
  """Returns how many blocks a subtree of parameters holds."""
  return len(stack["blocks"]["norm1"]["bias"]) if "blocks" in stack else 0


def grid_text(grid):
  return f"{grid[0]}x{grid[1]}" if grid else "unknown"


def some(items):
  """Returns the first five of some names as text, and how many more there are."""
  more = f" and {len(items) - 5} more" if len(items) > 5 else ""
  return ", ".join(items[:5]) + more


def flatten(tree, prefix=""):
  """Returns {path with slashes: leaf} of nested dicts."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, collections.abc.Mapping):
      flat.update(flatten(value, f"{prefix}{name}/"))
    else:
      flat[f"{prefix}{name}"] = value
  return flat


def unflatten(flat):
  """Returns the nested dicts of {path with slashes: leaf}."""
  tree = {}
  for path, value in flat.items():
    *parents, leaf = path.split("/")
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[leaf] = value
  return tree
