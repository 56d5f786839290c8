"""Files with the names of timm's ViT with a class token: the ViT alone, a classifier, or a backbone.

Many projects use these names, such as DeiT, DINO, iBOT and MoCo v3. The files do not state their project.
"""

import functools

from hap_jax.convert import numpy_vit, official, rows
from hap_jax.convert.family import NO, POSSIBLE, Family, Preference, TorchClass


def _recognise(source):
  """Returns POSSIBLE for every encoder with these names that has no trait of MAE or HAP."""
  is_pretrained = official.has_names(source) and official.pretrained(source)
  return POSSIBLE if official.has_names(source) and not is_pretrained else NO


def _content(weights, state):
  del weights
  return {"state_dict": state}


def _run(path, setting, batch):
  import timm
  import torch

  encoder = setting.description.encoder
  model = timm.models.vision_transformer.VisionTransformer(
    img_size=batch.image.shape[1:3],
    patch_size=encoder.patch,
    embed_dim=encoder.width,
    depth=encoder.depth,
    num_heads=encoder.num_heads,
    mlp_ratio=encoder.mlp_ratio,
    norm_layer=functools.partial(torch.nn.LayerNorm, eps=encoder.norm_eps),
    num_classes=0,  # no classifier, because the file has none
  )
  timm.models.load_checkpoint(model, str(path), strict=True)
  pixels = torch.from_numpy(batch.image.transpose(0, 3, 1, 2).copy())
  with torch.no_grad():
    return {"tokens": model.eval().forward_features(pixels).numpy()}, "timm.VisionTransformer"


FAMILY = Family(
  "timm",
  rows.ENCODER,
  _recognise,
  numpy_vit.official,
  task="pretrain",
  stage="encoder; the file does not state its training task",
  # These tensors belong to heads of timm's classifiers, to modules of ReID code outside the backbone, to the
  # heads of MoCo v3 and DINOv2, or to the masked image modelling of iBOT.
  unused=(
    "head.",
    "fc_norm.",
    "pre_logits.",
    "classifier.",
    "bottleneck.",
    "predictor.",
    "dino_head.",
    "ibot_head.",
    "mask_token",
    "masked_embed",
  ),
  stand_ins=rows.NORMS_OF_CLASSIFIERS,
  prefers=(official.SELF_DISTILLED, Preference("base_encoder", "momentum_encoder", "MoCo v3")),
  content=_content,
  torch_class=TorchClass("timm", _run),
)
