"""Person ReID files of the official HAP code. The network has a classifier on the class token."""

from hap_jax.convert import numpy_vit, official, reid, rows
from hap_jax.convert.family import LIKELY, NO, Family
from hap_jax.convert.numpy_layers import linear, pair
from hap_jax.convert.outputs import Outputs


def _recognise(source):
  if not official.has_names(source) or not official.has_head(source) or official.has_decoder(source):
    return NO
  # Files of the family `timm` have the same names. These two properties show that a file belongs to `timm`.
  is_of_timm = source.is_backbone or not source.is_nested
  return LIKELY if official.is_of_hap(source) and not is_of_timm else NO


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
