"""Tables of weight names: one table per family, read in both directions.

A row says what a tensor is called in a foreign checkpoint and in this project, how its layout changes, and
what shape it has in the foreign file. Rows of a stack of blocks are written once, with `{i}` for the number
of the block.
"""

import collections
import dataclasses
import itertools

import numpy as np

from hap_jax.convert.layouts import Layout


@dataclasses.dataclass(frozen=True)
class Entry:
  """One row of a table.

  Attributes:
    reference: name in the foreign state dict.
    ours: path in this project's variables, with slashes.
    layout: the change of layout.
    shape: of the foreign tensor: numbers, or products of letters, each one number in a checkpoint. D, E:
      width of encoder and decoder; F, G: hidden widths of their MLPs; P: patch side; T: position rows, 1 + L;
      C: classes or attributes. A family may use further letters.
    parts: relative sizes of the tensors that ours is cut into along its last axis: (1, 1, 1) are thirds, and
      (576, 192) cuts 768 columns into 576 and 192.
    part: which of these parts the tensor is, from 0.
    block: number i of the block along the first axis of ours, which stacks blocks; None: it stacks none.
    collection: of this project's variables that holds it.
  """

  reference: str
  ours: str
  layout: Layout
  shape: tuple[str, ...]
  parts: tuple[int, ...] = (1,)
  part: int = 0
  block: int | None = None
  collection: str = "params"

  @property
  def stack(self):
    """The subtree that the row belongs to: "encoder", "decoder", or a head's."""
    return self.ours.partition("/")[0]

  def numbered(self, i):
    """Returns the row of block i."""
    return dataclasses.replace(self, reference=self.reference.format(i=i), block=i)

  def of(self, array):
    """Returns this row's slice of our array (a view).

    Raises:
      ValueError: if the last axis of our array cannot be cut into the parts.
    """
    if self.block is not None:
      array = array[self.block]
    length, total = array.shape[-1], sum(self.parts)
    begin, end = (sum(self.parts[:k]) * length for k in (self.part, self.part + 1))
    if begin % total or end % total:
      raise ValueError(f"{self.ours}: {length} columns cannot be cut into parts of {_ratio(self.parts)}")
    return array[..., begin // total : end // total]

  def length_of_ours(self, length):
    """Returns the length of the last axis of our array, of which this row's tensor has `length`.

    Raises:
      ValueError: if this part cannot have that length.
    """
    total, rest = divmod(length * sum(self.parts), self.parts[self.part])
    if rest:
      raise ValueError(
        f"{self.reference}: {length} columns cannot be part {self.part} of {_ratio(self.parts)}"
      )
    return total


def _ratio(parts):
  return " : ".join(map(str, parts))


def table(family, *, depth, decoder_depth):
  """Returns a family's rows for N blocks, block by block.

  Args:
    family: a Family.
    depth: number of blocks of the encoder.
    decoder_depth: number of blocks of the decoder; 0: no decoder.
  """
  rows = []
  depths = {"encoder": depth, "decoder": decoder_depth}
  runs = itertools.groupby(family.entries, key=lambda entry: (entry.stack, "{i}" in entry.reference))
  for (stack, is_block), run in runs:
    run = tuple(run)
    if is_block:
      rows.extend(entry.numbered(i) for i in range(depths[stack]) for entry in run)
    elif depths.get(stack, 1):
      rows.extend(run)
  return tuple(rows)


def assemble(rows, array_of):
  """Puts foreign tensors together as this project's arrays.

  Args:
    rows: rows of a table.
    array_of: row -> its tensor, float32, with the layout of the file.
  Returns:
    {collection: {path with slashes: contiguous float32 array}}.
  Raises:
    ValueError: if the tensors of one array do not fit together.
  """
  depths = collections.Counter((row.collection, row.ours, row.part) for row in rows)
  variables = {}
  for row in rows:
    array, flat = row.layout.to_ours(array_of(row)), variables.setdefault(row.collection, {})
    if row.ours not in flat:
      shape = (*array.shape[:-1], row.length_of_ours(array.shape[-1]))
      stack = () if row.block is None else (depths[row.collection, row.ours, row.part],)
      flat[row.ours] = np.empty((*stack, *shape), np.float32)
    place = row.of(flat[row.ours])
    if place.shape != array.shape:
      raise ValueError(f"{row.reference}: its part of {row.ours} has {place.shape}, the tensor {array.shape}")
    place[...] = array
  return variables


def count_blocks(family, stack, names):
  """Returns how many blocks of a stack ("encoder", "decoder") the names hold, 0 where the family has none.

  Raises:
    ValueError: if their numbers are not 0, 1, 2, ...
  """
  blocks = (entry for entry in family.entries if entry.stack == stack and "{i}" in entry.reference)
  prefix = next((entry.reference.partition("{i}")[0] for entry in blocks), None)
  if prefix is None:
    return 0
  numbers = {name[len(prefix) :].partition(".")[0] for name in names if name.startswith(prefix)}
  missing = {str(i) for i in range(len(numbers))} - numbers
  if missing:
    raise ValueError(
      f"has {len(numbers)} blocks {prefix}N but none numbered {', '.join(sorted(missing, key=int))}"
    )
  return len(numbers)
