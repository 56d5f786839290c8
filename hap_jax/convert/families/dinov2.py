"""Files of the official DINOv2 code (arXiv 2304.07193), the models without registers.

Layer scale is multiplied into the last linear layer of attention and MLP, which changes no feature. A written
file has the layer scale 1.
"""

import numpy as np

from hap_jax.convert import equivalents, numpy_vit, official, rows
from hap_jax.convert.family import LIKELY, NO, Family
from hap_jax.convert.names import Placeholder


def _recognise(source):
  """Returns LIKELY for a ViT with layer scale and with the mask token of DINOv2, which has two dimensions."""
  mask = source.state.get("mask_token")
  is_of_dino = official.has_names(source) and "blocks.0.ls1.gamma" in source.state
  return LIKELY if is_of_dino and mask is not None and mask.ndim == 2 else NO


def _prepare(source, state, grid):
  del source, grid
  return equivalents.of_blocks(state, "blocks.")


def _ones(shape):
  return np.ones(shape, np.float32)


def _zeros(shape):
  return np.zeros(shape, np.float32)


def _content(weights, state):
  # The official evaluation reads the entry "teacher".
  del weights
  return {"teacher": state}


FAMILY = Family(
  "dinov2",
  rows.ENCODER,
  _recognise,
  numpy_vit.official,
  task="pretrain",
  stage="self-supervised, without decoder",
  licence="not stated in the file; the published DINOv2 weights are Apache-2.0",
  prepare=_prepare,
  unused=("head.", "dino_head.", "ibot_head."),
  placeholders=(
    Placeholder("mask_token", ("1", "D"), _zeros),
    Placeholder("blocks.{i}.ls1.gamma", ("D",), _ones),
    Placeholder("blocks.{i}.ls2.gamma", ("D",), _ones),
  ),
  prefers=(official.SELF_DISTILLED,),
  backbone="backbone.",
  pixels_from="published dinov2 code",
  content=_content,
)
