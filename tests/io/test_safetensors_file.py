"""Files in the format safetensors are written and read."""

import ml_dtypes
import numpy as np
import pytest

from hap_jax.io import safetensors_file

TENSORS = {
  "a": np.arange(6, dtype=np.float32).reshape(2, 3),
  "half": np.array([1.5, -2.0], ml_dtypes.bfloat16),
  "count": np.array(3, np.int64),
  "none": np.zeros((0, 4), np.float32),
}


def test_tensors_and_metadata_are_read_back_bit_for_bit(tmp_path):
  path = tmp_path / "a.safetensors"
  # A transposed array is not contiguous, and the package would write its memory in the wrong order.
  safetensors_file.save(path, {**TENSORS, "turned": TENSORS["a"].T}, {"hap_jax": "{}"})
  tensors, metadata = safetensors_file.load(path)
  assert metadata == {"format": "pt", "hap_jax": "{}"}
  assert tensors.keys() == {*TENSORS, "turned"}
  for name, want in TENSORS.items():
    assert tensors[name].dtype == want.dtype
    assert tensors[name].shape == want.shape
    np.testing.assert_array_equal(tensors[name], want)
    assert not tensors[name].flags.writeable
  np.testing.assert_array_equal(tensors["turned"], TENSORS["a"].T)


@pytest.mark.parametrize("keep", [5, 60, -1])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, keep):
  path = tmp_path / "a.safetensors"
  safetensors_file.save(path, TENSORS, {})
  path.write_bytes(path.read_bytes()[:keep])
  with pytest.raises(ValueError, match=r"a\.safetensors: truncated, corrupt or no safetensors file"):
    safetensors_file.load(path)


def test_a_missing_folder_is_an_os_error(tmp_path):
  with pytest.raises(OSError, match=r"no/a\.safetensors"):
    safetensors_file.save(tmp_path / "no" / "a.safetensors", TENSORS, {})
