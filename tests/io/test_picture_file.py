"""Picture files can have any name, because Python writes them. OpenCV never gets a file name."""

import os
import pathlib
import re

import numpy as np
import pytest

import hap_jax
from hap_jax.data.sources import base
from hap_jax.io import picture_file

ODD = os.fsdecode(b"caf\xe9\nx")


def picture(seed=0):
  return np.random.default_rng(seed).integers(0, 256, (12, 8, 3), dtype=np.uint8)


def test_a_picture_with_a_name_that_is_not_utf8_is_written_and_read(tmp_path):
  folder = tmp_path / ODD
  folder.mkdir()
  for ending in (".png", ".jpg", ".JPEG"):
    path = folder / (ODD + ending)
    picture_file.write(path, picture(), quality=100)
    difference = base.read_image(path).astype(int) - picture()
    assert np.abs(difference).max() <= (0 if ending == ".png" else 12)  # JPEG loses some precision
  assert len(os.listdir(folder)) == 3


def test_a_file_is_replaced_and_no_other_file_is_left(tmp_path):
  path = tmp_path / "a.png"
  picture_file.write(path, picture(0))
  picture_file.write(path, picture(1)[:, ::-1])
  np.testing.assert_array_equal(base.read_image(path), picture(1)[:, ::-1])
  assert os.listdir(tmp_path) == ["a.png"]


def test_a_wrong_ending_picture_or_folder_is_an_error(tmp_path):
  with pytest.raises(ValueError, match=r"a\.tiff: expected a name that ends in \.png, \.jpg"):
    picture_file.write(tmp_path / "a.tiff", picture())
  with pytest.raises(ValueError, match=r"shape \(12, 8, 2\) cannot be encoded as \.png"):
    picture_file.write(tmp_path / "a.png", picture()[..., :2])
  with pytest.raises(FileNotFoundError):
    picture_file.write(tmp_path / "no" / "a.png", picture())
  assert os.listdir(tmp_path) == []


def test_only_the_listed_files_call_opencv_functions_with_names_or_text():
  package = pathlib.Path(hap_jax.__file__).parent
  pattern = re.compile(
    r"\b(?:imwrite\w*|imread\w*|imencode|putText|getTextSize|FontFace|VideoCapture|VideoWriter|FileStorage)\b"
  )
  found = {
    (path.relative_to(package).as_posix(), name)
    for path in package.rglob("*.py")
    for name in pattern.findall(path.read_text(encoding="utf-8"))
  }
  assert found == {
    ("io/picture_file.py", "imencode"),
    ("io/video_decoder.py", "VideoCapture"),  # in a process of its own with a limit of its memory
    ("synthetic/camera.py", "imencode"),  # in memory only: a camera's JPEG noise
    ("viz/canvas.py", "FontFace"),
    ("viz/canvas.py", "getTextSize"),
    ("viz/canvas.py", "putText"),
  }
