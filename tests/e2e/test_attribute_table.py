"""Attributes of one's own: drawn people, a table with empty labels, training, scores and predictions."""

import csv
import json

import numpy as np
import pytest

from configs import finetune_attributes_table_b16
from hap_jax import config as config_lib
from hap_jax import run as runner
from hap_jax.cli.__main__ import main as hap
from hap_jax.data.sources import attribute_table
from hap_jax.inference import scoring
from hap_jax.io import checkpoint_file
from hap_jax.metrics import attributes as metrics
from hap_jax.models import vit
from tests.recorded import record

FACTS = 3  # columns file, split and person
TINY = {
  "total_steps": 2,
  "warmup_epochs": 0.0,
  "batch_size": 8,
  "eval_batch_size": 8,
  # No line and no evaluation during the run, because their pictures take more time than the run.
  "log_every": 0,
  "eval_every_epochs": 0,
  "save_every": 2,
  "model.variant": record.VARIANT,
  "model.image_size": (16, 8),
  "model.patch": 4,
  "data.workers": 0,
  "data.pad": 1,
}


@pytest.fixture(scope="module", autouse=True)
def small_model():
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(vit, "VARIANTS", dict(vit.VARIANTS))
    record.shrink(vit.VARIANTS)
    yield


@pytest.fixture(scope="module")
def people(tmp_path_factory):
  """Returns a folder of drawn people with two tables. A tenth of the labels in attributes.csv is empty.

  An attribute without a positive training picture cannot be learned, so its column is removed. The table
  full.csv has all labels of the other columns.
  """
  root = tmp_path_factory.mktemp("table") / "people"
  sizes = ["--num_train=32", "--num_val=8", "--num_test=8", "--image_size=32x16", "--workers=0"]
  assert hap(["prepare", "synthetic", f"--out={root}", *sizes]) == 0
  with (root / "attributes.csv").open(newline="") as file:
    full = np.array(list(csv.reader(file)), object)
  emptied = full.copy()
  emptied[1:, FACTS:][np.random.default_rng(0).random(emptied[1:, FACTS:].shape) < 0.1] = ""
  is_train = emptied[:, 1] == "train"
  kept = [k for k in range(full.shape[1]) if k < FACTS or (emptied[is_train, k] == "1").any()]
  assert len(kept) > FACTS + 5
  for name, table in (("full.csv", full), ("attributes.csv", emptied)):
    with (root / name).open("w", newline="") as file:
      csv.writer(file).writerows(table[:, kept].tolist())
  return root


@pytest.fixture(scope="module")
def workdir(people, tmp_path_factory):
  config = finetune_attributes_table_b16.get_config()
  config.update_from_flattened_dict({**TINY, "data.root": str(people)})
  folder = tmp_path_factory.mktemp("run") / "work"
  runner.run(config_lib.finalize(config), folder, say=lambda _: None)
  return folder


def test_a_table_with_empty_labels_trains(workdir):
  variables, description = checkpoint_file.read(workdir)
  assert description["step"] == 2
  kernel = np.asarray(variables["params"]["classifier"]["kernel"])
  assert np.isfinite(kernel).all()
  assert kernel.shape[1] == len(description["classes"]["attribute_names"])


def test_scores_are_the_scores_of_the_known_labels(people, workdir, tmp_path):
  """The labels come from the full table, and the mask from the table with empty labels."""
  full, emptied = (
    attribute_table.open_source(root=str(people), split="test", seed=0, file=file)
    for file in ("full.csv", "attributes.csv")
  )
  present = {}
  for folder in ("query", "bounding_box_test"):
    out = tmp_path / folder
    assert hap(["predict", str(workdir), str(people / folder), f"--out={out}"]) == 0
    written = json.loads((out / "attributes.json").read_text())
    assert written["attributes"] == list(full.spec.labels["attributes"])
    for row in written["pictures"]:
      present[f"{folder}/{row['file']}"] = [name in row["present"] for name in written["attributes"]]
  answers = np.array([present[path.decode()] for path in full.paths])
  known = emptied.columns["attributes_known"]
  assert 0.03 < 1 - known.mean() < 0.2
  expected = metrics.score(answers, full.columns["attributes"], known).metrics()
  scores = scoring.score(str(workdir), say=lambda _: None)
  assert {name: scores[name] for name in expected} == expected


def test_a_probe_learns_from_the_known_labels(people, workdir, capsys):
  options = ["--data.source=attribute_table", f"--data.root={people}"]
  capsys.readouterr()
  assert hap(["probe", str(workdir), "--attributes", *options]) == 0
  lines = capsys.readouterr().out.splitlines()
  assert any("attribute_table: 32 train and 8 test pictures; feature mean" in line for line in lines)
  by_attribute = {line.split()[0]: float(line.split()[2]) for line in lines if line.startswith("  ")}
  names = checkpoint_file.read(workdir)[1]["classes"]["attribute_names"]
  assert by_attribute.keys() == set(names)
  scores = dict(line.split() for line in lines if line.startswith(("mA ", "F1 ")) and ":" not in line)
  assert float(scores["mA"]) == pytest.approx(np.mean(list(by_attribute.values())), abs=1e-4)
