"""Defines tables of weight names. Each family has one table, for both directions of a conversion.

A row has a tensor's name in a foreign checkpoint, its path in this project, the change of its layout, and its
shape in the foreign file. A row of a transformer block stands for all blocks: its names have `{i}` in
place of the index of the block.
"""

import collections
import dataclasses
import itertools
import math
import re
from collections.abc import Callable

import numpy as np

from hap_jax.convert.layouts import Layout

PATCHES = "encoder/patch_embed/kernel"  # the path of the patch projection in this project


@dataclasses.dataclass(frozen=True)
class Entry:
  """One row of a table.

  Attributes:
    reference: the name in the foreign state dict.
    ours: the path in this project's variables, with slashes.
    layout: the change of layout.
    shape: the shape of the foreign tensor. Each item is a number, a letter, or a product such as "3PP". A
      letter has the same value in all shapes of a checkpoint. D and E are the widths of encoder and decoder.
      F and G are the hidden widths of their MLPs. P is the side of a patch. T is the number of rows of the
      position table: one for the class token, and one for each patch. C is the number of classes, attributes
      or joints. A family may use more letters.
    parts: our array is cut along its last axis into several tensors. These are their relative sizes.
      (1, 1, 1) gives thirds. (576, 192) cuts 768 columns into 576 and 192.
    part: the index of this tensor in `parts`, from 0.
    block: the index of the block along the first axis of our array. None: our array does not stack blocks.
    collection: the collection of this project's variables that holds our array. An array of "constants"
      may be a trained parameter in a checkpoint of this project.
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
    """Returns the subtree of the row: "encoder", "decoder", or the name of another part of the network."""
    return self.ours.partition("/")[0]

  def numbered(self, i):
    """Returns this row for block i: the name gets the number i in place of "{i}"."""
    return dataclasses.replace(self, reference=self.reference.format(i=i), block=i)

  def of(self, array):
    """Returns this row's slice of our array (a view).

    Raises:
      ValueError: if the last axis of our array cannot be cut into the parts.
    """
    if self.block is not None:
      array = array[self.block]
    length, total = array.shape[-1], sum(self.parts)
    # The sizes in `parts` are relative, so they are scaled to the length. Both bounds must be whole numbers.
    begin, end = (sum(self.parts[:k]) * length for k in (self.part, self.part + 1))
    if begin % total or end % total:
      raise ValueError(f"{self.ours}: {length} columns cannot be cut into parts of {_ratio(self.parts)}")
    return array[..., begin // total : end // total]

  def length_of_ours(self, length):
    """Returns the length of the last axis of our array, given the length of this row's tensor.

    Args:
      length: length of the tensor along the axis that becomes the last axis of our array.
    Raises:
      ValueError: if this part cannot have that length.
    """
    total, rest = divmod(length * sum(self.parts), self.parts[self.part])
    if rest:
      raise ValueError(
        f"{self.reference}: {length} columns cannot be part {self.part} of {_ratio(self.parts)}"
      )
    return total


@dataclasses.dataclass(frozen=True)
class Placeholder:
  """A tensor that this project does not use. It is written, because a loader of the official code needs it.

  Attributes:
    reference: the name in the foreign state dict. With `{i}`, it stands for all blocks of the encoder.
    shape: as in `Entry`.
    values: (shape, a tuple of numbers) -> the array that is written.
  """

  reference: str
  shape: tuple[str, ...]
  values: Callable[[tuple[int, ...]], np.ndarray]


def _ratio(parts):
  return " : ".join(map(str, parts))


def size_of(token, sizes):
  """Returns the number for an item of a shape such as "3PP", or "?" if a letter has no number yet.

  Args:
    token: the item.
    sizes: {letter: number}.
  """
  factor, letters = re.fullmatch(r"(\d*)([A-Z]*)", token).groups()
  if not all(letter in sizes for letter in letters):
    return "?"
  return int(factor or 1) * math.prod(sizes[letter] for letter in letters)


def block_stacks(family):
  """Returns {stack: path of one of its stacked arrays} for all stacks of a family that have blocks."""
  return {entry.stack: entry.ours for entry in family.entries if "{i}" in entry.reference}


def table(family, *, depth, decoder_depth, depths=None):
  """Returns the rows of a family, a tuple. The rows of blocks are repeated block by block.

  Args:
    family: a Family.
    depth: the number of blocks of the encoder.
    decoder_depth: the number of blocks of the decoder; 0: no decoder.
    depths: {stack: number of blocks} of other stacks. A stack that is not listed has one block.
  """
  rows = []
  depths = {**(depths or {}), "encoder": depth, "decoder": decoder_depth}
  # Adjacent rows of one stack form a group. A group of block rows is repeated once per block. So the rows of
  # a block stay together, and the tensors of a written file have the usual order.
  runs = itertools.groupby(family.entries, key=lambda entry: (entry.stack, "{i}" in entry.reference))
  for (stack, is_block), run in runs:
    run = tuple(run)
    if is_block:
      rows.extend(entry.numbered(i) for i in range(depths.get(stack, 1)) for entry in run)
    elif depths.get(stack, 1):
      rows.extend(run)
  return tuple(rows)


def placeholders(family, depth):
  """Returns the placeholders of a family, a tuple. The placeholders of blocks are repeated block by block.

  Args:
    family: a Family.
    depth: the number of blocks of the encoder.
  """
  found = []
  for item in family.placeholders:
    numbers = range(depth) if "{i}" in item.reference else (0,)
    found.extend(dataclasses.replace(item, reference=item.reference.format(i=i)) for i in numbers)
  return tuple(found)


def assemble(rows, array_of):
  """Builds this project's arrays from foreign tensors.

  Args:
    rows: the rows of a table.
    array_of: a function from a row to its tensor, float32, in the layout of the file.
  Returns:
    {collection: {path with slashes: contiguous float32 array}}.
  Raises:
    ValueError: if the tensors of one array do not fit together.
  """
  # Number of blocks of each array: a stacked array has one row per block.
  depths = collections.Counter((row.collection, row.ours, row.part) for row in rows)
  variables = {}
  for row in rows:
    array, flat = row.layout.to_ours(array_of(row)), variables.setdefault(row.collection, {})
    # The first part of an array allocates the whole array. The other parts fill their own columns.
    if row.ours not in flat:
      shape = (*array.shape[:-1], row.length_of_ours(array.shape[-1]))
      stack = () if row.block is None else (depths[row.collection, row.ours, row.part],)
      flat[row.ours] = np.empty((*stack, *shape), np.float32)
    place = row.of(flat[row.ours])
    if place.shape != array.shape:
      raise ValueError(
        f"{row.reference}: its part of {row.ours} has shape {place.shape}, but the tensor has {array.shape}"
      )
    place[...] = array
  return variables


def count_blocks(family, stack, names):
  """Returns the number of blocks that a list of names contains, or 0 if the family has no such blocks.

  Args:
    family: a Family.
    stack: a stack with blocks, such as "encoder" or "decoder".
    names: names of tensors in the family's spelling.
  Raises:
    ValueError: if the indices of the blocks are not 0, 1, 2, ...
  """
  blocks = (entry for entry in family.entries if entry.stack == stack and "{i}" in entry.reference)
  prefix = next((entry.reference.partition("{i}")[0] for entry in blocks), None)
  if prefix is None:
    return 0
  # Indices are compared as text, because in a damaged name they may not be numbers.
  numbers = {re.split(r"[./]", name[len(prefix) :])[0] for name in names if name.startswith(prefix)}
  missing = {str(i) for i in range(len(numbers))} - numbers
  if missing:
    raise ValueError(
      f"has {len(numbers)} blocks {prefix}N but no block with number {', '.join(sorted(missing, key=int))}"
    )
  return len(numbers)
