"""Files and folders get their name only when they are complete."""

import pytest

from hap_jax.io import unfinished


def names_in(folder):
  return sorted(path.name for path in folder.iterdir())


def test_a_folder_gets_its_name_only_when_it_is_complete(tmp_path):
  with unfinished.new_folder(tmp_path / "out") as folder:
    (folder / "a").write_text("x")
    assert not (tmp_path / "out").exists()
    assert folder.name.startswith(".out.")  # hidden until it is complete
  assert names_in(tmp_path) == ["out"]
  assert (tmp_path / "out" / "a").read_text() == "x"


def test_a_file_gets_its_name_only_when_it_is_complete(tmp_path):
  with unfinished.new_file(tmp_path / "out.npz") as file:
    file.write(b"x")
    assert not (tmp_path / "out.npz").exists()
    assert file.name.endswith(".npz")
  assert names_in(tmp_path) == ["out.npz"]
  assert (tmp_path / "out.npz").read_bytes() == b"x"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("new", [unfinished.new_folder, unfinished.new_file])
def test_nothing_is_left_after_an_error(tmp_path, new, error):
  def make():
    with new(tmp_path / "out") as made:
      if new is unfinished.new_folder:
        (made / "a").write_text("x")
      raise error("stop")

  with pytest.raises(error):
    make()
  assert names_in(tmp_path) == []


def test_the_first_error_is_raised_if_there_is_nothing_to_remove(tmp_path):
  with pytest.raises(ValueError, match="first"), unfinished.removed_on_error(tmp_path / "gone" / "deeper"):
    raise ValueError("first")


def test_a_folder_that_another_program_made_meanwhile_is_kept(tmp_path):
  def make():
    with unfinished.new_folder(tmp_path / "out"):
      (tmp_path / "out").mkdir()
      (tmp_path / "out" / "theirs").write_text("x")

  with pytest.raises(OSError, match="out"):
    make()
  assert names_in(tmp_path) == ["out"]
  assert names_in(tmp_path / "out") == ["theirs"]
