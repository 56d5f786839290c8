"""Data files are opened only if they are regular, and without waiting."""

import os
import signal
import socket

import pytest

from hap_jax.data.sources import base, coco_persons, folder, luperson, msmt17
from hap_jax.io import picture_file, regular_file, restricted_pickle
from tests.io.test_picture_file import picture


@pytest.fixture(autouse=True)
def time_limit():
  """Ends a test that waits for a FIFO."""

  def give_up(number, frame):
    raise TimeoutError("the file was opened and nobody writes to it")

  before = signal.signal(signal.SIGALRM, give_up)
  signal.alarm(20)
  yield
  signal.alarm(0)
  signal.signal(signal.SIGALRM, before)


@pytest.fixture(params=["FIFO", "device", "folder", "socket"])
def irregular(request, tmp_path):
  """(path, its kind) of something under the name of a file."""
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


def test_link_to_a_regular_file_is_followed(tmp_path):
  picture_file.write(tmp_path / "a.png", picture())
  (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
  assert regular_file.read_bytes(tmp_path / "link.png") == (tmp_path / "a.png").read_bytes()
  with regular_file.open_regular(tmp_path / "link.png") as file:
    assert file.read() == (tmp_path / "a.png").read_bytes()
  assert base.read_image(tmp_path / "link.png").shape == (12, 8, 3)


def test_file_whose_size_is_not_known_is_read_whole():
  with open("/proc/self/status", "rb") as file:  # its size is 0 until it is read
    assert len(regular_file.read_bytes("/proc/self/status")) == pytest.approx(len(file.read()), abs=100)
  with pytest.raises(ValueError, match="expected at most 10 bytes, found more"):
    regular_file.read_bytes("/proc/self/status", max_bytes=10)


def test_picture_file_of_many_gigabytes_is_not_read(tmp_path):
  with open(tmp_path / "a.jpg", "wb") as file:
    file.truncate(2**40)  # a hole: it takes no disk
  message = r"expected at most 1,073,741,824 bytes, found 1,099,511,627,776"
  with pytest.raises(base.BadRecordError, match=message):
    base.read_image(tmp_path / "a.jpg")


def test_missing_file_is_reported_as_before(tmp_path):
  for read in (regular_file.open_regular, regular_file.read_bytes, restricted_pickle.load):
    with pytest.raises(FileNotFoundError):
      read(tmp_path / "no")


def test_pickle_and_pose_file_must_be_regular(tmp_path):
  os.mkfifo(tmp_path / "a.pkl")
  for read in (restricted_pickle.load, luperson._read_pose):
    with pytest.raises(ValueError, match="found a FIFO"):
      read(str(tmp_path / "a.pkl"))


def test_fifo_that_takes_the_place_of_a_list_is_an_error(tmp_path, monkeypatch):
  """The file is regular when the source looks for it and a FIFO when it is opened."""
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


def test_fifo_in_a_folder_of_pictures_is_no_picture(tmp_path):
  os.mkfifo(tmp_path / "a.jpg")
  picture_file.write(tmp_path / "b.png", picture())
  source = folder.open_source(root=str(tmp_path))
  assert source.paths == ("b.png",)
  with pytest.raises(ValueError, match=r"a\.jpg: no such picture"):
    folder.open_file(tmp_path / "a.jpg")
