"""A folder that `transformers.VitPoseForPoseEstimation` loads.

It may have experts for several data sets, but it has one head.
"""

import dataclasses

from hap_jax.convert import hugging_face, numpy_vit, pose_data_sets, pose_head
from hap_jax.convert.family import CERTAIN, NO, TorchClass

_CLASS = "VitPoseForPoseEstimation"
_LAYERS = ("head.deconv1", "head.batchnorm1", "head.deconv2", "head.batchnorm2")
_FINAL = "head.conv"
_CHANNELS = 256  # channels of both transposed convolutions; transformers has no setting for them
# {name of a module of the head in the official code: name in transformers}
_OFFICIAL = {
  **{f"keypoint_head.deconv_layers.{n}": name for n, name in zip((0, 1, 3, 4), _LAYERS, strict=True)},
  "keypoint_head.final_layer": _FINAL,
}
# Default values of transformers. config.json leaves out keys that have their default value.
_DEFAULTS = {"image_size": [256, 192], "patch_size": [16, 16], "num_attention_heads": 12}
_OF_WHOLE = ("model_type", "id2label", "label2id")  # backbone_config has its own values for them
_ENCODER = tuple(
  row
  for row in hugging_face.encoder("", {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"})
  if row.reference != "embeddings.cls_token"
)


def _recognise(source):
  return CERTAIN if hugging_face.has_names(source) and hugging_face.is_pose(source) else NO


def _read_config(content):
  if not content:
    return {}
  encoder = content.get("backbone_config")
  encoder = encoder if isinstance(encoder, dict) else {}
  sizes = {key: value for key, value in encoder.items() if key not in _OF_WHOLE}
  return {**_DEFAULTS, **content, **sizes}


def _check_source(source):
  hugging_face.check_config(source)
  config, path = source.config, source.path / "config.json"
  factor = config.get("scale_factor", 4)
  if factor != 4:
    raise ValueError(
      f"{path}: scale_factor is {factor!r}, but the head of this project enlarges the token map by 4"
    )
  # transformers can use the features of any block. This project always uses the features of the last block.
  depth = config.get("num_hidden_layers", 12)
  for key, last in (("out_indices", (depth, -1)), ("out_features", (f"stage{depth}",))):
    found = config.get(key) or [last[0]]
    if not isinstance(found, list) or found[-1] not in last:
      raise ValueError(
        f"{path}: {key} of the backbone is {found!r}, expected its last block, [{last[0]!r}]: this project "
        "uses the features of the last block"
      )


def _check_weights(weights):
  file, channels = weights.lineage[0]["file"], pose_head.channels_of(weights.variables)
  if any(width != _CHANNELS for width in channels):
    raise ValueError(
      f"--to=hf-vitpose: the classic head of {_CLASS} has {_CHANNELS} channels, but the head of {file} has "
      f"{' and '.join(map(str, channels))}: use --to=vitpose"
    )
  missing = [key for key in ("codec", "fit_aspect") if key not in weights.description.network]
  if missing:
    raise ValueError(
      f"--to=hf-vitpose: the record of {file} has no {' and no '.join(missing)}: use --to=vitpose"
    )
  ratio = weights.description.encoder.mlp_ratio
  if ratio != int(ratio):
    raise ValueError(
      f"--to=hf-vitpose: {_CLASS} needs a whole multiple of the width for MLPs, but {file} has {ratio:g} "
      "times the width: use --to=vitpose"
    )


def _folder(weights):
  encoder = hugging_face.config(weights, _CLASS, "vitpose_backbone")
  hidden = encoder.pop("intermediate_size")
  del encoder["architectures"]
  H, W = (side * weights.patch for side in weights.grid)
  encoder |= {
    "image_size": [H, W],
    "patch_size": [weights.patch] * 2,
    "mlp_ratio": hidden // weights.width,
    "num_experts": weights.description.encoder.num_experts,
    "out_indices": [weights.depth],
  }
  if encoder["num_experts"] > 1:
    encoder["part_features"] = weights.description.encoder.part_features
  # With several data sets, the head is that of the first one.
  described = pose_data_sets.of_label(weights.description)
  network = described.network
  joints, K = described.classes.get("joints", ()), weights.params["keypoint_head"]["final_layer"]["bias"].size
  if len(joints) != K:  # transformers makes one heat map per name
    joints = [f"LABEL_{k}" for k in range(K)]
  content = {
    "architectures": [_CLASS],
    "model_type": "vitpose",
    "backbone_config": encoder,
    "scale_factor": 4,
    "use_simple_decoder": network["head"] == "simple",
    "id2label": {str(k): joint for k, joint in enumerate(joints)},
    "label2id": {joint: k for k, joint in enumerate(joints)},
  }
  # This processor cuts people out along their boxes and never resizes a whole picture.
  pixels = hugging_face.processor(weights)
  del pixels["do_resize"], pixels["resample"]
  pixels |= {
    "image_processor_type": "VitPoseImageProcessor",
    "do_affine_transform": True,
    "normalize_factor": 200.0,
  }
  notes = [*_notes(network), *_notes_on_experts(weights.description)]
  return hugging_face.folder(weights, content, f"{_CLASS}.from_pretrained(folder)", pixels, notes)


def _notes(network):
  """Returns paragraphs of the model card about settings that transformers' processor does not support."""
  notes = []
  if network["codec"] != "udp":
    notes.append(
      f"This model was trained with the codec `{network['codec']}`. The processor of transformers always "
      "uses UDP, so its joints are a little less exact."
    )
  if not network["fit_aspect"]:
    notes.append(
      "This model was trained with boxes that keep their own aspect ratio (`fit_aspect` False). The "
      "processor of transformers changes every box to the aspect ratio of the image. So cut out the people "
      "yourself, and set `do_affine_transform=False`."
    )
  return notes


def _notes_on_experts(description):
  """Returns paragraphs of the model card about the experts of several data sets."""
  network = description.network
  if description.encoder.num_experts == 1:
    return []
  return [
    f"The encoder has an expert for each of the data sets {', '.join(network['experts'])}. Pass "
    f"`dataset_index`, the index of the data set in this list. The head is that of {network['datasets'][0]}."
  ]


def _network_of(state):
  found = numpy_vit.hugging_face(state)
  module = pose_head.module_of(lambda name, path: numpy_vit.official_module(state, _OFFICIAL[name], path))
  return dataclasses.replace(found, module=module)


def _run(path, setting, batch):
  del setting
  import torch

  model, pixels, name = hugging_face.in_transformers(path, batch)
  experts = {} if batch.expert is None else {"dataset_index": torch.from_numpy(batch.expert)}
  with torch.no_grad():
    return {"heatmaps": model(pixels, **experts).heatmaps.permute(0, 2, 3, 1).numpy()}, name


FAMILY = pose_head.family(
  "hf-vitpose",
  _ENCODER,
  pose_head.classic(_LAYERS, _FINAL, (str(_CHANNELS),) * 2),
  pose_head.simple(_FINAL),
  task="pose2d",
  has_more_heads=False,
  recognise=_recognise,
  network_of=_network_of,
  pixels_from="published hf-vitpose code",
  norm_eps=hugging_face.NORM_EPS,
  states_norm_eps=True,
  read_config=_read_config,
  check_source=_check_source,
  check_weights=_check_weights,
  folder=_folder,
  torch_class=TorchClass("transformers", _run),
)
