"""The data sets and weights of every stage survive all file formats.

`recorded_descriptions.json` holds the descriptions of short runs and of their conversions, without "config"
and "model". An earlier version wrote them. It recorded "data" only for the newest run.
"""

import json
import pathlib

import pytest

from hap_jax.convert import licences, lineage, read, run
from hap_jax.io import checkpoint_file, safetensors_file, torch_writer
from hap_jax.train import initial
from tests.convert.reference_state import GRID, family_state

RECORDED = json.loads(pathlib.Path(__file__).with_name("recorded_descriptions.json").read_text())
DRAWN = {"name": "synthetic", "licence": "Apache-2.0 (made by this project)"}
LUPERSON = {"name": "luperson", "licence": "LUPerson: research use, on the terms of its authors"}
MSMT17 = {
  "name": "msmt17",
  "licence": "MSMT17: academic research, under the agreement signed with its authors",
}
MARKET = {"name": "market1501", "licence": "Market-1501: academic research, on the terms of its authors"}
MAE = "CC-BY-NC 4.0 if these are the published MAE weights"


def names_of(sources):
  """Returns [(kind, name)] of sources."""
  return [(item["kind"], item["name"]) for item in sources]


def run_origin(task, step, data):
  """Returns the origin of a run of this project."""
  return {"file": f"{task}_{data['name']}", "family": "hap_jax", "task": task, "step": step, "data": data}


@pytest.fixture
def trained(tmp_path):
  """Returns a function that writes the checkpoint of a fine-tuning run and returns its path."""

  def write(data, past):
    file = tmp_path / "reid.safetensors"
    safetensors_file.save(file, family_state("reid-vit"), {})
    weights = read.read(file, family="reid-vit", grid=GRID)
    description = weights.facts()
    description["model"]["num_heads"] = 2
    del description["normalization"]["from"]  # only conversions record it
    own = {"data": data, "step": 4, "lineage": past}
    checkpoint_file.write(tmp_path / "run", weights.variables, description | own)
    return tmp_path / "run"

  return write


def test_the_stages_mae_luperson_and_msmt17_survive_every_file_format(trained, tmp_path):
  mae = {"file": "mae.pth", "sha256": "0" * 64, "family": "mae", "licence": MAE}
  path = trained(MSMT17, [run_origin("pretrain", 8, LUPERSON) | {"licence": "any"}, mae])
  expected = [
    ("research only", "msmt17"),
    ("research only", "luperson"),
    ("non-commercial", "mae.pth (mae)"),
  ]
  line = f"{MSMT17['licence']}; {LUPERSON['licence']}; {MAE}"
  hops = [
    ("own", "orbax"),
    ("reid.pth", "reid-vit"),
    ("reid2.safetensors", "reid-vit"),
    ("folder", "hf-vit"),
    ("last", "orbax"),
  ]
  assert names_of(read.read(path).made_from) == expected
  for name, to in hops:
    facts = run.convert(path, tmp_path / name, to=to, real=False)
    path = tmp_path / name
    weights = read.read(path)
    assert names_of(facts["made_from"]) == names_of(weights.made_from) == expected
    assert facts["licence"] == weights.licence == weights.lineage[0]["licence"] == line
    # A run that starts from this file records all earlier stages.
    assert lineage.sources(initial.read(path).lineage) == weights.made_from
  card = (tmp_path / "folder/README.md").read_text()
  assert card.startswith(f"---\nlicense: other\nlicense_name: {json.dumps(line)}\n")
  for item in weights.made_from:
    assert f"\n- {licences.text(item)}\n" in card


def test_our_model_card_states_the_licence_even_without_our_record(trained, tmp_path):
  run.convert(trained(MARKET, []), tmp_path / "folder", to="hf-vit", real=False)
  file = tmp_path / "folder/model.safetensors"
  state, _ = safetensors_file.load(file)
  state = {name: array.copy() for name, array in state.items()}
  safetensors_file.save(file, state, {})
  assert read.read(tmp_path / "folder").licence == MARKET["licence"]


def test_the_licence_of_the_body_model_survives_conversions_and_later_runs(trained, tmp_path):
  smpl = {"name": "SMPL", "licence": "Max Planck non-commercial research licence (SMPL), no redistribution"}
  path = trained(DRAWN, [])
  variables, description = checkpoint_file.read(path)
  checkpoint_file.write(tmp_path / "body", variables, description | {"task": "pose3d", "body": smpl})
  expected = [("research only", "SMPL"), ("permissive", "synthetic")]
  run.convert(tmp_path / "body", tmp_path / "own", to="orbax", real=False)
  for name in ("body", "own"):
    weights = read.read(tmp_path / name)
    assert names_of(weights.made_from) == expected
    assert weights.licence == smpl["licence"]
    assert [item["role"] for item in weights.made_from] == ["body model", "data set"]
  # A run of another task that starts from these weights has another description, and this lineage.
  later = [dict(origin) for origin in weights.lineage]
  checkpoint_file.write(tmp_path / "later", variables, description | {"data": MARKET, "lineage": later})
  assert names_of(read.read(tmp_path / "later").made_from) == [("research only", "market1501"), *expected]


def test_a_repeated_stage_is_listed_once():
  past = [run_origin("pretrain", step, data) for step, data in ((6, DRAWN), (4, MARKET), (2, DRAWN))]
  found = lineage.sources(lineage.completed(past))
  assert names_of(found) == [("research only", "market1501"), ("permissive", "synthetic")]


@pytest.mark.parametrize("family", ["reid-vit", "reid-lem"])
def test_an_official_fine_tuned_file_has_the_data_sets_of_its_family(tmp_path, family):
  torch_writer.save(tmp_path / "official.pth", {"model": family_state(family), "arch": "vit"})
  weights = read.read(tmp_path / "official.pth", family=family)
  assert names_of(weights.made_from) == [
    ("unknown", f"official.pth ({family})"),
    ("research only", "msmt17 or market1501"),
    ("research only", "luperson"),
    ("non-commercial", "MAE, of ImageNet-1K"),
  ]
  assert all("if" in item for item in weights.made_from[1:])
  assert weights.licence.startswith("not stated; ")


# Checkpoints of an earlier version, which did not record "data" in their origins


@pytest.mark.parametrize(
  ("name", "expected"),
  [
    ("pretrained on synthetic", [("permissive", "synthetic")]),
    ("then fine-tuned on market1501", [("research only", "market1501"), ("permissive", "synthetic")]),
    ("then converted to orbax", [("research only", "market1501"), ("permissive", "synthetic")]),
    ("then converted to pth", [("research only", "market1501"), ("permissive", "synthetic")]),
    (
      # The earlier version did not record LUPerson: an unknown data set stands for it.
      "mae, luperson, msmt17",
      [
        ("unknown", "of a run (pretrain, step 2)"),
        ("research only", "msmt17"),
        ("non-commercial", "mae.pth (mae)"),
      ],
    ),
    (
      "synthetic, luperson, market1501",
      [
        ("unknown", "of a run (pretrain, step 2)"),
        ("research only", "market1501"),
        ("permissive", "synthetic"),
      ],
    ),
  ],
)
def test_the_lineage_of_an_earlier_version_is_completed_from_its_data(name, expected):
  description = RECORDED[name]
  if name.endswith("pth"):
    found = lineage.of_file("reid.pth", "0" * 64, "reid-vit", "not stated", description)
  else:
    found = lineage.of_own("run", description)
  sources = lineage.sources(found)
  assert names_of(sources) == expected
  assert found[0]["licence"] == licences.line(sources)
  assert "scratch" not in json.dumps(found)
  if len(expected) > 1:
    assert "Apache-2.0" not in found[0]["licence"]


def test_a_checkpoint_without_a_recorded_data_set_has_an_unknown_licence():
  (origin,) = lineage.of_own("run", {"task": "reid", "step": 3, "lineage": []})
  assert origin["licence"] == "data set of a run (reid, step 3): not recorded"


@pytest.mark.parametrize("data", [3, {"name": "synthetic"}, {"name": "synthetic", "licence": ["MIT"]}])
def test_a_recorded_data_set_without_name_and_licence_is_an_error(tmp_path, trained, data):
  run.convert(trained(DRAWN, []), tmp_path / "good.safetensors", to="reid-vit", real=False)
  state, metadata = safetensors_file.load(tmp_path / "good.safetensors")
  for place in ("data", "lineage"):
    record = json.loads(metadata["hap_jax"])
    if place == "data":
      record["data"] = data
    else:
      record["lineage"][0]["data"] = data
    path = tmp_path / f"{place}.safetensors"
    safetensors_file.save(path, state, {"hap_jax": json.dumps(record)})
    with pytest.raises(ValueError, match="'hap_jax' is not a description"):
      read.read(path)


@pytest.mark.parametrize(
  "change",
  [
    {"file": None},
    {"family": 3},
    {"licence": None},
    {"data": {"name": "market1501"}},
    {"body": ["SMPL"]},
  ],
)
def test_an_own_checkpoint_with_a_damaged_origin_is_an_error_that_names_it(change):
  past = {"file": "mae.pth", "sha256": "0" * 64, "family": "mae", "licence": MAE}
  description = {"task": "reid", "step": 3, "lineage": [past]}
  assert len(lineage.of_own("run", description)) == 2
  with pytest.raises(ValueError, match=r"run: its lineage has the origin .*, expected texts"):
    lineage.of_own("run", {**description, "lineage": [{**past, **change}]})


def test_an_origin_of_this_project_needs_no_licence():
  past = {"file": "run", "family": "hap_jax", "task": "pretrain", "step": 1}
  assert len(lineage.of_own("run", {"task": "reid", "step": 3, "lineage": [past]})) == 2
