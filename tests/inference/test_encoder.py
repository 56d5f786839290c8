"""hap_jax.load turns any file into an encoder, and its errors name the missing facts."""

import subprocess
import sys

import jax
import numpy as np
import pytest

import hap_jax
from hap_jax.pixels.normalize import normalize
from tests.convert.reference_state import GRID, family_state
from tests.io import torch_bytes


@pytest.fixture
def write(tmp_path):
  def write_file(family, **sizes):
    path = tmp_path / f"{family}.pth"
    path.write_bytes(torch_bytes.zip_file({"model": family_state(family, **sizes), "arch": "vit"}))
    return path

  return write_file


@pytest.mark.parametrize("family", ["hap", "timm", "reid-lem"])
def test_a_file_becomes_a_model_from_pictures_to_tokens(write, family):
  model, variables, description = hap_jax.load(write(family, width=128, depth=4), family=family, grid=GRID)
  assert list(variables["params"]) == ["encoder"]
  assert description["family"] == family
  assert description["model"]["image_size"] == [16, 8]
  images = np.random.default_rng(0).integers(0, 256, (3, 16, 8, 3), np.uint8)
  mean, std = (description["normalization"][key] for key in ("mean", "std"))
  tokens = jax.jit(model.apply)(variables, normalize(images, mean, std))
  assert tokens.shape == (3, 1 + GRID[0] * GRID[1], 128)
  assert np.isfinite(tokens).all()


def test_pictures_of_the_wrong_size_or_type_are_an_error(write):
  model, variables, _ = hap_jax.load(write("hap", width=128, depth=4), family="hap", grid=GRID)
  with pytest.raises(ValueError, match=r"this encoder takes \[B, 16, 8, 3\]"):
    model.apply(variables, np.zeros((1, 8, 16, 3), np.float32))
  with pytest.raises(ValueError, match="uint8: normalise them"):
    model.apply(variables, np.zeros((1, 16, 8, 3), np.uint8))


def test_an_unknown_number_of_heads_must_be_given(write):
  # No variant has this size, so the number of heads cannot be looked up.
  path = write("hap", width=48, depth=2)
  with pytest.raises(ValueError, match="pass num_heads="):
    hap_jax.load(path, family="hap", grid=GRID)
  with pytest.raises(ValueError, match="the encoder has width 48"):
    hap_jax.load(path, family="hap", grid=GRID, num_heads=5)
  model, _, _ = hap_jax.load(path, family="hap", grid=GRID, num_heads=3)
  assert model.encoder.num_heads == 3


def test_importing_the_package_imports_no_jax():
  script = "import sys, hap_jax; sys.exit('jax' in sys.modules)"
  assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
