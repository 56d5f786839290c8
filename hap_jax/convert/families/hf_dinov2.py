"""A folder that `transformers.Dinov2Model` loads. The class supports only square images.

Layer scale is multiplied into the last linear layer of attention and MLP, which changes no feature. A written
folder has the layer scale 1.
"""

import numpy as np

from hap_jax.convert import equivalents, hugging_face, numpy_vit
from hap_jax.convert.family import CERTAIN, NO, Family, TorchClass
from hap_jax.convert.names import Placeholder
from hap_jax.models.layers import LAYER_NORM_EPSILON

_CLASS = "Dinov2Model"
# Modules of a block that have the same names in MAE.
_SAME = {name: name for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2")}


def _recognise(source):
  return CERTAIN if hugging_face.has_names(source) and hugging_face.has_scales(source) else NO


def _prepare(source, state, grid):
  del source, grid
  return equivalents.of_blocks(state, "encoder.layer.")


def _check_weights(weights):
  hugging_face.check_square("hf-dinov2", _CLASS, weights)
  ratio = weights.description.encoder.mlp_ratio
  if ratio != int(ratio):
    raise ValueError(
      f"--to=hf-dinov2: {_CLASS} needs a whole multiple of the width for MLPs, but "
      f"{weights.lineage[0]['file']} has {ratio:g} times the width: use --to=hf-vit"
    )


def _folder(weights):
  content = hugging_face.config(weights, _CLASS, "dinov2")
  content["mlp_ratio"] = content.pop("intermediate_size") // weights.width
  content |= {"layerscale_value": 1.0, "use_swiglu_ffn": False}
  return hugging_face.folder(weights, content, f"{_CLASS}.from_pretrained(folder)")


def _run(path, setting, batch):
  del setting
  import torch

  model, pixels, name = hugging_face.in_transformers(path, batch)
  with torch.no_grad():
    return {"tokens": model(pixels).last_hidden_state.numpy()}, name


FAMILY = Family(
  "hf-dinov2",
  hugging_face.encoder("", _SAME),
  _recognise,
  numpy_vit.hugging_face,
  task="pretrain",
  stage="self-supervised, without decoder",
  licence="not stated in the file; the published DINOv2 weights are Apache-2.0",
  renames=((r"^dinov2\.", ""), *hugging_face.IN_MEMORY),
  prepare=_prepare,
  unused=("classifier.",),
  placeholders=(
    Placeholder("embeddings.mask_token", ("1", "D"), lambda shape: np.zeros(shape, np.float32)),
    *(
      Placeholder(
        f"encoder.layer.{{i}}.layer_scale{n}.lambda1", ("D",), lambda shape: np.ones(shape, np.float32)
      )
      for n in (1, 2)
    ),
  ),
  norm_eps=LAYER_NORM_EPSILON,
  states_norm_eps=True,
  pixels_from="published hf-dinov2 code",
  check_source=hugging_face.check_config,
  check_weights=_check_weights,
  folder=_folder,
  torch_class=TorchClass("transformers", _run),
)
