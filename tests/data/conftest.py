"""A small packed data set. Tests damage copies of it."""

import pytest

from hap_jax.cli import __main__ as cli


@pytest.fixture(scope="session")
def packed_people(tmp_path_factory):
  """Returns the folder of a packed data set of synthetic people: 8 in train, 2 in val, 3 in test."""
  out = tmp_path_factory.mktemp("packed") / "people"
  words = ["--num_train=8", "--num_val=2", "--num_test=3", "--image_size=32x16", f"--out={out}"]
  assert cli.main(["prepare", "synthetic", "--format=tfds", *words]) == 0
  return out / "hap_synthetic" / "1.0.0"
