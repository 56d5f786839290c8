"""Folders of transformers' ViT: `ViTModel`, a classifier, or masked image modelling with a convolution."""

from hap_jax.convert import hugging_face, numpy_vit
from hap_jax.convert.family import CERTAIN, NO, Family, TorchClass


def _recognise(source):
  if not hugging_face.has_names(source) or hugging_face.lacks_token(source):
    return NO
  others = (hugging_face.is_masked, hugging_face.is_pose, hugging_face.has_scales)
  return NO if any(is_other(source) for is_other in others) else CERTAIN


def _folder(weights):
  # The file has no pooler. Without this option, ViTModel would add a pooler with random weights.
  load = "ViTModel.from_pretrained(folder, add_pooling_layer=False)"
  return hugging_face.folder(weights, hugging_face.config(weights, "ViTModel", "vit"), load)


def _run(path, setting, batch):
  del setting
  import torch

  model, pixels, name = hugging_face.in_transformers(path, batch, add_pooling_layer=False)
  with torch.no_grad():
    return {"tokens": model(pixels).last_hidden_state.numpy()}, name


FAMILY = Family(
  "hf-vit",
  hugging_face.encoder(""),
  _recognise,
  numpy_vit.hugging_face,
  task="pretrain",
  stage="encoder; the file does not state its training task",
  # The convolution of ViTForMaskedImageModeling is `decoder.0`.
  unused=("pooler.", "classifier.", "embeddings.mask_token", "decoder.0."),
  renames=((r"^vit\.", ""), *hugging_face.RENAMES),
  norm_eps=hugging_face.NORM_EPS,
  states_norm_eps=True,
  check_source=hugging_face.check_config,
  folder=_folder,
  torch_class=TorchClass("transformers", _run),
)
