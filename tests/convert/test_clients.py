"""The usual classes load converted weights: plain PyTorch, transformers and timm."""

import functools
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
from hap_jax.cli.__main__ import main
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
  return np.asarray(apply(model, variables, batch))


@functools.partial(jax.jit, static_argnums=0)  # models of the same sizes share one program
def apply(model, variables, batch):
  return model.apply(variables, batch)


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


TIMM = """
import sys
from tests.convert import torchvision_stub
torchvision_stub.install()
from hap_jax.cli.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def run_program(*words):
  """Runs a program of Python from the root of this project."""
  command = [sys.executable, *map(str, words)]
  env = {**os.environ, "PYTHONPATH": str(ROOT)}
  done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr


def test_timm_loads_a_written_file(own, tmp_path):
  if importlib.util.find_spec("timm") is None:
    pytest.skip("timm is not installed")
  run_program("-c", TIMM, "convert", own, f"--out={tmp_path / 'timm.pth'}", "--to=timm")
  report = json.loads((tmp_path / "conversion.json").read_text())["timm.pth"]
  proof = report["proof"]["real_class"]
  assert isinstance(proof, dict), proof
  assert proof["name"] == "timm.VisionTransformer"
  for error in proof["outputs"].values():
    assert error["max_abs_error"] <= TOLERANCE * error["max_abs_value"]


@pytest.fixture(scope="module")
def timm_files(tmp_path_factory):
  """Returns (folder with files of timm, {name of a model: its tokens}, the pictures of these tokens)."""
  if importlib.util.find_spec("timm") is None:
    pytest.skip("timm is not installed")
  folder = tmp_path_factory.mktemp("timm")
  run_program("-m", "tests.convert.save_timm", folder)
  with np.load(folder / "tokens.npz") as file:
    tokens = dict(file)
  return folder, tokens, tokens.pop("picture")


def test_files_of_timm_give_the_tokens_of_timm(timm_files, capsys):
  folder, tokens, picture = timm_files
  paths = {name: folder / f"{name}.pth" for name in tokens}
  paths |= {"saver": folder / "saver" / "last.pth.tar"}
  for name, path in paths.items():
    assert main(["describe", str(path), "--json"]) == 0, name
    facts = json.loads(capsys.readouterr().out)
    assert (facts["family"], facts["made_from"][0]["kind"]) == ("timm", "unknown"), name
    has_head = name in ("classifier", "deit3", "saver")
    assert facts["unused"] == (["head.weight", "head.bias"] if has_head else [])
    assert facts["stage"].startswith("encoder of a classifier" if has_head else "encoder; the file does not")
    assert facts["grid_from"].endswith("no row for the class token") == (name == "deit3")
    assert_same(in_jax(path, picture, num_heads=3), tokens[name])
  assert facts["objects"] == ["pathlib.PurePosixPath"]
  assert facts["taken"] == "entry 'state_dict'"


def test_a_training_of_timm_with_an_average_needs_the_key(timm_files, capsys):
  folder, tokens, picture = timm_files
  path = folder / "saver_ema" / "last.pth.tar"
  assert main(["describe", str(path)]) == 1
  assert "choose one of them: --key=state_dict | --key=state_dict_ema" in capsys.readouterr().err
  assert_same(in_jax(path, picture, num_heads=3, key="state_dict"), tokens["saver"])
  assert main(["describe", str(path), "--key=state_dict_ema"]) == 0
  assert f"hap convert {path} --key=state_dict_ema --num_heads=N" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("name", "part"),
  [
    ("registers", "tensor reg_token: .* does not have register tokens"),
    ("siglip", "tensor attn_pool.latent: .* pooling by attention in place of a class token"),
    ("clip", "tensor norm_pre.weight: .* a norm before the first block"),
    ("distilled", "tensor dist_token: .* a distillation token"),
    ("beit", "tensor blocks.0.attn.relative_position_bias_table: .* relative positions"),
    ("eva02", r"tensor blocks.0.mlp.fc1_g.weight: .* MLPs with a gate \(SwiGLU\)"),
    ("dinov3", "tensor reg_token: .* register tokens"),
  ],
)
def test_models_of_timm_with_other_parts_are_refused_by_the_part(timm_files, name, part):
  path = timm_files[0] / f"{name}.pth"
  for only in (False, True):
    with pytest.raises(ValueError, match=rf"{name}\.pth: {part}"):
      hap_jax.load(path, encoder_only=only, num_heads=3)


SMALL = {
  "hidden_size": 48,
  "num_hidden_layers": 2,
  "num_attention_heads": 3,
  "image_size": 64,
  "patch_size": 16,
}


def random_model(kind, **options):
  """Returns a model of transformers in evaluation mode. Its weights are as large as trained ones."""
  transformers = pytest.importorskip("transformers")
  model = getattr(transformers, kind)
  model = model(model.config_class(**SMALL, **options)).eval()
  generator = torch.Generator().manual_seed(0)
  with torch.no_grad():
    for parameter in model.parameters():
      parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
  return model


@pytest.mark.parametrize(
  ("kind", "attribute", "options", "family", "stage", "norm_eps"),
  [
    ("ViTModel", "", {}, "hf-vit", "encoder; the file does not", 1e-12),
    (
      "ViTModel",
      "",
      {"layer_norm_eps": 1e-5, "qkv_bias": True},
      "hf-vit",
      "encoder; the file does not",
      1e-5,
    ),
    ("ViTForImageClassification", "vit", {}, "hf-vit", "encoder of a classifier", 1e-12),
    ("ViTForMaskedImageModeling", "vit", {}, "hf-vit", "encoder; the file does not", 1e-12),
    ("Dinov2Model", "", {}, "hf-dinov2", "self-supervised", 1e-6),
    ("Dinov2ForImageClassification", "dinov2", {}, "hf-dinov2", "encoder of a classifier", 1e-6),
  ],
)
def test_models_of_transformers_give_their_tokens(
  tmp_path, capsys, kind, attribute, options, family, stage, norm_eps
):
  if "Dinov2" not in kind:
    options = {"intermediate_size": 192, **options}
  model, batch = random_model(kind, **options), images((64, 64))
  encoder = getattr(model, attribute) if attribute else model
  want = in_torch(encoder, batch).last_hidden_state.numpy()
  model.save_pretrained(tmp_path / "saved")
  assert main(["describe", str(tmp_path / "saved"), "--json"]) == 0
  facts = json.loads(capsys.readouterr().out)
  assert (facts["family"], facts["model"]["norm_eps"], facts["model"]["decoder"]) == (family, norm_eps, None)
  assert facts["stage"].startswith(stage)
  assert facts["made_from"][0]["kind"] == "unknown"
  assert_same(in_jax(tmp_path / "saved", batch), want)


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_of_several_files_gives_the_same_tokens(tmp_path, capsys, safe):
  model, batch = random_model("ViTModel", intermediate_size=192), images((64, 64))
  want = in_torch(model, batch).last_hidden_state.numpy()
  model.save_pretrained(tmp_path / "saved", max_shard_size="60KB", safe_serialization=safe)
  path = tmp_path / "saved"
  if not list(path.glob("*.index.json")):
    pytest.skip("this version of transformers writes one file")
  assert len(list(path.glob("*-of-*"))) > 2
  assert main(["describe", str(path)]) == 0
  assert "index.json" in capsys.readouterr().out
  assert_same(in_jax(path, batch), want)
  run.convert(path, tmp_path / "own", real=False)
  assert_same(in_jax(tmp_path / "own", batch), want)


@pytest.mark.parametrize("square", [(64, 64)])
def test_the_dinov2_of_transformers_loads_a_written_folder(tmp_path, square):
  model, batch = random_model("Dinov2Model"), images(square)
  want = in_torch(model, batch).last_hidden_state.numpy()
  model.save_pretrained(tmp_path / "saved")
  run.convert(tmp_path / "saved", tmp_path / "own")
  proof = run.convert(tmp_path / "own", tmp_path / "back", to="hf-dinov2")["proof"]["real_class"]
  assert proof["name"] == "transformers.Dinov2Model"
  again = type(model).from_pretrained(tmp_path / "back")
  assert_same(in_torch(again, batch).last_hidden_state.numpy(), want)


@pytest.mark.parametrize(
  ("kind", "options", "part"),
  [
    ("Dinov2WithRegistersModel", {}, "register tokens"),
    ("DINOv3ViTModel", {}, "register tokens|rotary positions"),
    ("Dinov2Model", {"use_swiglu_ffn": True}, "MLPs with a gate"),
    ("BeitModel", {"use_relative_position_bias": True}, "relative positions"),
    ("DeiTModel", {}, "a distillation token"),
    ("SiglipVisionModel", {"intermediate_size": 192}, "pooling by attention in place of a class token"),
    ("Siglip2VisionModel", {"intermediate_size": 192}, "pooling by attention in place of a class token"),
    ("CLIPVisionModel", {"intermediate_size": 192}, "a norm before the first block"),
    ("IJepaModel", {"intermediate_size": 192}, "needs a class token"),
  ],
)
def test_models_of_transformers_with_other_parts_are_refused_by_the_part(tmp_path, kind, options, part):
  random_model(kind, **options).save_pretrained(tmp_path / "saved")
  with pytest.raises(ValueError, match=rf"saved: .*({part})"):
    hap_jax.load(tmp_path / "saved")
