"""Files with the names of timm's ViT with a class token: the ViT alone, a classifier, or a backbone.

Many projects use these names, such as DeiT, DINO, iBOT and MoCo v3. The files do not state their project.
"""

import functools

from hap_jax.convert import equivalents, numpy_vit, official, rows
from hap_jax.convert.family import NO, POSSIBLE, Family, Preference, TorchClass

# Models of timm whose class token has no row in the position table.
_WITHOUT_ROW = ("deit3", "flexivit")
# A table of 49 rows may be one of 7x7 patches, or one of 6x8 patches with a row for the class token. From
# this number of rows on, only unusual grids have one patch less than a square number.
_LEAST_ROWS = 144


def _recognise(source):
  """Returns POSSIBLE for every encoder with these names that has no trait of MAE or HAP."""
  if not official.has_names(source) or "cls_token" not in source.state:
    return NO
  return NO if official.pretrained(source) else POSSIBLE


def _prepare(source, state, grid):
  """Returns the state with layer scales and biases in the usual form, see `equivalents.py`.

  The class token of DeiT III and FlexiViT has no row in the position table. If the name of the model says so,
  a table with a square number of rows is such a table. With layer scale, a large square table is one, too.
  """
  prepared, made = equivalents.of_blocks(state, "blocks.")
  is_named = official.arch_of(source).startswith(_WITHOUT_ROW) or _is_without_row(source.config)
  has_scales = any(name.endswith(("ls1.gamma", "gamma_1")) for name in state)

  def is_without(num_rows):
    if grid is not None:
      return grid[0] * grid[1] == num_rows
    is_large = has_scales and num_rows >= _LEAST_ROWS
    return (is_named or is_large) and equivalents.is_square_without_row(num_rows)

  return equivalents.with_class_row(prepared, made, "pos_embed", is_without)


def _is_without_row(config):
  """Returns True if config.json of a timm folder states a model without a row for the class token."""
  options = config.get("model_args")
  is_set = isinstance(options, dict) and options.get("no_embed_class") is True
  return is_set or str(config.get("architecture")).startswith(_WITHOUT_ROW)


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
  prepare=_prepare,
  stand_ins=rows.NORMS_OF_CLASSIFIERS,
  prefers=(official.SELF_DISTILLED, Preference("base_encoder", "momentum_encoder", "MoCo v3")),
  content=_content,
  torch_class=TorchClass("timm", _run),
)
