"""The epsilon of the layer norms travels with the weights: it is read, used, recorded and written."""

import json

import jax
import numpy as np
import pytest

import hap_jax
from hap_jax.cli.__main__ import main
from hap_jax.convert import numpy_vit, read, run, verify
from hap_jax.convert.container import open_container
from hap_jax.io import safetensors_file, torch_writer
from hap_jax.tasks import pretrain
from tests.convert.reference_state import encoder_state, family_state

GRID, SMALL, USUAL = (3, 3), 1e-12, 1e-6


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The path of a folder of transformers' ViT with the default epsilon.

  The tokens of its first block are so small that the usual epsilon gives other features.
  """
  path = tmp_path_factory.mktemp("hf") / "vit"
  path.mkdir()
  state = family_state("hf-vit", grid=GRID, width=128, depth=4)
  for name, array in state.items():
    if name.startswith("embeddings"):
      array *= np.float32(1e-3)
  safetensors_file.save(path / "model.safetensors", state, {})
  (path / "config.json").write_text(json.dumps({"model_type": "vit", "num_attention_heads": 2}))
  return path


def independent(path, epsilon):
  """Returns the tokens of the independent network for a fixed picture, and the picture."""
  weights = read.read(path)
  setting = verify.Setting.of(weights, GRID)
  forward = numpy_vit.Forward(
    network=numpy_vit.hugging_face(open_container(path).content),
    batch=verify.make_batch(setting),
    num_heads=2,
    sizes={},
    grids=(GRID, GRID),
    epsilon=epsilon,
  )
  return forward.tokens, forward.batch.image


def test_the_features_are_computed_with_the_epsilon_of_the_file(folder):
  want, image = independent(folder, SMALL)
  other, _ = independent(folder, USUAL)
  model, variables, description = hap_jax.load(folder)
  got = np.asarray(jax.jit(model.apply)(variables, image))
  assert description["model"]["norm_eps"] == SMALL
  assert np.abs(got - want).max() < 1e-5 * np.abs(want).max()
  assert np.abs(other - want).max() > 1e-2 * np.abs(want).max()  # so the test can fail


def test_the_epsilon_survives_every_target_that_can_hold_it(folder, tmp_path, capsys):
  path = folder
  for name, to in (("own", "orbax"), ("back", "hf-vit"), ("again", "orbax")):
    report = run.convert(path, tmp_path / name, to=to, real=False)
    assert report["proof"]["max_abs_error"] < 1e-5
    assert report["notes"] == []
    path = tmp_path / name
  assert read.read(path).description.encoder.norm_eps == SMALL
  assert json.loads((tmp_path / "back" / "config.json").read_text())["layer_norm_eps"] == SMALL
  (tmp_path / "back" / "config.json").unlink()
  assert read.read(tmp_path / "back").description.encoder.norm_eps == SMALL  # from the record
  for place in (folder, tmp_path / "own"):
    assert main(["describe", str(place)]) == 0
    assert "2 heads, layer norms with the epsilon 1e-12" in capsys.readouterr().out


@pytest.mark.parametrize("to", ["hap", "mae", "timm"])
def test_a_target_that_cannot_hold_the_epsilon_refuses_it_by_name(folder, tmp_path, capsys, to):
  words = ["convert", str(folder), f"--out={tmp_path / 'out.pth'}", f"--to={to}", "--no_real_class"]
  assert main(words) == 1
  assert (
    f"error: --to={to}: its files are for layer norms with the epsilon 1e-06, but vit has 1e-12: choose "
    "another --to, or change the epsilon with --norm_eps=1e-06"
  ) in capsys.readouterr().err
  assert main([*words, "--norm_eps=1e-6"]) == 0
  printed = capsys.readouterr().out
  assert "note: the epsilon of the layer norms is 1e-06 in place of 1e-12: the features change" in printed
  assert read.read(tmp_path / "out.pth").description.encoder.norm_eps == USUAL


def test_the_usual_epsilon_is_not_mentioned(tmp_path, capsys):
  torch_writer.save(tmp_path / "vit.pth", {"model": encoder_state(grid=GRID, width=128, depth=4)})
  assert main(["describe", str(tmp_path / "vit.pth")]) == 0
  assert "layer norms" not in capsys.readouterr().out


@pytest.mark.parametrize("value", ["0", "-1", "1", "nan"])
def test_an_impossible_epsilon_is_an_error(folder, tmp_path, capsys, value):
  assert main(["convert", str(folder), f"--out={tmp_path / 'out'}", f"--norm_eps={value}"]) == 1
  assert "expected a number between 0 and 1" in capsys.readouterr().err


def test_a_decoder_has_the_epsilon_of_its_encoder(tmp_path):
  path = tmp_path / "mae"
  path.mkdir()
  state = family_state("hf-vitmae", grid=GRID)
  for name, array in state.items():
    if "embed" in name:
      array *= np.float32(1e-3)
  safetensors_file.save(path / "model.safetensors", state, {})
  report = run.convert(path, tmp_path / "own", source_grid=GRID, heads=(2, 2), real=False)
  assert report["proof"]["outputs"].keys() == {"tokens", "pred"}
  model = pretrain.network(read.read(tmp_path / "own").description)
  assert (model.encoder.norm_eps, model.decoder.norm_eps) == (SMALL, SMALL)
