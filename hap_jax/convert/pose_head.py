"""Name tables, settings, heat maps and shared facts of 2D pose networks, for `vitpose` and `hf-vitpose`."""

import dataclasses

import numpy as np

from hap_jax.convert import official, rows
from hap_jax.convert.family import Family
from hap_jax.convert.layouts import CONV, DECONV, VECTOR
from hap_jax.convert.names import Entry
from hap_jax.convert.numpy_layers import batch_norm, conv, deconv, enlarge, f32
from hap_jax.convert.outputs import Outputs
from hap_jax.data.skeletons import AIC14, COCO17, MPII16
from hap_jax.models.pose_estimator import STRIDE

_PADDING = 2  # padding of the patches in pixels, the same in all official networks
_OURS = "keypoint_head"
# The layers of the classic head in the official code. Layers 2 and 5 are the ReLUs.
_DECONVS = (0, 3)
_LAYER = "keypoint_head.deconv_layers"
_FINAL = "keypoint_head.final_layer"
# {number of patches: (grid, text about the image size)}
_GRIDS = {192: ((16, 12), "2D pose at 256 x 192"), 432: ((24, 18), "2D pose at 384 x 288")}
_NUM_HEADS = {(384, 12): 12}  # ViTPose's small model
# Settings of the official training, by the joints of the data set: (codec, fit_aspect).
_RULES = {COCO17.name: ("udp", True), MPII16.name: ("udp", False), AIC14.name: ("msra", True)}
_RULES_OF_OTHERS = ("udp", True)
_SIZES = ("num_joints", "head", "head_channels")  # the arrays show these values
_SKELETONS = {len(skeleton.joints): skeleton for skeleton in (COCO17, MPII16, AIC14)}


def classic(layers, final, channels):
  """Returns the rows of the classic head. The letter C of the shapes is the number of joints.

  Args:
    layers: names in the file of the layers before the last one: transposed convolution, batch norm,
      transposed convolution, batch norm.
    final: the name of the last convolution in the file.
    channels: output channels of the two transposed convolutions, as items of `names.Entry.shape`.
  """
  found, inputs = [], "D"
  for k, (first, width) in enumerate(zip(_DECONVS, channels, strict=True)):
    shape = (inputs, width, "4", "4")
    found.append(Entry(f"{layers[2 * k]}.weight", f"{_OURS}/deconv_layers_{first}/kernel", DECONV, shape))
    found.extend(rows.batch_norm(layers[2 * k + 1], f"{_OURS}/deconv_layers_{first + 1}", width))
    inputs = width
  return (*found, *_final(final, inputs, "1"))


def simple(final):
  """Returns the rows of the simple head, given the name of its convolution in the file."""
  return _final(final, "D", "3")


def _final(name, inputs, size):
  return (
    Entry(f"{name}.weight", f"{_OURS}/final_layer/kernel", CONV, ("C", inputs, size, size)),
    Entry(f"{name}.bias", f"{_OURS}/final_layer/bias", VECTOR, ("C",)),
  )


def check_experts(source):
  """Raises ValueError if a `source.Source` has experts in its blocks, as in models for several data sets."""
  expert = next((name for name in source.state if ".mlp.experts." in name), None)
  if expert:
    raise ValueError(
      f"{source.path}: tensor {source.names[expert]} belongs to an expert of a model for several data sets, "
      "such as ViTPose+, which this project cannot compute: use a model for one data set"
    )


def channels_of(variables):
  """Returns the channels of the transposed convolutions of a head, [] for the simple head."""
  head = variables["params"].get(_OURS, {})
  names = [f"deconv_layers_{first}" for first in _DECONVS]
  return [int(head[name]["kernel"].shape[-1]) for name in names if name in head]


def network(variables, config, recorded):
  """Returns `Description.network` of 2D pose, see `tasks/pose2d.py`. For the arguments, see `family.Family`.

  Published files record neither the data set nor its settings. Both are assumed from the number of joints.
  """
  if _OURS not in variables["params"]:
    return {}
  channels = channels_of(variables)
  K = len(variables["params"][_OURS]["final_layer"]["bias"])
  skeleton, labels = _SKELETONS.get(K), _labels(config)
  if skeleton and labels and tuple(labels) != skeleton.joints:
    skeleton = None  # another data set with the same number of joints
  name = skeleton.name if skeleton else "unknown"
  codec, fit_aspect = _RULES.get(name, _RULES_OF_OTHERS)
  found = {
    "num_joints": K,
    "skeleton": name,
    "head": "classic" if channels else "simple",
    "head_channels": channels,
    "codec": codec,
    "fit_aspect": fit_aspect,
  }
  if recorded:  # a record has all settings; a missing one must not become an assumed one
    return {key: found[key] for key in _SIZES}
  assumed = [f"codec {codec}", f"fit_aspect {fit_aspect}"]
  if skeleton and not labels:
    assumed.insert(0, f"the joints of {name}")
  text = f"{', '.join(assumed)}: the file has {K} joints and does not record its data set"
  return {**found, "assumed": text}


def classes(network, config):
  """Returns {"joints": names of the joints}, or {} if they are not known."""
  labels = _labels(config)
  skeleton = _SKELETONS.get(network.get("num_joints"))
  if skeleton and network.get("skeleton") == skeleton.name:
    return {"joints": list(skeleton.joints)}
  return {"joints": labels} if labels and len(labels) == network.get("num_joints") else {}


def _labels(config):
  """Returns the names of the joints in config.json, in the spelling of this project. []: it has no names."""
  labels = config.get("id2label")
  if not isinstance(labels, dict) or not all(isinstance(label, str) for label in labels.values()):
    return []
  found = [labels.get(str(k), "LABEL_") for k in range(len(labels))]
  # transformers writes LABEL_0, LABEL_1, ... if the joints have no names.
  if any(label.startswith("LABEL_") for label in found):
    return []
  spelled = (label.lower().replace(" ", "_") for label in found)
  return [_SIDES.get(name[:2], name[:2]) + name[2:] for name in spelled]


_SIDES = {"l_": "left_", "r_": "right_"}


def module_of(module):
  """Returns a function like `numpy_vit.Network.module`, but every weight is [out, in, kh, kw].

  PyTorch stores the weight of a transposed convolution as [in, out, kh, kw].

  Args:
    module: (name in the official code, path in this project's variables) -> tensors of a file.
  """

  names = {f"{_LAYER}.{first}" for first in _DECONVS}

  def find(name, path):
    found = dict(module(name, path))
    if name in names:
      found = {key: tensor.swapaxes(0, 1) for key, tensor in found.items()}
    return found

  return find


def _in_numpy(forward):
  def module(name):
    path = name.replace("deconv_layers.", "deconv_layers_").replace(".", "/")
    return forward.network.module(name, path)

  x = forward.patches
  x = x.reshape(len(x), *forward.grids[1], -1)
  if module(f"{_LAYER}.{_DECONVS[0]}"):
    for first in _DECONVS:
      x = deconv(x, module(f"{_LAYER}.{first}"))
      x = np.maximum(batch_norm(x, module(f"{_LAYER}.{first + 1}")), 0)
  else:
    x = enlarge(np.maximum(x, 0), STRIDE)
  final = module(_FINAL)
  return {"heatmaps": conv(x, final) + f32(final["bias"])}


def _in_jax(model, variables, batch, description):
  del description
  return {"heatmaps": model.apply(variables, batch.image, train=False)}


def family(name, encoder, classic_head, simple_head, *, recognise, network_of, **others):
  """Returns the Family of files with the classic or the simple head.

  Args:
    name: the name of the family.
    encoder: the rows of the encoder.
    classic_head: the rows of the classic head, from `classic`.
    simple_head: the rows of the simple head, from `simple`.
    recognise: see `Family`.
    network_of: see `Family`.
    others: further fields of `Family`.
  """
  simple_family = Family(
    name,
    encoder + simple_head,
    recognise,
    network_of,
    licence=official.OF_VITPOSE,
    made_from=official.MADE_FROM_VITPOSE,
    backbone="backbone.",
    patch_padding=_PADDING,
    class_token=False,
    grids=_GRIDS,
    num_heads=_NUM_HEADS,
    network=network,
    classes=classes,
    outputs=Outputs(needs={"heatmaps": _OURS}, in_numpy=_in_numpy, in_jax=_in_jax),
    **others,
  )
  return dataclasses.replace(
    simple_family,
    entries=encoder + classic_head,
    placeholders=rows.counters(classic_head),
    variants=(simple_family,),
  )
