"""Files of 3D pose: each person has a name of their own."""

import os

from hap_jax.inference.predict import pose3d


def test_pictures_that_differ_only_in_their_endings_have_different_results():
  files = ["a.jpg", "a.png", "b/a.jpg", "a.jpg", "a.jpg.png", "c", ".jpg"]
  names = pose3d._names(files)
  assert names == ["a.jpg_01", "a.png_01", "b/a_01", "a.jpg_02", "a.jpg_03", "c_01", ".jpg_01"]


def test_results_of_long_names_can_be_written():
  longest = "ü" * 125 + "a.jpg", "ü" * 125 + "b.jpg", os.fsdecode(b"\xe9" * 251) + ".png", "x" * 251 + ".png"
  names = pose3d._names([f"folder/{file}" for file in longest])
  assert len(set(names)) == len(names)
  assert names[:2] == [f"folder/{'ü' * 100}_01", f"folder/{'ü' * 100}_02"]
  for name in names:
    # The file for the pixels has a longer name until it is complete.
    assert len(os.fsencode(os.path.basename(name))) <= 255 - len(f"..{'0' * 16}.part.png")


def test_results_never_take_the_name_of_a_folder_of_pictures():
  names = pose3d._names(["a.jpg", "a_01.npz/b.jpg", "a_02.png/c/d.jpg", "c_01/e.jpg", "c.jpg"])
  assert names == ["a_03", "a_01.npz/b_01", "a_02.png/c/d_01", "c_01/e_01", "c_01"]
