"""Files with the names of mmpretrain's ViT: a classifier, a backbone, or self-supervised training."""

import dataclasses
import re

from hap_jax.convert import equivalents, numpy_vit, rows
from hap_jax.convert.family import CERTAIN, NO, Family

# {module in MAE: module in mmpretrain}
_SPELLED = {
  "patch_embed.proj": "patch_embed.projection",
  "norm1": "ln1",
  "norm2": "ln2",
  "mlp.fc1": "ffn.layers.0.0",
  "mlp.fc2": "ffn.layers.1",
  "norm": "ln1",
}


def _reference(name):
  """Returns the name in mmpretrain of a name in MAE."""
  start, block = (
    ("layers.{i}.", name.removeprefix("blocks.{i}.")) if name.startswith("blocks.") else ("", name)
  )
  module, dot, leaf = block.rpartition(".")
  return f"{start}{_SPELLED.get(module, module)}{dot}{leaf}"


def _recognise(source):
  names = {"patch_embed.projection.weight", "pos_embed", "cls_token", "layers.0.ffn.layers.0.0.weight"}
  return CERTAIN if names <= source.state.keys() else NO


def _prepare(source, state, grid):
  del source, grid
  return equivalents.of_blocks(state, "layers.")


def _network_of(state):
  # This does not use the table of names: patterns turn the names into those of MAE.
  found = {}
  for name, tensor in state.items():
    name = re.sub(r"^ln1\.", "norm.", name)
    name = re.sub(r"^layers\.", "blocks.", name).replace("patch_embed.projection.", "patch_embed.proj.")
    name = name.replace(".ln1.", ".norm1.").replace(".ln2.", ".norm2.")
    found[name.replace(".ffn.layers.0.0.", ".mlp.fc1.").replace(".ffn.layers.1.", ".mlp.fc2.")] = tensor
  return numpy_vit.official(found)


def _content(weights, state):
  del weights
  return {"meta": {}, "state_dict": state}


FAMILY = Family(
  "mmpretrain",
  tuple(dataclasses.replace(row, reference=_reference(row.reference)) for row in rows.ENCODER),
  _recognise,
  _network_of,
  task="pretrain",
  stage="encoder; the file does not state its training task",
  prepare=_prepare,
  # A decoder of masked image modelling is a neck in mmpretrain.
  unused=("head.", "neck.", "data_preprocessor.", "mask_token"),
  backbone="backbone.",
  content=_content,
)
