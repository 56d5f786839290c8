"""Person ReID files of the official HAP code. The network has a classifier on the class token."""

from hap_jax.convert import numpy_vit, official, reid, rows
from hap_jax.convert.family import LIKELY, NO, Family
from hap_jax.convert.numpy_layers import linear, pair
from hap_jax.convert.outputs import Outputs

# The entry `arch` of a file of the official code, and of a file that this project wrote without its record.
_ARCHS = ("vit_base_patch16", "reid_vit_")


def _recognise(source):
  """Returns LIKELY if tensors, shape and the entry `arch` fit. Each alone also fits other projects."""
  if not official.has_names(source) or not official.has_head(source) or official.has_decoder(source):
    return NO
  arch = official.arch_of(source)
  is_named = arch == _ARCHS[0] or arch.startswith(_ARCHS[1])
  return LIKELY if is_named and official.num_patches(source) in reid.GRIDS else NO


def _check_weights(weights):
  if "conv_fc" in weights.params:
    file = weights.lineage[0]["file"]
    raise ValueError(
      f"--to=reid-vit: the classifier of {file} needs the batch norm of its locality enhanced module: use "
      "--to=reid-lem, or --to=hap for the encoder only"
    )


def _in_numpy(forward):
  return {"logits": linear(forward.cls, pair(forward.network.module("head", "head")))}


def _in_jax(model, variables, batch, description):
  del description
  return {"logits": model.apply(variables, batch.image, train=False).logits[0]}


FAMILY = Family(
  "reid-vit",
  rows.ENCODER + reid.HEAD,
  _recognise,
  numpy_vit.official,
  licence=official.OF_HAP,
  made_from=reid.MADE_FROM,
  task="reid",
  grids=reid.GRIDS,
  pixels_from="published reid-vit code",
  check_weights=_check_weights,
  network=reid.network,
  content=official.content("reid_vit"),
  outputs=Outputs(needs={"logits": "head"}, in_numpy=_in_numpy, in_jax=_in_jax),
)
