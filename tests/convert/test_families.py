"""Families as files: their facts, the family of a file, and a new family that is one file."""

import copy
import dataclasses
import itertools
import pathlib
import sys

import numpy as np
import pytest

from hap_jax import config as config_lib
from hap_jax.cli.__main__ import main
from hap_jax.convert import detect, families, read, run
from hap_jax.convert import source as sources
from hap_jax.data.sources import pa100k, peta, rapv1
from hap_jax.io import checkpoint_file, safetensors_file, torch_file, torch_writer
from hap_jax.models import posemb
from tests.convert.reference_state import GRID, encoder_state, exchange, family_state, full_state


@pytest.fixture
def weights_of(tmp_path):
  """Returns a function that reads a tiny file of a family."""

  def read_file(family, **sizes):
    path = tmp_path / f"{family}.safetensors"
    safetensors_file.save(path, family_state(family, **sizes), {})
    return read.read(path, family=family, grid=sizes.get("grid", GRID))

  return read_file


@pytest.mark.parametrize("name", families.names())
def test_a_family_has_the_name_of_its_file_and_a_task_of_this_project(name):
  family = families.load(name)
  assert family.name == name
  assert callable(config_lib.load("tasks", family.task).network)
  assert family.outputs is None or family.outputs.are_of(family.stacks)


# Recognition

TRAITS = (
  "arch",
  "official arch",
  "square",
  "fixed",
  "head",
  "decoder",
  "lem",
  "classifier",
)


def expected_family(traits):
  """Returns the family for these traits, by the priorities in docs/conversion.md."""
  if "lem" in traits:
    return "reid-lem"
  if "classifier" in traits:
    return "attributes-vit"
  if "decoder" not in traits:
    # The grid of the square tables is not the grid of a published ReID model.
    if {"head", "official arch"} <= traits and "square" not in traits:
      return "reid-vit"
    if "fixed" not in traits:
      return "timm"
  return "mae" if "square" in traits else "hap"


def source_with(traits):
  """Returns a Source with these traits."""
  names = {
    "head": "head.weight",
    "decoder": "decoder_embed.weight",
    "lem": "conv_head.0.conv1.weight",
    "classifier": "classifier.logits.0.weight",
  }
  grid = (3, 3) if "square" in traits else (16, 8)
  state = encoder_state(grid=grid, table=posemb.sincos_table(grid, 16) if "fixed" in traits else None)
  state |= {name: np.ones(1) for trait, name in names.items() if trait in traits}
  return sources.Source(
    path=pathlib.Path("weights.pth"),
    files=(pathlib.Path("weights.pth"),),
    state=state,
    names={name: name for name in state},
    beside={"arch": "vit_base_patch16" + ("" if "official arch" in traits else "_224")}
    if "arch" in traits
    else {},
  )


def test_exactly_one_family_is_the_surest_for_every_combination_of_traits():
  for flags in itertools.product((False, True), repeat=len(TRAITS)):
    traits = {name for name, flag in zip(TRAITS, flags, strict=True) if flag}
    # No file has both heads. The second trait of `arch` only says what its text is.
    if not {"lem", "classifier"} <= traits and ("arch" in traits or "official arch" not in traits):
      assert detect.find_family(source_with(traits)).name == expected_family(traits), traits


def test_two_equally_sure_families_are_an_error(write, monkeypatch):
  # Both families now give the same answer for the same file.
  mae = families.load("mae")
  exchange(monkeypatch, dataclasses.replace(mae, recognise=families.load("hap").recognise))
  with pytest.raises(ValueError, match=r"weights\.pth: may be of the families hap and mae: .* --from"):
    read.read(write({"model": full_state()}))


# The facts that a family reads from a file


@pytest.mark.parametrize(
  ("family", "network"),
  [
    ("timm", {"decoder": None}),
    ("hap", {"decoder": {"width": 16, "depth": 1, "num_heads": None, "mlp_ratio": 3.0}}),
    ("reid-vit", {"locality": False, "num_classes": 5}),
    ("reid-lem", {"locality": True, "num_classes": 5}),
    ("attributes-vit", {"num_attributes": 5}),
  ],
)
def test_the_sizes_of_the_tasks_network_are_read_from_the_file(weights_of, family, network):
  weights = weights_of(family, mlp_ratios=(2, 3))
  assert weights.description.network == network
  assert weights.description.encoder.mlp_ratio == 2
  assert weights.task == families.load(family).task


@pytest.mark.parametrize("source", [pa100k, rapv1, peta], ids=lambda source: source.__name__)
def test_the_number_of_attributes_gives_their_official_names(weights_of, source):
  weights = weights_of("attributes-vit", num_classes=len(source.ATTRIBUTES))
  assert weights.description.classes == {"attribute_names": list(source.ATTRIBUTES)}


def test_recorded_classes_win_over_the_classes_of_the_family(weights_of, tmp_path):
  weights = weights_of("attributes-vit", num_classes=len(peta.ATTRIBUTES))
  mine = [f"attribute {k}" for k in range(len(peta.ATTRIBUTES))]
  values = weights.facts()
  values.pop("classes")
  checkpoint_file.write(tmp_path / "own", weights.variables, values | {"attribute_names": mine})
  assert read.read(tmp_path / "own").description.classes == {"attribute_names": mine}


@pytest.mark.parametrize("family", ["hap", "reid-vit", "reid-lem", "attributes-vit"])
def test_a_checkpoint_of_an_earlier_version_is_completed(weights_of, tmp_path, family):
  """Conversions of earlier versions recorded neither the sizes of the head nor the ratio of the MLPs."""
  weights = weights_of(family, mlp_ratios=(2, 3))
  values = copy.deepcopy(weights.facts())
  for key in ("mlp_ratio", "locality", "num_classes", "num_attributes"):
    values["model"].pop(key, None)
  if weights.decoder:
    values["model"]["decoder"].pop("mlp_ratio")
  checkpoint_file.write(tmp_path / "own", weights.variables, values)
  again = read.read(tmp_path / "own").description
  expected = {"decoder": None} if weights.task != "pretrain" else {}
  assert again.network == expected | weights.description.network
  assert again.encoder == weights.description.encoder


@pytest.mark.parametrize("family", ["hap", "reid-lem", "attributes-vit"])
def test_a_model_with_other_mlp_ratios_passes_the_proof_in_the_network_of_its_task(tmp_path, family):
  path = tmp_path / "weights.safetensors"
  safetensors_file.save(path, family_state(family, mlp_ratios=(2, 3)), {})
  known = {"family": family, "source_grid": GRID, "heads": (2, 2), "real": False}
  there = run.convert(path, tmp_path / "own", **known)
  assert len(there["proof"]["outputs"]) > 1
  back = run.convert(tmp_path / "own", tmp_path / "back.pth", to=family, real=False)
  assert back["proof"]["max_abs_error"] == 0


def test_a_file_of_another_task_does_not_record_the_dropped_head(tmp_path):
  path = tmp_path / "official.safetensors"
  safetensors_file.save(path, family_state("attributes-vit", num_classes=len(peta.ATTRIBUTES)), {})
  known = {"family": "attributes-vit", "source_grid": GRID, "heads": (2, None), "real": False}
  run.convert(path, tmp_path / "timm.pth", to="timm", **known)
  description = read.read(tmp_path / "timm.pth").description
  assert (description.task, description.network, description.classes) == ("pretrain", {"decoder": None}, {})


# A new family is one file. This one cuts one of our arrays into 576 and 192 columns, as models with experts
# do

NEW_FAMILY = '''
"""A family for this test: the second layer of each MLP is two tensors. The entry `net` holds the weights."""

import dataclasses

import numpy as np

from hap_jax.convert import numpy_vit, rows
from hap_jax.convert.family import CERTAIN, NO, Family


def _cut(row):
  if ".mlp.fc2." not in row.reference:
    return (row,)
  names = row.reference, row.reference.replace("fc2", "expert")
  return tuple(
    dataclasses.replace(row, reference=name, shape=(size, *row.shape[1:]), parts=(576, 192), part=k)
    for k, (name, size) in enumerate(zip(names, ("576", "192"), strict=True))
  )


def _network_of(state):
  joined = {}
  for name, array in state.items():
    if ".mlp.fc2." in name:
      array = np.concatenate([array, state[name.replace("fc2", "expert")]])
    joined[name] = array
  return numpy_vit.official(joined)


FAMILY = Family(
  "cut-vit",
  tuple(entry for row in rows.ENCODER for entry in _cut(row)),
  lambda source: CERTAIN if "blocks.0.mlp.expert.bias" in source.state else NO,
  _network_of,
  task="pretrain",
  licence="MIT",
  grids={8: ((4, 2), "pictures of this test")},
  content=lambda weights, state: {"net": state},
)
'''


@pytest.fixture
def new_family(tmp_path, monkeypatch):
  """Adds the file of a family to the folder of families."""
  folder = tmp_path / "families"
  folder.mkdir()
  (folder / "cut_vit.py").write_text(NEW_FAMILY)
  # Python looks for the modules of a package in all folders of its path.
  monkeypatch.setattr(families, "__path__", [*families.__path__, str(folder)])
  yield "cut-vit"
  sys.modules.pop("hap_jax.convert.families.cut_vit", None)


@pytest.fixture
def new_file(new_family, tmp_path):
  """Writes a file of the new family and returns its state dict."""
  state = family_state(new_family, width=768, depth=1, patch=4)
  for array in state.values():
    array *= np.float32(0.1)  # larger weights saturate the softmax, which would hide errors
  torch_writer.save(tmp_path / "new.pth", {"net": state})
  return state


def test_a_new_family_is_one_file_and_is_converted_both_ways(new_file, tmp_path, capsys):
  path, own, back = tmp_path / "new.pth", tmp_path / "own", tmp_path / "back.pth"
  assert new_file["blocks.0.mlp.fc2.weight"].shape == (576, 3072)
  assert new_file["blocks.0.mlp.expert.weight"].shape == (192, 3072)
  assert main(["convert", str(path), f"--out={own}", "--num_heads=12"]) == 0
  printed = capsys.readouterr().out
  assert "(cut-vit) -> " in printed
  assert "licence: MIT" in printed
  weights = read.read(own)
  kernel = weights.params["encoder"]["blocks"]["mlp"]["fc2"]["kernel"][0]
  np.testing.assert_array_equal(kernel[:, :576], new_file["blocks.0.mlp.fc2.weight"].T)
  np.testing.assert_array_equal(kernel[:, 576:], new_file["blocks.0.mlp.expert.weight"].T)
  assert main(["convert", str(own), f"--out={back}", "--to=cut-vit"]) == 0
  written = torch_file.load(back)["net"]
  assert written.keys() == new_file.keys()
  for name, array in new_file.items():
    np.testing.assert_array_equal(written[name], array, strict=True)
  assert main(["describe", str(path)]) == 0
  assert "assumed: pictures of this test" in capsys.readouterr().out


def test_a_new_family_with_swapped_parts_fails_the_proof(new_file, new_family, tmp_path, monkeypatch):
  family = families.load(new_family)
  turned = tuple(
    dataclasses.replace(row, parts=(192, 576), part=1 - row.part) if len(row.parts) == 2 else row
    for row in family.entries
  )
  exchange(monkeypatch, dataclasses.replace(family, entries=turned))
  assert any(len(row.parts) == 2 for row in turned)
  with pytest.raises(ValueError, match="the conversion is wrong"):
    run.convert(tmp_path / "new.pth", tmp_path / "own", heads=(12, None), real=False)
