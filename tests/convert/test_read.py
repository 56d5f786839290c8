"""Official files, Hugging Face folders and own checkpoints are read. Damaged files are errors."""

import dataclasses
import hashlib
import json
import os

import jax
import numpy as np
import pytest

from hap_jax.convert import families, fit, names, read
from hap_jax.convert import write as writing
from hap_jax.description import Description, Encoder
from hap_jax.io import checkpoint_file, safetensors_file
from hap_jax.models import posemb, vit
from tests import networks
from tests.convert.reference_state import encoder_state, exchange, family_state, full_state, leaves
from tests.io import torch_bytes


@pytest.fixture
def golden_state(golden):
  """The state dict of the official tiny model."""
  return {key.removeprefix("param/"): value for key, value in golden("pretrain_small_params").items()}


@pytest.fixture
def folder(tmp_path):
  """Returns a function that writes a Hugging Face folder and returns its path.

  Each keyword argument of the function is the content of one JSON file.
  """

  def write_folder(family, **files):
    path = tmp_path / family
    path.mkdir(exist_ok=True)
    safetensors_file.save(path / "model.safetensors", family_state(family), {})
    for name, content in files.items():
      (path / f"{name}.json").write_text(json.dumps(content))
    return path

  return write_folder


# Names and layouts


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_official_weights_survive_both_conversions_bit_for_bit(golden_state, write, form):
  weights = read.read(write({"model": golden_state, "arch": "vit"}, form))
  ours = leaves(weights.params)
  rows = golden_rows(weights)
  assert ours.keys() == {row.ours for row in rows} == weights.source_names.keys()
  assert sorted(name for found in weights.source_names.values() for name in found) == sorted(golden_state)
  for value in ours.values():
    assert value.dtype == np.float32
    assert value.flags.c_contiguous
  assert {row.reference for row in rows} == golden_state.keys()
  for row in rows:
    back = row.layout.to_reference(row.of(ours[row.ours]))
    np.testing.assert_array_equal(back, golden_state[row.reference])
    assert row.reference in weights.source_names[row.ours]


def golden_rows(weights):
  """Returns the rows of the family's table for the depth of these weights."""
  depths = {"depth": weights.depth, "decoder_depth": weights.decoder["depth"]}
  return names.table(families.load(weights.family), **depths)


def test_files_that_pytorch_wrote_give_the_same_weights(golden_state, write, tmp_path):
  torch = pytest.importorskip("torch")
  state = {f"module.{name}": torch.from_numpy(value) for name, value in golden_state.items()}
  path = tmp_path / "torch.pth"
  torch.save({"epoch": 399, "arch": "vit", "model": state}, path)
  got, want = (leaves(read.read(p).params) for p in (path, write({"model": golden_state})))
  assert got.keys() == want.keys()
  for name in want:
    np.testing.assert_array_equal(got[name], want[name])


def official_encoder_error(golden, path):
  """Returns the largest error of our model's prediction with these weights against the official one."""
  inputs, outputs = golden("pretrain_small_inputs"), golden("pretrain_small_normpix")
  sizes = {key.removeprefix("cfg/"): value for key, value in inputs.items() if key.startswith("cfg/")}
  image_size, patch = tuple(map(int, sizes["img_size"])), int(sizes["patch_size"])
  model = networks.pretraining(
    vit.Variant(*(int(sizes[name]) for name in ("embed_dim", "depth", "num_heads"))),
    image_size=image_size,
    patch=patch,
    decoder_width=int(sizes["decoder_embed_dim"]),
    decoder_depth=int(sizes["decoder_depth"]),
    decoder_heads=int(sizes["decoder_num_heads"]),
    dtype=np.float32,
    scan=False,
  )
  image = inputs["images"].transpose(0, 2, 3, 1)
  ranks = np.argsort(inputs["noise_view1"], axis=1)  # MAE keeps the patches with the least noise
  num_visible = int(ranks.shape[1] * (1 - float(inputs["mask_ratio"])))
  views = ranks[:, None, :num_visible].astype(np.int32), inputs["ids_restore_view1"][:, None]
  template = jax.eval_shape(model.init, jax.random.key(0), image, *views)["params"]
  grid = model.encoder.grid
  weights = read.read(path)
  assert weights.grid == grid
  variables, report = fit.fit_to({"params": template}, weights, grid=grid, stacks=("encoder", "decoder"))
  assert report.missing == report.unused == report.resized == ()
  pred = np.asarray(jax.jit(model.apply)(variables, image, *views).pred[:, 0])
  return np.abs(pred - outputs["pred_view1"]).max()


def test_our_model_reproduces_the_official_forward_pass(golden, golden_state, write):
  assert official_encoder_error(golden, write({"model": golden_state})) < 2e-5


def test_two_swapped_names_change_the_forward_pass(golden, golden_state, write, monkeypatch):
  # The two norms have the same shape, so only the outputs show the mistake.
  family = families.load("hap")
  swap = {"blocks.{i}.norm1.weight": "blocks.{i}.norm2.weight"}
  swap |= {there: here for here, there in swap.items()}
  entries = tuple(
    dataclasses.replace(row, reference=swap.get(row.reference, row.reference)) for row in family.entries
  )
  exchange(monkeypatch, dataclasses.replace(family, entries=entries))
  assert official_encoder_error(golden, write({"model": golden_state})) > 1e-3


# The layouts of files


def test_weights_are_found_in_entries_and_behind_prefixes(write):
  state = encoder_state()
  prefixed = {f"module.{name}": value for name, value in state.items()}
  for content in (state, {"model": state}, {"state_dict": prefixed}, {"epoch": 1, "model": prefixed}):
    weights = read.read(write(content))
    np.testing.assert_array_equal(weights.params["encoder"]["norm"]["scale"], state["norm.weight"])
    assert list(weights.params) == ["encoder"]
    assert (weights.width, weights.depth, weights.patch, weights.num_heads) == (16, 2, 4, None)


# {name of a module in a file: name in memory in transformers 5}
IN_MEMORY = {
  "encoder.layer.": "layers.",
  "decoder_layers.": "decoder_encoder.layer.",
  "attention.attention.query": "attention.q_proj",
  "attention.attention.key": "attention.k_proj",
  "attention.attention.value": "attention.v_proj",
  "attention.output.dense": "attention.o_proj",
  "intermediate.dense": "mlp.fc1",
  "output.dense": "mlp.fc2",
}


@pytest.mark.parametrize(("family", "prefix"), [("hf-vit", ""), ("hf-vit", "vit."), ("hf-vitmae", "")])
def test_every_spelling_of_transformers_gives_the_same_weights(tmp_path, family, prefix):
  state, other = family_state(family, grid=(3, 3)), {}
  for name, array in state.items():
    for there, here in IN_MEMORY.items():
      name = name.replace(there, here)
    other[prefix + name] = array
  assert any("q_proj" in name for name in other)
  assert not any("attention.attention" in name for name in other)
  for name, content in (("files", state), ("memory", other)):
    (tmp_path / name).mkdir()
    (tmp_path / name / "pytorch_model.bin").write_bytes(torch_bytes.zip_file(content))
  want, got = (read.read(tmp_path / name) for name in ("files", "memory"))
  assert want.family == got.family == family
  got, want = leaves(got.params), leaves(want.params)
  assert got.keys() == want.keys()
  for name, array in want.items():
    np.testing.assert_array_equal(got[name], array)


@pytest.mark.parametrize("nest", ["model", "state_dict"])
@pytest.mark.parametrize(
  "arch", ["vit_base_patch16_224", "vit_base_patch16", "deit3_base_patch16_224", "vit"]
)
@pytest.mark.parametrize("num_cells", [(3, 3), (4, 2), (12, 8)])
def test_the_name_of_a_model_alone_makes_no_file_a_file_of_hap(write, nest, arch, num_cells):
  state = encoder_state(grid=num_cells)
  heads = {"head.weight": np.ones((5, 16), np.float32), "head.bias": np.ones(5, np.float32)}
  for content in (state, state | heads):
    weights = read.read(write({nest: content, "arch": arch, "epoch": 3, "version": 2, "metric": 81.5}))
    assert (weights.family, weights.task, list(weights.params)) == ("timm", "pretrain", ["encoder"])
    assert weights.made_from[0]["kind"] == "unknown"
    assert "HAP" not in weights.licence


def test_a_classifier_of_hap_needs_the_name_and_the_grid_of_its_code(write):
  state = family_state("reid-vit", grid=(16, 8))
  assert read.read(write({"model": state, "arch": "vit_base_patch16"})).family == "reid-vit"
  assert read.read(write({"model": state, "arch": "vit_base_patch16_224"})).family == "timm"
  assert read.read(write({"model": state})).family == "timm"


@pytest.mark.parametrize("shape", [(1, 1, 16), (1, 16)])
def test_a_mask_token_of_an_encoder_is_no_decoder(write, shape):
  weights = read.read(
    write({"model": encoder_state(grid=(3, 3)) | {"mask_token": np.ones(shape, np.float32)}})
  )
  assert (weights.family, weights.decoder, weights.unused) == ("timm", None, ("mask_token",))


def test_a_head_of_another_project_is_no_pose_network(write):
  head = {"keypoint_head.final_layer.weight": np.ones((17, 16, 1, 1), np.float32)}
  with pytest.raises(
    ValueError, match=r"expected names of the timm family, found keypoint_head\.final_layer"
  ):
    read.read(write({"state_dict": encoder_state() | head}))


@pytest.mark.parametrize("prefix", ["module.backbone.", "backbone.", "base.", "module.base."])
@pytest.mark.parametrize("nest", ["teacher", "state_dict", None])
def test_the_backbone_of_a_reid_checkpoint_is_read_and_its_heads_are_unused(write, prefix, nest):
  state = {f"{prefix}{name}": array for name, array in encoder_state().items()}
  outer = "module." if prefix.startswith("module.") else ""
  state |= {f"{outer}{name}.weight": np.ones((5, 16), np.float32) for name in ("classifier", "bottleneck")}
  weights = read.read(write({nest: state, "epoch": 3} if nest else state))
  assert (weights.family, list(weights.params)) == ("timm", ["encoder"])
  assert weights.unused == (f"{outer}classifier.weight", f"{outer}bottleneck.weight")
  assert weights.source_names["encoder/norm/bias"] == (f"{prefix}norm.bias",)


def test_the_family_is_found_from_the_file(write):
  square = encoder_state(grid=(3, 3))
  assert read.read(write({"model": square}), family="hap").family == "hap"
  for grid, family in (((3, 3), "mae"), ((4, 2), "hap")):
    assert read.read(write({"model": encoder_state(table=posemb.sincos_table(grid, 16))})).family == family
    assert read.read(write({"model": full_state(grid=grid)})).family == family
    assert (
      read.read(write({"model": full_state(grid=grid), "arch": "pose_mae_vit_base_patch16"})).family == "hap"
    )
  with pytest.raises(ValueError, match="'dino' is not one of attributes-vit, dinov2, "):
    read.read(write({"model": square}), family="dino")


def test_the_lineage_names_file_digest_family_and_licence(write):
  path = write({"model": full_state(grid=(3, 3))})
  lineage = read.read(path).lineage[0]
  # The digest is computed here again, from the bytes of the whole file.
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  assert lineage == {"file": "weights.pth", "sha256": digest, "family": "mae", "licence": lineage["licence"]}
  assert "CC-BY-NC 4.0" in lineage["licence"]


def test_the_number_of_heads_follows_from_the_variant_of_this_size(write):
  variant = vit.VARIANTS["Mu"]
  state = encoder_state(width=variant.width, depth=variant.depth)
  assert read.read(write(state)).num_heads == variant.num_heads


def test_half_precision_weights_become_float32_exactly(write, tmp_path):
  torch = pytest.importorskip("torch")
  state = {name: torch.from_numpy(value) for name, value in encoder_state().items()}
  for dtype in (torch.float16, torch.bfloat16, torch.float64):
    path = tmp_path / "half.pth"
    torch.save({name: value.to(dtype) for name, value in state.items()}, path)
    got = read.read(path).params["encoder"]["norm"]["scale"]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, state["norm.weight"].to(dtype).float().numpy())


def test_a_fine_tuned_head_and_its_pooled_norm_are_listed_as_unused(write):
  state = encoder_state(grid=(3, 3))
  for kind in ("weight", "bias"):
    state[f"fc_norm.{kind}"] = state.pop(f"norm.{kind}")
  state["head.weight"], state["head.bias"] = np.ones((10, 16), np.float32), np.ones(10, np.float32)
  weights = read.read(write({"model": state}))
  assert weights.unused == ("fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias")
  assert "norm" not in weights.params["encoder"]


# The grid


@pytest.mark.parametrize("grid", [(16, 8), (8, 16), (12, 12), (18, 8), (1, 5), (5, 1)])
def test_the_grid_is_read_from_a_sincos_table(write, grid):
  state = encoder_state(table=posemb.sincos_table(grid, 16))
  weights = read.read(write({"model": state}))
  assert weights.grid == grid
  assert weights.grid_from == "computed from the sin-cos position table"


def test_the_decoders_table_gives_the_grid_if_the_encoders_table_was_resized(write):
  state = full_state(grid=(4, 2), table=posemb.resize_table(posemb.sincos_table((3, 3), 16), (3, 3), (4, 2)))
  assert read.read(write(state)).grid is None
  state["decoder_pos_embed"] = posemb.sincos_table((4, 2), 8)
  assert read.read(write(state)).grid == (4, 2)


@pytest.mark.parametrize(
  ("num_cells", "content", "grid", "how"),
  [
    ((3, 3), {}, (3, 3), "assumed square"),
    ((4, 2), {}, None, "unknown: 8 patches"),
  ],
)
def test_the_grid_of_any_other_table_is_reported_as_an_assumption(write, num_cells, content, grid, how):
  weights = read.read(write({**content, "model": encoder_state(grid=num_cells)}))
  assert weights.grid == grid
  assert weights.grid_from.startswith(how)


def test_the_caller_may_give_the_grid_if_the_file_does_not_contradict_it(write):
  path = write({"model": encoder_state(grid=(4, 2))})
  assert read.read(path, grid=(2, 4)).grid == (2, 4)
  with pytest.raises(
    ValueError, match=r"weights\.pth: grid 5x2 was given, but its position table has 8 patches"
  ):
    read.read(path, grid=(5, 2))
  # A table of 9 rows is one of 3x3 patches if no row belongs to the class token.
  found = read.read(path, grid=(3, 3))
  assert (found.grid, found.params["encoder"]["pos_embed"].shape) == ((3, 3), (1, 10, 16))
  assert found.grid_from == "given by the caller; the position table has no row for the class token"
  path = write({"model": encoder_state(table=posemb.sincos_table((4, 2), 16))})
  with pytest.raises(ValueError, match="grid 2x4 was given, but its sin-cos table is for 4x2"):
    read.read(path, grid=(2, 4))


def test_another_grid_than_a_folder_records_is_an_error(folder):
  path = folder("hf-vit", config={"image_size": [16, 8], "patch_size": 4})
  assert read.read(path).grid == read.read(path, grid=(4, 2)).grid == (4, 2)
  with pytest.raises(ValueError, match=r"grid 2x4 was given, but the file records 4x2: give no grid"):
    read.read(path, grid=(2, 4))


# The other files of a folder


@pytest.mark.parametrize("family", ["hf-vit", "hf-vitmae"])
@pytest.mark.parametrize(
  ("config", "match"),
  [
    ({"hidden_act": "quick_gelu"}, r"config\.json: hidden_act is 'quick_gelu', but .* exact 'gelu'"),
    ({"hidden_act": "relu"}, "hidden_act is 'relu'"),
    *(
      (
        {"layer_norm_eps": value},
        rf"config\.json: layer_norm_eps is {value!r}, expected a number between 0 and 1",
      )
      for value in ("1e-6", 0, -1e-6, 2, float("nan"), True)
    ),
  ],
)
def test_an_encoder_with_another_activation_or_a_wrong_epsilon_is_refused(folder, family, config, match):
  with pytest.raises(ValueError, match=match):
    read.read(folder(family, config=config))


@pytest.mark.parametrize(
  ("config", "norm_eps"),
  [({}, 1e-12), ({"hidden_act": "gelu", "layer_norm_eps": 1e-12}, 1e-12), ({"layer_norm_eps": 1e-3}, 1e-3)],
)
def test_the_epsilon_of_a_folder_is_read(folder, config, norm_eps):
  assert read.read(folder("hf-vit", config=config)).description.encoder.norm_eps == norm_eps


PIXELS = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 1]}


@pytest.mark.parametrize(
  ("family", "files", "mean", "std", "how"),
  [
    ("timm", {"config": {"pretrained_cfg": PIXELS}}, [0.5, 0.5, 0.5], [0.25, 0.5, 1.0], "config.json"),
    (
      "hf-vit",
      {"preprocessor_config": {"image_mean": PIXELS["mean"], "image_std": PIXELS["std"]}},
      [0.5, 0.5, 0.5],
      [0.25, 0.5, 1.0],
      "preprocessor_config.json",
    ),
    (
      "hf-vitmae",
      {"preprocessor_config": {"do_normalize": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}},
      [0.0, 0.0, 0.0],
      [1.0, 1.0, 1.0],
      "preprocessor_config.json: not normalised",
    ),
    (
      "timm",
      {"config": {"pretrained_cfg": "in21k"}},
      [0.485, 0.456, 0.406],
      [0.229, 0.224, 0.225],
      "assumed: the file does not state it",
    ),
  ],
)
def test_the_normalisation_that_a_folder_states_is_used(folder, family, files, mean, std, how):
  found = read.read(folder(family, **files), family=family).normalization
  assert found == {"mean": mean, "std": std, "range": [0, 1], "from": how}
  assert {type(value) for value in found["mean"] + found["std"]} == {float}


@pytest.mark.parametrize(
  "std",
  [
    *([0.5, 0.5], [0.5, 0.5, 0], 0.5, [0.5, 0.5, "0.5"]),
    *([0.5, 0.5, 10**400], [0.5, 0.5, float("inf")], [0.5, float("nan"), 0.5]),
  ],
)
def test_a_normalisation_without_three_positive_numbers_is_an_error(folder, std):
  files = {"config": {"pretrained_cfg": PIXELS | {"std": std}}}
  with pytest.raises(ValueError, match=r"config\.json: std is .* expected three numbers"):
    read.read(folder("timm", **files), family="timm")


# Damaged and hostile files


def test_a_hostile_checkpoint_does_not_run_and_is_named(write, tmp_path):
  proof = tmp_path / "ran"
  call = (
    b"cbuiltins\neval\n(X" + len(code := f"open({str(proof)!r}, 'w')".encode()).to_bytes(4, "little") + code
  )
  found = read.read(write({"model": encoder_state(), "args": torch_bytes.Raw(call + b"tR")}))
  assert (found.family, found.objects) == ("timm", ("builtins.eval",))
  with pytest.raises(
    ValueError, match=r"weights\.pth: entry 'model' is an object of the class builtins\.eval"
  ):
    read.read(write({"model": torch_bytes.Raw(call + b"tR")}))
  assert not os.path.exists(proof)


def test_a_truncated_checkpoint_is_an_error(write):
  path = write({"model": encoder_state()})
  path.write_bytes(path.read_bytes()[:-1000])  # a copy that was interrupted
  with pytest.raises(ValueError, match=r"weights\.pth: truncated"):
    read.read(path)


def changed(**changes):
  """Returns an encoder's state dict with some tensors replaced.

  None removes a tensor. In a keyword, "__" stands for a dot.
  """
  state = encoder_state() | {name.replace("__", "."): value for name, value in changes.items()}
  return {name: value for name, value in state.items() if value is not None}


@pytest.mark.parametrize(
  ("state", "match"),
  [
    (
      changed(blocks__0__attn__gamma=np.ones(3, np.float32)),
      r"expected names of the timm family, found blocks\.0\.attn\.gamma",
    ),
    (changed(blocks__1__mlp__fc1__bias=None), r"missing .*: blocks\.1\.mlp\.fc1\.bias"),
    (changed(norm__weight=None), r"missing .*: norm\.weight"),
    (
      changed(mask_token=np.ones((1, 1, 8), np.float32)),
      "missing .*: decoder_pos_embed, decoder_embed",
    ),
    (changed(patch_embed__proj__weight=None), r"of no known family \(attributes-vit, dinov2, .*cls_token"),
    (
      changed(norm__bias=np.zeros(7, np.float32)),
      r"norm\.bias has shape \(7,\), expected \(16\) by patch_embed",
    ),
    (
      changed(blocks__1__attn__qkv__weight=np.zeros((16, 48), np.float32)),
      r"blocks\.1\.attn\.qkv\.weight has shape \(16, 48\), expected \(48, 16\)",
    ),
    (
      changed(cls_token=np.zeros((1, 16), np.float32)),
      r"cls_token has shape \(1, 16\), expected \(1, 1, 16\)",
    ),
    (
      changed(patch_embed__proj__weight=np.zeros((16, 3, 4, 8), np.float32)),
      r"patch_embed\.proj\.weight has shape \(16, 3, 4, 8\), expected \(16, 3, 4, 4\)",
    ),
    (changed(patch_embed__proj__weight=np.zeros((16, 48), np.float32)), r"expected \(\?, 3, \?, \?\)"),
    (changed(norm__bias=np.arange(16)), r"norm\.bias has dtype int64, expected floating point"),
    (changed(norm__bias=np.full(16, np.nan, np.float32)), r"norm\.bias has 16 values that are NaN"),
    (changed(norm__bias=np.array([1e300] + [0.0] * 15)), r"norm\.bias has 1 values that are NaN, infinite"),
    ({"epoch": 3, "optimizer": {}}, r"found no tensors in its entries \(epoch, optimizer\)"),
    ({}, r"found no tensors in its entries \(none\)"),
    ([1], "holds a list, not a state dict"),
  ],
)
def test_a_file_that_differs_from_the_tables_is_an_error(write, state, match):
  with pytest.raises(ValueError, match=rf"weights\.pth: .*{match}"):
    read.read(write({"model": state} if isinstance(state, dict) and "norm.bias" in state else state))


def test_weights_that_repeat_their_storage_are_an_error(write):
  one = np.ones(1, np.float32)  # stride 0 makes one number look like a whole tensor
  state = encoder_state(width=64)
  repeated = {
    name: torch_bytes.Tensor(one, 0, value.shape, (0,) * value.ndim) for name, value in state.items()
  }
  with pytest.raises(ValueError, match="more than the file has"):
    read.read(write({"model": repeated}))


@pytest.mark.parametrize(
  ("sizes", "array"),
  [
    ({"depth": 5}, "blocks/norm1/scale"),
    ({"width": 8}, "patch_embed/kernel"),
    ({"patch": 8}, "patch_embed/kernel"),
    ({"grid": (2, 2)}, "pos_embed"),
  ],
)
def test_a_description_that_states_other_sizes_than_the_arrays_is_an_error(tmp_path, sizes, array):
  encoder = Encoder(width=16, depth=2, num_heads=2, grid=(4, 2), patch=4)
  init = encoder.build(vit.Compute()).init
  shapes = jax.eval_shape(init, jax.random.key(0), np.zeros((1, 8, 48), np.float32))["params"]
  params = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
  stated = Description("pretrain", dataclasses.replace(encoder, **sizes))
  checkpoint_file.write(tmp_path / "own", {"params": {"encoder": params}}, stated.to_json())
  with pytest.raises(ValueError, match=f"own: {array} of the encoder has the shape .* states "):
    read.read(tmp_path / "own")


def test_an_own_decoder_with_heads_that_do_not_divide_its_width_is_an_error(tmp_path, write):
  weights = read.read(write({"model": full_state(), "arch": "vit"}), family="hap", grid=(4, 2))
  weights = weights.with_encoder(num_heads=2)
  decoder = {**weights.decoder, "num_heads": 3}
  writing.write(tmp_path / "own", weights.with_network(decoder=decoder), writing.OWN)
  with pytest.raises(ValueError, match=r"own: records 3 heads of its decoder, .* width 8"):
    read.read(tmp_path / "own")


def test_an_own_checkpoint_with_separate_blocks_is_an_error_that_says_so(tmp_path):
  block = {"norm1": {"bias": np.zeros(4, np.float32)}}
  checkpoint_file.write(tmp_path / "own", {"params": {"encoder": {"blocks_0": block}}}, {})
  with pytest.raises(ValueError, match="earlier version of hap_jax stored the blocks separately"):
    read.read(tmp_path / "own")
