"""`hap embed` makes one vector per picture; an option allows a share of unreadable pictures."""

import re

import numpy as np
import pytest
from PIL import Image

from hap_jax.cli.__main__ import main as hap
from hap_jax.convert import read as reading
from hap_jax.io import checkpoint_file
from tests.convert.reference_state import family_state
from tests.io import torch_bytes


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """Returns the path of an encoder with one block and random weights, for pictures of 16 x 8."""
  folder = tmp_path_factory.mktemp("encoder")
  path = folder / "mae.pth"
  path.write_bytes(torch_bytes.zip_file({"model": family_state("mae", depth=1)}))
  weights = reading.read(path, grid=(4, 2)).with_encoder(num_heads=2)
  checkpoint_file.write(folder / "own", weights.variables, weights.facts())
  return str(folder / "own")


@pytest.fixture(scope="module")
def people(tmp_path_factory):
  """Returns a folder of ten pictures, of which 3.png and 9.png are not pictures."""
  root = tmp_path_factory.mktemp("people")
  for number in range(10):
    pixels = np.random.default_rng(number).integers(0, 255, (40, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(root / f"{number}.png")
  for number in (3, 9):
    (root / f"{number}.png").write_bytes(b"no picture")
  return root


def test_unreadable_pictures_within_the_allowed_share_are_left_out(
  checkpoint, people, tmp_path, capsys, eager_progress
):
  words = ["embed", checkpoint, str(people), "--batch_size=8"]
  assert hap([*words, f"--out={tmp_path / 'all.npz'}", "--max_bad_share=0.2"]) == 0
  captured = capsys.readouterr()
  assert "left out: 2\n" in captured.out
  assert re.search(r"^embed: \d+ of 10 pictures, \d+ %, ", captured.err, re.MULTILINE)
  good = tmp_path / "good"
  good.mkdir()
  names = [f"{number}.png" for number in range(10) if number not in (3, 9)]
  for name in names:
    (good / name).symlink_to(people / name)
  words[2] = str(good)
  assert hap([*words, f"--out={tmp_path / 'good.npz'}"]) == 0
  assert "left out" not in capsys.readouterr().out
  with np.load(tmp_path / "all.npz") as found, np.load(tmp_path / "good.npz") as wanted:
    assert found["path"].tolist() == wanted["path"].tolist() == names
    # The two folders put the same pictures into different batches, so the last bits may differ.
    np.testing.assert_allclose(found["feature"], wanted["feature"], atol=1e-6)


@pytest.mark.parametrize(("words", "share"), [((), "0"), (("--max_bad_share=0.15",), "0.15")])
def test_more_unreadable_pictures_are_an_error_that_names_the_option(
  checkpoint, people, tmp_path, capsys, words, share
):
  out = tmp_path / "vectors.npz"
  assert hap(["embed", checkpoint, str(people), f"--out={out}", "--batch_size=16", *words]) == 1
  error = capsys.readouterr().err.splitlines()[-1]
  assert (
    f"2 of 10 records of folder cannot be read, more than the share {share} that --max_bad_share" in error
  )
  assert "or raise --max_bad_share. The first: " in error
  assert "3.png" in error
  assert "config" not in error
  assert not out.exists()


def test_predict_still_needs_every_picture_and_names_no_option(checkpoint, people, tmp_path, capsys):
  words = [str(people / "0.png"), f"--gallery={people}", f"--out={tmp_path / 'found'}", "--batch_size=16"]
  assert hap(["predict", checkpoint, *words]) == 1
  error = capsys.readouterr().err.splitlines()[-1]
  assert "2 of 10 records of folder cannot be read: repair or remove the records. The first: " in error
  assert "max_bad_share" not in error
  assert not (tmp_path / "found").exists()


@pytest.mark.parametrize("share", ["nan", "-0.1", "1.5", "inf", "half"])
def test_a_share_that_is_not_from_0_to_1_is_an_error(tmp_path, capsys, share):
  for words in (["embed", "checkpoint", str(tmp_path)], ["prepare", "folder", f"--root={tmp_path}"]):
    with pytest.raises(SystemExit) as ended:
      hap([*words, f"--out={tmp_path / 'out'}", f"--max_bad_share={share}"])
    assert ended.value.code == 2
    assert f"'{share}': expected a number from 0 to 1" in capsys.readouterr().err
