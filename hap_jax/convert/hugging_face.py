"""The files beside the weights in a Hugging Face folder."""

import json

from hap_jax.convert import licences
from hap_jax.convert.weights import grid_text
from hap_jax.models import layers


def config(weights, family):
  """Returns config.json of a "hf-vit" or "hf-vitmae" folder, a dict."""
  H, W = (side * weights.patch for side in weights.grid)
  content = {
    "architectures": ["ViTModel"],
    "model_type": "vit",
    "hidden_size": weights.width,
    "num_hidden_layers": weights.depth,
    "num_attention_heads": weights.num_heads,
    "intermediate_size": _hidden(weights.params["encoder"]),
    "image_size": H if H == W else [H, W],
    "patch_size": weights.patch,
    "num_channels": 3,
    "hidden_act": "gelu",
    "layer_norm_eps": layers.LAYER_NORM_EPSILON,
    "qkv_bias": True,
  }
  if family == "hf-vitmae":
    content |= {
      "architectures": ["ViTMAEForPreTraining"],
      "model_type": "vit_mae",
      "decoder_hidden_size": weights.decoder["width"],
      "decoder_num_hidden_layers": weights.decoder["depth"],
      "decoder_num_attention_heads": weights.decoder["num_heads"],
      "decoder_intermediate_size": _hidden(weights.params["decoder"]),
    }
  return content


def _hidden(stack):
  return stack["blocks"]["mlp"]["fc1"]["bias"].shape[-1]


def processor(weights):
  """Returns preprocessor_config.json, a dict."""
  H, W = (side * weights.patch for side in weights.grid)
  return {
    "image_processor_type": "ViTImageProcessor",
    "do_resize": True,
    "size": {"height": H, "width": W},
    "resample": 3,  # bicubic
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": list(weights.normalization["mean"]),
    "image_std": list(weights.normalization["std"]),
  }


def card(weights, family):
  """Returns README.md, the model card: licence, where the weights come from, how to load them."""
  H, W = (side * weights.patch for side in weights.grid)
  licence = licences.hub_licence(weights.made_from)
  load = "ViTModel.from_pretrained(folder, add_pooling_layer=False)"
  if family == "hf-vitmae":
    load = "ViTMAEForPreTraining.from_pretrained(folder)"
  lines = [
    "---",
    f"license: {licence}",
    *([f"license_name: {json.dumps(weights.licence)}"] if licence == "other" else []),
    "library_name: transformers",
    "tags: [vit, human-centric, pre-training]",
    "---",
    "",
    f"# ViT, width {weights.width}, {weights.depth} blocks, for images of {H} x {W} (height x width)",
    "",
    f"A grid of {grid_text(weights.grid)} patches of {weights.patch} x {weights.patch} pixels. Converted by "
    "hap_jax; the command compared the outputs before and after, see `conversion.json`.",
    "",
    "```python",
    f"from transformers import {load.partition('.')[0]}, ViTImageProcessor",
    f"model = {load}",
    "processor = ViTImageProcessor.from_pretrained(folder)",
    "```",
    "",
    "## Licence and origin",
    "",
    f"Licence of these weights: {weights.licence}",
    "",
    "Made from, the most restrictive licence first:",
    "",
    *(f"- {licences.text(item)}" for item in weights.made_from),
    "",
    "Earlier checkpoints, the newest first:",
    "",
    *(f"- {lineage_text(origin)}" for origin in weights.lineage),
  ]
  return "\n".join(lines) + "\n"


def lineage_text(origin):
  """Returns one origin of a lineage as a line of text."""
  facts = [f"{key} {str(origin[key])[:12]}" for key in ("task", "step", "sha256") if key in origin]
  return f"{origin['file']} ({', '.join([origin['family'], *facts])}): {origin['licence']}"
