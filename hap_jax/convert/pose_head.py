"""Name tables, settings, heat maps and shared facts of 2D pose networks, for `vitpose` and `hf-vitpose`.

A network of several data sets has a head for each of them, and often an expert for each of them in its
encoder (ViTPose+, arXiv 2212.04246), see `experts.py`.
"""

import dataclasses
import functools
import itertools

import jax.numpy as jnp
import numpy as np

from hap_jax.convert import experts, official, rows
from hap_jax.convert.family import Family
from hap_jax.convert.layouts import CONV, DECONV, VECTOR
from hap_jax.convert.names import Entry
from hap_jax.convert.numpy_layers import batch_norm, conv, deconv, enlarge, f32
from hap_jax.convert.outputs import Outputs
from hap_jax.data.skeletons import AIC14, COCO17, MPII16, SKELETONS
from hap_jax.models.pose_estimator import STRIDE

_PADDING = 2  # padding of the patches in pixels, the same in all official networks
_OURS = "keypoint_head"
# The heads of further data sets, in this project and in the official code.
_MORE_OURS, _MORE = "associate_keypoint_heads_", "associate_keypoint_heads."
# The layers of the classic head in the official code. Layers 2 and 5 are the ReLUs.
_DECONVS = (0, 3)
# {number of patches: (grid, text about the image size)}
_GRIDS = {192: ((16, 12), "2D pose at 256 x 192"), 432: ((24, 18), "2D pose at 384 x 288")}
_NUM_HEADS = {(384, 12): 12}  # ViTPose's small model
# Settings of the official training, by the joints of the data set: (codec, fit_aspect).
_RULES = {COCO17.name: ("udp", True), MPII16.name: ("udp", False), AIC14.name: ("msra", True)}
_RULES_OF_OTHERS = ("udp", True)
# Keys of `Description.network` that have a list with one value per head, if there are several data sets.
PER_DATA_SET = ("datasets", "skeleton", "codec", "fit_aspect")
_SKELETONS = {len(skeleton.joints): skeleton for skeleton in (COCO17, MPII16, AIC14)}
# Data sets of the official joint trainings, in the order of experts and heads.
_LABELS = ("coco", "aic", "mpii", "ap10k", "apt36k", "wholebody")
_NUM_EXPERTS = (3, len(_LABELS))  # of the joint runs of HAP and ViTPose, and of ViTPose+
_SKELETON_OF = {"coco": COCO17, "aic": AIC14, "mpii": MPII16}


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


def channels_of(variables):
  """Returns the channels of the transposed convolutions of a head, [] for the simple head."""
  head = variables["params"].get(_OURS, {})
  names = [f"deconv_layers_{first}" for first in _DECONVS]
  return [int(head[name]["kernel"].shape[-1]) for name in names if name in head]


def network(variables, config, recorded, num_experts=1):
  """Returns `Description.network` of 2D pose, see `tasks/pose2d.py`. For the arguments, see `family.Family`.

  Published files record neither the data sets nor their settings. Both are assumed from the numbers of joints
  and from the order of the heads.
  """
  params = variables["params"]
  if _OURS not in params:
    return {}
  channels, num_joints = channels_of(variables), num_joints_of(params)
  has_several = "datasets" in recorded if recorded else len(num_joints) > 1 or num_experts > 1
  sizes = {
    "num_joints": num_joints if has_several else num_joints[0],
    "head": "classic" if channels else "simple",
    "head_channels": channels,
  }
  if recorded:  # a record has all settings; a missing one must not become an assumed one
    return sizes | _of_heads(recorded, len(num_joints))
  labels = _labels(config)
  if has_several:
    return sizes | _assume_data_sets(num_joints, num_experts, labels)
  K = num_joints[0]
  skeleton = _skeleton_of(K, labels)
  name = skeleton.name if skeleton else "unknown"
  codec, fit_aspect = _RULES.get(name, _RULES_OF_OTHERS)
  assumed = [f"codec {codec}", f"fit_aspect {fit_aspect}"]
  if skeleton and not labels:
    assumed.insert(0, f"the joints of {name}")
  text = f"{', '.join(assumed)}: the file has {K} joints and does not record its data set"
  return {
    "num_joints": K,
    "skeleton": name,
    **sizes,
    "codec": codec,
    "fit_aspect": fit_aspect,
    "assumed": text,
  }


def _of_heads(recorded, num_heads):
  """Returns the recorded lists of settings, cut to the heads of the file, which may have fewer."""
  found = {key: recorded[key] for key in PER_DATA_SET if isinstance(recorded.get(key), list)}
  return {key: values[:num_heads] for key, values in found.items()}


def _skeleton_of(num_joints, labels):
  """Returns the Skeleton with these joints, or None. `labels` are the names of the joints, or []."""
  skeleton = _SKELETONS.get(num_joints)
  return None if skeleton and labels and tuple(labels) != skeleton.joints else skeleton


def _assume_data_sets(num_joints, num_experts, labels):
  """Returns the part of `Description.network` that a file with several heads or experts does not record.

  Args:
    num_joints: number of joints of each head.
    num_experts: number of experts, 1 without experts.
    labels: names of the joints of the only head, or [].
  """
  known = num_experts in (1, *_NUM_EXPERTS)
  sets = list(_LABELS[:num_experts]) if known else [f"expert_{number}" for number in range(num_experts)]
  if len(num_joints) > 1:
    names = list(_LABELS[: len(num_joints)])
  else:  # the data set of a single head follows from its joints
    skeleton = _skeleton_of(num_joints[0], labels)
    names = [label for label in sets if skeleton and _SKELETON_OF.get(label) is skeleton] or sets[:1]
  skeletons = [_SKELETON_OF.get(name) for name in names]
  known_names = [skeleton.name if skeleton else "unknown" for skeleton in skeletons]
  rules = [_RULES.get(name, _RULES_OF_OTHERS) for name in known_names]
  text = f"the data sets {', '.join(names)} of the heads" + (
    f" and {', '.join(sets)} of the experts" if num_experts > 1 else ""
  )
  return {
    "datasets": names,
    "experts": sets if num_experts > 1 else [],
    "skeleton": known_names,
    "codec": [codec for codec, _ in rules],
    "fit_aspect": [fit_aspect for _, fit_aspect in rules],
    "assumed": f"{text}, with the settings of the official training: the file does not record its data sets",
  }


def num_joints_of(params):
  """Returns the number of heat maps of each head, a list, given the parameters of a network."""
  names = [_OURS, *(f"{_MORE_OURS}{k}" for k in range(len(params)))]
  return [len(params[name]["final_layer"]["bias"]) for name in names if name in params]


def classes(network, config):
  """Returns {"joints": names of the joints}, or {} if they are not known.

  For several data sets, it returns {label of a data set: names of the joints}.
  """
  labels = _labels(config)
  if "datasets" in network:
    pairs = zip(network["datasets"], network.get("skeleton", ()), strict=False)
    return {label: list(SKELETONS[name].joints) for label, name in pairs if name in SKELETONS}
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

  endings = tuple(f".deconv_layers.{first}" for first in _DECONVS)

  def find(name, path):
    found = dict(module(name, path))
    if name.endswith(endings):
      found = {key: tensor.swapaxes(0, 1) for key, tensor in found.items()}
    return found

  return find


def _in_numpy(forward, num_heads=1):
  found = {}
  for k in range(num_heads):
    # The proof of a split network compares a single head. It may be any head of the source.
    found[_output(k)] = _heat_maps(forward, _official_name(forward.head + k))
  return found


def _heat_maps(forward, head):
  """Returns the heat maps of a head in NumPy. `head` is its name in the official code."""

  def module(name):
    name = f"{head}.{name}"
    path = name.replace("deconv_layers.", "deconv_layers_").replace(_MORE, _MORE_OURS).replace(".", "/")
    return forward.network.module(name, path)

  x = forward.patches
  x = x.reshape(len(x), *forward.grids[1], -1)
  if module(f"deconv_layers.{_DECONVS[0]}"):
    for first in _DECONVS:
      x = deconv(x, module(f"deconv_layers.{first}"))
      x = np.maximum(batch_norm(x, module(f"deconv_layers.{first + 1}")), 0)
  else:
    x = enlarge(np.maximum(x, 0), STRIDE)
  final = module("final_layer")
  # A head of several data sets may have more heat maps than its data set has joints.
  joints = slice(forward.sizes["num_joints"] if isinstance(forward.sizes.get("num_joints"), int) else None)
  return (conv(x, final) + f32(final["bias"]))[..., joints]


def _in_jax(model, variables, batch, description, num_heads=1):
  del description
  expert = None if batch.expert is None else jnp.asarray(batch.expert)
  run = functools.partial(model.apply, variables, batch.image, train=False, expert=expert)
  return {_output(k): run(head=k) for k in range(num_heads)}


def _output(k):
  """Returns the name of the heat maps of head k."""
  return f"heatmaps_{k}" if k else "heatmaps"


def _official_name(k):
  return f"{_MORE}{k - 1}" if k else _OURS


def _extend(family, num_joints, num_experts, part_features, width):
  """Returns a Family with the rows of experts and of further heads.

  Args:
    family: the Family of files with one head and without experts.
    num_joints: number of heat maps of each further head, in their order.
    num_experts, part_features: sizes of the experts.
    width: width of the encoder.
  """
  entries, outputs = family.entries, dict(family.outputs.needs)
  if num_experts > 1:
    entries = experts.with_rows(entries, num_experts, part_features, width)
  first = [row for row in family.entries if row.stack == _OURS]
  more = []
  for k, count in enumerate(num_joints):
    own = f"{_MORE_OURS}{k}"
    more += [
      dataclasses.replace(
        row,
        reference=row.reference.replace(_OURS, f"{_MORE}{k}", 1),
        ours=row.ours.replace(_OURS, own, 1),
        shape=tuple(str(count) if size == "C" else size for size in row.shape),
      )
      for row in first
    ]
    outputs[_output(k + 1)] = own
  num_heads = 1 + len(num_joints)
  return dataclasses.replace(
    family,
    entries=(*entries, *more),
    placeholders=(*family.placeholders, *rows.counters(more)),
    num_experts=num_experts,
    part_features=part_features if num_experts > 1 else 0,
    network=functools.partial(network, num_experts=num_experts),
    outputs=Outputs(
      needs=outputs,
      in_numpy=functools.partial(_in_numpy, num_heads=num_heads),
      in_jax=functools.partial(_in_jax, num_heads=num_heads),
    ),
  )


def _for_file(has_more_heads, family, source, state):
  """Returns the Family with the rows of a file, see `Family.for_file`."""
  fc2 = next(row for row in family.entries if row.ours.endswith("mlp/fc2/bias")).numbered(0).reference
  num_experts = experts.count(state)
  shared, part_features, width = (
    _length(state, name) for name in (fc2, fc2.replace(".fc2.", ".experts.0."), family.patches)
  )
  if num_experts and (num_experts == 1 or shared + part_features != width):
    raise ValueError(
      f"has {num_experts} experts with {part_features} outputs, and {shared} shared outputs; expected "
      f"several experts, and {width} outputs together"
    )
  num_joints = _more_heads(source, state) if has_more_heads else []
  return _extend(family, num_joints, max(num_experts, 1), part_features, width)


def _length(state, name):
  """Returns the first size of a tensor, or 0 if there is no such tensor or it has no sizes."""
  return next(iter(np.shape(state[name])), 0) if name in state else 0


def _more_heads(source, state):
  """Returns the numbers of joints of the heads after the first one that are used, a list.

  Of the heads of an official file, those for AIC and MPII are used. Heads for animals and whole bodies are
  not.
  """
  lengths = (_length(state, f"{_MORE}{k}.final_layer.bias") for k in range(len(state)))
  counts = list(itertools.takewhile(bool, lengths))
  if "datasets" in source.record.get("model", {}):
    return counts
  longest = len(COCO17.joints)
  known = zip(counts, (AIC14, MPII16), strict=False)
  used = itertools.takewhile(lambda pair: pair[0] in (len(pair[1].joints), longest), known)
  return [count for count, _ in used]


def _for_weights(has_more_heads, family, weights):
  """Returns the Family with the rows of Weights, see `Family.for_weights`."""
  encoder, num_joints = weights.description.encoder, num_joints_of(weights.params)[1:]
  return _extend(
    family, num_joints if has_more_heads else [], encoder.num_experts, encoder.part_features, encoder.width
  )


def family(name, encoder, classic_head, simple_head, *, recognise, network_of, has_more_heads, **others):
  """Returns the Family of files with the classic or the simple head.

  Args:
    name: the name of the family.
    encoder: the rows of the encoder.
    classic_head: the rows of the classic head, from `classic`.
    simple_head: the rows of the simple head, from `simple`.
    recognise: see `Family`.
    network_of: see `Family`.
    has_more_heads: True if a file may have a head for each of several data sets.
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
    for_file=functools.partial(_for_file, has_more_heads),
    for_weights=functools.partial(_for_weights, has_more_heads),
    more_stacks=(_MORE_OURS,) if has_more_heads else (),
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
