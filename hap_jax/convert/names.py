"""Weight names of foreign checkpoints and of this project: one table a family, read in both directions.

A row says what a tensor is called there and here, how its layout changes, and what shape it has there. Rows
of a stack of blocks are written once, with `{i}` for the block's number.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable

import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
  """A change of layout and its inverse, each a function of one array."""

  name: str
  to_ours: Callable[[np.ndarray], np.ndarray]
  to_reference: Callable[[np.ndarray], np.ndarray]


def _kernel_of_patch_conv(weight):
  """[D, 3, P, P] of a convolution -> [P*P*3, D], rows by (row, column, channel) as in `layers.patchify`."""
  return weight.transpose(2, 3, 1, 0).reshape(-1, weight.shape[0])


def _patch_conv_of_kernel(kernel):
  """[P*P*3, D] -> [D, 3, P, P]."""
  P = math.isqrt(kernel.shape[0] // 3)
  return kernel.reshape(P, P, 3, -1).transpose(3, 2, 0, 1)


def _unchanged(array):
  return array


IDENTITY = Layout("identity", _unchanged, _unchanged)  # tokens and position tables
VECTOR = Layout("vector", _unchanged, _unchanged)  # biases, norm scales
LINEAR = Layout("linear", np.transpose, np.transpose)  # (out, in) there, (in, out) here
PATCH_CONV = Layout("patch_conv", _kernel_of_patch_conv, _patch_conv_of_kernel)


@dataclasses.dataclass(frozen=True)
class Entry:
  """One row of a table.

  Attributes:
    reference: name in the foreign state dict. ours: path in this project's parameters, with slashes.
    layout: the change of layout.
    shape: of the foreign tensor: numbers, or products of these letters of one checkpoint. D, E: width of
      encoder and decoder; F, G: their MLPs' hidden widths; P: patch side; T: position rows, 1 + L.
  """

  reference: str
  ours: str
  layout: Layout
  shape: tuple[str, ...]

  @property
  def stack(self):
    """The subtree that the row belongs to: "encoder" or "decoder"."""
    return self.ours.partition("/")[0]

  def numbered(self, i):
    """Returns the row of block i."""
    return dataclasses.replace(self, reference=self.reference.format(i=i), ours=self.ours.format(i=i))


@dataclasses.dataclass(frozen=True)
class Family:
  """Checkpoints that share names.

  Attributes:
    name: of the family. entries: its table, in the order in which its files are written.
    unused: beginnings of names that its files may hold and this project has no use for.
    stand_ins: {name: other name}: a file may lack the first where it holds the second.
    licence: what is known of the licence of its published weights; the files themselves do not say.
  """

  name: str
  entries: tuple[Entry, ...]
  unused: tuple[str, ...]
  stand_ins: dict[str, str]
  licence: str


def _blocks(reference, ours, width, hidden):
  """Rows of a stack of pre-norm transformer blocks named <reference>.{i} there and <ours>_{i} here."""
  rows = (
    ("norm1.weight", "norm1/scale", VECTOR, (width,)),
    ("norm1.bias", "norm1/bias", VECTOR, (width,)),
    ("attn.qkv.weight", "attn/qkv/kernel", LINEAR, (f"3{width}", width)),
    ("attn.qkv.bias", "attn/qkv/bias", VECTOR, (f"3{width}",)),
    ("attn.proj.weight", "attn/proj/kernel", LINEAR, (width, width)),
    ("attn.proj.bias", "attn/proj/bias", VECTOR, (width,)),
    ("norm2.weight", "norm2/scale", VECTOR, (width,)),
    ("norm2.bias", "norm2/bias", VECTOR, (width,)),
    ("mlp.fc1.weight", "mlp/fc1/kernel", LINEAR, (hidden, width)),
    ("mlp.fc1.bias", "mlp/fc1/bias", VECTOR, (hidden,)),
    ("mlp.fc2.weight", "mlp/fc2/kernel", LINEAR, (width, hidden)),
    ("mlp.fc2.bias", "mlp/fc2/bias", VECTOR, (width,)),
  )
  return tuple(
    Entry(f"{reference}.{{i}}.{r}", f"{ours}_{{i}}/{o}", layout, shape) for r, o, layout, shape in rows
  )


_ENCODER = (
  Entry("cls_token", "encoder/cls_token", IDENTITY, ("1", "1", "D")),
  Entry("pos_embed", "encoder/pos_embed", IDENTITY, ("1", "T", "D")),
  Entry("patch_embed.proj.weight", "encoder/patch_embed/kernel", PATCH_CONV, ("D", "3", "P", "P")),
  Entry("patch_embed.proj.bias", "encoder/patch_embed/bias", VECTOR, ("D",)),
  *_blocks("blocks", "encoder/blocks", "D", "F"),
  Entry("norm.weight", "encoder/norm/scale", VECTOR, ("D",)),
  Entry("norm.bias", "encoder/norm/bias", VECTOR, ("D",)),
)
_DECODER = (
  Entry("mask_token", "decoder/mask_token", IDENTITY, ("1", "1", "E")),
  Entry("decoder_pos_embed", "decoder/pos_embed", IDENTITY, ("1", "T", "E")),
  Entry("decoder_embed.weight", "decoder/embed/kernel", LINEAR, ("E", "D")),
  Entry("decoder_embed.bias", "decoder/embed/bias", VECTOR, ("E",)),
  *_blocks("decoder_blocks", "decoder/blocks", "E", "G"),
  Entry("decoder_norm.weight", "decoder/norm/scale", VECTOR, ("E",)),
  Entry("decoder_norm.bias", "decoder/norm/bias", VECTOR, ("E",)),
  Entry("decoder_pred.weight", "decoder/pred/kernel", LINEAR, ("3PP", "E")),
  Entry("decoder_pred.bias", "decoder/pred/bias", VECTOR, ("3PP",)),
)

FAMILIES = {
  "hap": Family(
    name="hap",
    entries=_ENCODER + _DECODER,
    unused=(),
    stand_ins={},
    licence="not stated; the official weights started from MAE's, which are CC-BY-NC 4.0",
  ),
  "mae": Family(
    name="mae",
    entries=_ENCODER + _DECODER,
    # Fine-tuned files: a classifier, and with global pooling a norm of the pooled feature in place of `norm`.
    unused=("head.", "fc_norm."),
    stand_ins={"norm.weight": "fc_norm.weight", "norm.bias": "fc_norm.bias"},
    licence="CC-BY-NC 4.0 if these are the published MAE weights",
  ),
}


def table(family, *, depth, decoder_depth):
  """Returns a family's rows for so many blocks, block by block.

  Args:
    family: a Family. depth: blocks of the encoder. decoder_depth: blocks of the decoder, 0: no decoder.
  """
  rows = []
  depths = {"encoder": depth, "decoder": decoder_depth}
  runs = itertools.groupby(family.entries, key=lambda entry: (entry.stack, "{i}" in entry.reference))
  for (stack, is_block), run in runs:
    run = tuple(run)
    if depths[stack]:
      repeats = depths[stack] if is_block else 1
      rows.extend(entry.numbered(i) for i in range(repeats) for entry in run)
  return tuple(rows)


def count_blocks(family, stack, names):
  """Returns how many blocks of a stack ("encoder", "decoder") the names hold.

  Raises:
    ValueError: if their numbers are not 0, 1, 2, ...
  """
  prefix = next(
    entry.reference.partition("{i}")[0]
    for entry in family.entries
    if entry.stack == stack and "{i}" in entry.reference
  )
  numbers = {name[len(prefix) :].partition(".")[0] for name in names if name.startswith(prefix)}
  missing = {str(i) for i in range(len(numbers))} - numbers
  if missing:
    raise ValueError(
      f"has {len(numbers)} blocks {prefix}N but none numbered {', '.join(sorted(missing, key=int))}"
    )
  return len(numbers)
