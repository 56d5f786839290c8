"""A folder that `transformers.ViTMAEForPreTraining` loads. The class supports only square images."""

from hap_jax.convert import hugging_face, numpy_vit, official, reconstruction
from hap_jax.convert.family import CERTAIN, NO, Family, TorchClass


def _recognise(source):
  is_masked = hugging_face.is_masked(source) and not hugging_face.lacks_token(source)
  return CERTAIN if hugging_face.has_names(source) and is_masked else NO


def _check_weights(weights):
  hugging_face.check_square("hf-vitmae", "ViTMAE", weights)


def _folder(weights):
  name, decoder = "ViTMAEForPreTraining", weights.decoder
  content = hugging_face.config(weights, name, "vit_mae") | {
    "decoder_hidden_size": decoder["width"],
    "decoder_num_hidden_layers": decoder["depth"],
    "decoder_num_attention_heads": decoder["num_heads"],
    "decoder_intermediate_size": hugging_face.hidden(weights.params["decoder"]),
  }
  return hugging_face.folder(weights, content, f"{name}.from_pretrained(folder)")


def _run(path, setting, batch):
  del setting
  import torch

  model, pixels, name = hugging_face.in_transformers(path, batch)
  # ViTMAE keeps the patches with the smallest noise, so this noise selects the visible patches of the batch.
  # ViTMAE computes the number of visible patches from mask_ratio and rounds it. With the added 0.5, the
  # result is exact for every rounding rule.
  model.config.mask_ratio = 1 - (batch.ids_keep.shape[1] + 0.5) / batch.ids_restore.shape[1]
  with torch.no_grad():
    found = model(pixels, noise=torch.from_numpy(batch.ids_restore.astype("float32")))
  return {"pred": found.logits.numpy()}, name


FAMILY = Family(
  "hf-vitmae",
  hugging_face.encoder("vit.") + hugging_face.DECODER,
  _recognise,
  numpy_vit.hugging_face,
  task="pretrain",
  licence=official.OF_MAE,
  renames=((r"^(?!vit\.|decoder\.)", "vit."), *hugging_face.RENAMES),
  needs_decoder=True,
  pixels_from="published hf-vitmae code",
  norm_eps=hugging_face.NORM_EPS,
  states_norm_eps=True,
  check_source=hugging_face.check_config,
  check_weights=_check_weights,
  folder=_folder,
  outputs=reconstruction.OUTPUTS,
  torch_class=TorchClass("transformers", _run),
)
