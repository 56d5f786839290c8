"""The digest file of a checkpoint shows every change of its other files and of itself."""

import hashlib
import json
import os
import shutil

import ml_dtypes
import numpy as np
import pytest

from hap_jax.io import checkpoint_digests, checkpoint_file
from tests import damage

WEIGHTS = {"blocks": {"kernel": np.random.default_rng(0).normal(size=(2, 30, 20)).astype(np.float32)}}
STATS = {"batch_stats": {"neck": {"mean": np.zeros(20, np.float32), "var": np.ones(20, np.float32)}}}
STATE = {
  "step": np.int32(7),
  "params": WEIGHTS,
  "model_state": STATS,
  "opt_state": {"mu": WEIGHTS, "nu": WEIGHTS},
  "ema": {"params": WEIGHTS, **STATS},
}
FLIPS = 300


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  folder = tmp_path_factory.mktemp("checkpoints") / "7"
  checkpoint_file.write(folder, STATE, {"task": "reid", "step": 7})
  return folder


@pytest.fixture
def copy(whole, tmp_path):
  return shutil.copytree(whole, tmp_path / "7")


def test_each_of_300_flipped_bytes_is_noticed_and_its_file_is_named(copy):
  rng = np.random.default_rng(0)
  files, flipped = damage.files_of(copy), set()
  sizes = np.array([path.stat().st_size for path in files])
  for number in range(FLIPS):
    # Half of the bytes are drawn among all bytes. The other half gives each file the same chance.
    path = rng.choice(files, p=sizes / sizes.sum() if number % 2 else None)
    before = path.read_bytes()
    damage.flip(path, rng)
    found = checkpoint_digests.find_damage(copy)
    assert found is not None, path
    assert found.startswith(path.relative_to(copy).as_posix()), found
    path.write_bytes(before)
    flipped.add(path)
  assert flipped == set(files)
  assert checkpoint_digests.find_damage(copy) is None


@pytest.mark.parametrize(
  "change",
  [
    {"files": {"../7/state/_METADATA": [1, "a"]}},
    {"files": {"/etc/hostname": [1, "a"]}},
    {"files": {"state/_METADATA": 5}},
    {"files": {"state/_METADATA": ["1", "a"]}},
    {"files": []},
    {"arrays": {"step": 7}},
    {"arrays": None},
  ],
)
def test_a_digest_file_of_another_form_is_damage(copy, change):
  """The file may come from an unknown author, and its own digest may be correct."""
  path = copy / checkpoint_digests.FILE
  body = json.loads(path.read_text()) | change
  del body["digest"]
  body["digest"] = hashlib.sha256((json.dumps(body, indent=1, sort_keys=True) + "\n").encode()).hexdigest()
  path.write_text(json.dumps(body, indent=1, sort_keys=True) + "\n")
  assert checkpoint_digests.find_damage(copy).startswith(checkpoint_digests.FILE)


def test_a_change_of_any_byte_of_the_digest_file_is_damage(copy):
  path = copy / checkpoint_digests.FILE
  before = path.read_bytes()
  for place in range(0, len(before), 7):
    changed = bytearray(before)
    changed[place] ^= 1
    path.write_bytes(changed)
    assert checkpoint_digests.find_damage(copy) == "digests.json cannot be read (its own digest differs)"
  for text in (before.replace(b"\n", b"\n "), b"", b"[]", b"null", b"{}", b'{"digest": ""}', b"[" * 100_000):
    path.write_bytes(text)
    assert "its own digest differs" in checkpoint_digests.find_damage(copy)


def test_a_shorter_and_a_missing_file_are_named(copy):
  for path in damage.files_of(copy):
    name, before = path.relative_to(copy).as_posix(), path.read_bytes()
    damage.halve(path)
    assert checkpoint_digests.find_damage(copy).startswith(f"{name} ")
    path.unlink()
    assert checkpoint_digests.find_damage(copy) == f"{name} is missing"
    path.write_bytes(before)


def test_a_fifo_or_a_folder_in_place_of_a_file_is_damage_and_does_not_block(copy):
  path = copy / "description" / "metadata"
  size = path.stat().st_size
  path.unlink()
  os.mkfifo(path)
  assert checkpoint_digests.find_damage(copy) == f"description/metadata has 0 bytes, expected {size:,}"
  path.unlink()
  path.mkdir()
  assert checkpoint_digests.find_damage(copy).startswith("description/metadata ")


def test_files_that_do_not_belong_to_the_checkpoint_are_ignored(copy):
  (copy / ".nfs0001").write_text("")
  (copy / "state" / ".DS_Store").write_text("x")
  assert checkpoint_digests.find_damage(copy) is None


def test_the_digest_of_an_array_depends_on_all_its_bits_its_type_and_its_shape():
  array = np.arange(6, dtype=np.float32).reshape(2, 3)
  negative_zero = array.copy()
  negative_zero[0, 0] = -0.0
  others = [negative_zero, array.T, array.ravel(), array.view(np.int32), array.astype(ml_dtypes.bfloat16)]
  digests = {checkpoint_digests.digest_array(x) for x in (array, *others)}
  assert len(digests) == 6
  assert checkpoint_digests.digest_array(np.asfortranarray(array)) == checkpoint_digests.digest_array(array)
  assert len(checkpoint_digests.digest_array(np.int32(3))) == 64


def test_the_names_of_arrays_are_their_paths_in_the_state(whole):
  recorded = checkpoint_digests.read_arrays(whole)
  assert recorded.keys() == checkpoint_digests.name_arrays(STATE).keys()
  assert "ema/batch_stats/neck/mean" in recorded
  read = {}
  for arrays in checkpoint_file.read_state(whole):
    read |= arrays
  assert {name: checkpoint_digests.digest_array(array) for name, array in read.items()} == recorded
