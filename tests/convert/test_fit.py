"""The weights of a checkpoint are loaded into a network, and the report lists every array."""

import numpy as np
import pytest

from hap_jax.convert import families, fit, names, read
from hap_jax.convert.weights import unflatten
from hap_jax.models import posemb, vit
from tests.convert.reference_state import GRID, encoder_state, full_state, leaves

BOTH = ("encoder", "decoder")


def model_params(*, grid=GRID, fill=0.5, **sizes):
  """Returns a model's parameters, all equal to `fill`, with a head that no checkpoint has."""
  depths = {"depth": sizes.get("depth", 2), "decoder_depth": sizes.get("decoder_depth", 1)}
  rows = names.table(families.load("mae"), **depths)
  state = full_state(grid=grid, **sizes)
  flat = names.assemble(rows, lambda row: np.full_like(state[row.reference], fill))["params"]
  return {"head": {"bias": np.full(3, fill, np.float32)}, **unflatten(flat)}


def test_the_encoder_is_loaded_and_all_other_arrays_are_kept_and_listed(write):
  weights = read.read(write({"model": full_state(), "arch": "vit"}), grid=GRID)
  template = model_params()
  variables, report = fit.fit_to({"params": template}, weights, grid=GRID)
  params = variables["params"]
  got, given = leaves(params), leaves(weights.params)
  assert got.keys() == leaves(template).keys()
  for path, value in got.items():
    if path.startswith("encoder/"):
      np.testing.assert_array_equal(value, given[path])
      assert path in report.loaded
    else:
      assert (value == 0.5).all()
      assert path in report.missing
  assert len(report.loaded) + len(report.missing) == len(got)
  assert sorted(report.unused) == sorted(name for name in full_state() if name not in encoder_state())
  assert report.resized == ()
  assert (leaves(template)["encoder/norm/bias"] == 0.5).all()  # the given tree is not changed
  assert report.lines()[0] == f"loaded: {len(report.loaded)} tensors"
  assert any("not used" in line and "decoder_pred.bias" in line for line in report.lines())


def test_the_decoder_is_loaded_on_request(write):
  weights = read.read(write(full_state()), grid=GRID)
  variables, report = fit.fit_to({"params": model_params()}, weights, grid=GRID, stacks=BOTH)
  params = variables["params"]
  assert report.missing == ("head/bias",)
  assert report.unused == ()
  for path, value in leaves(weights.params).items():
    np.testing.assert_array_equal(leaves(params)[path], value)


@pytest.mark.parametrize(("old", "new"), [((3, 3), (4, 2)), ((2, 4), (4, 2)), ((4, 2), (6, 3))])
def test_position_tables_are_resized_whenever_the_grids_differ(write, old, new):
  weights = read.read(write(full_state(grid=old)), grid=old)
  variables, report = fit.fit_to({"params": model_params(grid=new)}, weights, grid=new, stacks=BOTH)
  params = variables["params"]
  for stack in ("encoder", "decoder"):
    want = posemb.resize_table(weights.params[stack]["pos_embed"], old, new)
    np.testing.assert_array_equal(params[stack]["pos_embed"], want)
  change = f"{old[0]}x{old[1]} -> {new[0]}x{new[1]}"
  assert sorted(report.resized) == [f"decoder/pos_embed {change}", f"encoder/pos_embed {change}"]
  assert "encoder/pos_embed" in report.loaded


def test_an_equal_number_of_patches_does_not_replace_an_unknown_grid(write):
  weights = read.read(write(encoder_state(grid=(4, 2))))
  assert weights.grid is None  # 8 patches may be 4x2 or 2x4
  with pytest.raises(ValueError, match=r"weights\.pth: its grid is unknown: 8 patches.*--source_grid=HxW"):
    fit.fit_to({"params": model_params()}, weights, grid=(4, 2))


def test_a_norm_that_is_not_in_the_file_is_listed_as_missing(write):
  state = encoder_state(grid=(3, 3))
  # A classifier with global pooling has these names instead of `norm`.
  for kind in ("weight", "bias"):
    state[f"fc_norm.{kind}"] = state.pop(f"norm.{kind}")
  weights = read.read(write(state))
  _, report = fit.fit_to({"params": model_params(grid=(3, 3))}, weights, grid=(3, 3))
  assert {"encoder/norm/scale", "encoder/norm/bias"} <= set(report.missing)
  assert report.unused == ("fc_norm.weight", "fc_norm.bias")


@pytest.mark.parametrize(
  ("sizes", "match"),
  [
    (
      {"width": 32},
      r"\(width 16, depth 2, patch 4\), but config\.model\.variant .*\(width 32, depth 2, patch 4\)",
    ),
    ({"depth": 3}, r"depth 2, patch 4\), but .* depth 3"),
    ({"patch": 8}, r"patch 4\), but .* patch 8"),
    ({"decoder_depth": 2}, r"decoder has 1 blocks, but config\.model\.decoder_depth=2"),
    ({"decoder_width": 12}, r"decoder/.* with shape .* the network has .*config\.model"),
  ],
)
def test_a_checkpoint_of_another_size_is_an_error_that_names_both_sizes(write, sizes, match):
  weights = read.read(write(full_state()), grid=GRID)
  with pytest.raises(ValueError, match=rf"weights\.pth: .*{match}"):
    fit.fit_to({"params": model_params(**sizes)}, weights, grid=GRID, stacks=BOTH)


def test_an_error_names_the_variant_of_a_published_size(write):
  variant = vit.VARIANTS["Mu"]
  weights = read.read(write(encoder_state(width=variant.width, depth=variant.depth)), grid=GRID)
  with pytest.raises(ValueError, match=r"checkpoint is ViT-Mu \(width 128, depth 4, patch 4\)"):
    fit.fit_to({"params": model_params()}, weights, grid=GRID)


def test_another_number_of_heads_than_the_variants_is_an_error_that_names_both(write):
  variant = vit.VARIANTS["Mu"]
  sizes = {"width": variant.width, "depth": variant.depth}
  weights = read.read(write(encoder_state(**sizes)), grid=GRID)
  fit.fit_to({"params": model_params(**sizes)}, weights, grid=GRID)
  weights = weights.with_encoder(num_heads=4)
  with pytest.raises(ValueError, match=r"weights\.pth: checkpoint has 4 heads, .*variant makes 2"):
    fit.fit_to({"params": model_params(**sizes)}, weights, grid=GRID)
