"""Written PyTorch files are read by PyTorch and by this project."""

import numpy as np
import pytest

from hap_jax.io import torch_file, torch_writer

CONTENT = {
  "model": {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "turned": np.arange(6, dtype=np.float32).reshape(2, 3).T,
    "count": np.array(7, np.int64),
    "half": np.ones((1, 2, 3), np.float16),
  },
  "arch": "vit — größer",
  "numbers": [0, -1, 255, 256, -(1 << 40), 1 << 63, 0.1, True, False, None],
  "nested": {"pair": (1, "a"), "empty": {}, "none": []},
}


def same(got, want):
  """Checks that two nested values are equal, with equal types."""
  if isinstance(want, dict):
    assert list(got) == list(want)
    for key in want:
      same(got[key], want[key])
  elif isinstance(want, np.ndarray):
    assert np.asarray(got).dtype == want.dtype
    np.testing.assert_array_equal(np.asarray(got), want)
  else:
    assert got == want
    assert type(got) is type(want)


def test_a_written_file_is_read_with_the_same_content(tmp_path):
  torch_writer.save(tmp_path / "a.pth", CONTENT)
  same(torch_file.load(tmp_path / "a.pth"), CONTENT)


def test_pytorch_reads_a_written_file_with_weights_only(tmp_path):
  torch = pytest.importorskip("torch")
  torch_writer.save(tmp_path / "a.pth", CONTENT)
  # PyTorch maps a file only if its tensors are stored without compression.
  for mmap in (False, True):
    got = torch.load(tmp_path / "a.pth", weights_only=True, mmap=mmap)
    same(got, CONTENT)
    assert got["model"]["turned"].is_contiguous()


def test_the_same_content_makes_the_same_bytes(tmp_path):
  for name in ("a.pth", "b.pth"):
    torch_writer.save(tmp_path / name, CONTENT)
  assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


def test_a_value_of_another_type_is_an_error(tmp_path):
  with pytest.raises(TypeError, match="a set has no place in a checkpoint"):
    torch_writer.save(tmp_path / "a.pth", {"a": {1}})
