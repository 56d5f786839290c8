"""The weights of one checkpoint under this project's names, whatever file they came from."""

import collections.abc
import dataclasses
import math

from hap_jax.convert import licences
from hap_jax.convert import lineage as lineages
from hap_jax.description import Description


@dataclasses.dataclass(frozen=True)
class Weights:
  """What conversion knows of a checkpoint.

  Attributes:
    variables: {"params": {"encoder": ..., "decoder" and heads if the file has them}, "batch_stats" if any},
      nested dicts of float32 arrays.
    source_names: {path in a collection, with slashes: names in the file, several where ours joins them}.
    family: of names, a file of `families/`; `lineage.OWN_FAMILY` for this project's own checkpoints.
    grid_from: how the grid was found, or why not.
    unused: names in the file that this project does not use.
    description: task, sizes, pixels, classes, lineage. "decoder" of its `network` is {"width", "depth",
      "num_heads" (None: not known), "mlp_ratio"}, or None.
    is_recorded: the checkpoint carries a description that this project wrote.
  """

  variables: dict
  source_names: dict[str, tuple[str, ...]]
  family: str
  grid_from: str
  unused: tuple[str, ...]
  description: Description
  is_recorded: bool = False

  @property
  def params(self):
    return self.variables["params"]

  @property
  def task(self):
    """What the weights are trained for, a file of `hap_jax/tasks`."""
    return self.description.task

  @property
  def grid(self):
    """(Gh, Gw) of the position tables in patches; None: not known."""
    return self.description.encoder.grid

  @property
  def patch(self):
    return self.description.encoder.patch

  @property
  def width(self):
    return self.description.encoder.width

  @property
  def depth(self):
    return self.description.encoder.depth

  @property
  def num_heads(self):
    """Of the encoder; None: neither the file nor the variant of this size tells it."""
    return self.description.encoder.num_heads

  @property
  def variant(self):
    """Name of the `vit.VARIANTS` that the encoder is, its heads included; None: it is none of them."""
    return self.description.encoder.variant

  @property
  def decoder(self):
    """Sizes of the decoder; None: there is no decoder."""
    return self.description.network.get("decoder")

  @property
  def normalization(self):
    return self.description.normalization

  @property
  def lineage(self):
    """The checkpoints that the weights come from, newest first, see `lineage.py`."""
    return self.description.lineage

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
    """Names of the subtrees besides encoder and decoder."""
    return tuple(name for name in self.params if name not in ("encoder", "decoder"))

  def with_encoder(self, **sizes):
    """Returns the Weights with other values of some fields of their `description.Encoder`."""
    encoder = dataclasses.replace(self.description.encoder, **sizes)
    return dataclasses.replace(self, description=dataclasses.replace(self.description, encoder=encoder))

  def with_network(self, **values):
    """Returns the Weights with other values of some keys of `Description.network`."""
    network = {**self.description.network, **values}
    return dataclasses.replace(self, description=dataclasses.replace(self.description, network=network))

  def facts(self):
    """Returns the description as the plain JSON values that commands print: "model" always has "decoder"."""
    values = self.description.to_json()
    values["model"].setdefault("decoder", None)
    return values


def count_blocks(stack):
  """Returns how many blocks a subtree of parameters holds."""
  return len(stack["blocks"]["norm1"]["bias"]) if "blocks" in stack else 0


def grid_text(grid):
  return f"{grid[0]}x{grid[1]}" if grid else "unknown"


def square_side(L):
  """Returns the side of a square of L cells, None if L is no square."""
  side = math.isqrt(max(L, 0))
  return side if side and side * side == L else None


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
