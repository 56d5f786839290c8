"""Defines `Weights`: the weights of a checkpoint of any kind, under the names of this project."""

import collections.abc
import dataclasses
import math

from hap_jax.convert import licences
from hap_jax.convert import lineage as lineages
from hap_jax.description import Description


@dataclasses.dataclass(frozen=True)
class Weights:
  """The weights and the description of a checkpoint.

  Attributes:
    variables: {collection: nested dicts of float32 arrays}. "params" has "encoder", and decoder and heads if
      the file has them. "batch_stats" has running statistics, if any. "constants" has arrays that are stored
      outside the checkpoints of this project, if any.
    source_names: {path in a collection, with slashes: names in the file}. An array that joins
      several tensors has several names.
    family: the name of the family. `lineage.OWN_FAMILY` for this project's own checkpoints.
    grid_from: text that says how the grid was found, or why it is unknown.
    unused: the names in the file that this project does not use.
    description: the Description: task, sizes, pixel statistics, classes and lineage. `network["decoder"]` is
      {"width", "depth", "num_heads", "mlp_ratio"}, or None if there is no decoder.
      "num_heads" is None if it is unknown.
    is_recorded: True if the checkpoint has a description that this project wrote.
    part: (number of the expert, number of the head) of the file that these weights are, if they were taken
      from a network of several data sets.
    taken: text about the entry of the file and the prefix of the names that were chosen, or "".
    objects: the names of classes that the file asks for and that were not read.
  """

  variables: dict
  source_names: dict[str, tuple[str, ...]]
  family: str
  grid_from: str
  unused: tuple[str, ...]
  description: Description
  is_recorded: bool = False
  part: tuple[int, int] = (0, 0)
  taken: str = ""
  objects: tuple[str, ...] = ()

  @property
  def params(self):
    return self.variables["params"]

  @property
  def constants(self):
    """Returns the constants of the network of the task, such as a frozen text encoder, or {}."""
    return self.variables.get("constants", {})

  @property
  def task(self):
    """Returns the task that the weights are trained for, the name of a file in `hap_jax/tasks`."""
    return self.description.task

  @property
  def grid(self):
    """Returns (Gh, Gw) of the position tables in patches, or None if the grid is unknown."""
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
    """Returns the encoder's number of heads, or None if it is not known."""
    return self.description.encoder.num_heads

  @property
  def variant(self):
    """Returns the encoder's name in `vit.VARIANTS`, or None if no variant has its sizes and heads."""
    return self.description.encoder.variant

  @property
  def decoder(self):
    """Returns the sizes of the decoder, or None if there is no decoder."""
    return self.description.network.get("decoder")

  @property
  def normalization(self):
    return self.description.normalization

  @property
  def lineage(self):
    """Returns the checkpoints that the weights come from, newest first, see `lineage.py`."""
    return self.description.lineage

  @property
  def made_from(self):
    """Returns the data sets and weights of all stages, the most restrictive licence first, as a list."""
    return lineages.sources(self.lineage)

  @property
  def licence(self):
    """Returns the licences of all stages as one line, the most restrictive first."""
    return licences.line(self.made_from)

  @property
  def heads(self):
    """Returns the names of all subtrees except encoder and decoder, as a tuple."""
    return tuple(name for name in self.params if name not in ("encoder", "decoder"))

  def with_encoder(self, **sizes):
    """Returns the Weights with new values for some fields of `description.encoder`."""
    encoder = dataclasses.replace(self.description.encoder, **sizes)
    return dataclasses.replace(self, description=dataclasses.replace(self.description, encoder=encoder))

  def with_network(self, **values):
    """Returns the Weights with new values for some keys of `description.network`."""
    network = {**self.description.network, **values}
    return dataclasses.replace(self, description=dataclasses.replace(self.description, network=network))

  def facts(self):
    """Returns the description as the plain JSON values that commands print."""
    # The key "decoder" is always present, so scripts need no check.
    values = self.description.to_json()
    values["model"].setdefault("decoder", None)
    return values


def count_blocks(stack):
  """Returns the number of blocks in a subtree of parameters."""
  # Blocks are stacked along the first axis. The bias of a norm is the smallest array with that axis.
  return len(stack["blocks"]["norm1"]["bias"]) if "blocks" in stack else 0


def grid_text(grid):
  return f"{grid[0]}x{grid[1]}" if grid else "unknown"


def square_side(L):
  """Returns the side of a square of L cells, or None if L is not a square number."""
  side = math.isqrt(max(L, 0))
  return side if side and side * side == L else None


def some(items):
  """Returns text with the first five names and the number of the other names."""
  more = f" and {len(items) - 5} more" if len(items) > 5 else ""
  return ", ".join(items[:5]) + more


def flatten(tree, prefix=""):
  """Turns nested dicts into {path with slashes: leaf}."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, collections.abc.Mapping):  # a frozen dict of flax is a Mapping, but not a dict
      flat.update(flatten(value, f"{prefix}{name}/"))
    else:
      flat[f"{prefix}{name}"] = value
  return flat


def unflatten(flat):
  """Turns {path with slashes: leaf} into nested dicts."""
  tree = {}
  for path, value in flat.items():
    *parents, leaf = path.split("/")
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[leaf] = value
  return tree
