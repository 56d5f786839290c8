"""Names of tensors, files of a folder, and loading code for all families of Hugging Face transformers."""

import dataclasses
import json

from hap_jax.convert import licences, lineage, rows
from hap_jax.convert.layouts import LINEAR, VECTOR
from hap_jax.convert.names import Entry
from hap_jax.convert.weights import grid_text

# The default epsilon of the layer norms in the classes of ViT, ViTMAE and VitPose.
NORM_EPS = 1e-12
_PATCHES = "embeddings.patch_embeddings.projection"
# Modules of a block whose names differ from MAE's: {name in MAE: name in transformers}.
_SPELLED = {
  "norm1": "layernorm_before",
  "attn.proj": "attention.output.dense",
  "norm2": "layernorm_after",
  "mlp.fc1": "intermediate.dense",
  "mlp.fc2": "output.dense",
}
# transformers 5 uses other names in memory, and sometimes in files. These patterns give the older names.
IN_MEMORY = (
  (r"^(vit\.)?layers\.", r"\1encoder.layer."),
  (r"^decoder\.decoder_encoder\.layer\.", "decoder.decoder_layers."),
  (r"\.attention\.q_proj\.", ".attention.attention.query."),
  (r"\.attention\.k_proj\.", ".attention.attention.key."),
  (r"\.attention\.v_proj\.", ".attention.attention.value."),
  (r"\.attention\.o_proj\.", ".attention.output.dense."),
)
RENAMES = (
  *IN_MEMORY,
  (r"\.mlp\.fc1\.", ".intermediate.dense."),
  (r"\.mlp\.fc2\.", ".output.dense."),
)


def _blocks(reference, ours, width, hidden, spelled=_SPELLED):
  """Returns the rows of `rows.blocks` with separate tensors for queries, keys and values."""
  attention, found = f"{reference}.{{i}}.attention.attention", []
  # This project stores the three tensors in one array, as MAE does. Each tensor is a third of this array.
  for k, name in enumerate(("query", "key", "value")):
    third = {"parts": (1, 1, 1), "part": k}
    kernel, bias = f"{ours}/attn/qkv/kernel", f"{ours}/attn/qkv/bias"
    found.append(Entry(f"{attention}.{name}.weight", kernel, LINEAR, (width, width), **third))
    found.append(Entry(f"{attention}.{name}.bias", bias, VECTOR, (width,), **third))
  for row in rows.blocks(reference, ours, width, hidden):
    module, leaf = row.reference.removeprefix(f"{reference}.{{i}}.").rsplit(".", 1)
    # attn.qkv is left out, because the three rows above replace it.
    if module in spelled:
      found.append(dataclasses.replace(row, reference=f"{reference}.{{i}}.{spelled[module]}.{leaf}"))
  return tuple(found)


def encoder(prefix, spelled=None):
  """Returns the rows of an encoder.

  Args:
    prefix: prefix of the names in the file.
    spelled: {name of a module of a block in MAE: name in transformers}, for modules whose names differ from
      the names in ViT and ViTMAE.
  """
  names = (
    "embeddings.cls_token",
    "embeddings.position_embeddings",
    f"{_PATCHES}.weight",
    f"{_PATCHES}.bias",
  )
  embeddings = zip(names, rows.ENCODER[: len(names)], strict=True)
  return (
    *(dataclasses.replace(row, reference=f"{prefix}{name}") for name, row in embeddings),
    *_blocks(f"{prefix}encoder.layer", "encoder/blocks", "D", "F", _SPELLED | (spelled or {})),
    *rows.norm(f"{prefix}layernorm", "encoder/norm", "D"),
  )


DECODER = (
  *(
    dataclasses.replace(row, reference=f"decoder.{row.reference}")
    for row in rows.DECODER
    if "{i}" not in row.reference
  ),
  *_blocks("decoder.decoder_layers", "decoder/blocks", "E", "G"),
)


def has_names(source):
  """Returns True if a `source.Source` has the names of a ViT of transformers."""
  return any(name.endswith(f"{_PATCHES}.weight") for name in source.state)


def is_masked(source):
  """Returns True if a file of transformers is a ViTMAE: it has its decoder, or its config.json says so.

  ViTForMaskedImageModeling has another decoder, a convolution. Its config.json says that it is a ViT.
  """
  has_decoder = any(name.startswith(("decoder.decoder_", "decoder.mask_token")) for name in source.state)
  return has_decoder or source.config.get("model_type") == "vit_mae"


def is_pose(source):
  """Returns True if a file of transformers is a VitPose: its config.json says so, or it has its head.

  Its encoder has no class token. Other encoders do not have one either, such as I-JEPA's.
  """
  has_token = any(name.endswith("embeddings.cls_token") for name in source.state)
  has_head = any(name.startswith(("head.conv.", "head.deconv1.")) for name in source.state)
  model_type = str(source.config.get("model_type"))
  return model_type.startswith("vitpose") or (has_head and not has_token)


def has_scales(source):
  """Returns True if a file of transformers is a DINOv2: its blocks have layer scales."""
  return any(name.endswith(".layer_scale1.lambda1") for name in source.state)


def lacks_token(source):
  return not any(name.endswith("embeddings.cls_token") for name in source.state)


def check_config(source):
  """Raises ValueError if config.json states a model that this project's encoder cannot compute."""
  activation = source.config.get("hidden_act", "gelu")
  if activation != "gelu":
    raise ValueError(
      f"{source.path / 'config.json'}: hidden_act is {activation!r}, but this project's encoder computes the "
      "exact 'gelu' and would give different features; use a checkpoint with hidden_act 'gelu'"
    )


def check_square(family, name, weights):
  """Raises ValueError unless the grid of Weights is square, for a class that supports only square images."""
  if weights.grid[0] != weights.grid[1]:
    raise ValueError(
      f"--to={family}: {name} of transformers supports only square grids, but the grid is "
      f"{grid_text(weights.grid)}: use --to=hf-vit, or a square --grid"
    )


def in_transformers(path, batch, **options):
  """Loads a folder in the class that its config.json names.

  Args:
    path: the folder.
    batch: a `verify.Batch`.
    options: keyword arguments for the class's `from_pretrained`.
  Returns:
    (model in evaluation mode, the batch's pictures as [B, 3, H, W], name of the class).
  Raises:
    ValueError: if the folder has a tensor that the class does not use, or the class needs a tensor that the
      folder does not have.
  """
  import torch
  import transformers

  # Otherwise warnings and progress bars would appear between the printed lines of the command.
  transformers.utils.logging.set_verbosity_error()
  transformers.utils.logging.disable_progress_bar()
  name = json.loads((path / "config.json").read_text())["architectures"][0]
  model, loading = getattr(transformers, name).from_pretrained(path, output_loading_info=True, **options)
  # `from_pretrained` accepts these differences with a warning. In a conversion, each of them is an error.
  wrong = [key for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if loading[key]]
  if wrong:
    raise ValueError(
      f"transformers.{name} does not load every tensor: {', '.join(wrong)} {loading[wrong[0]]}"
    )
  pixels = torch.from_numpy(batch.image.transpose(0, 3, 1, 2).copy())
  return model.eval(), pixels, f"transformers.{name}"


def folder(weights, content, load, pixels=None, notes=()):
  """Returns {file name: text} of the files next to model.safetensors, see `Family.folder`.

  Args:
    weights: Weights.
    content: the content of config.json, as a dict.
    load: a line of Python that loads the folder, for the model card.
    pixels: the content of preprocessor_config.json, as a dict. None: the result of `processor`.
    notes: paragraphs for the model card.
  """
  pixels = pixels or processor(weights)
  return {
    "config.json": json.dumps(content, indent=2) + "\n",
    "preprocessor_config.json": json.dumps(pixels, indent=2) + "\n",
    "README.md": card(weights, load, pixels["image_processor_type"], notes),
  }


def config(weights, name, model_type):
  """Returns the content of config.json for an encoder, as a dict.

  Args:
    weights: Weights.
    name: the name of the class in transformers.
    model_type: the value of the key "model_type" in transformers.
  """
  H, W = (side * weights.patch for side in weights.grid)
  return {
    "architectures": [name],
    "model_type": model_type,
    "hidden_size": weights.width,
    "num_hidden_layers": weights.depth,
    "num_attention_heads": weights.num_heads,
    "intermediate_size": hidden(weights.params["encoder"]),
    "image_size": H if H == W else [H, W],
    "patch_size": weights.patch,
    "num_channels": 3,
    "hidden_act": "gelu",
    "layer_norm_eps": weights.description.encoder.norm_eps,
    "qkv_bias": True,
  }


def hidden(stack):
  """Returns the hidden width of the MLPs, given the parameters of an encoder or a decoder."""
  return stack["blocks"]["mlp"]["fc1"]["bias"].shape[-1]


def processor(weights):
  """Returns the content of preprocessor_config.json, as a dict."""
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


def card(weights, load, processor_class, notes=()):
  """Returns the text of README.md, the model card.

  The card states the licence, the origin of the weights, and the code that loads them. The arguments are the
  same as for `folder`.
  """
  H, W = (side * weights.patch for side in weights.grid)
  # If the hub has no name for a licence, the hub requires the key `license_name`.
  licence = licences.hub_licence(weights.made_from)
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
    "hap_jax. The command compared the outputs before and after the conversion, see `conversion.json`.",
    "",
    "```python",
    f"from transformers import {load.partition('.')[0]}, {processor_class}",
    f"model = {load}",
    f"processor = {processor_class}.from_pretrained(folder)",
    "```",
    "",
    *(line for note in notes for line in (note, "")),
    *lineage.markdown(weights.licence, weights.made_from, weights.lineage),
  ]
  return "\n".join(lines) + "\n"
