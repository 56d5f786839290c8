"""Fixtures of the conversion tests."""

import pytest

from tests.io import torch_bytes


@pytest.fixture
def write(tmp_path):
  """Returns a function that writes a checkpoint without PyTorch and returns its path."""

  def write_file(value, form="zip"):
    path = tmp_path / "weights.pth"
    path.write_bytes({"zip": torch_bytes.zip_file, "legacy": torch_bytes.legacy_file}[form](value))
    return path

  return write_file
