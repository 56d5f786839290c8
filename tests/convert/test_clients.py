"""The usual classes load converted weights: plain PyTorch, transformers and timm."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

import hap_jax
from hap_jax.convert import read, run
from hap_jax.io import safetensors_file
from hap_jax.tasks import pose2d
from tests.convert.reference_state import family_state

torch = pytest.importorskip("torch")

ROOT = pathlib.Path(__file__).resolve().parents[2]
GRID, PATCH, WIDTH, HEADS, DEPTH = (16, 8), 16, 48, 3, 2  # at 256 x 128
TOLERANCE = 1e-5  # relative to the largest value


class TorchViT(torch.nn.Module):
  """The official encoder in plain PyTorch. Its modules have the names in the official state dict."""

  def __init__(self, width=WIDTH, depth=DEPTH, heads=HEADS, patch=PATCH, tokens=1 + GRID[0] * GRID[1]):
    super().__init__()
    nn = torch.nn
    norm = lambda: nn.LayerNorm(width, eps=1e-6)  # noqa: E731
    self.heads = heads
    self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
    self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
    self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
    self.blocks = nn.ModuleList(
      nn.ModuleDict(
        {
          "norm1": norm(),
          "attn": nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)}),
          "norm2": norm(),
          "mlp": nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)}),
        }
      )
      for _ in range(depth)
    )
    self.norm = norm()

  def attend(self, block, x):
    B, T, D = x.shape
    q, k, v = block["qkv"](x).reshape(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
    mixed = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    return block["proj"](mixed.transpose(1, 2).reshape(B, T, D))

  def forward(self, image):
    x = self.patch_embed["proj"](image).flatten(2).transpose(1, 2)
    x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
    for block in self.blocks:
      x = x + self.attend(block["attn"], block["norm1"](x))
      hidden = torch.nn.functional.gelu(block["mlp"]["fc1"](block["norm2"](x)))
      x = x + block["mlp"]["fc2"](hidden)
    return self.norm(x)


def images(size=(256, 128)):
  return np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)


def in_torch(model, batch):
  with torch.no_grad():
    return model.eval()(torch.from_numpy(batch.transpose(0, 3, 1, 2).copy()))


def in_jax(path, batch, **known):
  model, variables, _ = hap_jax.load(path, **known)
  return np.asarray(jax.jit(model.apply)(variables, batch))


def assert_same(got, want):
  assert np.abs(got - want).max() <= TOLERANCE * np.abs(want).max()


@pytest.fixture(scope="module")
def own(tmp_path_factory):
  """The path of a checkpoint of this project with random weights."""
  folder = tmp_path_factory.mktemp("clients")
  state = family_state("hap", grid=GRID, width=WIDTH, depth=DEPTH, patch=PATCH)
  torch.save({"model": {name: torch.from_numpy(array) for name, array in state.items()}}, folder / "hap.pth")
  known = {"family": "hap", "source_grid": GRID, "heads": (HEADS, 2)}
  run.convert(folder / "hap.pth", folder / "own", to="orbax", **known)
  return folder / "own"


def test_plain_torch_runs_a_written_file_and_its_own_file_is_read(own, tmp_path):
  run.convert(own, tmp_path / "hap.pth", to="hap")
  model = TorchViT()
  state = torch.load(tmp_path / "hap.pth", weights_only=True)["model"]
  encoder = {name: value for name, value in state.items() if not name.startswith(("decoder", "mask_token"))}
  model.load_state_dict(encoder, strict=True)
  want = in_torch(model, images()).numpy()
  assert_same(in_jax(own, images()), want)
  torch.save({"model": model.state_dict(), "arch": "pose_mae_vit"}, tmp_path / "saved.pth")
  known = {"family": "hap", "grid": GRID, "num_heads": HEADS}
  assert_same(in_jax(tmp_path / "saved.pth", images(), **known), want)


def test_the_vit_of_transformers_loads_a_written_folder_and_its_own_folder_is_read(own, tmp_path):
  transformers = pytest.importorskip("transformers")
  report = run.convert(own, tmp_path / "vit", to="hf-vit")
  assert report["proof"]["real_class"]["name"] == "transformers.ViTModel"
  model = transformers.ViTModel.from_pretrained(tmp_path / "vit", add_pooling_layer=False)
  want = in_torch(model, images()).last_hidden_state.numpy()
  assert_same(in_jax(own, images()), want)
  model.save_pretrained(tmp_path / "saved")
  assert_same(in_jax(tmp_path / "saved", images()), want)


def test_the_vitmae_of_transformers_loads_a_written_folder_and_its_own_folder_is_read(tmp_path):
  transformers = pytest.importorskip("transformers")
  sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 192}
  decoder = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 128}
  config = transformers.ViTMAEConfig(
    image_size=64, patch_size=16, layer_norm_eps=1e-6, mask_ratio=0.0, **sizes,
    **{f"decoder_{name}": value for name, value in decoder.items()},
  )  # fmt: skip
  model = transformers.ViTMAEForPreTraining(config)
  model.save_pretrained(tmp_path / "saved")
  batch = images((64, 64))
  with torch.no_grad():
    pixels = torch.from_numpy(batch.transpose(0, 3, 1, 2).copy())
    noise = torch.arange(16.0).expand(2, -1)  # no patch is masked, and the order stays the same
    want = model.eval().vit(pixels, noise=noise).last_hidden_state.numpy()
  assert_same(in_jax(tmp_path / "saved", batch), want)

  run.convert(tmp_path / "saved", tmp_path / "own", to="orbax")
  proof = run.convert(tmp_path / "own", tmp_path / "back", to="hf-vitmae")["proof"]["real_class"]
  assert proof["name"] == "transformers.ViTMAEForPreTraining"
  for error in proof["outputs"].values():
    assert error["max_abs_error"] <= TOLERANCE * error["max_abs_value"]


@pytest.mark.parametrize("variant", [0, 1], ids=["classic", "simple"])
def test_the_vitpose_of_transformers_loads_a_written_folder_and_its_own_folder_is_read(tmp_path, variant):
  transformers = pytest.importorskip("transformers")
  state = family_state(
    "hf-vitpose", variant=variant, grid=(4, 3), width=WIDTH, depth=DEPTH, patch=PATCH, num_classes=17
  )
  safetensors_file.save(tmp_path / "source.safetensors", state, {})
  known = {"source_grid": (4, 3), "heads": (HEADS, None), "norm_eps": 1e-6, "real": False}
  run.convert(tmp_path / "source.safetensors", tmp_path / "official.pth", to="vitpose", **known)
  proof = run.convert(tmp_path / "official.pth", tmp_path / "folder", to="hf-vitpose")["proof"]["real_class"]
  assert proof["name"] == "transformers.VitPoseForPoseEstimation"
  error = proof["outputs"]["heatmaps"]
  assert error["max_abs_error"] <= TOLERANCE * error["max_abs_value"]

  model = transformers.VitPoseForPoseEstimation.from_pretrained(tmp_path / "folder")
  model.save_pretrained(tmp_path / "saved")
  weights, batch = read.read(tmp_path / "saved"), images((64, 48))
  want = in_torch(model, batch).heatmaps.permute(0, 2, 3, 1).numpy()
  network = pose2d.network(weights.description)
  got = jax.jit(lambda variables: network.apply(variables, batch, train=False))(weights.variables)
  assert_same(np.asarray(got), want)
  run.convert(tmp_path / "saved", tmp_path / "back.pth", to="vitpose", real=False)
  first, last = (
    torch.load(tmp_path / name, weights_only=True)["state_dict"] for name in ("official.pth", "back.pth")
  )
  assert first.keys() == last.keys()
  assert all(torch.equal(first[name], last[name]) for name in first)


# timm imports torchvision, which CPU builds of torch do not have. It needs the names of a few parts only, so
# this program provides the names.
TIMM = """
import enum, importlib.machinery, sys, types
import torch

def stub(name, **parts):
  module = types.ModuleType(name)
  module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
  module.__path__ = []
  module.__dict__.update(parts)
  sys.modules[name] = module
  if "." in name:
    parent, leaf = name.rsplit(".", 1)
    setattr(sys.modules[parent], leaf, module)

modes = enum.Enum("InterpolationMode", {name.upper(): name for name in
  ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")})
stub("torchvision", __version__="0.0.0")
stub("torchvision.ops")
stub("torchvision.ops.misc", FrozenBatchNorm2d=type("FrozenBatchNorm2d", (torch.nn.Module,), {}))
stub("torchvision.transforms", InterpolationMode=modes)
stub("torchvision.transforms.functional", InterpolationMode=modes)
for name in ("datasets", "models", "models.feature_extraction", "utils"):
  stub(f"torchvision.{name}")
for name in ("transforms", "transforms.functional", "datasets", "models.feature_extraction", "utils", "ops"):
  sys.modules[f"torchvision.{name}"].__getattr__ = lambda k: (
    type(k, (), {}) if not k.startswith("__") else (_ for _ in ()).throw(AttributeError(k)))
from hap_jax.cli.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_timm_loads_a_written_file(own, tmp_path):
  if importlib.util.find_spec("timm") is None:
    pytest.skip("timm is not installed")
  command = [sys.executable, "-c", TIMM, "convert", str(own), f"--out={tmp_path / 'timm.pth'}", "--to=timm"]
  done = subprocess.run(
    command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  report = json.loads((tmp_path / "conversion.json").read_text())["timm.pth"]
  proof = report["proof"]["real_class"]
  assert isinstance(proof, dict), proof
  assert proof["name"] == "timm.VisionTransformer"
  for error in proof["outputs"].values():
    assert error["max_abs_error"] <= TOLERANCE * error["max_abs_value"]
