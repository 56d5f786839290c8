"""The newest whole checkpoint is found among damaged, unfinished and old checkpoints."""

import logging

import numpy as np
import pytest

from hap_jax.cli.__main__ import main as hap
from hap_jax.io import checkpoint_digests, checkpoint_file, checkpoint_list
from tests import damage


@pytest.fixture
def folder(tmp_path):
  """Returns the folder of three whole checkpoints."""
  for step in (2, 10, 9):
    variables = {"params": {"w": np.full(3, step, np.float32)}}
    checkpoint_file.write(tmp_path / "checkpoints" / str(step), variables, {"step": step})
  return tmp_path / "checkpoints"


def read_step(path):
  """Returns the step of the checkpoint that is read. Its weights must belong to the same step."""
  variables, description = checkpoint_file.read(path)
  np.testing.assert_array_equal(variables["params"]["w"], np.full(3, description["step"]))
  return description["step"]


def test_the_highest_step_is_the_newest(folder):
  assert list(checkpoint_list.steps(folder)) == [10, 9, 2]
  assert read_step(folder.parent) == read_step(folder) == 10


def test_a_reader_takes_the_newest_whole_checkpoint_and_changes_nothing(folder, caplog):
  damage.flip(folder / "10/description/metadata", np.random.default_rng(0))
  (folder / "9/digests.json").unlink()
  before = sorted(path.name for path in folder.iterdir())
  with caplog.at_level(logging.WARNING):
    assert read_step(folder.parent) == 2
  assert [
    f"checkpoint {folder}/10 is damaged: description/metadata has changed since it was written; using 2",
    f"checkpoint {folder}/9 is damaged: digests.json is missing: the save or the copy did not end; using 2",
  ] == [record.getMessage() for record in caplog.records]
  assert sorted(path.name for path in folder.iterdir()) == before


def test_a_damaged_checkpoint_that_the_user_names_is_an_error(folder):
  damage.halve(folder / "10/state/_METADATA")
  with pytest.raises(
    ValueError, match=r"10 is damaged: state/_METADATA has .* bytes, expected .*; use another"
  ):
    checkpoint_file.read(folder / "10")
  assert read_step(folder / "9") == 9


def test_no_whole_checkpoint_is_an_error_that_lists_all_checkpoints(folder):
  for step in (2, 9, 10):
    (folder / f"{step}/state/_METADATA").unlink()
  checkpoint_list.rename_damaged(folder / "10")
  with pytest.raises(ValueError, match="has no whole checkpoint: 9") as error:
    checkpoint_file.read(folder.parent)
  assert "9 (state/_METADATA is missing), 2 (state/_METADATA is missing), 10.damaged" in str(error.value)
  for step in (2, 9):
    checkpoint_list.rename_damaged(folder / str(step))
  with pytest.raises(ValueError, match=r"has no whole checkpoint: 10\.damaged .*, 2\.damaged .*, 9\.damaged"):
    checkpoint_file.read(folder.parent)


def test_checkpoints_of_an_older_version_are_used_with_a_note(folder, caplog):
  for step in (2, 9, 10):
    (folder / f"{step}/digests.json").unlink()
  with caplog.at_level(logging.WARNING):
    assert read_step(folder.parent) == 10
  assert "10: no digests.json, because an older version wrote it" in caplog.text
  # If one checkpoint has digests, all checkpoints without digests are treated as unfinished.
  checkpoint_digests.write(folder / "2", {})
  assert checkpoint_file.find(folder.parent) == folder / "2"


def test_a_second_damaged_checkpoint_of_a_step_gets_another_name(folder):
  first = checkpoint_list.rename_damaged(folder / "9")
  checkpoint_file.write(folder / "9", {"params": {"w": np.zeros(3, np.float32)}}, {"step": 9})
  second = checkpoint_list.rename_damaged(folder / "9")
  assert (first.name, second.name) == ("9.damaged", "9.damaged-2")
  assert [path.name for path in checkpoint_list.set_aside(folder)] == ["9.damaged", "9.damaged-2"]


def test_describe_checks_and_lists_every_checkpoint(folder, capsys):
  # A description of a real task is not needed for the list.
  best = folder.parent / "best"
  checkpoint_file.write(best / "9", {"params": {"w": np.zeros(3, np.float32)}}, {"step": 9})
  damage.flip(folder / "2/state/_METADATA", np.random.default_rng(0))
  (folder / "9/state/manifest.ocdbt").unlink()
  checkpoint_list.rename_damaged(folder / "9")
  assert checkpoint_file.check_all(folder.parent) == [
    {"name": "checkpoints/10", "state": "whole"},
    {"name": "checkpoints/2", "state": "damaged: state/_METADATA has changed since it was written"},
    {"name": "checkpoints/9.damaged", "state": "damaged: a run renamed it"},
    {"name": "best/9", "state": "whole"},
  ]
  assert checkpoint_file.check_all(folder / "10") == [{"name": "10", "state": "whole"}]
  assert checkpoint_file.check_all(best) == [{"name": "9", "state": "whole"}]
  damage.halve(folder / "10/state/manifest.ocdbt")
  assert hap(["describe", str(folder.parent)]) == 1
  error = capsys.readouterr().err
  assert "no whole checkpoint: 10 (state/manifest.ocdbt has" in error
  assert "2 (state/_METADATA has changed since it was written), 9.damaged" in error


def test_leftovers_of_a_kill_are_removed(folder):
  hidden = folder / ".11.0123456789abcdef.part"
  orbax = folder / "11.orbax-checkpoint-tmp-5"
  for path in (hidden, orbax):
    (path / "state").mkdir(parents=True)
  (folder / ".keep").mkdir()
  checkpoint_list.remove_leftovers(folder)
  assert sorted(path.name for path in folder.iterdir()) == [".keep", "10", "2", "9"]
