"""Malformed files of people are read, or give one clear error of an expected type."""

import itertools
import json
import pickle
import random

import numpy as np
import pytest
from PIL import Image

from hap_jax.data.sources import luperson, market1501, msmt17
from tests.data import luperson_files, mutations_coco


def refusal(read):
  """Returns the ValueError or OSError that `read` raises, or None."""
  error = None
  try:
    read()
  except (ValueError, OSError) as raised:
    error = raised
  assert not isinstance(error, UnicodeError), error  # Python's own error does not name the file
  assert "\n" not in str(error), error
  return error


def read_all(source):
  for i in range(len(source)):
    assert source.name(i)
    refusal(lambda i=i: source[i])


def test_mutations_are_the_same_for_the_same_seed():
  assert list(mutations_coco.cases(50, seed=1)) == list(mutations_coco.cases(50, seed=1))
  assert list(mutations_coco.cases(50, seed=1)) != list(mutations_coco.cases(50, seed=2))
  document = mutations_coco.document()
  assert json.loads(json.dumps(document)) == document


def flip_bytes(rng, data):
  """Returns the data with a few bytes changed, or without its end."""
  if rng.random() < 0.3:
    return data[: rng.randrange(len(data))]
  data = bytearray(data)
  for _ in range(rng.choice((1, 2, 8))):
    data[rng.randrange(len(data))] = rng.randrange(256)
  return bytes(data)


@pytest.fixture
def lup(tmp_path):
  record = {
    "image": np.zeros((16, 8, 3), np.uint8),
    "keypoints_xy": np.ones((17, 2), np.float32),
    "keypoints_visible": np.ones(17, bool),
  }
  luperson_files.write(tmp_path, [record] * 2)
  return tmp_path


def open_luperson(root):
  return luperson.open_source(root=str(root), split="train", seed=0, subset="all")


def test_mutated_lists_and_joints_of_luperson_are_read_or_give_an_error(lup):
  rng = random.Random(0)
  for path in (lup / luperson.LIST_FILE, lup / luperson.POSE_FOLDER / "0000001.npy"):
    whole = path.read_bytes()
    for _ in range(150):
      path.write_bytes(flip_bytes(rng, whole))
      luperson._read_list.cache_clear()
      refusal(lambda: read_all(open_luperson(lup)))
    path.write_bytes(whole)


@pytest.mark.parametrize(
  "keypoints",
  [
    None,
    "text",
    10**400,
    [10**400] * 51,
    [[10**400] * 3] * 17,
    [["1", "2", "3"]] * 17,
    [[1, 2], [3]],
    {"a": 1},
    np.full((17, 3), 1j),
    np.full((17, 3), "1"),
    np.full((17, 3), None),
    np.zeros((0, 3)),
    np.zeros((17, 3, 1)),
  ],
)
def test_joints_of_a_wrong_type_are_a_bad_record(lup, keypoints):
  path = lup / luperson.POSE_FOLDER / "0000001.npy"
  pose = np.empty((1, 1), object)
  pose[0, 0] = {"keypoints": keypoints}
  np.save(path, pose, allow_pickle=True)
  with pytest.raises(luperson.BadRecordError, match=r"0000001\.npy: (no numbers|keypoints of shape)"):
    open_luperson(lup)[1]
  assert open_luperson(lup)[0]["keypoints_visible"].all()


def test_list_of_deeply_nested_or_odd_objects_is_an_error(lup):
  deep = []
  for _ in range(300):
    deep = [deep]
  for content in (
    deep,
    [deep],
    "name",
    b"name",
    7,
    None,
    [None],
    [1.5],
    {"a"},
    np.zeros(2),
    np.array("x"),
    [[]],
  ):
    (lup / luperson.LIST_FILE).write_bytes(pickle.dumps(content))
    luperson._read_list.cache_clear()
    assert refusal(lambda: open_luperson(lup)), content


def test_mutated_lists_of_msmt17_are_read_or_give_an_error(tmp_path):
  line = b"0000/0000_000_01_0303morning_0008_0.jpg 0\n"
  path = tmp_path / "list_train.txt"
  name = tmp_path / "train" / line.split()[0].decode()
  name.parent.mkdir(parents=True)
  Image.new("RGB", (8, 16)).save(name)

  def read():
    read_all(msmt17.open_source(root=str(tmp_path), split="train", seed=0, train_set="train"))

  rng, pieces = (
    random.Random(0),
    (b"../", b"/", b"\0", b"\xe9", b" ", b"_", b"\r", b"9" * 12, "\u0663".encode()),
  )
  for number in range(300):
    content = (
      flip_bytes(rng, line * 2)
      if number % 2
      else line.replace(rng.choice((b"0", b"_", b"/")), rng.choice(pieces))
    )
    path.write_bytes(content)
    error = refusal(read)
    assert error is None or "list_train.txt" in str(error), error
  path.write_bytes(line)
  assert refusal(read) is None


def test_market_names_of_odd_bytes_are_read_or_give_an_error(tmp_path):
  pieces = (
    b"",
    b"-1",
    b"0002",
    b"_c1",
    b"c1s1",
    b"_",
    b"\xe9",
    b"\xff\xfe",
    b"\xd9\xa3",
    b" ",
    b"9" * 10,
    b"\n",
  )
  folder = tmp_path / "bounding_box_train"
  folder.mkdir()
  for parts in itertools.islice(itertools.product(pieces, repeat=3), 0, None, 4):
    name = folder / b"".join((*parts, b".jpg")).decode("utf-8", "surrogateescape")
    name.touch()
    error = refusal(lambda: market1501.open_source(root=str(tmp_path), split="train", seed=0))
    assert error is None or str(folder) in str(error)
    name.unlink()
