"""The Description of a checkpoint: conversion to JSON and back, and descriptions of older versions."""

import dataclasses
import json

import pytest

from hap_jax.description import Description, Encoder
from hap_jax.io import checkpoint_file
from hap_jax.models import vit
from tests.recorded import record

RUNS = sorted(path.parent for path in record.FOLDER.glob("*/*/config.json"))


def full():
  return Description(
    task="reid",
    encoder=Encoder(width=32, depth=2, num_heads=2, grid=(4, 2), patch=8, mlp_ratio=3.0),
    network={"locality": True, "num_classes": 3},
    normalization={"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "range": [0, 1]},
    classes={"data_set": "market1501", "pids": [2, 7, 9]},
    data={"name": "market1501", "licence": "research", "records": 12},
    lineage=({"file": "mae.pth", "family": "mae", "licence": "CC-BY-NC 4.0"},),
    config={"task": "reid", "model": {"patch": 8}},
    more={"step": 7, "scores": {"mAP": 0.5}},
  )


def test_json_and_back_is_the_same_description():
  written = json.loads(json.dumps(full().to_json()))
  assert Description.from_json(written) == full()
  assert (written["model"]["image_size"], written["model"]["locality"]) == ([32, 16], True)


def test_unknown_facts_are_not_in_the_json():
  description = Description("pretrain", Encoder(width=32, depth=2, num_heads=None, grid=None, patch=8))
  written = json.loads(json.dumps(description.to_json()))
  assert not {"classes", "config", "data"} & written.keys()
  assert written["model"]["image_size"] is None
  assert Description.from_json(written) == description


@pytest.mark.parametrize("run", RUNS, ids=[f"{run.parent.name}-{run.name}" for run in RUNS])
def test_checkpoints_of_earlier_versions_are_described(run):
  _, values = checkpoint_file.read(run)
  description = Description.from_json(values)
  assert description.task == values["task"]
  assert list(description.encoder.image_size) == values["model"]["image_size"]
  assert description.more["step"] == values["step"]
  # The first version recorded the names at the top level.
  names = values.get("attribute_names", values.get("classes", {}).get("attribute_names", []))
  assert list(description.classes.get("attribute_names", ())) == names


def changed(key, value):
  """Returns JSON values with another value at a key with dots; no value at all for `...`."""
  values = full().to_json()
  *group, leaf = key.split(".")
  place = values[group[0]] if group else values
  del place[leaf]
  if value is not ...:
    place[leaf] = value
  return values


ODD = (6, -1, 1.5, "x", [], [1], ["a", 1], {}, [[1]], True, 10**30)


@pytest.mark.parametrize("key", ["task", "model", "normalization", "model.width", "model.grid"])
def test_a_missing_key_is_an_error_that_names_it(key):
  with pytest.raises(ValueError, match=f"has no key '{key.rpartition('.')[2]}'"):
    Description.from_json(changed(key, ...))


@pytest.mark.parametrize(
  ("key", "good"),
  [
    ("task", {"x"}),
    ("data", {"{}"}),
    ("model.width", {"6", str(10**30)}),
    ("model.depth", {"6", str(10**30)}),
    ("model.num_heads", set()),
    ("model.patch", {"6", str(10**30)}),
    ("model.grid", set()),
    ("model.mlp_ratio", {"6", "1.5", str(10**30)}),
    ("model.class_token", {"True"}),
    ("normalization", set()),
    ("config", {"{}"}),
    ("lineage", {"[]"}),
  ],
)
def test_a_value_of_another_form_is_an_error_that_names_the_key(key, good):
  for value in ODD:
    if str(value) in good:
      Description.from_json(changed(key, value))
    else:
      with pytest.raises(ValueError, match=rf"unexpected form: {key} is .*, expected "):
        Description.from_json(changed(key, value))


@pytest.mark.parametrize("change", ["x", [1], {}, {"num_heads": "2"}, {"num_heads": -2}, {"depth": None}])
def test_a_decoder_without_its_sizes_is_an_error(change):
  sizes = {"width": 8, "depth": 1, "num_heads": None}
  values = full().to_json()
  assert Description.from_json({**values, "model": {**values["model"], "decoder": sizes}})
  decoder = {**sizes, **change} if change and isinstance(change, dict) else change
  with pytest.raises(ValueError, match=r"model\.decoder is .*, expected an object with whole numbers"):
    Description.from_json({**values, "model": {**values["model"], "decoder": decoder}})


@pytest.mark.parametrize(
  ("mean", "std"),
  [(float("nan"), 0.5), (0.5, float("inf")), (10**400, 0.5), (0.5, 0.0), (0.5, -0.5), (True, 0.5)],
)
def test_pixel_statistics_that_no_pixels_can_have_are_an_error(mean, std):
  pixels = {"mean": [0.5, 0.5, mean], "std": [0.5, 0.5, std]}
  with pytest.raises(ValueError, match=r"normalization is .* three numbers above 0"):
    Description.from_json({**full().to_json(), "normalization": pixels})


@pytest.mark.parametrize("padding", [-1, 1.5, True, "2", [2], 4, 8])
def test_a_padding_that_does_not_fit_the_patch_is_an_error(padding):
  with pytest.raises(ValueError, match=r"unexpected form: model\.patch_padding is .*, expected "):
    Description.from_json(changed("model.patch_padding", padding))


def test_padding_and_class_token_are_recorded_and_older_versions_had_neither():
  encoder = dataclasses.replace(full().encoder, patch_padding=2, class_token=False)
  written = json.loads(json.dumps(dataclasses.replace(full(), encoder=encoder).to_json()))
  assert (written["model"]["patch_padding"], written["model"]["class_token"]) == (2, False)
  assert Description.from_json(written).encoder == encoder
  built = encoder.build()
  assert (built.patch_padding, built.class_token) == (2, False)
  for value in (..., None):
    for key in ("model.patch_padding", "model.class_token"):
      assert Description.from_json(changed(key, value)) == full()


def test_a_model_that_is_no_object_is_an_error_that_names_it():
  with pytest.raises(ValueError, match="unexpected form: model is 5, expected an object"):
    Description.from_json(changed("model", 5))


@pytest.mark.parametrize("names", [3, [["a"]], ["a", 1], [1.5], [None], {"a": 1}])
def test_classes_that_are_no_list_of_names_or_numbers_are_an_error(names):
  with pytest.raises(ValueError, match=r"classes is .*, expected an object of texts and lists"):
    Description.from_json(changed("classes", {"attribute_names": names}))


def test_an_encoder_of_a_variant_has_its_sizes_and_name():
  encoder = Encoder.of_variant("S", image_size=(256, 128), patch=16)
  assert (encoder.width, encoder.depth, encoder.num_heads, encoder.grid) == (384, 12, 6, (16, 8))
  assert encoder.variant == "S"
  assert Encoder(384, 12, 4, (16, 8), 16).variant is None
  built = encoder.build(vit.Compute(scan=False), drop_path=0.1)
  assert (built.width, built.grid, built.scan, built.drop_path) == (384, (16, 8), False, 0.1)


@pytest.mark.parametrize("body", [3, ["SMPL"], {"name": 3}, {"licence": None}])
def test_a_body_that_is_no_object_of_texts_is_an_error(body):
  with pytest.raises(ValueError, match=r"body is .*, expected an object of texts"):
    Description.from_json({**full().to_json(), "body": body})
