"""Commands use an encoder with a patch padding and without a class token as its description says."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import hap_jax
from hap_jax.cli.__main__ import main as hap
from hap_jax.convert import families, read, run, write
from hap_jax.description import Description, Encoder
from hap_jax.io import checkpoint_file
from hap_jax.models import attribute_classifier
from hap_jax.pixels.normalize import normalize

GRID, PATCH, PADDING = (4, 2), 4, 1
ENCODER = Encoder(16, 1, 2, GRID, PATCH, patch_padding=PADDING, class_token=False)
FAMILIES = tuple(target for target in write.targets() if target != write.OWN)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """Returns the path of a network with such an encoder and random weights, for pictures of 16 x 8."""
  model = attribute_classifier.AttributeClassifier(ENCODER.build(), num_attributes=2)
  shapes = jax.eval_shape(lambda key: model.init(key, jnp.zeros((1, 16, 8, 3))), jax.random.key(0))
  rng = np.random.default_rng(0)
  variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
  described = Description("attributes", ENCODER, network={"num_attributes": 2})
  path = tmp_path_factory.mktemp("pose") / "own"
  checkpoint_file.write(path, variables, described.to_json())
  return path


def test_load_honours_the_padding_and_the_missing_class_token(checkpoint):
  model, variables, description = hap_jax.load(checkpoint)
  assert (model.encoder.patch_padding, model.encoder.class_token) == (PADDING, False)
  facts = description["model"]
  assert (facts["patch_padding"], facts["class_token"]) == (PADDING, False)
  image = np.random.default_rng(1).normal(size=(1, 16, 8, 3)).astype(np.float32)
  tokens = jax.jit(model.apply)(variables, image)
  assert tokens.shape == (1, GRID[0] * GRID[1], 16)
  changed = image.copy()
  changed[:, -PADDING:], changed[:, :, -PADDING:] = 9, 9  # these pixels are in no patch
  np.testing.assert_array_equal(jax.jit(model.apply)(variables, changed), tokens)


def test_describe_prints_the_padding_and_the_missing_class_token(checkpoint, capsys):
  assert hap(["describe", str(checkpoint)]) == 0
  assert "  patches     4 x 4 pixels, padding 1, no class token\n" in capsys.readouterr().out
  assert hap(["describe", str(checkpoint), "--json"]) == 0
  facts = json.loads(capsys.readouterr().out)
  assert (facts["model"]["patch_padding"], facts["model"]["class_token"]) == (PADDING, False)
  # Only this project's own format is a possible target.
  assert f"hap convert {checkpoint} --to=orbax ..." in facts["commands"]


def test_embed_pools_all_patches_and_has_no_class_token(checkpoint, tmp_path, capsys):
  pixels = np.random.default_rng(2).integers(0, 255, (16, 8, 3), dtype=np.uint8)
  (tmp_path / "people").mkdir()
  Image.fromarray(pixels).save(tmp_path / "people/0.png")
  words = ["embed", str(checkpoint), str(tmp_path / "people"), "--batch_size=8"]
  assert hap([*words, f"--out={tmp_path / 'mean.npz'}"]) == 0
  model, variables, description = hap_jax.load(checkpoint)
  mean, std = (description["normalization"][key] for key in ("mean", "std"))
  tokens = np.asarray(jax.jit(model.apply)(variables, normalize(pixels[None], mean, std)))
  expected = tokens.mean(axis=1) / np.linalg.norm(tokens.mean(axis=1))
  with np.load(tmp_path / "mean.npz") as found:
    np.testing.assert_allclose(found["feature"], expected, atol=1e-5)
  assert hap([*words, f"--out={tmp_path / 'cls.npz'}", "--feature=cls"]) == 1
  assert "its encoder has no class token; set --feature to another kind" in capsys.readouterr().err


def test_the_exported_program_has_the_same_tokens_and_says_their_order(checkpoint, tmp_path, capsys):
  assert hap(["export", str(checkpoint), f"--out={tmp_path / 'exported'}"]) == 0
  assert "after the final norm, no class token, patches row by row" in capsys.readouterr().out
  with np.load(tmp_path / "exported/test_batch.npz") as batch:
    assert batch["tokens"].shape == (2, GRID[0] * GRID[1], 16)


def test_a_conversion_to_another_grid_is_proved(checkpoint, tmp_path):
  facts = run.convert(checkpoint, tmp_path / "out", grid=(6, 3), real=False)
  assert facts["proof"]["outputs"].keys() == {"tokens", "logits"}
  assert facts["proof"]["max_abs_error"] < 1e-4
  assert read.read(tmp_path / "out").description.encoder == Encoder(
    16, 1, 2, (6, 3), PATCH, patch_padding=PADDING, class_token=False
  )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_that_cannot_hold_the_encoder_is_an_error_that_says_why(checkpoint, tmp_path, family):
  out = tmp_path / ("out" if write.makes_folder(family) else f"out{families.load(family).suffixes[0]}")
  expected = "patch padding 2 and no" if family.endswith("vitpose") else "patch padding 0 and a"
  with pytest.raises(ValueError, match=rf"for encoders with {expected} class token, but .* has ") as error:
    run.convert(checkpoint, out, to=family, real=False)
  assert f"--to={family}: its files" in str(error.value)
  assert "patch padding 1 and no class token: choose another --to" in str(error.value)
  assert "\n" not in str(error.value)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("class_token", [True, False])
def test_a_description_that_contradicts_the_weights_is_an_error(checkpoint, tmp_path, class_token):
  variables, values = checkpoint_file.read(checkpoint)
  if not class_token:
    variables["params"]["encoder"]["cls_token"] = np.zeros((1, 1, 16), np.float32)
  values["model"]["class_token"] = class_token
  checkpoint_file.write(tmp_path / "odd", variables, values)
  stated = (
    "a class token, but its encoder has none" if class_token else "no class token, but its encoder has one"
  )
  with pytest.raises(ValueError, match=rf"odd: the description of the file states {stated}"):
    read.read(tmp_path / "odd")
