"""Files of the official attribute models are read, run and written."""

import dataclasses

import numpy as np
import pytest

from hap_jax.convert import families, names, numpy_vit, read, run, verify
from hap_jax.convert import write as writing
from hap_jax.io import torch_file
from hap_jax.models import layers
from tests.convert.reference_state import family_state, leaves


def official_content(state):
  """Returns the content of an official file: the weights of a parallel model, and their moving average."""
  spelled = {families.load("attributes-vit").in_file(name): array for name, array in state.items()}
  parallel = {f"module.{name}": array for name, array in spelled.items()}
  return {"state_dicts": parallel, "state_dict_ema": spelled, "epoch": "12", "metric": 0.8}


def test_all_tensors_of_an_official_file_are_read(write):
  state = family_state("attributes-vit", grid=(16, 12), num_classes=26)
  weights = read.read(write(official_content(state)))
  assert (weights.family, weights.task, weights.grid) == ("attributes-vit", "attributes", (16, 12))
  assert weights.grid_from == "assumed: attributes at 256 x 192"
  assert weights.unused == ()
  assert weights.source_names["classifier/kernel"] == ("module.classifier.logits.0.weight",)
  assert weights.source_names["encoder/cls_token"] == ("module.backbone.cls_token",)
  np.testing.assert_array_equal(
    weights.params["classifier"]["kernel"], state["classifier.logits.0.weight"].T, strict=True
  )


def test_an_official_file_comes_back_bit_for_bit_after_two_conversions(write, tmp_path):
  content = official_content(family_state("attributes-vit", grid=(16, 12)))
  source = write(content)
  options = {"heads": (2, None), "real": False}
  there = run.convert(source, tmp_path / "own", **options)
  assert there["proof"]["outputs"].keys() == {"tokens", "logits"}
  run.convert(tmp_path / "own", tmp_path / "back.pth", to="attributes-vit", real=False)
  back = torch_file.load(tmp_path / "back.pth")
  assert list(back["state_dicts"]) == list(content["state_dicts"])
  for name, array in content["state_dicts"].items():
    np.testing.assert_array_equal(back["state_dicts"][name], array, strict=True)
  assert {"epoch", "metric"} <= back.keys()  # the official loader prints both entries


def test_the_second_forward_pass_gives_the_logits_of_the_official_model(golden):
  stored = golden("attributes")
  prefix = "model/param/"
  # The official names without the prefixes of the stored file and of the backbone.
  state = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
  state = {name.removeprefix("backbone."): value for name, value in state.items()}
  grid = tuple(int(side) // int(stored["model/cfg/patch_size"]) for side in stored["model/cfg/img_size"])
  image = stored["model/images"].transpose(0, 2, 3, 1)
  forward = numpy_vit.Forward(
    network=numpy_vit.official(state),
    batch=verify.Batch(image=image, ids_keep=None, ids_restore=None),
    num_heads=int(stored["model/cfg/num_heads"]),
    sizes={},
    grids=(grid, grid),
    epsilon=layers.LAYER_NORM_EPSILON,
  )
  found = families.load("attributes-vit").outputs.in_numpy(forward)
  assert np.abs(found["logits"] - stored["model/logits"]).max() < 1e-5


def test_the_golden_model_has_exactly_the_names_of_the_table(golden):
  prefix = "model/param/"
  found = {name.removeprefix(prefix) for name in golden("attributes") if name.startswith(prefix)}
  family = families.load("attributes-vit")
  assert {family.in_file(row.reference) for row in names.table(family, depth=2, decoder_depth=0)} == found


def test_the_names_of_the_attributes_survive_a_conversion_and_back(write, tmp_path):
  weights = read.read(write(official_content(family_state("attributes-vit", grid=(16, 12)))))
  # A classifier of 5 attributes is none of the official data sets, so the family gives no names.
  assert weights.description.classes == {}
  classes = {"attribute_names": ["a", "b", "c", "d", "e"]}
  weights = weights.with_encoder(num_heads=2)
  named = dataclasses.replace(weights.description, classes=classes)
  write_own_and_back(dataclasses.replace(weights, description=named), tmp_path)
  assert read.read(tmp_path / "back.pth").description.classes == classes


def write_own_and_back(weights, tmp_path):
  """Converts weights to this project's checkpoint and back, and compares the arrays."""
  writing.write(tmp_path / "own", weights, writing.OWN)
  writing.write(tmp_path / "back.pth", read.read(tmp_path / "own"), "attributes-vit")
  again = read.read(tmp_path / "back.pth")
  for name, array in leaves(weights.params).items():
    np.testing.assert_array_equal(leaves(again.params)[name], array, strict=True)


def test_a_classifier_without_bias_or_with_another_width_is_refused(write):
  state = family_state("attributes-vit", grid=(16, 12))
  bias = state.pop("classifier.logits.0.bias")
  with pytest.raises(ValueError, match=r"of the attributes-vit family: classifier\.logits\.0\.bias"):
    read.read(write(official_content(state)))
  state |= {"classifier.logits.0.bias": bias[:-1]}
  with pytest.raises(ValueError, match=r"classifier\.logits\.0\.\w+ has shape"):
    read.read(write(official_content(state)))
