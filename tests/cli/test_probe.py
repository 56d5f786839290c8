"""`hap probe --attributes` on an encoder with random weights."""

import re

import pytest
from PIL import Image

from hap_jax.cli.__main__ import main as hap
from hap_jax.convert import read
from hap_jax.io import checkpoint_file
from hap_jax.models import posemb
from hap_jax.synthetic import captions
from tests.convert import reference_state
from tests.io import torch_bytes

PEOPLE = ["--data.source=synthetic", "--set=image_size=(40,20)", "--batch_size=64", "--attributes"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """Returns the path of an encoder with one block for pictures of 32 x 16.

  Its weights are small, because larger random weights would give all pictures similar tokens.
  """
  table = posemb.sincos_table((4, 2), 64)
  state = reference_state.encoder_state(grid=(4, 2), width=64, depth=1, patch=8, table=table)
  state |= {
    name: value * (0.05 if name.endswith("weight") else 0.01)
    for name, value in state.items()
    if "norm" not in name and name != "pos_embed"
  }
  folder = tmp_path_factory.mktemp("encoder")
  (folder / "encoder.pth").write_bytes(torch_bytes.zip_file({"model": state}))
  weights = read.read(folder / "encoder.pth").with_encoder(num_heads=2)
  checkpoint_file.write(folder / "encoder", weights.variables, weights.facts())
  return str(folder / "encoder")


# The report of the command on few people is tested in tests/e2e/test_attribute_table.py.
@pytest.mark.soak
def test_the_probe_predicts_attributes_of_unseen_people(checkpoint, capsys, eager_progress):
  assert hap(["probe", checkpoint, *PEOPLE, "--set=num_train=640", "--set=num_test=320"]) == 0
  captured = capsys.readouterr()
  assert re.search(r"^probe: [\d,]+ of 960 pictures, \d+ %, ", captured.err, re.MULTILINE)
  assert "(fitting the classifier)" in captured.err
  lines = captured.out.splitlines()
  assert "640 train and 320 test pictures; feature mean" in lines[0]
  by_attribute = {line.split()[0]: float(line.split()[2]) for line in lines if line.startswith("  ")}
  assert by_attribute.keys() == set(captions.ATTRIBUTES)
  scores = dict(line.split() for line in lines if line.startswith(("mA ", "F1 ")) and ":" not in line)
  assert float(scores["mA"]) == pytest.approx(sum(by_attribute.values()) / len(by_attribute), abs=1e-4)
  seen = [by_attribute[name] for name in ("dark_top", "light_top", "dark_bottom")]
  assert sum(seen) / 3 > 0.6  # an answer that ignores the picture gets 0.5; random weights still see colours


def test_an_attribute_with_only_one_value_in_training_is_an_error(checkpoint, capsys):
  assert hap(["probe", checkpoint, *PEOPLE, "--set=num_train=8", "--set=num_test=8"]) == 1
  assert "all known labels are equal in the 8 training pictures" in capsys.readouterr().err


def test_data_set_without_attributes_is_refused(checkpoint, tmp_path, capsys):
  for split in ("train", "test"):
    (tmp_path / split / "anna").mkdir(parents=True)
    Image.new("RGB", (8, 16)).save(tmp_path / split / "anna" / "a.jpg")
  options = ["--data.source=identity_folder", f"--data.root={tmp_path}", "--attributes"]
  assert hap(["probe", checkpoint, *options]) == 1
  assert "identity_folder has no attributes" in capsys.readouterr().err
