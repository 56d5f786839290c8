"""The source of a plain folder has all its visible pictures and nothing else."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from hap_jax.data.sources import folder


def put(path, orientation=1):
  path.parent.mkdir(parents=True, exist_ok=True)
  pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 3), np.uint8)
  exif = Image.Exif()
  exif[0x0112] = orientation
  Image.fromarray(pixels).save(path, exif=exif)


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


def test_pictures_are_turned_unless_exif_is_ignore(tmp_path):
  put(tmp_path / "a.png", 6)
  stored = Image.open(tmp_path / "a.png")
  upright = np.asarray(ImageOps.exif_transpose(stored))
  for source in (folder.open_source(root=str(tmp_path)), folder.open_file(tmp_path / "a.png")):
    assert source.spec.exif == "apply"
    np.testing.assert_array_equal(source[0]["image"], upright)
  for source in (
    folder.open_source(root=str(tmp_path), exif="ignore"),
    folder.open_file(tmp_path / "a.png", exif="ignore"),
  ):
    assert source.spec.exif == "ignore"
    np.testing.assert_array_equal(source[0]["image"], np.asarray(stored))
  with pytest.raises(ValueError, match=r'config\.data\.folder\.exif=\'yes\': expected "apply" or "ignore"'):
    folder.open_source(root=str(tmp_path), exif="yes")


def test_pictures_of_other_formats_and_links_to_nothing_are_counted_in_one_line(tmp_path, caplog):
  put(tmp_path / "a.png")
  assert folder.open_source(root=str(tmp_path)).spec.notes == ()
  (tmp_path / "below").mkdir()
  for name in ("b.tif", "below/c.TIF", "d.gif", "below/e.jfif", ".hidden.tif", "notes.txt", "Thumbs.db"):
    (tmp_path / name).write_bytes(b"not opened")
  (tmp_path / "f.tif").mkdir()
  (tmp_path / "g.jpg").symlink_to(tmp_path / "nowhere")
  (tmp_path / "below" / "h.jpg").symlink_to("h.jpg")  # points to itself
  (tmp_path / "i.jpg").symlink_to("a.png")
  source = folder.open_source(root=str(tmp_path))
  assert source.paths == ("a.png", "i.jpg")
  note = (
    "6 files left out: 1 .gif, 1 .jfif, 2 .tif, 2 links to nothing; convert pictures to JPEG or PNG, repair "
    "or delete links"
  )
  assert source.spec.notes == (note,)
  assert [record.getMessage() for record in caplog.records] == [f"folder: {note}"]


@pytest.mark.parametrize(
  ("names", "links", "note"),
  [
    (["a.tif"], [], "1 file left out: 1 .tif; convert them to JPEG or PNG"),
    ([], ["a"], "1 file left out: 1 link to nothing; repair or delete links"),
  ],
)
def test_an_error_about_a_folder_without_pictures_counts_the_files_that_were_left_out(
  tmp_path, names, links, note
):
  for name in names:
    (tmp_path / name).touch()
  for name in links:
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
  with pytest.raises(ValueError, match=f"no picture in this folder or below it; .*; {note}$") as error:
    folder.open_source(root=str(tmp_path))
  assert "\n" not in str(error.value)
