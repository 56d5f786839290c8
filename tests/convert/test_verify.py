"""The proof of a conversion: right conversions pass it, and wrong conversions do not."""

import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import pytest

from hap_jax.convert import families, layouts, numpy_layers, numpy_vit, read, run, verify, write
from hap_jax.io import safetensors_file, torch_writer
from hap_jax.models import cpu_matmul, layers
from tests.convert.reference_state import GRID, conversion_options, exchange, family_state

FAMILIES = families.names()
SQUARE = ("hf-vitmae", "hf-dinov2")  # families whose class in transformers supports only square grids


def write_source(folder, family, **sizes):
  path = folder / f"{family}.safetensors"
  safetensors_file.save(path, family_state(family, **sizes), {})
  return path


@pytest.fixture
def source(tmp_path):
  """Returns a function that writes a tiny file of a family and returns its path."""
  return functools.partial(write_source, tmp_path)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
  """Returns a function (family, grid -> (our checkpoint of a tiny file, report)). Each is made once."""

  @functools.cache
  def make(family, grid=GRID):
    folder = tmp_path_factory.mktemp("own")
    path = write_source(folder, family, grid=grid)
    return folder / "own", convert(path, folder / "own", "orbax", source_grid=grid)

  return make


def convert(path, out, to, **options):
  """Converts a file of `source` with the facts that its tiny sizes do not give."""
  known = {"family": path.stem, "source_grid": GRID, "heads": (2, 2), "real": False}
  known |= conversion_options(path.stem, path.parent.parent)
  return run.convert(path, out, to=to, **(known | options))


def destination(tmp_path, to):
  return tmp_path / ("out" if write.makes_folder(to) else f"out{families.load(to).suffixes[0]}")


# The second forward pass


def golden_model(golden):
  """Returns (state dict, sizes, inputs) of the official tiny model."""
  inputs = golden("pretrain_small_inputs")
  sizes = {key.removeprefix("cfg/"): value for key, value in inputs.items() if key.startswith("cfg/")}
  state = {key.removeprefix("param/"): value for key, value in golden("pretrain_small_params").items()}
  return state, sizes, inputs


def test_the_second_forward_pass_gives_the_prediction_of_the_official_model(golden):
  state, sizes, inputs = golden_model(golden)
  grid = tuple(int(side) // int(sizes["patch_size"]) for side in sizes["img_size"])
  kwargs = {"grids": (grid, grid), "epsilon": layers.LAYER_NORM_EPSILON}
  ranks = np.argsort(inputs["noise_view1"], axis=1)
  ids_keep = ranks[:, : int(ranks.shape[1] * (1 - float(inputs["mask_ratio"])))]
  network, heads = numpy_vit.official(state), int(sizes["num_heads"])
  image = inputs["images"].transpose(0, 2, 3, 1)
  raw = numpy_vit.encode(network.encoder, image, num_heads=heads, ids_keep=ids_keep, **kwargs)
  latent = numpy_layers.layer_norm(raw, network.encoder.norm, layers.LAYER_NORM_EPSILON)
  heads = int(sizes["decoder_num_heads"])
  pred = numpy_vit.decode(network.decoder, latent, inputs["ids_restore_view1"], num_heads=heads, **kwargs)
  assert np.abs(pred - golden("pretrain_small_normpix")["pred_view1"]).max() < 2e-5


# Right conversions


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_converted_both_ways_with_a_proof(own, tmp_path, family):
  checkpoint, there = own(family)
  outputs = there["proof"]["outputs"]
  expected = {"tokens"} | ({"pred"} if "decoder" in families.load(family).stacks else set())
  heads = {
    "reid-vit": {"logits"},
    "reid-lem": {"logits", "feature_conv", "logits_conv"},
    "attributes-vit": {"logits"},
    "vitpose": {"heatmaps"},
    "hf-vitpose": {"heatmaps"},
    "text-reid": {f"{branch}_{kind}" for branch in ("image", "text") for kind in ("embedding", "logits")},
  }
  expected |= heads.get(family, set())
  assert outputs.keys() == expected
  assert 0 < there["proof"]["max_abs_error"] < 1e-4  # JAX and NumPy do not round alike
  assert all(0.01 < output["max_abs_value"] < 100 for output in outputs.values())
  assert json.loads((checkpoint / run.REPORT).read_text()) == there
  to = "hf-vit" if family in SQUARE else family  # the grid of the checkpoint is not square
  back = run.convert(checkpoint, destination(tmp_path, to), to=to, real=False)
  assert back["proof"]["outputs"].keys() == expected - ({"pred"} if to != family else set())
  assert back["proof"]["max_abs_error"] == 0  # the same NumPy on both sides


def test_the_proof_multiplies_in_full_float32_on_accelerators_too(source, tmp_path, monkeypatch):
  found, matmul = [], cpu_matmul.matmul

  def spy(inputs, kernel, axes=1):
    found.append(jax.make_jaxpr(matmul, static_argnums=2)(inputs, kernel, axes))
    return matmul(inputs, kernel, axes)

  # The real function still runs. The spy only records the precision that is set around it.
  monkeypatch.setattr(cpu_matmul, "matmul", spy)
  convert(source("hap"), tmp_path / "own", "orbax")
  assert found
  assert all("Precision.HIGHEST" in str(jaxpr) for jaxpr in found)


@pytest.mark.parametrize(
  ("family", "to", "container"),
  [
    ("mae", "hf-vitmae", ""),
    ("hf-vitmae", "hap", ".pth"),
    ("timm", "hf-vit", ""),
    ("hf-vit", "timm", ".safetensors"),
  ],
)
def test_foreign_families_are_converted_into_each_other_without_our_model(
  source, tmp_path, family, to, container
):
  path = source(family, grid=(3, 3))
  facts = convert(path, tmp_path / f"out{container}", to, source_grid=(3, 3), norm_eps=1e-6)
  assert facts["proof"]["max_abs_error"] < 1e-6


def test_position_tables_of_another_grid_are_resized_on_both_sides(source, tmp_path):
  facts = convert(source("hap"), tmp_path / "out.pth", "hap", grid=(6, 3))
  assert facts["resized"] == ["encoder/pos_embed 4x2 -> 6x3", "decoder/pos_embed 4x2 -> 6x3"]
  assert facts["proof"]["max_abs_error"] < 1e-5
  assert read.read(tmp_path / "out.pth").grid == (6, 3)


def test_one_report_next_to_the_files_has_an_entry_for_each_file(source, tmp_path):
  for name in ("a.pth", "b.pth"):
    convert(source("timm"), tmp_path / name, "timm")
  convert(source("timm"), tmp_path / "b.pth", "hap", force=True)
  reports = json.loads((tmp_path / run.REPORT).read_text())
  assert {name: report["to"] for name, report in reports.items()} == {"a.pth": "timm", "b.pth": "hap"}
  assert reports["b.pth"]["missing"] == ["decoder"]


# Wrong conversions


def swapped(family, one, other):
  """Returns the Family with the names of two tensors of the same shape swapped."""
  exchange = {one: other, other: one}
  rows = (
    dataclasses.replace(row, reference=exchange.get(row.reference, row.reference)) for row in family.entries
  )
  return dataclasses.replace(family, entries=tuple(rows))


# {family: two names of tensors with the same shape}, so that only the outputs show that they are swapped
SWAPS = {
  "hap": ("blocks.{i}.norm1.weight", "blocks.{i}.norm2.weight"),
  "mae": ("decoder_blocks.{i}.attn.proj.bias", "decoder_blocks.{i}.mlp.fc2.bias"),
  "timm": ("norm.bias", "patch_embed.proj.bias"),
  "hf-vit": (
    "encoder.layer.{i}.attention.attention.query.weight",
    "encoder.layer.{i}.attention.attention.key.weight",
  ),
  "hf-vitmae": (
    "decoder.decoder_layers.{i}.attention.attention.value.bias",
    "decoder.decoder_layers.{i}.attention.output.dense.bias",
  ),
  "reid-vit": ("norm.weight", "norm.bias"),
  "reid-lem": ("bn.running_mean", "bn.bias"),
  "attributes-vit": ("norm.bias", "norm.weight"),
  "vitpose": ("keypoint_head.deconv_layers.4.running_mean", "keypoint_head.deconv_layers.4.bias"),
  "hf-vitpose": ("head.batchnorm1.weight", "head.batchnorm2.weight"),
  "dinov2": ("norm.bias", "norm.weight"),
  "hf-dinov2": ("encoder.layer.{i}.norm1.bias", "encoder.layer.{i}.norm2.bias"),
  "mmpretrain": ("layers.{i}.ln1.weight", "layers.{i}.ln2.weight"),
  "google-vit": (
    "Transformer/encoderblock_{i}/MultiHeadDotProductAttention_1/query/kernel",
    "Transformer/encoderblock_{i}/MultiHeadDotProductAttention_1/key/kernel",
  ),
  "text-reid": ("TextExtract.lstm.weight_hh_l0", "TextExtract.lstm.weight_hh_l0_reverse"),
}


def nothing_is_left(tmp_path, *kept):
  """Returns True if the folder has only these names."""
  return sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_table_with_two_swapped_names_fails_and_leaves_nothing(source, tmp_path, monkeypatch, family):
  path = source(family)
  exchange(monkeypatch, swapped(families.load(family), *SWAPS[family]))
  with pytest.raises(ValueError, match=r"the conversion is wrong: .* differs by"):
    convert(path, tmp_path / "out", "orbax")
  assert nothing_is_left(tmp_path, path.name)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_table_with_two_swapped_names_fails_for_our_checkpoint_too(own, tmp_path, monkeypatch, family):
  checkpoint, _ = own(family, (3, 3)) if family in SQUARE else own(family)
  exchange(monkeypatch, swapped(families.load(family), *SWAPS[family]))
  with pytest.raises(ValueError, match=r"the conversion is wrong: .* differs by"):
    run.convert(checkpoint, destination(tmp_path, family), to=family, real=False)
  assert nothing_is_left(tmp_path)


def test_a_transposed_matrix_fails_the_proof(source, tmp_path, monkeypatch):
  path, family = source("hap"), families.load("hap")
  rows = (
    dataclasses.replace(row, layout=layouts.IDENTITY) if "attn.proj.weight" in row.reference else row
    for row in family.entries
  )
  exchange(monkeypatch, dataclasses.replace(family, entries=tuple(rows)))
  with pytest.raises(ValueError, match="the conversion is wrong"):
    convert(path, tmp_path / "out", "orbax")


def test_a_result_without_an_output_of_its_target_is_an_error(source, tmp_path):
  path = source("hap")
  weights = read.read(path, family="hap", grid=GRID)
  setting = verify.Setting.of(weights, GRID)
  whole = verify.outputs_of(setting, families.load("hap").stacks)
  assert whole == ("tokens", "pred")
  assert verify.outputs_of(setting, families.load("timm").stacks) == ("tokens",)
  tokens = {"tokens": np.ones((2, 3))}
  with pytest.raises(ValueError, match="the result has no output pred"):
    verify.compare(tokens | {"pred": np.ones(2)}, tokens, whole)


@pytest.mark.parametrize(
  ("got", "is_right"), [(1.00009, True), (1.0002, False), (np.nan, False), (np.inf, False)]
)
def test_an_output_may_differ_by_at_most_1e_4(got, is_right):
  want = np.array([1.0, 0.5], np.float32)
  found = np.array([got, 0.5], np.float32)
  if is_right:
    assert verify.compare({"tokens": want}, {"tokens": found}, ("tokens",))["tokens"]["max_abs_error"] < 1e-4
  else:
    with pytest.raises(ValueError, match="tokens differs by"):
      verify.compare({"tokens": want}, {"tokens": found}, ("tokens",))


# Licence and origin


def test_licence_and_origin_survive_every_file_format(source, tmp_path):
  steps = [
    ("own", "orbax"),
    ("folder", "hf-vit"),
    ("file.pth", "timm"),
    ("file.safetensors", "hap"),
    ("last", "orbax"),
  ]
  path, own_grid = source("mae", grid=(3, 3)), {"family": "mae", "source_grid": (3, 3), "heads": (2, 2)}
  for name, to in steps:
    facts = run.convert(path, tmp_path / name, to=to, real=False, **own_grid)
    path, own_grid = tmp_path / name, {}
  weights = read.read(path)
  assert weights.licence == facts["licence"] == "CC-BY-NC 4.0 if these are the published MAE weights"
  families = [origin["family"] for origin in weights.lineage]
  assert families == ["hap_jax", "hap", "timm", "hf-vit", "hap_jax", "mae"]
  assert weights.lineage[-1]["file"] == "mae.safetensors"
  assert len({origin["sha256"] for origin in weights.lineage if "sha256" in origin}) == 4


def test_the_licence_in_a_model_card_is_used(source, tmp_path):
  convert(source("hf-vit"), tmp_path / "folder", "hf-vit")
  state, _ = safetensors_file.load(tmp_path / "folder/model.safetensors")
  shutil.copytree(tmp_path / "folder", tmp_path / "published")
  safetensors_file.save(tmp_path / "published/model.safetensors", state, {})  # without our record
  (tmp_path / "published/README.md").write_text("---\nlicense: apache-2.0\ntags:\n- vit\n---\n# ViT\n")
  weights = read.read(tmp_path / "published")
  assert (weights.licence, len(weights.lineage)) == ("apache-2.0", 1)
  assert (weights.grid, weights.num_heads) == (GRID, 2)  # from config.json


@pytest.mark.parametrize(
  "record",
  [
    {"family": "hap"},
    {"family": 3, "model": {}, "normalization": {}, "lineage": []},
    {
      "family": "hap",
      "model": {"grid": [4, "2"]},
      "normalization": {"mean": [0.5] * 3, "std": [1.0] * 3},
      "lineage": [],
    },
    {
      "family": "hap",
      "model": {"grid": [4, 2]},
      "normalization": {"mean": [0.5] * 3, "std": [1.0] * 3},
      "lineage": [{}],
    },
    [1],
  ],
)
def test_a_record_of_another_form_is_an_error(tmp_path, record):
  torch_writer.save(tmp_path / "odd.pth", {"model": family_state("hap"), "hap_jax": record})
  with pytest.raises(ValueError, match=r"odd\.pth: its entry 'hap_jax' is (a list|not a description)"):
    read.read(tmp_path / "odd.pth")
