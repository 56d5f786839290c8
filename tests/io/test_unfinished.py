"""Files and folders get their name only when they are complete."""

import pytest

from hap_jax.io import unfinished
from tests.io import full_disk


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


@pytest.mark.parametrize("new", [unfinished.new_folder, unfinished.new_file])
def test_the_error_of_a_full_disk_names_the_result(tmp_path, new):
  def make():
    with new(tmp_path / "out") as made:
      if new is unfinished.new_folder:
        (made / "a").write_bytes(bytes(2000))
      else:
        made.write(bytes(2000))

  with full_disk.files_end_at(1000), pytest.raises(OSError, match=rf"too large: '{tmp_path}/out'$"):
    make()
  assert names_in(tmp_path) == []


def test_another_error_is_not_changed(tmp_path):
  with pytest.raises(OSError, match=r"^\[Errno 5\] broken$"), unfinished.new_folder(tmp_path / "out"):
    raise OSError(5, "broken")


def test_the_first_error_is_raised_even_if_there_is_nothing_to_remove(tmp_path):
  with pytest.raises(ValueError, match="first"), unfinished.named_at_end(tmp_path / "gone" / "deeper"):
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


def test_a_folder_is_replaced_only_on_request_and_only_at_the_end(tmp_path):
  out = tmp_path / "out"
  out.mkdir()
  (out / "old").write_text("x")
  with unfinished.named_at_end(out, replace=True) as part:
    part.mkdir()
    (part / "new").write_text("y")
    assert names_in(out) == ["old"]
  assert names_in(tmp_path) == ["out"]
  assert names_in(out) == ["new"]


def test_a_folder_is_kept_if_there_is_nothing_to_replace_it(tmp_path):
  out = tmp_path / "out"
  out.mkdir()
  (out / "old").write_text("x")
  with pytest.raises(FileNotFoundError), unfinished.named_at_end(out, replace=True):
    pass  # nothing was made
  assert names_in(tmp_path) == ["out"]
  assert names_in(out) == ["old"]


def test_text_and_bytes_replace_a_file(tmp_path):
  path = tmp_path / "a.json"
  for data, found in (("ä", "ä".encode()), (b"\xff", b"\xff")):
    unfinished.write(path, data)
    assert path.read_bytes() == found
  assert names_in(tmp_path) == ["a.json"]


def test_several_writers_of_one_name_do_not_disturb_each_other(tmp_path):
  path = tmp_path / "a"
  with unfinished.new_file(path) as first, unfinished.new_file(path) as second:
    first.write(b"1" * 9)
    second.write(b"2")
  assert path.read_bytes() == b"1" * 9  # the result of the writer that ends last
  assert names_in(tmp_path) == ["a"]
