"""Patch kernels are resized on request, with a proof and a note that the features change."""

import numpy as np
import pytest

from hap_jax.cli.__main__ import main
from hap_jax.convert import patch_size, read, run
from hap_jax.io import torch_writer
from hap_jax.models import posemb
from tests.convert.reference_state import encoder_state, full_state


@pytest.fixture
def source(tmp_path):
  """A ViT-Mu with patches of 14 pixels."""
  state = encoder_state(grid=(3, 3), width=128, depth=4, patch=14)
  torch_writer.save(tmp_path / "vit.pth", {name: array * np.float32(0.2) for name, array in state.items()})
  return tmp_path / "vit.pth"


def enlarge(patches, side):
  """Returns patches [N, P, P, 3] that are resized by bilinear interpolation, [N, side, side, 3]."""
  matrix = posemb.resize_matrix(patches.shape[1], side, "bilinear")
  return np.einsum("ih,jw,nhwc->nijc", matrix, matrix, patches)


@pytest.mark.parametrize(("old", "new"), [(14, 16), (4, 9), (16, 17)])
def test_a_larger_kernel_gives_the_same_tokens_for_enlarged_patches(old, new):
  rng = np.random.default_rng(0)
  kernel, patches = rng.standard_normal((old * old * 3, 8)), rng.standard_normal((5, old, old, 3))
  resized = patch_size.resize_kernel(kernel, new)
  want = patches.reshape(5, -1) @ kernel
  got = enlarge(patches, new).reshape(5, -1) @ resized
  np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_a_smaller_kernel_is_the_best_for_the_larger_one():
  rng = np.random.default_rng(0)
  kernel = rng.standard_normal((8 * 8 * 3, 4))
  resized = patch_size.resize_kernel(kernel, 6)
  matrix = posemb.resize_matrix(8, 6, "bilinear")
  back = lambda small: np.einsum("ih,jw,ijcd->hwcd", matrix, matrix, small.reshape(6, 6, 3, 4))  # noqa: E731
  error = np.linalg.norm(back(resized) - kernel.reshape(8, 8, 3, 4))
  for seed in range(20):
    other = resized + 1e-2 * np.random.default_rng(seed).standard_normal(resized.shape)
    assert np.linalg.norm(back(other) - kernel.reshape(8, 8, 3, 4)) > error


@pytest.mark.parametrize(("to", "out"), [("orbax", "own"), ("timm", "vit16.pth")])
@pytest.mark.parametrize("patch", [16, 8])
def test_a_conversion_with_resized_patches_is_proved_and_says_that_features_change(
  source, tmp_path, capsys, to, out, patch
):
  words = [
    f"--out={tmp_path / out}",
    f"--to={to}",
    f"--resize_patch={patch}",
    "--grid=4x2",
    "--no_real_class",
  ]
  assert main(["convert", str(source), *words]) == 0
  printed = capsys.readouterr().out
  assert f"note: the patch kernels were resized from 14 to {patch} pixels: the features change" in printed
  weights = read.read(tmp_path / out)
  assert (weights.patch, weights.grid) == (patch, (4, 2))
  assert weights.description.encoder.image_size == (4 * patch, 2 * patch)


def test_a_wrong_resize_fails_the_proof(source, tmp_path, monkeypatch):
  resize = patch_size.resize_kernel
  monkeypatch.setattr(patch_size, "resize_kernel", lambda kernel, patch: 1.01 * resize(kernel, patch))
  with pytest.raises(ValueError, match="the conversion is wrong: tokens differs"):
    run.convert(source, tmp_path / "own", patch=16, real=False)
  assert not (tmp_path / "own").exists()


def test_a_decoder_and_an_impossible_side_are_errors(source, tmp_path, capsys):
  assert main(["convert", str(source), f"--out={tmp_path / 'own'}", "--resize_patch=0"]) == 1
  assert "--resize_patch=0: expected a number of pixels from 1" in capsys.readouterr().err
  torch_writer.save(tmp_path / "mae.pth", {"model": full_state(grid=(3, 3), width=128, depth=4)})
  words = ["convert", str(tmp_path / "mae.pth"), f"--out={tmp_path / 'own'}", "--resize_patch=8"]
  assert main(words) == 1
  assert "the decoder of mae.pth predicts patches of 4 pixels: add --encoder_only" in capsys.readouterr().err
  assert main([*words, "--encoder_only", "--no_real_class"]) == 0
  assert read.read(tmp_path / "own").patch == 8


def test_the_same_side_changes_nothing(source):
  weights = read.read(source)
  assert patch_size.resize(weights, 14) == (weights, ())
