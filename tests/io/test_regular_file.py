"""Data files are opened without waiting, and only if they are regular files."""

import os
import signal
import socket

import pytest

from hap_jax.data.sources import base, coco_persons, folder, luperson, msmt17
from hap_jax.io import picture_file, regular_file, restricted_pickle
from tests.io.test_picture_file import picture


@pytest.fixture(autouse=True)
def time_limit():
  """Raises TimeoutError in a test that waits for a FIFO."""

  def give_up(number, frame):
    raise TimeoutError("a FIFO was opened as if it were a regular file")

  before = signal.signal(signal.SIGALRM, give_up)
  signal.alarm(20)
  yield
  signal.alarm(0)
  signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["FIFO", "device", "folder", "socket"])
def irregular(request, tmp_path):
  """(path, kind) of a path that has the name of a file and is not a regular file."""
  path = tmp_path / "a.jpg"
  if request.param == "FIFO":
    os.mkfifo(path)
  elif request.param == "device":
    path.symlink_to("/dev/zero")
  elif request.param == "folder":
    path.mkdir()
  else:
    with socket.socket(socket.AF_UNIX) as opened:
      opened.bind(os.path.relpath(path))  # an absolute path may be too long for a socket
  return path, request.param


def test_only_regular_files_are_opened(irregular):
  path, kind = irregular
  for read in (regular_file.open_regular, regular_file.read_bytes):
    with pytest.raises(ValueError, match=rf"a\.jpg: expected a regular file, found a .*{kind}"):
      read(path)
  with pytest.raises(base.BadRecordError, match=rf"a\.jpg: expected a regular file, found a .*{kind}"):
    base.read_image(path)


def test_a_link_to_a_regular_file_is_followed(tmp_path):
  picture_file.write(tmp_path / "a.png", picture())
  (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
  assert regular_file.read_bytes(tmp_path / "link.png") == (tmp_path / "a.png").read_bytes()
  with regular_file.open_regular(tmp_path / "link.png") as file:
    assert file.read() == (tmp_path / "a.png").read_bytes()
  assert base.read_image(tmp_path / "link.png").shape == (12, 8, 3)


def test_a_file_of_unknown_size_is_read_to_its_end():
  with open("/proc/self/status", "rb") as file:  # the system reports a size of 0 for it
    assert len(regular_file.read_bytes("/proc/self/status")) == pytest.approx(len(file.read()), abs=100)
  with pytest.raises(ValueError, match="expected at most 10 bytes, found more"):
    regular_file.read_bytes("/proc/self/status", max_bytes=10)


def test_a_picture_file_of_many_gigabytes_is_not_read(tmp_path):
  with open(tmp_path / "a.jpg", "wb") as file:
    file.truncate(2**40)  # a sparse file, which takes no space on the disk
  message = r"expected at most 1,073,741,824 bytes, found 1,099,511,627,776"
  with pytest.raises(base.BadRecordError, match=message):
    base.read_image(tmp_path / "a.jpg")


def test_a_missing_file_raises_file_not_found_error(tmp_path):
  for read in (regular_file.open_regular, regular_file.read_bytes, restricted_pickle.load):
    with pytest.raises(FileNotFoundError):
      read(tmp_path / "no")


def test_a_fifo_in_place_of_a_pickle_or_pose_file_is_an_error(tmp_path):
  os.mkfifo(tmp_path / "a.pkl")
  for read in (restricted_pickle.load, luperson._read_pose):
    with pytest.raises(ValueError, match="found a FIFO"):
      read(str(tmp_path / "a.pkl"))


def test_a_fifo_in_place_of_a_list_is_an_error(tmp_path, monkeypatch):
  """The path is a regular file when the source checks it, and a FIFO when the source opens it."""
  # With this patch the check accepts a FIFO. That has the same effect as a change after the check.
  monkeypatch.setattr(os.path, "isfile", os.path.exists)
  for name in ("train", "list_val.txt", "annotations", "train2017"):
    (tmp_path / name).mkdir() if "." not in name else os.mkfifo(tmp_path / name)
  os.mkfifo(tmp_path / "list_train.txt")
  picture_file.write(tmp_path / "train2017" / "a.png", picture())
  with pytest.raises(ValueError, match=r"list_train\.txt: expected a regular file, found a FIFO"):
    msmt17.open_source(root=str(tmp_path), split="train", seed=0)
  os.mkfifo(tmp_path / "annotations" / "person_keypoints_train2017.json")
  with pytest.raises(ValueError, match=r"train2017\.json: expected a regular file, found a FIFO"):
    coco_persons.open_source(root=str(tmp_path), split="train", seed=0)


def test_a_fifo_in_a_folder_of_pictures_is_left_out(tmp_path):
  os.mkfifo(tmp_path / "a.jpg")
  picture_file.write(tmp_path / "b.png", picture())
  source = folder.open_source(root=str(tmp_path))
  assert source.paths == ("b.png",)
  with pytest.raises(ValueError, match=r"a\.jpg: no such picture"):
    folder.open_file(tmp_path / "a.jpg")
