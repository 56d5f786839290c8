"""The reader of .npy files: arrays and plain objects are read, hostile and damaged files are errors."""

import os

import numpy as np
import pytest

from hap_jax.io import restricted_pickle
from hap_jax.io.restricted_pickle import UnsafePickleError
from tests.io.samples import ARRAYS, Call, assert_same_array


def load(path):
  return restricted_pickle.load_npy(path.read_bytes(), path)


def test_poses_saved_as_object_arrays_are_read(tmp_path):
  keypoints = np.random.default_rng(0).normal(size=(17, 3)).astype(np.float32)
  people = [{"bbox": np.arange(5.0), "keypoints": keypoints}]
  # The layout of the published pose files: an object array of people and heat maps.
  pair = np.empty((2, 1), object)
  pair[0, 0], pair[1, 0] = people[0], [{"heatmap": np.zeros((1, 2), np.float32)}]
  np.save(tmp_path / "pose.npy", pair)
  got = load(tmp_path / "pose.npy")
  assert got.shape == (2, 1)
  assert_same_array(got[0][0]["keypoints"], keypoints)


@pytest.mark.parametrize("array", [*ARRAYS, np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")])], ids=repr)
def test_npy_files_without_objects_are_read(tmp_path, array):
  np.save(tmp_path / "a.npy", array)
  got = load(tmp_path / "a.npy")
  assert_same_array(got, array)
  assert got.flags.writeable


def test_a_hostile_npy_file_is_refused_and_does_not_run(tmp_path):
  proof, path = tmp_path / "ran", tmp_path / "pose.npy"
  array = np.empty((1, 1), object)
  array[0, 0] = Call(os.system, f"echo > {proof}")
  np.save(path, array)
  with pytest.raises(UnsafePickleError, match=r"pose\.npy.*system"):
    load(path)
  assert not proof.exists()
  np.load(path, allow_pickle=True)  # NumPy's own reader runs it, so the attack is real
  assert proof.exists()


def test_an_npy_file_with_objects_in_records_is_refused(tmp_path):
  np.save(tmp_path / "a.npy", np.array([(1, None)], [("a", "i4"), ("b", "O")]))
  with pytest.raises(UnsafePickleError, match="mixes Python objects into records"):
    load(tmp_path / "a.npy")


def test_an_npy_file_cut_at_any_byte_is_an_error_with_the_file_name(tmp_path):
  path = tmp_path / "cut.npy"
  for array in (np.arange(3), np.array([{"a": 1}], object)):
    np.save(path, array)
    data = path.read_bytes()
    for end in range(len(data)):
      path.write_bytes(data[:end])
      with pytest.raises(ValueError, match=r"cut\.npy"):
        load(path)


def test_an_npy_header_with_a_wrong_shape_is_an_error(tmp_path):
  path = tmp_path / "lie.npy"
  np.save(path, np.array([{}], object))
  # The header has the same length, so only its numbers are wrong.
  path.write_bytes(path.read_bytes().replace(b"(1,)", b"(7,)"))
  with pytest.raises(ValueError, match=r"expected an object array of shape .*as in the header"):
    load(path)
  np.save(path, np.arange(3))
  path.write_bytes(path.read_bytes().replace(b"(3,), }           ", b"(300000000000,), }"))
  with pytest.raises(ValueError, match="needs 2400000000000 bytes, got 24"):
    load(path)
