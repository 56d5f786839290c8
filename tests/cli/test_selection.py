"""Every command that reads a checkpoint takes --key, --prefix and --encoder_only, and uses them."""

import re

import numpy as np
import pytest
from PIL import Image

from hap_jax.cli import __main__ as command
from hap_jax.train import initial
from tests.convert.reference_state import encoder_state
from tests.io import torch_bytes

# {verb: further words}. The words need no data, because the checkpoint is read first.
VERBS = {
  "describe": [],
  "convert": ["--out=DIR/out"],
  "export": ["--out=DIR/out"],
  "embed": ["DIR/pictures", "--out=DIR/out.npz"],
  "predict": ["DIR/pictures/a.png", "--gallery=DIR/pictures", "--out=DIR/out"],
  "compare": ["DIR/pictures/a.png", "DIR/pictures/a.png"],
  "probe": [],
  "evaluate": [],
  "calibrate": [],
  "extract_poses": ["DIR/pictures", "--out=DIR/out"],
}
# These verbs read no checkpoint of a network, or they read it as `config.init_from`.
OTHERS = {"body", "crop", "people", "plan", "prepare", "train"}


def test_the_list_of_verbs_is_complete():
  assert VERBS.keys() | OTHERS == command.verbs().keys()


@pytest.fixture
def files(tmp_path):
  """A folder with a picture, a file of two encoders, and a file of one encoder with a neck."""
  (tmp_path / "pictures").mkdir()
  Image.new("RGB", (8, 8)).save(tmp_path / "pictures" / "a.png")
  state = encoder_state(grid=(3, 3), width=16)
  neck = {"neck.weight": np.ones(3, np.float32)}
  contents = {
    "two.pth": {"model": state, "ema": {name: array + 1 for name, array in state.items()}},
    "neck.pth": {f"a.{name}": array for name, array in state.items()} | neck,
  }
  for name, content in contents.items():
    (tmp_path / name).write_bytes(torch_bytes.zip_file(content))
  return tmp_path


def error_of(capsys, verb, path, *words):
  """Runs a verb and returns the last line of its errors, or "" if there is none."""
  command.main([verb, str(path), *(word.replace("DIR", str(path.parent)) for word in (*VERBS[verb], *words))])
  return "".join(capsys.readouterr().err.splitlines()[-1:])


@pytest.mark.parametrize("verb", VERBS)
def test_the_options_reach_the_reader(capsys, files, verb):
  two, neck = files / "two.pth", files / "neck.pth"
  for words, expected in (
    ((two,), "holds 2 encoders; choose one of them: --key=model | --key=ema"),
    ((two, "--key=no"), "no entry 'no' with tensors; entries with tensors are model, ema"),
    ((neck, "--prefix=no."), "no name begins with 'no.'; names are "),
    (
      (neck,),
      "expected names of the timm family, found neck.weight; to read only the encoder, set --encoder_only",
    ),
  ):
    line = error_of(capsys, verb, *words)
    assert expected in line
  for words in ((two, "--key=ema"), (neck, "--encoder_only"), (neck, "--prefix=a.")):
    line = error_of(capsys, verb, *words)
    assert not re.search("holds 2|no entry|no name|expected names", line)


def test_the_configuration_of_a_run_has_the_same_three_keys(files):
  two, neck = files / "two.pth", files / "neck.pth"
  with pytest.raises(
    ValueError, match=r"choose one of them: --config\.init_key=model \| --config\.init_key=ema"
  ):
    initial.read(two)
  with pytest.raises(ValueError, match=r"to read only the encoder, set --config\.init_encoder_only=True"):
    initial.read(neck)
  first = encoder_state(grid=(3, 3), width=16)["norm.bias"]
  np.testing.assert_array_equal(initial.read(two, key="ema").params["encoder"]["norm"]["bias"], first + 1)
  for options in ({"prefix": "a."}, {"encoder_only": True}):
    weights = initial.read(neck, **options)
    assert weights.unused == ("neck.weight",)
    np.testing.assert_array_equal(weights.params["encoder"]["norm"]["bias"], first)
