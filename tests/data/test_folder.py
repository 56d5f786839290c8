"""The source of a plain folder has all its visible pictures and nothing else."""

import pytest
from PIL import Image

from hap_jax.data.sources import folder


def put(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new("RGB", (8, 16)).save(path)


def test_links_are_followed_and_hidden_names_and_other_files_are_left_out(tmp_path):
  root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
  for name in ("b.jpg", "sub/a.PNG", "sub.jpg/c.webp"):
    put((root / name).with_suffix(".png"))
    (root / name).with_suffix(".png").rename(root / name)
  put(elsewhere / "d.png")
  (root / ".hidden").mkdir()
  for name in ("._b.jpg", ".hidden/e.jpg", "notes.txt"):
    (root / name).write_bytes(b"no picture")
  (root / "linked").symlink_to(elsewhere)
  (root / "sub" / "round").symlink_to(root)
  source = folder.open_source(root=str(root))
  assert source.paths == ("b.jpg", "linked/d.png", "sub.jpg/c.webp", "sub/a.PNG")
  assert [source[i]["image"].shape for i in range(4)] == [(16, 8, 3)] * 4


def test_folder_without_pictures_is_an_error(tmp_path):
  (tmp_path / "empty").mkdir()
  with pytest.raises(ValueError, match="no picture in this folder or below it"):
    folder.open_source(root=str(tmp_path))
