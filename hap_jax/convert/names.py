"""Weight names of foreign checkpoints and of this project: one table a family, read in both directions.

A row says what a tensor is called there and here, how its layout changes, and what shape it has there. Rows
of a stack of blocks are written once, with `{i}` for the block's number. A new kind of head is a few rows.
"""

import collections
import dataclasses
import itertools
import re

import numpy as np

from hap_jax.convert.layouts import CONV, IDENTITY, LINEAR, PATCH_CONV, VECTOR, Layout


@dataclasses.dataclass(frozen=True)
class Entry:
  """One row of a table.

  Attributes:
    reference: name in the foreign state dict. ours: path in this project's variables, with slashes.
    layout: the change of layout.
    shape: of the foreign tensor: numbers, or products of these letters of one checkpoint. D, E: width of
      encoder and decoder; F, G: their MLPs' hidden widths; P: patch side; T: position rows, 1 + L;
      C: classes or attributes; M: narrow width of the ReID head's convolutions.
    part: (k, n): the tensor is the k-th of n equal parts of ours along its last axis.
    block: number i of the block along the first axis of ours, which stacks blocks; None: it stacks none.
    collection: of this project's variables that holds it.
  """

  reference: str
  ours: str
  layout: Layout
  shape: tuple[str, ...]
  part: tuple[int, int] = (0, 1)
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
    """Returns what the row says of a whole array of ours, a view."""
    if self.block is not None:
      array = array[self.block]
    k, n = self.part
    side = array.shape[-1] // n
    return array[..., k * side : (k + 1) * side]


@dataclasses.dataclass(frozen=True)
class Family:
  """Checkpoints that share names.

  Attributes:
    name: of the family. entries: its table, in the order in which its files are written.
    unused: beginnings of names that its files may hold and this project has no use for.
    stand_ins: {name: other name}: a file may lack the first where it holds the second.
    licence: what is known of the licence of its published weights; the files themselves do not say.
    renames: (pattern, replacement) that turn other spellings of the names into the table's, in this order.
    counters: integers of PyTorch's batch norms without use here; written as zero.
    made_from: the earlier data sets and weights of its published files, newest first, each as arguments of
      `licences.source`.
    task: what its files are trained for, a file of `hap_jax/tasks`.
    backbone: what its files put before the encoder's names; read with and without, written with it.
  """

  name: str
  entries: tuple[Entry, ...]
  licence: str
  unused: tuple[str, ...] = ()
  stand_ins: dict[str, str] = dataclasses.field(default_factory=dict)
  renames: tuple[tuple[str, str], ...] = ()
  counters: tuple[str, ...] = ()
  made_from: tuple[tuple[str, ...], ...] = ()
  task: str = "pretrain"
  backbone: str = ""

  @property
  def stacks(self):
    """The subtrees of this project's variables that its files can hold."""
    return frozenset(entry.stack for entry in self.entries)

  def in_file(self, name):
    """Returns a name of the table as the family's files spell it."""
    is_encoder = any(name.startswith(entry.reference.partition("{i}")[0]) for entry in _ENCODER)
    return f"{self.backbone}{name}" if is_encoder else name

  def rename(self, name):
    """Returns the table's spelling of a file's name."""
    for pattern, replacement in self.renames:
      name = re.sub(pattern, replacement, name)
    return name


def _blocks(reference, ours, width, hidden):
  """Rows of a stack of pre-norm transformer blocks named <reference>.{i} there and stacked as <ours> here."""
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
  return tuple(Entry(f"{reference}.{{i}}.{r}", f"{ours}/{o}", layout, shape) for r, o, layout, shape in rows)


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

_NORMS_OF_CLASSIFIERS = {"norm.weight": "fc_norm.weight", "norm.bias": "fc_norm.bias"}


def _separate_blocks(reference, ours, width, hidden):
  """As `_blocks` with the names of Hugging Face, where queries, keys and values are tensors of their own."""
  attention = f"{reference}.{{i}}.attention.attention"
  rows = []
  for k, part in enumerate(("query", "key", "value")):
    weight, bias = f"{attention}.{part}.weight", f"{attention}.{part}.bias"
    rows.append(Entry(weight, f"{ours}/attn/qkv/kernel", LINEAR, (width, width), (k, 3)))
    rows.append(Entry(bias, f"{ours}/attn/qkv/bias", VECTOR, (width,), (k, 3)))
  spelled = {
    "norm1": "layernorm_before",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
  }
  for row in _blocks(reference, ours, width, hidden):
    module, leaf = row.reference.removeprefix(f"{reference}.{{i}}.").rsplit(".", 1)
    if module in spelled:
      rows.append(dataclasses.replace(row, reference=f"{reference}.{{i}}.{spelled[module]}.{leaf}"))
  return tuple(rows)


def _hf_encoder(prefix):
  names = (
    "embeddings.cls_token",
    "embeddings.position_embeddings",
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embeddings.projection.bias",
  )
  embeddings = zip(names, _ENCODER[: len(names)], strict=True)
  return (
    *(dataclasses.replace(row, reference=f"{prefix}{name}") for name, row in embeddings),
    *_separate_blocks(f"{prefix}encoder.layer", "encoder/blocks", "D", "F"),
    Entry(f"{prefix}layernorm.weight", "encoder/norm/scale", VECTOR, ("D",)),
    Entry(f"{prefix}layernorm.bias", "encoder/norm/bias", VECTOR, ("D",)),
  )


_HF_DECODER = (
  *(
    dataclasses.replace(row, reference=f"decoder.{row.reference}")
    for row in _DECODER
    if "{i}" not in row.reference
  ),
  *_separate_blocks("decoder.decoder_layers", "decoder/blocks", "E", "G"),
)
# What transformers calls the same tensors in memory since version 5, and in files of its version 5.
_HF_RENAMES = (
  (r"^(vit\.)?layers\.", r"\1encoder.layer."),
  (r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),
  (r"\.attention\.q_proj\.", ".attention.attention.query."),
  (r"\.attention\.k_proj\.", ".attention.attention.key."),
  (r"\.attention\.v_proj\.", ".attention.attention.value."),
  (r"\.attention\.o_proj\.", ".attention.output.dense."),
  (r"\.mlp\.fc1\.", ".intermediate.dense."),
  (r"\.mlp\.fc2\.", ".output.dense."),
)

_HEAD = (
  Entry("head.weight", "head/kernel", LINEAR, ("C", "D")),
  Entry("head.bias", "head/bias", VECTOR, ("C",)),
)

_CLASSIFIER = (
  Entry("classifier.logits.0.weight", "classifier/kernel", LINEAR, ("C", "D")),
  Entry("classifier.logits.0.bias", "classifier/bias", VECTOR, ("C",)),
)


def _batch_norm(reference, ours, width):
  rows = [("weight", "scale", "params"), ("bias", "bias", "params")]
  rows += [("running_mean", "mean", "batch_stats"), ("running_var", "var", "batch_stats")]
  return tuple(
    Entry(f"{reference}.{r}", f"{ours}/{o}", VECTOR, (width,), collection=collection)
    for r, o, collection in rows
  )


def _bottleneck(unit, width_in):
  """Rows of one residual unit of the locality enhanced module, without its shortcut."""
  reference, ours = f"conv_head.{unit}", f"conv_head_{unit}"
  shapes = (("M", width_in, "1", "1"), ("M", "M", "3", "3"), ("4M", "M", "1", "1"))
  rows = []
  for n, shape in enumerate(shapes, 1):
    rows.append(Entry(f"{reference}.conv{n}.weight", f"{ours}/conv{n}/kernel", CONV, shape))
    rows.extend(_batch_norm(f"{reference}.bn{n}", f"{ours}/bn{n}", shape[0]))
  return tuple(rows)


_SHORTCUT = Entry(
  "conv_head.0.downsample.0.weight", "conv_head_0/downsample_0/kernel", CONV, ("4M", "D", "1", "1")
)
_LEM = (
  *_bottleneck(0, "D"),
  _SHORTCUT,
  *_batch_norm("conv_head.0.downsample.1", "conv_head_0/downsample_1", "4M"),
  *_bottleneck(1, "4M"),
  *_bottleneck(2, "4M"),
  # Twice the encoder's width, which ties M to it.
  Entry("conv_fc_norm.weight", "conv_fc_norm/scale", VECTOR, ("2D",)),
  Entry("conv_fc_norm.bias", "conv_fc_norm/bias", VECTOR, ("2D",)),
  Entry("conv_fc.weight", "conv_fc/kernel", LINEAR, ("C", "2D")),
  Entry("conv_fc.bias", "conv_fc/bias", VECTOR, ("C",)),
  *_batch_norm("bn", "bn", "D"),
  *_batch_norm("conv_bn", "conv_bn", "2D"),
)


def _counters(entries):
  means = (entry.reference for entry in entries if entry.reference.endswith("running_mean"))
  return tuple(name.replace("running_mean", "num_batches_tracked") for name in means)


_NOT_STATED = "not stated in the file; ask where the weights were published"
_OF_HAP = "not stated; if these are official HAP weights, they started from MAE's, which are CC-BY-NC 4.0"
_IF_HAP = "this is an official HAP file"
# HAP, arXiv 2310.20695: pre-trained on LUPerson from MAE's encoder. A file fine-tuned from that does not say
# which data set of its task it saw.
_MADE_FROM_HAP = (
  ("data set", "luperson", "LUPerson: research use, on the terms of its authors", _IF_HAP),
  ("weights", "MAE, of ImageNet-1K", "CC-BY-NC 4.0", _IF_HAP),
)
_MADE_FROM_HAP_REID = (
  ("data set", "msmt17 or market1501", "academic research, on the terms of the authors", _IF_HAP),
  *_MADE_FROM_HAP,
)
_MADE_FROM_HAP_ATTRIBUTES = (
  ("data set", "pa100k, rapv1 or peta", "academic research, on the terms of the authors", _IF_HAP),
  *_MADE_FROM_HAP,
)

FAMILIES = {
  family.name: family
  for family in (
    Family("hap", _ENCODER + _DECODER, _OF_HAP, made_from=_MADE_FROM_HAP),
    Family(
      "mae",
      _ENCODER + _DECODER,
      "CC-BY-NC 4.0 if these are the published MAE weights",
      # Fine-tuned files: a classifier, and with global pooling the pooled feature's norm in place of `norm`.
      unused=("head.", "fc_norm."),
      stand_ins=_NORMS_OF_CLASSIFIERS,
    ),
    Family(
      "timm",
      _ENCODER,
      _NOT_STATED,
      # Classifiers of timm, and what ReID code keeps beside its backbone.
      unused=("head.", "fc_norm.", "pre_logits.", "classifier.", "bottleneck."),
      stand_ins=_NORMS_OF_CLASSIFIERS,
    ),
    Family(
      "hf-vit",
      _hf_encoder(""),
      _NOT_STATED,
      unused=("pooler.", "classifier.", "embeddings.mask_token"),
      renames=((r"^vit\.", ""), *_HF_RENAMES),
    ),
    Family(
      "hf-vitmae",
      _hf_encoder("vit.") + _HF_DECODER,
      "CC-BY-NC 4.0 if these are the published MAE weights",
      renames=((r"^(?!vit\.|decoder\.)", "vit."), *_HF_RENAMES),
    ),
    Family("reid-vit", _ENCODER + _HEAD, _OF_HAP, made_from=_MADE_FROM_HAP_REID, task="reid"),
    Family(
      "reid-lem",
      _ENCODER + _HEAD + _LEM,
      _OF_HAP,
      counters=_counters(_LEM),
      made_from=_MADE_FROM_HAP_REID,
      task="reid",
    ),
    Family(
      "attributes-vit",
      _ENCODER + _CLASSIFIER,
      _OF_HAP,
      made_from=_MADE_FROM_HAP_ATTRIBUTES,
      task="attributes",
      backbone="backbone.",
    ),
  )
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
    if is_block:
      rows.extend(entry.numbered(i) for i in range(depths[stack]) for entry in run)
    elif depths.get(stack, 1):
      rows.extend(run)
  return tuple(rows)


def assemble(rows, array_of):
  """Puts foreign tensors together as this project's arrays.

  Args:
    rows: of a table. array_of: row -> its tensor, float32, as it lies in the file.
  Returns:
    {collection: {path with slashes: contiguous float32 array}}.
  """
  depths = collections.Counter((row.collection, row.ours, row.part) for row in rows)
  variables = {}
  for row in rows:
    array, flat = row.layout.to_ours(array_of(row)), variables.setdefault(row.collection, {})
    if row.ours not in flat:
      shape = (*array.shape[:-1], row.part[1] * array.shape[-1])
      stack = () if row.block is None else (depths[row.collection, row.ours, row.part],)
      flat[row.ours] = np.empty((*stack, *shape), np.float32)
    row.of(flat[row.ours])[...] = array
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
