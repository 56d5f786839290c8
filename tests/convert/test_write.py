"""Weights are written for every family and read again, and wrong targets are errors."""

import json

import numpy as np
import pytest

from hap_jax.convert import families, lineage, names, read, write
from hap_jax.io import safetensors_file
from hap_jax.models import posemb, vit
from tests.convert.reference_state import GRID, encoder_state, family_state, full_state, leaves

FAMILIES = families.names()


@pytest.fixture
def weights_of(tmp_path):
  """Returns a function that makes the Weights of a family and sets its numbers of heads."""

  def make(family, state=None, **sizes):
    path = tmp_path / f"{family}.safetensors"
    safetensors_file.save(path, family_state(family, **sizes) if state is None else state, {})
    weights = read.read(path, family=family, grid=sizes.get("grid", GRID))
    if weights.decoder:
      weights = weights.with_network(decoder={**weights.decoder, "num_heads": 2})
    return weights.with_encoder(num_heads=weights.num_heads or 2)

  return make


def assert_same_arrays(got, want):
  assert got.keys() == want.keys()
  for name, array in want.items():
    np.testing.assert_array_equal(got[name], array, strict=True)


# Round trips


# One width is enough in `make test`, because the rows of a table depend only on the family.
@pytest.mark.parametrize(
  "variant", ["Ti", *(pytest.param(name, marks=pytest.mark.soak) for name in ("S", "B", "L"))]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_survives_both_conversions_bit_for_bit(tmp_path, family, variant):
  # One block is enough, because all blocks use the same rows of the table.
  state = family_state(family, grid=(16, 8), width=vit.VARIANTS[variant].width, depth=1, patch=16)
  path = tmp_path / "weights.safetensors"
  safetensors_file.save(path, state, {})
  weights = read.read(path, family=family, grid=(16, 8))
  fixed = {item.reference for item in names.placeholders(families.load(family), 1)}
  # Layer scales have fixed values here, and each is multiplied into two tensors.
  used = sorted(name for found in weights.source_names.values() for name in found if name not in fixed)
  assert used == sorted(state.keys() - fixed)  # each name once
  back, written = write.to_state(weights, families.load(family))
  assert_same_arrays(back, state)
  assert written.dropped == written.missing == ()
  assert set(written.placeholders) == fixed
  assert written.num_tensors == len(used)
  assert weights.source_names.keys() == {path for tree in weights.variables.values() for path in leaves(tree)}


@pytest.mark.parametrize("variant", ["Ti", "S", "B", "L", "H"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_row_has_a_unique_name_and_a_unique_path(family, variant):
  rows = names.table(families.load(family), depth=vit.VARIANTS[variant].depth, decoder_depth=8)
  assert len({row.reference for row in rows}) == len(rows)
  parts = {}
  for row in rows:
    parts.setdefault((row.collection, row.ours, row.block, row.parts), []).append(row.part)
  assert len(parts) == len({key[:-1] for key in parts})  # all rows of one array cut it in the same way
  for (*_, sizes), found in parts.items():  # the parts cover the array exactly once
    assert sorted(found) == list(range(len(sizes)))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_written_file_is_read_with_the_same_weights_and_facts(tmp_path, weights_of, family, suffix):
  if write.makes_folder(family):
    suffix = ""
  weights = weights_of(family, grid=(3, 3))
  path = tmp_path / f"written{suffix}"
  written = write.write(path, weights, family)
  again = read.read(path)
  assert_same_arrays(leaves(again.variables), leaves(weights.variables))
  arrays = leaves({**weights.params, **weights.constants})
  assert written.num_parameters == sum(array.size for array in arrays.values())
  assert (again.family, again.task, again.grid) == (family, weights.task, (3, 3))
  assert (again.num_heads, again.decoder) == (weights.num_heads, weights.decoder)
  assert again.grid_from == "recorded in the file"


# A text encoder is not in our own checkpoint, but beside it.
@pytest.mark.parametrize("family", [name for name in FAMILIES if not families.load(name).has_constants])
def test_our_own_checkpoint_can_be_written_as_the_family_it_came_from(tmp_path, weights_of, family):
  weights = weights_of(family)
  write.write(tmp_path / "own", weights, write.OWN)
  again = read.read(tmp_path / "own")
  assert_same_arrays(leaves(again.variables), leaves(weights.variables))
  back, _ = write.to_state(again, families.load(family))
  assert_same_arrays(back, family_state(family))


def test_the_same_weights_make_the_same_bytes(tmp_path, weights_of):
  weights = weights_of("hap")
  for name in ("a.pth", "b.pth"):
    write.write(tmp_path / name, weights, "hap")
  assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


# The content of targets


def test_separate_queries_keys_and_values_are_thirds_of_our_array(weights_of):
  weights = weights_of("hap", full_state())
  state, _ = write.to_state(weights, families.load("hf-vitmae"))
  whole = full_state()["blocks.1.attn.qkv.weight"]  # [3 * 16, 16]
  for k, part in enumerate(("query", "key", "value")):
    got = state[f"vit.encoder.layer.1.attention.attention.{part}.weight"]
    np.testing.assert_array_equal(got, whole[16 * k : 16 * (k + 1)])


def test_a_target_without_decoder_drops_the_whole_decoder_and_reports_it(weights_of):
  state, written = write.to_state(weights_of("hap"), families.load("timm"))
  assert state.keys() == encoder_state().keys()
  assert {path.partition("/")[0] for path in written.dropped} == {"decoder"}
  assert written.num_tensors == len(state)


def test_a_source_without_decoder_reports_the_decoder_as_missing(weights_of):
  state, written = write.to_state(weights_of("timm"), families.load("hap"))
  assert state.keys() == encoder_state().keys()
  assert written.missing == ("decoder",)


@pytest.mark.parametrize(
  ("family", "target", "match"),
  [
    ("timm", "hf-vitmae", "has no decoder/mask_token, .* for the hf-vitmae family"),
    ("hap", "reid-vit", "has no head/kernel, head/bias for the reid-vit family"),
    ("reid-vit", "reid-lem", "has no conv_head_0/conv1/kernel, .* for the reid-lem family"),
  ],
)
def test_weights_without_all_arrays_of_a_target_are_an_error(weights_of, family, target, match):
  with pytest.raises(ValueError, match=rf"{family}\.safetensors {match}"):
    write.to_state(weights_of(family), families.load(target))


@pytest.mark.parametrize(
  ("change", "target", "match"),
  [
    (lambda weights: weights.with_encoder(grid=None), "hap", "give --source_grid=HxW in patches"),
    (
      lambda weights: weights.with_encoder(num_heads=None),
      "hap",
      r"its size \(width 16, depth 2\) shows the number of heads: set --num_heads",
    ),
    (
      lambda weights: weights.with_network(decoder={"width": 16, "depth": 1, "num_heads": None}),
      "hap",
      "set --decoder_heads",
    ),
    (
      lambda weights: weights,
      "hf-vitmae",
      "only square grids, but the grid is 4x2: use --to=hf-vit, or a square --grid",
    ),
  ],
)
def test_a_target_that_needs_an_unknown_fact_is_an_error(weights_of, change, target, match):
  with pytest.raises(ValueError, match=match):
    write.check_target(change(weights_of("hap")), target)


def test_an_encoder_without_its_final_norm_is_refused(weights_of):
  weights = weights_of("mae")
  del weights.params["encoder"]["norm"]  # as in a classifier that averages the patches
  with pytest.raises(ValueError, match=r"the final norm of the encoder is missing.* config\.init_from"):
    write.check_target(weights, write.OWN)


def test_a_classifier_with_a_batch_norm_is_not_written_to_a_family_without_one(weights_of):
  with pytest.raises(ValueError, match=r"--to=reid-vit: the classifier of .* use --to=reid-lem"):
    write.check_target(weights_of("reid-lem"), "reid-vit")


@pytest.mark.parametrize(
  ("name", "target", "match"),
  [
    ("out.pth", "orbax", "makes a folder, not a .pth file"),
    ("out.safetensors", "hf-vit", "makes a folder, not a .safetensors file"),
    ("out", "hap", "makes a file, expected a name in .pth, .pth.tar, .pt, .bin or .safetensors"),
    ("out.npz", "timm", "makes a file, expected"),
  ],
)
def test_a_suffix_that_does_not_fit_the_target_is_an_error(name, target, match):
  with pytest.raises(ValueError, match=f"--out={name}: --to={target} {match}"):
    write.check_container(name, target)


def test_only_the_position_tables_are_resized_to_another_grid(weights_of):
  weights = weights_of("hap")
  resized, lines = write.regrid(weights, (6, 3))
  assert lines == ("encoder/pos_embed 4x2 -> 6x3", "decoder/pos_embed 4x2 -> 6x3")
  assert (resized.grid, resized.grid_from) == ((6, 3), "resized from 4x2")
  before, after = leaves(weights.params), leaves(resized.params)
  want = {
    stack: posemb.resize_table(before[f"{stack}/pos_embed"], GRID, (6, 3)) for stack in ("encoder", "decoder")
  }
  assert_same_arrays(after, before | {f"{stack}/pos_embed": table for stack, table in want.items()})


# Hugging Face folders


def test_a_hugging_face_folder_states_sizes_normalisation_and_licence(tmp_path, weights_of):
  weights = weights_of("mae", grid=(3, 3))
  write.write(tmp_path / "folder", weights, "hf-vitmae")
  config = json.loads((tmp_path / "folder/config.json").read_text())
  assert (config["architectures"], config["hidden_size"], config["image_size"]) == (
    ["ViTMAEForPreTraining"],
    16,
    12,
  )
  assert (config["decoder_num_hidden_layers"], config["decoder_intermediate_size"]) == (1, 64)
  processor = json.loads((tmp_path / "folder/preprocessor_config.json").read_text())
  assert processor["size"] == {"height": 12, "width": 12}
  assert processor["image_mean"] == weights.normalization["mean"]
  card = (tmp_path / "folder/README.md").read_text()
  assert card.startswith("---\nlicense: cc-by-nc-4.0\n")
  assert lineage.text(weights.lineage[0]) in card


def test_the_folder_of_a_tall_grid_states_both_sides_of_the_image(tmp_path, weights_of):
  write.write(tmp_path / "folder", weights_of("hap"), "hf-vit")
  assert json.loads((tmp_path / "folder/config.json").read_text())["image_size"] == [16, 8]
  assert "license: other\nlicense_name:" in (tmp_path / "folder/README.md").read_text()
