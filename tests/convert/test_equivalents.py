"""A plain ViT that is stored in another way has the same tokens: layer scales, biases, tables, files."""

import json

import ml_dtypes
import numpy as np
import pytest

from hap_jax.cli.__main__ import main
from hap_jax.convert import numpy_vit, read, run, verify
from hap_jax.convert.selection import Selection
from hap_jax.io import safetensors_file, torch_writer
from tests.convert.reference_state import encoder_state, family_state

GRID, WIDTH = (4, 2), 16
KNOWN = {"heads": (2, None), "real": False}


def random(*shape, seed=5):
  return np.random.default_rng(seed).standard_normal(shape, np.float32)


def small(state):
  return {name: array * np.float32(0.3) for name, array in state.items()}


def scaled(names, depth=2):
  """Returns the layer scales of all blocks."""
  found = ((i, n, name) for i in range(depth) for n, name in enumerate(names))
  return {f"blocks.{i}.{name}": random(WIDTH, seed=10 * i + n) for i, n, name in found}


def without(state, ending):
  return {name: array for name, array in state.items() if not name.endswith(ending)}


def separate_biases(state):
  """Returns the state with separate biases of queries and values. The keys have none."""
  found = {}
  for name, array in state.items():
    if name.endswith("attn.qkv.bias"):
      block = name.removesuffix("qkv.bias")
      found |= {f"{block}q_bias": array[:WIDTH], f"{block}v_bias": array[2 * WIDTH :]}
    else:
      found[name] = array
  return found


STATE = small(encoder_state(grid=GRID))
# {name: (state, names that are read together with another tensor)}
STORED = {
  "layer scale of timm": STATE | scaled(("ls1.gamma", "ls2.gamma")),
  "layer scale of DeiT III": STATE | scaled(("gamma_1", "gamma_2")),
  "separate biases": separate_biases(STATE),
  "no biases": without(STATE, "attn.qkv.bias"),
  "half precision": {
    name: array.astype(ml_dtypes.bfloat16)
    for name, array in (STATE | scaled(("ls1.gamma", "ls2.gamma"))).items()
  },
}


@pytest.mark.parametrize("name", STORED)
def test_the_tokens_are_those_of_the_stored_tensors(tmp_path, name):
  """The proof of the conversion runs the stored tensors by their own names, without a change."""
  path = tmp_path / "weights.safetensors"
  safetensors_file.save(path, STORED[name], {})
  weights = read.read(path, grid=GRID)
  assert (weights.family, weights.unused) == ("timm", ())
  used = {name for names in weights.source_names.values() for name in names}
  assert used == STORED[name].keys()
  report = run.convert(path, tmp_path / "own", source_grid=GRID, **KNOWN)
  assert report["proof"]["max_abs_error"] < 1e-5
  # A ViT without these tensors has other tokens, so the proof can fail. Biases of keys change no tokens.
  plain = STORED["no biases"] if name == "separate biases" else STATE
  setting = verify.Setting.of(weights.with_encoder(num_heads=2), GRID)
  forward = numpy_vit.Forward(
    numpy_vit.official(plain), verify.make_batch(setting), 2, {}, (GRID, GRID), 1e-6
  )
  assert np.abs(forward.tokens - verify.run_foreign(path, setting)["tokens"]).max() > 0.1


@pytest.mark.parametrize("kind", ["dinov2", "hf-dinov2"])
def test_the_layer_scales_of_dinov2_are_multiplied_into_the_layers(tmp_path, kind):
  state = family_state(kind, grid=(3, 3))
  scales = [name for name in state if "gamma" in name or "lambda1" in name]
  assert len(scales) == 4
  for seed, name in enumerate(scales):
    state[name] = random(WIDTH, seed=seed)
  safetensors_file.save(tmp_path / "weights.safetensors", state, {})
  report = run.convert(tmp_path / "weights.safetensors", tmp_path / "own", **KNOWN)
  assert (report["family"], report["unused"]) == (kind, [name for name in state if "mask_token" in name])
  assert 0 < report["proof"]["max_abs_error"] < 1e-5


def test_a_file_of_dinov2_is_recognised_by_its_scales_and_its_mask_token(tmp_path, capsys):
  state, path = family_state("dinov2", grid=(3, 3), width=128, depth=4), tmp_path / "dinov2.pth"
  torch_writer.save(path, state)
  assert main(["describe", str(path), "--json"]) == 0
  facts = json.loads(capsys.readouterr().out)
  assert (facts["family"], facts["stage"]) == ("dinov2", "self-supervised, without decoder")
  assert facts["licence"] == "not stated in the file; the published DINOv2 weights are Apache-2.0"
  assert facts["made_from"][0]["kind"] == "unknown"
  state["mask_token"] = state["mask_token"][None]
  torch_writer.save(path, state)
  assert read.read(path).family == "timm"


@pytest.mark.parametrize(
  ("change", "match"),
  [
    ({"blocks.1.attn.qkv.bias": None}, r"missing tensors of the timm family: blocks\.1\.attn\.qkv\.bias"),
    ({"blocks.0.ls1.gamma": random(7)}, r"expected names of the timm family, found blocks\.0\.ls1\.gamma"),
    ({"blocks.0.ls1.gamma": np.arange(WIDTH)}, r"found blocks\.0\.ls1\.gamma"),
    ({"blocks.0.attn.q_bias": random(WIDTH)}, r"found blocks\.0\.attn\.q_bias"),
    (
      {"blocks.0.ls1.gamma": np.full(WIDTH, np.inf, np.float32)},
      r"blocks\.0\.attn\.proj\.weight has .* infinite",
    ),
  ],
)
def test_tensors_of_another_shape_are_not_joined(tmp_path, change, match):
  state = {name: array for name, array in (STATE | change).items() if array is not None}
  safetensors_file.save(tmp_path / "weights.safetensors", state, {})
  with pytest.raises(ValueError, match=match):
    read.read(tmp_path / "weights.safetensors", grid=GRID)


def rowless(side, **more):
  """Returns a state dict whose position table has no row for the class token, of side x side patches."""
  state = small(encoder_state(grid=(side, side)))
  return {**state, "pos_embed": state["pos_embed"][:, 1:], **more}


@pytest.mark.parametrize(
  ("state", "content", "options"),
  [
    (rowless(12, **scaled(("gamma_1", "gamma_2"))), {}, {}),
    (rowless(3), {"arch": "deit3_base_patch16_224"}, {}),
    (rowless(3), {"arch": "flexivit_base"}, {}),
    (rowless(3), {}, {"grid": (3, 3)}),
  ],
)
def test_a_table_without_a_row_for_the_class_token_gets_a_row_of_zeros(tmp_path, state, content, options):
  path, side = tmp_path / "weights.pth", int(np.sqrt(state["pos_embed"].shape[1]))
  torch_writer.save(path, {"state_dict": state, **content})
  weights = read.read(path, **options)
  table = weights.params["encoder"]["pos_embed"]
  assert (weights.grid, table.shape) == ((side, side), (1, 1 + side**2, WIDTH))
  assert weights.grid_from.endswith("; the position table has no row for the class token")
  np.testing.assert_array_equal(table[:, 1:], state["pos_embed"])
  assert not table[:, 0].any()
  report = run.convert(path, tmp_path / "own", source_grid=options.get("grid"), **KNOWN)
  assert report["proof"]["max_abs_error"] < 1e-5


@pytest.mark.parametrize("more", [{}, scaled(("gamma_1", "gamma_2"))])
def test_a_small_square_table_without_another_trait_has_no_known_grid(tmp_path, more):
  torch_writer.save(tmp_path / "weights.pth", rowless(3, **more))
  weights = read.read(tmp_path / "weights.pth")
  assert weights.grid is None
  assert weights.grid_from == (
    "unknown: 8 patches are not a square, and the position table is not a fixed sin-cos table; "
    "if no row of the table belongs to the class token, the grid is 3x3"
  )


def test_a_table_of_196_rows_is_no_file_of_hap(tmp_path, capsys):
  torch_writer.save(tmp_path / "weights.pth", {"model": rowless(14), "arch": "vit"})
  assert main(["describe", str(tmp_path / "weights.pth")]) == 0
  printed = capsys.readouterr().out
  assert "HAP" not in printed
  assert "the grid is 14x14" in printed


# Folders of timm


@pytest.mark.parametrize(
  "config",
  [
    {"architecture": "deit3_base_patch16_224"},
    {"architecture": "vit_base", "model_args": {"no_embed_class": True}},
  ],
)
def test_a_folder_of_timm_says_that_the_table_has_no_row_for_the_class_token(tmp_path, config):
  safetensors_file.save(tmp_path / "model.safetensors", rowless(3), {})
  (tmp_path / "config.json").write_text(json.dumps(config))
  assert read.read(tmp_path).grid == (3, 3)


# mmpretrain and Google's ViT


def test_a_classifier_of_mmpretrain_is_read_as_an_encoder(tmp_path, capsys):
  state = family_state("mmpretrain", grid=(3, 3), width=128, depth=4)
  state = {f"backbone.{name}": array for name, array in state.items()}
  head = {"head.layers.head.weight": random(5, 128), "head.layers.head.bias": random(5)}
  path = tmp_path / "epoch_1.pth"
  torch_writer.save(path, {"meta": {"epoch": 1}, "state_dict": state | head, "message_hub": {}})
  assert main(["describe", str(path), "--json"]) == 0
  facts = json.loads(capsys.readouterr().out)
  assert (facts["family"], facts["stage"]) == ("mmpretrain", "encoder of a classifier")
  assert facts["unused"] == [*head]
  report = run.convert(path, tmp_path / "own", real=False)
  assert report["proof"]["max_abs_error"] < 1e-5


def google_arrays(*, width=WIDTH, depth=2, heads=2, grid=(3, 3), patch=4, hidden=24, **more):
  """Returns the arrays of a file of Google's ViT, from the published layout."""
  rng = np.random.default_rng(3)
  make = lambda *shape: (rng.standard_normal(shape) * 0.3).astype(np.float32)  # noqa: E731
  size = width // heads
  block = {
    **{f"LayerNorm_{n}/{leaf}": (width,) for n in (0, 2) for leaf in ("scale", "bias")},
    **{
      f"MultiHeadDotProductAttention_1/{name}/kernel": (width, heads, size)
      for name in ("query", "key", "value")
    },
    **{f"MultiHeadDotProductAttention_1/{name}/bias": (heads, size) for name in ("query", "key", "value")},
    "MultiHeadDotProductAttention_1/out/kernel": (heads, size, width),
    "MultiHeadDotProductAttention_1/out/bias": (width,),
    "MlpBlock_3/Dense_0/kernel": (width, hidden),
    "MlpBlock_3/Dense_0/bias": (hidden,),
    "MlpBlock_3/Dense_1/kernel": (hidden, width),
    "MlpBlock_3/Dense_1/bias": (width,),
  }
  return {
    "cls": make(1, 1, width),
    "embedding/kernel": make(patch, patch, 3, width),
    "embedding/bias": make(width),
    "Transformer/posembed_input/pos_embedding": make(1, 1 + grid[0] * grid[1], width),
    **{
      f"Transformer/encoderblock_{i}/{name}": make(*shape)
      for i in range(depth)
      for name, shape in block.items()
    },
    "Transformer/encoder_norm/scale": make(width),
    "Transformer/encoder_norm/bias": make(width),
    **more,
  }


HEAD = {"head/kernel": random(WIDTH, 5), "head/bias": random(5), "pre_logits/kernel": random(WIDTH, WIDTH)}


def test_a_file_of_googles_vit_is_read_with_its_heads_and_comes_back(tmp_path, capsys):
  arrays, path = google_arrays(**HEAD), tmp_path / "B_16.npz"
  np.savez(path, **arrays)
  assert main(["describe", str(path), "--json"]) == 0
  facts = json.loads(capsys.readouterr().out)
  assert (facts["container"], facts["family"], facts["stage"]) == (
    "NumPy, npz",
    "google-vit",
    "encoder of a classifier",
  )
  assert (facts["model"]["num_heads"], facts["model"]["mlp_ratio"]) == (2, 1.5)
  assert facts["normalization"]["mean"] == facts["normalization"]["std"] == [0.5, 0.5, 0.5]
  assert set(facts["unused"]) == HEAD.keys()
  assert facts["licence"] == "not stated in the file; the published weights of Google's ViT are Apache-2.0"
  report = run.convert(path, tmp_path / "own", real=False)
  assert 0 < report["proof"]["max_abs_error"] < 1e-5
  back = run.convert(tmp_path / "own", tmp_path / "back.npz", to="google-vit")
  assert back["proof"]["max_abs_error"] == 0
  with np.load(tmp_path / "back.npz") as file:
    assert set(file) == arrays.keys() - HEAD.keys() | {"hap_jax"}
    for name in file.keys() - {"hap_jax"}:
      np.testing.assert_array_equal(file[name], arrays[name], strict=True)
  again = read.read(tmp_path / "back.npz")
  assert (again.family, again.num_heads, again.grid) == ("google-vit", 2, (3, 3))
  assert again.normalization["mean"] == [0.5, 0.5, 0.5]


def test_an_array_of_bfloat16_is_read_as_jax_writes_it(tmp_path):
  arrays = google_arrays()
  halves = {name: array.astype(ml_dtypes.bfloat16) for name, array in arrays.items()}
  np.savez(tmp_path / "B_16.npz", **{name: array.view("V2") for name, array in halves.items()})
  found = read.read(tmp_path / "B_16.npz").params["encoder"]["norm"]["scale"]
  np.testing.assert_array_equal(found, halves["Transformer/encoder_norm/scale"].astype(np.float32))


@pytest.mark.parametrize(
  ("save", "arrays", "match"),
  [
    (
      np.savez_compressed,
      google_arrays(),
      "is compressed or encrypted; expected it as torch.save and np.savez",
    ),
    (np.savez, {"a": np.ones(2)}, "of no known family"),
    (
      np.savez,
      google_arrays(cls=np.array([None], object)),
      "tensor cls is an object of a class that is not read",
    ),
    (np.savez, google_arrays(cls=np.array(["a"])), "cls has shape|has dtype"),
    (
      np.savez,
      {k: v for k, v in google_arrays().items() if k != "cls"},
      "has no tensor cls: .* needs a class token",
    ),
    (
      np.savez,
      google_arrays(heads=2) | {"embedding/bias": np.ones(3, np.float32)},
      r"embedding/bias has shape \(3,\)",
    ),
  ],
)
def test_a_damaged_file_of_googles_vit_is_an_error(tmp_path, save, arrays, match):
  save(tmp_path / "B_16.npz", **arrays)
  with pytest.raises(ValueError, match=rf"B_16\.npz: .*({match})"):
    read.read(tmp_path / "B_16.npz")


def test_a_cut_npz_file_is_an_error(tmp_path):
  path = tmp_path / "B_16.npz"
  np.savez(path, **google_arrays())
  data = path.read_bytes()
  for end in range(0, len(data), 997):
    path.write_bytes(data[:end])
    with pytest.raises(ValueError, match=r"B_16\.npz: "):
      read.read(path)


# Folders of several files


@pytest.fixture
def shards(tmp_path):
  """A Hugging Face folder whose tensors lie in three files."""
  state = family_state("hf-vit", grid=(3, 3))
  names = sorted(state)
  index = {name: f"model-0000{k % 3 + 1}-of-00003.safetensors" for k, name in enumerate(names)}
  for file in set(index.values()):
    safetensors_file.save(tmp_path / file, {n: state[n] for n in names if index[n] == file}, {})
  (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
  return tmp_path, state, index


def write_index(folder, index):
  (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))


def test_all_files_of_a_folder_are_read(shards):
  folder, state, _ = shards
  weights = read.read(folder)
  assert weights.family == "hf-vit"
  np.testing.assert_array_equal(weights.params["encoder"]["cls_token"], state["embeddings.cls_token"])
  first = weights.lineage[0]["sha256"]
  file = folder / "model-00003-of-00003.safetensors"
  file.write_bytes(file.read_bytes()[:-4] + bytes(4))
  assert read.read(folder).lineage[0]["sha256"] != first  # the digest covers all files


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "..", "", "a/b.safetensors"])
def test_an_index_cannot_name_files_outside_of_its_folder(shards, name):
  folder, _, index = shards
  write_index(folder, dict.fromkeys(index, name))
  with pytest.raises(ValueError, match="expected names of files in its folder, found"):
    read.read(folder)


def test_a_wrong_index_is_an_error(shards):
  folder, _, index = shards
  for wrong in ([], {}, {"a": 1}, {"a": "b"}):
    write_index(folder, wrong)
    with pytest.raises(ValueError, match=r"index\.json: "):
      read.read(folder)
  write_index(folder, {**index, "extra": "model-00001-of-00003.safetensors"})
  with pytest.raises(
    ValueError, match=r"00001-of-00003\.safetensors: expected the \d+ tensors .* found others"
  ):
    read.read(folder)
  write_index(folder, index)
  (folder / "model-00002-of-00003.safetensors").unlink()
  with pytest.raises(ValueError, match=r"model-00002-of-00003\.safetensors is missing: 1 of 3 files"):
    read.read(folder)


# A part of a checkpoint of this project


def test_the_encoder_of_an_own_checkpoint_is_read_without_its_heads(tmp_path, capsys):
  safetensors_file.save(tmp_path / "lem.safetensors", family_state("reid-lem", width=128, depth=4), {})
  run.convert(tmp_path / "lem.safetensors", tmp_path / "own", family="reid-lem", source_grid=GRID, real=False)
  whole = read.read(tmp_path / "own")
  part = read.read(tmp_path / "own", selection=Selection(encoder_only=True))
  assert (part.task, list(part.params), part.heads) == ("pretrain", ["encoder"], ())
  assert set(part.unused) == {n for n in whole.source_names if not n.startswith("encoder/")}
  assert main(["describe", str(tmp_path / "own"), "--encoder_only"]) == 0
  printed = capsys.readouterr().out
  assert "stage       encoder of a model fine-tuned for reid" in printed
  assert f"can         hap embed {tmp_path / 'own'} --encoder_only ..." in printed
  assert f"--config.init_from={tmp_path / 'own'} --config.init_encoder_only=True ..." in printed
  for words in (["--key=model"], ["--prefix=encoder."]):
    assert main(["describe", str(tmp_path / "own"), *words]) == 1
    assert f"{words[0]} has no effect on a folder without foreign weights" in capsys.readouterr().err
