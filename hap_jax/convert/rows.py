"""Rows of name tables that several checkpoint families share. The functions take prefixes of names."""

import numpy as np

from hap_jax.convert.layouts import IDENTITY, LINEAR, PATCH_CONV, VECTOR
from hap_jax.convert.names import Entry, Placeholder


def blocks(reference, ours, width, hidden):
  """Returns the rows of a stack of pre-norm transformer blocks.

  Args:
    reference: the name of the stack in the foreign file. Block i has the name <reference>.{i}.
    ours: the path of the stack in this project.
    width: the letter for the width of a block.
    hidden: the letter for the hidden width of its MLP.
  """
  # (name in the file, path in this project, layout, shape in the file) of one block
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


def linear(reference, ours, num_outputs, num_inputs):
  """Returns the rows of a linear layer. The sizes are letters as in `names.Entry.shape`."""
  return (
    Entry(f"{reference}.weight", f"{ours}/kernel", LINEAR, (num_outputs, num_inputs)),
    Entry(f"{reference}.bias", f"{ours}/bias", VECTOR, (num_outputs,)),
  )


def norm(reference, ours, width):
  """Returns the rows of a layer norm."""
  return (
    Entry(f"{reference}.weight", f"{ours}/scale", VECTOR, (width,)),
    Entry(f"{reference}.bias", f"{ours}/bias", VECTOR, (width,)),
  )


def batch_norm(reference, ours, width):
  """Returns the rows of a batch norm with its running statistics."""
  statistics = (("running_mean", "mean"), ("running_var", "var"))
  return norm(reference, ours, width) + tuple(
    Entry(f"{reference}.{r}", f"{ours}/{o}", VECTOR, (width,), collection="batch_stats")
    for r, o in statistics
  )


def counters(entries):
  """Returns the step counters of PyTorch's batch norms as Placeholders, given the rows of the batch norms."""
  means = (entry.reference for entry in entries if entry.reference.endswith("running_mean"))
  names = (name.replace("running_mean", "num_batches_tracked") for name in means)
  return tuple(Placeholder(name, (), lambda shape: np.zeros(shape, np.int64)) for name in names)


# The encoder and the decoder under the names of MAE and timm.
ENCODER = (
  Entry("cls_token", "encoder/cls_token", IDENTITY, ("1", "1", "D")),
  Entry("pos_embed", "encoder/pos_embed", IDENTITY, ("1", "T", "D")),
  Entry("patch_embed.proj.weight", "encoder/patch_embed/kernel", PATCH_CONV, ("D", "3", "P", "P")),
  Entry("patch_embed.proj.bias", "encoder/patch_embed/bias", VECTOR, ("D",)),
  *blocks("blocks", "encoder/blocks", "D", "F"),
  *norm("norm", "encoder/norm", "D"),
)
DECODER = (
  Entry("mask_token", "decoder/mask_token", IDENTITY, ("1", "1", "E")),
  Entry("decoder_pos_embed", "decoder/pos_embed", IDENTITY, ("1", "T", "E")),
  *linear("decoder_embed", "decoder/embed", "E", "D"),
  *blocks("decoder_blocks", "decoder/blocks", "E", "G"),
  *norm("decoder_norm", "decoder/norm", "E"),
  *linear("decoder_pred", "decoder/pred", "3PP", "E"),
)
# A classifier with global pooling has no `norm`, but a norm of the pooled feature.
NORMS_OF_CLASSIFIERS = {"norm.weight": "fc_norm.weight", "norm.bias": "fc_norm.bias"}
