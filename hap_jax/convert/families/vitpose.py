"""2D pose networks of the official code of ViTPose and HAP, with the classic or the simple head.

A model of a joint training has an expert and a head for each data set.
"""

import dataclasses

from hap_jax.convert import numpy_vit, official, pose_head, rows
from hap_jax.convert.family import CERTAIN, NO

_LAYERS = tuple(f"keypoint_head.deconv_layers.{n}" for n in (0, 1, 3, 4))
_FINAL = "keypoint_head.final_layer"
_ENCODER = tuple(
  dataclasses.replace(
    row, reference=f"last_{row.reference}" if row.reference.startswith("norm.") else row.reference
  )
  for row in rows.ENCODER
  if row.reference != "cls_token"
)


def _recognise(source):
  # The name of the final norm is the trait. Many projects call their head `keypoint_head`.
  return CERTAIN if official.has_names(source) and "last_norm.weight" in source.state else NO


def _network_of(state):
  # Some files hold a class token, but the encoder of the official code never uses it.
  used = {
    name.replace("last_norm.", "norm."): tensor for name, tensor in state.items() if name != "cls_token"
  }
  found = numpy_vit.official(used)
  return dataclasses.replace(found, module=pose_head.module_of(found.module))


def _content(weights, state):
  del weights
  return {"meta": {}, "state_dict": state}


FAMILY = pose_head.family(
  "vitpose",
  _ENCODER,
  pose_head.classic(_LAYERS, _FINAL, ("M", "Z")),
  pose_head.simple(_FINAL),
  task="pose2d",
  recognise=_recognise,
  network_of=_network_of,
  has_more_heads=True,
  # The heads of an older model for several data sets, and heads for animals and whole bodies.
  unused=("cls_token", "associate_heads.", "associate_keypoint_heads."),
  pixels_from="published vitpose code",
  content=_content,
)
