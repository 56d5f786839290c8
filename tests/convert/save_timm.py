"""Saves models of timm with random weights as people have them, and their tokens for fixed pictures.

  python -m tests.convert.save_timm FOLDER

A test starts this program, because timm needs `torchvision_stub`. It writes FOLDER/<name>.pth of each model,
and FOLDER/tokens.npz with the tokens of the models that this project can compute.
"""

import argparse
import pathlib
import sys

import numpy as np
import torch

from tests.convert import torchvision_stub

torchvision_stub.install()

import timm  # noqa: E402
from timm.utils import CheckpointSaver, ModelEmaV3  # noqa: E402

SIZES = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 192, "patch_size": 16}
OTHER = {**SIZES, "img_size": 64, "num_classes": 0}
# {name: (class or model of timm, options)}
COMPUTED = {
  "vit": ("vit_base_patch16_224", {**SIZES, "num_classes": 0}),
  "classifier": ("vit_base_patch16_224", {**SIZES, "num_classes": 5}),
  "vit_without_bias": ("vit_base_patch16_224", {**SIZES, "num_classes": 0, "qkv_bias": False}),
  "deit3": ("deit3_base_patch16_224", SIZES),
  "dinov2": ("vit_base_patch14_dinov2", {**SIZES, "patch_size": 16}),
}
REFUSED = {
  "registers": ("vit_base_patch14_reg4_dinov2", OTHER),
  "siglip": ("vit_base_patch16_siglip_224", OTHER),
  "clip": ("vit_base_patch16_clip_224", OTHER),
  "distilled": ("deit_base_distilled_patch16_224", OTHER),
  "beit": ("beit_base_patch16_224", OTHER),
  "eva02": ("eva02_base_patch14_224", OTHER),
  "dinov3": ("vit_base_patch16_dinov3", OTHER),
}


def random_model(name, options):
  model = timm.create_model(name, pretrained=False, **options).eval()
  generator = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
  return model


def save_with_timm(folder, model):
  """Saves a training with timm's own CheckpointSaver, with and without an average of the weights."""
  optimizer = torch.optim.AdamW(model.parameters())
  model(torch.zeros(1, 3, 192, 192)).sum().backward()
  optimizer.step()
  args = argparse.Namespace(model="vit_base_patch16_224", lr=1e-3, output=pathlib.PurePosixPath("runs"))
  for name, average in (("saver", None), ("saver_ema", ModelEmaV3(model))):
    (folder / name).mkdir()
    saver = CheckpointSaver(model, optimizer, args=args, model_ema=average, checkpoint_dir=folder / name)
    saver.save_checkpoint(3, metric=81.5)


def main(folder):
  picture = np.random.default_rng(0).standard_normal((2, 192, 192, 3), np.float32)
  pixels, tokens = torch.from_numpy(picture.transpose(0, 3, 1, 2).copy()), {}
  for name, (kind, options) in COMPUTED.items():
    model = random_model(kind, options)
    torch.save(model.state_dict(), folder / f"{name}.pth")
    with torch.no_grad():
      tokens[name] = model.forward_features(pixels).numpy()
  model = random_model("vit_base_patch16_224", {**SIZES, "num_classes": 5})
  save_with_timm(folder, model)
  with torch.no_grad():
    tokens["saver"] = model.eval().forward_features(pixels).numpy()
  for name, (kind, options) in REFUSED.items():
    torch.save({"state_dict": random_model(kind, options).state_dict()}, folder / f"{name}.pth")
  np.savez(folder / "tokens.npz", picture=picture, **tokens)


if __name__ == "__main__":
  main(pathlib.Path(sys.argv[1]))
