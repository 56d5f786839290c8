"""Person ReID files of the official HAP code with the locality enhanced module (LEM) on the patch tokens."""

import numpy as np

from hap_jax.convert import numpy_vit, official, reid, rows
from hap_jax.convert.family import CERTAIN, NO, Family
from hap_jax.convert.layouts import CONV
from hap_jax.convert.names import Entry
from hap_jax.convert.numpy_layers import batch_norm, conv, layer_norm, linear, pair
from hap_jax.convert.outputs import Outputs
from hap_jax.models.layers import LAYER_NORM_EPSILON


def _bottleneck(unit, width_in):
  """Returns the rows of one residual unit of the LEM, without its shortcut.

  The letter M is the number of channels inside the unit.
  """
  reference, ours = f"conv_head.{unit}", f"conv_head_{unit}"
  shapes = (("M", width_in, "1", "1"), ("M", "M", "3", "3"), ("4M", "M", "1", "1"))
  found = []
  for n, shape in enumerate(shapes, 1):
    found.append(Entry(f"{reference}.conv{n}.weight", f"{ours}/conv{n}/kernel", CONV, shape))
    found.extend(rows.batch_norm(f"{reference}.bn{n}", f"{ours}/bn{n}", shape[0]))
  return tuple(found)


_LEM = (
  *_bottleneck(0, "D"),
  Entry("conv_head.0.downsample.0.weight", "conv_head_0/downsample_0/kernel", CONV, ("4M", "D", "1", "1")),
  *rows.batch_norm("conv_head.0.downsample.1", "conv_head_0/downsample_1", "4M"),
  *_bottleneck(1, "4M"),
  *_bottleneck(2, "4M"),
  # The output width 4M of the LEM equals 2D, twice the width of the encoder. The next rows write it as 2D, so
  # that M is checked against D.
  *rows.norm("conv_fc_norm", "conv_fc_norm", "2D"),
  *rows.linear("conv_fc", "conv_fc", "C", "2D"),
  *rows.batch_norm("bn", "bn", "D"),
  *rows.batch_norm("conv_bn", "conv_bn", "2D"),
)


def _recognise(source):
  has_module = any(name.startswith("conv_head.") for name in source.state)
  return CERTAIN if official.has_names(source) and has_module else NO


def _in_numpy(forward):
  module = forward.network.module
  # Each classifier reads a feature after a batch norm. The output "feature_conv" is the feature before this
  # batch norm.
  pooled = _map_of(forward).mean(axis=(1, 2))
  pooled = layer_norm(pooled, pair(module("conv_fc_norm", "conv_fc_norm")), LAYER_NORM_EPSILON)
  cls = batch_norm(forward.cls, module("bn", "bn"))
  return {
    "feature_conv": pooled,
    "logits": linear(cls, pair(module("head", "head"))),
    "logits_conv": linear(
      batch_norm(pooled, module("conv_bn", "conv_bn")), pair(module("conv_fc", "conv_fc"))
    ),
  }


def _map_of(forward):
  """Runs the three residual units. Returns [B, Gh / 2, Gw / 2, 2 D]."""
  x = forward.raw_patches.reshape(len(forward.raw), *forward.grids[1], -1)
  for unit in range(3):
    stride = 2 if unit == 0 else 1  # only the first unit has stride 2 and a projection shortcut

    def of(name, unit=unit):
      path = f"conv_head_{unit}/{name.replace('.', '_')}"
      return forward.network.module(f"conv_head.{unit}.{name}", path)

    y = np.maximum(batch_norm(conv(x, of("conv1")), of("bn1")), 0)
    y = np.maximum(batch_norm(conv(y, of("conv2"), stride), of("bn2")), 0)
    y = batch_norm(conv(y, of("conv3")), of("bn3"))
    if unit == 0:
      x = batch_norm(conv(x, of("downsample.0"), stride), of("downsample.1"))
    x = np.maximum(x + y, 0)
  return x


def _in_jax(model, variables, batch, description):
  del description
  found = model.apply(variables, batch.image, train=False)
  return {
    "feature_conv": found.features[1],
    "logits": found.logits[0],
    "logits_conv": found.logits[1],
  }


FAMILY = Family(
  "reid-lem",
  rows.ENCODER + reid.HEAD + _LEM,
  _recognise,
  numpy_vit.official,
  licence=official.OF_HAP,
  made_from=reid.MADE_FROM,
  task="reid",
  placeholders=rows.counters(_LEM),
  grids=reid.GRIDS,
  pixels_from="published reid-lem code",
  network=reid.network,
  content=official.content("reid_lem"),
  outputs=Outputs(
    needs={"logits": "head", "feature_conv": "conv_fc_norm", "logits_conv": "conv_fc"},
    in_numpy=_in_numpy,
    in_jax=_in_jax,
  ),
)
