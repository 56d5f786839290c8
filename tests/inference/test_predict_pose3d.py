"""Files of 3D pose: each person has a name of their own."""

from hap_jax.inference.predict import pose3d


def test_pictures_that_differ_only_in_their_endings_have_different_results():
  files = ["a.jpg", "a.png", "b/a.jpg", "a.jpg", "a.jpg.png", "c", ".jpg"]
  names = pose3d._names(files)
  assert names == ["a.jpg_01", "a.png_01", "b/a_01", "a.jpg_02", "a.jpg_03", "c_01", ".jpg_01"]
