"""File names from annotation files and lists must stay below their folder and must be UTF-8."""

import json
import os
import pickle

import numpy as np
import pytest
import scipy.io
from PIL import Image

from hap_jax.data import pack
from hap_jax.data.sources import coco_persons, luperson, msmt17, pa100k, peta, rapv1
from hap_jax.data.sources.base import BadRecordError, check_relative
from tests.data import luperson_files, mutations_coco

OUTSIDE = ["../secret.jpg", "a/../../secret.jpg", "a/..", "..", "/etc/passwd", "//secret.jpg", ""]
INSIDE = [
  "a.jpg",
  "a/b.jpg",
  "..a.jpg",
  "a..jpg",
  ".../a",
  "a/.b/c",
  "./a.jpg",
  "~/a.jpg",
  "C:\\a.jpg",
  "a\\..\\b",
]
ODD = os.fsdecode(b"caf\xe9.jpg")  # Latin-1


@pytest.mark.parametrize("name", [*OUTSIDE, "a\0.jpg", "\0"])
def test_error_for_a_name_that_leaves_its_folder_names_file_and_entry(name):
  for names in ([name], [*INSIDE, name], [name, *INSIDE, *OUTSIDE]):
    with pytest.raises(
      ValueError, match=f"list, entry {names.index(name)}: the file name is .*expected"
    ) as error:
      check_relative(names, lambda i: f"list, entry {i}")
    assert repr(name) in str(error.value)


def test_names_below_the_folder_are_accepted():
  check_relative(INSIDE, str)
  check_relative([], str)
  check_relative([ODD, "\ud800"], str)


def write_luperson(root, names):
  record = {
    "image": np.zeros((16, 8, 3), np.uint8),
    "keypoints_xy": np.ones((17, 2), np.float32),
    "keypoints_visible": np.ones(17, bool),
  }
  luperson_files.write(root, [record] * 2)
  (root / luperson.LIST_FILE).write_bytes(pickle.dumps(names))
  return lambda: luperson.open_source(root=str(root), split="train", seed=0, subset="all")


def write_coco(root, names):
  coco = mutations_coco.document()
  for image, name in zip(coco["images"], names, strict=True):
    image["file_name"] = name
  (root / "people.json").write_text(json.dumps(coco))
  Image.new("RGB", (60, 80)).save(root / "one.jpg")
  return lambda: coco_persons.open_source(root=str(root), split="train", seed=0, annotations="people.json")


def write_msmt17(root, names):
  (root / "train" / "0001").mkdir(parents=True)
  (root / "list_train.txt").write_text("".join(f"{name} 1\n" for name in names))
  return lambda: msmt17.open_source(root=str(root), split="train", seed=0, train_set="train")


@pytest.mark.parametrize("name", OUTSIDE)
def test_luperson_name_outside_its_folder_is_an_error(tmp_path, name):
  opens = write_luperson(tmp_path, ["0000000.jpg", name])
  with pytest.raises(ValueError, match=r"cfs_list\.pkl: entry 2: the file name is"):
    opens()


@pytest.mark.parametrize("name", OUTSIDE)
def test_coco_name_outside_its_folder_is_an_error(tmp_path, name):
  with pytest.raises(ValueError, match=r"people\.json: image 2: the file name is"):
    write_coco(tmp_path, ["one.jpg", name])()


@pytest.mark.parametrize("folder", ["../0001/", "0001/../../x/", "/0001/"])
def test_msmt17_name_outside_its_folder_is_an_error(tmp_path, folder):
  opens = write_msmt17(tmp_path, [f"{folder}0001_000_01_0303morning_0008_0.jpg"])
  with pytest.raises(ValueError, match=r"list_train\.txt: line 1"):
    opens()


@pytest.mark.parametrize("module", [pa100k, peta, rapv1])
def test_attribute_picture_outside_its_folder_is_an_error(tmp_path, module):
  (tmp_path / "pictures").mkdir()
  Image.new("RGB", (8, 16)).save(tmp_path / "pictures" / "a.png")
  names = ["a.png", "../pictures/a.png"]
  label = np.zeros((2, len(module.ATTRIBUTES)), np.int64)
  splits = ("train", "val", "test") if "val" in module.SPLITS else ("trainval", "test")
  data = {
    "image_name": names,
    "label": label,
    "attr_name": list(module.ATTRIBUTES),
    "partition": {split: np.arange(2)[k : k + 1] for k, split in enumerate(splits)},
  }
  (tmp_path / "dataset_all.pkl").write_bytes(pickle.dumps(data))
  options = {"annotations": "dataset_all.pkl", "images": "pictures"}
  with pytest.raises(
    ValueError, match=r"dataset_all\.pkl: picture 2: the file name is '\.\./pictures/a\.png'"
  ):
    module.open_source(root=str(tmp_path), split="train", seed=0, **options)


def test_mat_file_with_a_picture_outside_its_folder_is_an_error(tmp_path):
  (tmp_path / "data").mkdir()
  (tmp_path / "data" / "a.jpg").touch()
  variables = {"attributes": np.array([[name] for name in pa100k.ATTRIBUTES], object)}
  for split in ("train", "val", "test"):
    variables[f"{split}_images_name"] = np.array([["/etc/a.jpg"]], object)
    variables[f"{split}_label"] = np.zeros((1, len(pa100k.ATTRIBUTES)), np.uint8)
  scipy.io.savemat(tmp_path / "annotation.mat", variables)
  with pytest.raises(ValueError, match=r"annotation\.mat: picture 1: the file name is '/etc/a\.jpg'"):
    pa100k.open_source(root=str(tmp_path), split="train", seed=0)


def test_links_below_the_folder_may_point_anywhere(tmp_path):
  (tmp_path / "elsewhere").mkdir()
  (tmp_path / "coco").mkdir()
  opens = write_coco(tmp_path / "coco", ["one.jpg", "linked/one.jpg"])
  (tmp_path / "coco" / "one.jpg").rename(tmp_path / "elsewhere" / "one.jpg")
  (tmp_path / "coco" / "one.jpg").symlink_to("../elsewhere/one.jpg")
  (tmp_path / "coco" / "linked").symlink_to(tmp_path / "elsewhere")
  assert all(opens()[i]["image"].size for i in range(4))


def test_paths_from_the_user_may_leave_the_root(tmp_path):
  (tmp_path / "coco" / "train2017").mkdir(parents=True)
  write_coco(tmp_path, ["one.jpg", "one.jpg"])
  options = {"annotations": "../people.json", "images": ".."}
  source = coco_persons.open_source(root=str(tmp_path / "coco"), split="train", seed=0, **options)
  assert source[0]["image"].size


@pytest.mark.parametrize("name", [ODD, "\ud800.jpg", os.fsencode(ODD)], ids=["escaped", "surrogate", "bytes"])
def test_luperson_name_that_is_not_utf8_is_a_bad_record(tmp_path, name):
  opens = write_luperson(tmp_path, ["0000000.jpg", name])
  for folder, ending in ((luperson.IMAGE_FOLDER, ".jpg"), (luperson.POSE_FOLDER, ".npy")):
    (tmp_path / folder / f"0000001{ending}").rename(tmp_path / folder / f"{ODD[:-4]}{ending}")
  source = pickle.loads(pickle.dumps(opens()))
  assert source[0]["image"].shape == (16, 8, 3)
  with pytest.raises(BadRecordError, match=r"cfs_list\.pkl: the file name '.*\\ud.*\.jpg' is not UTF-8"):
    source[1]


def test_luperson_name_of_utf8_bytes_is_read(tmp_path):
  opens = write_luperson(tmp_path, ["0000000.jpg", "café.jpg".encode()])
  for folder, ending in ((luperson.IMAGE_FOLDER, ".jpg"), (luperson.POSE_FOLDER, ".npy")):
    (tmp_path / folder / f"0000001{ending}").rename(tmp_path / folder / f"café{ending}")
  assert opens()[1]["image"].shape == (16, 8, 3)


@pytest.mark.parametrize("name", [ODD, "\ud800.jpg"], ids=["escaped", "surrogate"])
def test_coco_name_that_is_not_utf8_is_a_bad_record(tmp_path, name):
  opens = write_coco(tmp_path, ["one.jpg", name])
  (tmp_path / ODD).write_bytes((tmp_path / "one.jpg").read_bytes())
  source = pickle.loads(pickle.dumps(opens()))
  assert source[0]["image"].size
  with pytest.raises(
    BadRecordError, match=r"people\.json: annotation 1: the file name '.*\.jpg' is not UTF-8"
  ):
    source[1]


@pytest.mark.parametrize("write", [write_luperson, write_coco])
def test_prepare_leaves_out_names_that_are_not_utf8(tmp_path, write):
  opens = write(tmp_path, ["0000000.jpg" if write is write_luperson else "one.jpg", ODD])
  packed = pack.write_dataset(tmp_path / "packed", {"train": opens()}, root=tmp_path, max_bad_share=0.5)[
    "train"
  ]
  assert packed.records == len(packed.bad) == len(opens()) // 2
  assert all(r"caf\udce9.jpg" in why and "is not UTF-8" in why for why in packed.bad.values())
  assert (tmp_path / "packed").is_dir()
