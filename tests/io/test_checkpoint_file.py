"""Checkpoints of this project are written and read as files."""

import jax
import numpy as np
import pytest

from hap_jax.description import Description, Encoder
from hap_jax.io import checkpoint_file
from hap_jax.train import checkpoint
from tests.io.full_disk import files_end_at

VARIABLES = {
  "params": {"encoder": {"norm": {"scale": np.arange(4, dtype=np.float32), "bias": np.ones(4, np.float32)}}},
  "batch_stats": {"bn": {"mean": np.full(3, 0.5, np.float32), "var": np.ones(3, np.float32)}},
}
DESCRIPTION = Description("reid", Encoder(width=4, depth=1, num_heads=1, grid=(4, 2), patch=8))


def same(got, want):
  """Checks that two trees have equal leaves."""
  jax.tree.map(np.testing.assert_array_equal, got, want)


def test_weights_and_description_are_read_as_they_were_written(tmp_path):
  description = {"task": "reid", "model": {"grid": [16, 8]}, "lineage": [{"licence": "CC-BY-NC 4.0"}]}
  checkpoint_file.write(tmp_path / "a", VARIABLES, description)
  variables, read = checkpoint_file.read(tmp_path / "a")
  same(variables, VARIABLES)
  assert read == description


def test_weights_without_other_collections_have_only_parameters(tmp_path):
  checkpoint_file.write(tmp_path / "a", {"params": VARIABLES["params"]}, {})
  variables, _ = checkpoint_file.read(tmp_path / "a")
  same(variables, {"params": VARIABLES["params"]})


def test_reading_a_run_gives_the_moving_average_of_its_newest_step(tmp_path):
  moved = jax.tree.map(lambda x: x + 1, VARIABLES)
  for step in (9, 20):
    state = {
      "step": np.int32(step),
      "params": VARIABLES["params"],
      "model_state": {"batch_stats": VARIABLES["batch_stats"]},
      "opt_state": {"mu": VARIABLES["params"]},
      "ema": moved if step == 20 else {},  # a run without an average stores an empty dict
    }
    with checkpoint.Checkpoints(tmp_path, keep_last=2) as checkpoints:
      checkpoints.save(step, state, DESCRIPTION)
  for path in (tmp_path, tmp_path / "checkpoints", tmp_path / "checkpoints" / "20"):
    variables, description = checkpoint_file.read(path)
    same(variables, moved)
    assert description["step"] == 20
  same(checkpoint_file.read(tmp_path / "checkpoints" / "9")[0], VARIABLES)


def test_an_existing_folder_is_an_error_and_stays_unchanged(tmp_path):
  with pytest.raises(FileExistsError):
    checkpoint_file.write(tmp_path, VARIABLES, {})
  assert not list(tmp_path.iterdir())


def test_a_damaged_checkpoint_and_an_empty_folder_are_errors(tmp_path):
  with pytest.raises(ValueError, match="holds no checkpoint: expected a run's workdir"):
    checkpoint_file.read(tmp_path)
  checkpoint_file.write(tmp_path / "a", VARIABLES, {})
  # Only the metadata is left, as after an incomplete copy.
  for path in (tmp_path / "a" / "state").rglob("*"):
    if path.is_file() and path.name != "_METADATA":
      path.unlink()
  with pytest.raises(ValueError, match=r"checkpoint .*/a is damaged: state/.* is missing; use another"):
    checkpoint_file.read(tmp_path / "a")
  (tmp_path / "a/digests.json").unlink()  # as in a checkpoint of an older version
  with pytest.raises(ValueError, match=r"checkpoint .*/a cannot be read; is the copy complete"):
    checkpoint_file.read(tmp_path / "a")


def test_nothing_is_left_after_the_disk_became_full(tmp_path):
  # Orbax writes several arrays at a time, so some succeed before the disk is full.
  many = {"params": {f"layer_{i}": {"kernel": np.random.default_rng(i).normal(size=5000)} for i in range(40)}}
  with files_end_at(20_000), pytest.raises((OSError, ValueError), match="File too large"):
    checkpoint_file.write(tmp_path / "a", many, {})
  assert not list(tmp_path.iterdir())
