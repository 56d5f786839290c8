import logging
import pathlib
import pickle

import cv2
import numpy as np
import pytest

from hap_jax.data.sources import luperson
from hap_jax.data.sources.base import BadRecordError
from hap_jax.data.sources.luperson import IMAGE_FOLDER, LIST_FILE, POSE_FOLDER
from hap_jax.io import restricted_pickle
from tests.data import luperson_files


def make_record(H=48, W=20, seed=0):
  rng = np.random.default_rng(seed)
  image = cv2.resize(rng.integers(0, 256, (6, 3, 3), dtype=np.uint8), (W, H), interpolation=cv2.INTER_CUBIC)
  return {
    "image": image,
    "keypoints_xy": (rng.random((17, 2)) * (W, H)).astype(np.float32),
    "keypoints_visible": rng.random(17) < 0.7,
  }


def save_pose(path, pose):
  np.save(path, np.array([[pose]], dtype=object), allow_pickle=True)


def write_list(root, names):
  (root / LIST_FILE).write_bytes(pickle.dumps(names))


def open_all(root, **options):
  return luperson.open_source(root=str(root), split="train", seed=0, **{"subset": "all", **options})


@pytest.fixture
def root(tmp_path):
  luperson_files.write(tmp_path, [make_record(seed=i) for i in range(10)])
  return tmp_path


def test_written_people_are_read_back(root):
  source = open_all(root)
  assert len(source) == 10
  for i in range(10):
    record, written = source[i], make_record(seed=i)
    assert record["image"].dtype == np.uint8
    difference = np.abs(record["image"].astype(int) - written["image"])
    assert difference.mean() < 3
    assert record["keypoints_xy"].dtype == np.float32
    visible = written["keypoints_visible"]
    np.testing.assert_array_equal(record["keypoints_visible"], visible)
    np.testing.assert_array_equal(record["keypoints_xy"][visible], written["keypoints_xy"][visible])


def test_joint_inside_the_picture_is_visible_with_any_confidence(root):
  keypoints = np.zeros((17, 3), np.float32)
  keypoints[:4] = (-0.1, 5, 1), (0, 0, 0), (19.9, 47.9, 0.001), (20, 5, 1)
  save_pose(root / POSE_FOLDER / "0000000.npy", {"keypoints": keypoints})
  record = open_all(root)[0]
  np.testing.assert_array_equal(record["keypoints_visible"][:4], [False, True, True, False])
  assert set(record) == {"image", "keypoints_xy", "keypoints_visible"}


@pytest.mark.parametrize("entry", ["0000000.jpg", "0000000", "part-1/person.a.jpg", "part-1/person.a"])
def test_list_entry_may_have_a_sub_folder_and_an_extension(root, entry):
  stem = entry.removesuffix(".jpg")
  for folder, extension in ((IMAGE_FOLDER, ".jpg"), (POSE_FOLDER, ".npy")):
    path = root / folder / f"{stem}{extension}"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes((root / folder / f"0000003{extension}").read_bytes())
  write_list(root, [entry])
  source = open_all(root)
  assert pathlib.Path(source.name(0)) == root / IMAGE_FOLDER / f"{stem}.jpg"
  assert source[0]["image"].shape == (48, 20, 3)


def test_first_half_is_the_better_ranked_half(root):
  source = open_all(root, subset="first_half")
  assert [pathlib.Path(source.name(i)).stem for i in range(len(source))] == [f"{i:07d}" for i in range(5)]


def test_random_half_depends_on_the_seed(root):
  def names(seed):
    source = luperson.open_source(root=str(root), split="train", seed=seed, subset="random_half")
    return [source.name(i) for i in range(len(source))]

  assert len(set(names(0))) == 5
  assert names(0) == names(0)
  assert len({tuple(sorted(names(seed))) for seed in range(5)}) > 1


@pytest.mark.parametrize("subset", ["first_half", "random_half", "all"])
def test_held_out_records_are_the_last_of_the_subset(root, subset):
  def names(split, num_val):
    source = luperson.open_source(root=str(root), split=split, seed=0, subset=subset, num_val=num_val)
    return [source.name(i) for i in range(len(source))]

  assert names("train", 2) + names("val", 2) == names("train", 0)
  assert len(names("val", 2)) == 2


def test_list_of_another_length_than_luperson_s_is_logged(root, caplog):
  with caplog.at_level(logging.WARNING, logger="absl"):
    open_all(root)
  assert "10 names, but LUPerson's own list has 4180243" in caplog.text


def test_luperson_source_can_be_pickled(root):
  source = pickle.loads(pickle.dumps(open_all(root)))
  np.testing.assert_array_equal(source[3]["keypoints_xy"], open_all(root)[3]["keypoints_xy"])
  assert len(source) == 10


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_pose_files_of_equal_length_are_read_separately(tmp_path, dtype):
  rng = np.random.default_rng(0)
  for i in range(6):
    pose = {"bbox": rng.random(5).astype(dtype), "keypoints": (rng.random((17, 3)) * 20).astype(dtype)}
    if i == 4:
      pose = {"keypoints": pose["keypoints"], "bbox": pose["bbox"]}  # same length, other order
    path = tmp_path / f"{i}.npy"
    save_pose(path, pose)
    np.testing.assert_array_equal(luperson._read_pose(path), pose["keypoints"].astype(np.float32))


def test_pose_files_in_column_order_are_read(tmp_path):
  path = tmp_path / "pose.npy"
  for keypoints in (np.zeros((17, 3)), np.arange(51.0).reshape(17, 3)):
    save_pose(path, {"column_order": 1, "keypoints": np.asfortranarray(keypoints)})
    np.testing.assert_array_equal(luperson._read_pose(path), keypoints)


def test_pose_with_one_changed_name_in_its_pickle_is_an_error(tmp_path):
  path = tmp_path / "pose.npy"
  save_pose(path, {"keypoints": np.random.default_rng(0).random((17, 3)).astype(np.float32)})
  luperson._read_pose(path)
  data = path.read_bytes()
  path.write_bytes(data.replace(b"_reconstruct", b"_reconstrucX"))
  with pytest.raises(restricted_pickle.UnsafePickleError, match=r"pose\.npy.*_reconstrucX"):
    luperson._read_pose(path)


def test_hostile_pose_stops_the_run_and_is_not_executed(root):
  class Touch:
    def __reduce__(self):
      return pathlib.Path.touch, (root / "executed",)

  save_pose(root / POSE_FOLDER / "0000002.npy", {"keypoints": Touch()})
  source = open_all(root)
  with pytest.raises(restricted_pickle.UnsafePickleError, match=r"0000002\.npy"):
    source[2]
  assert not (root / "executed").exists()


def test_hostile_list_is_an_error(root):
  write_list(root, [print])
  with pytest.raises(restricted_pickle.UnsafePickleError, match=LIST_FILE):
    open_all(root)


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (lambda root: (root / IMAGE_FOLDER / "0000001.jpg").unlink(), r"0000001\.jpg: cannot be read"),
    (lambda root: (root / IMAGE_FOLDER / "0000001.jpg").write_bytes(b""), r"0000001\.jpg: 0 bytes"),
    (lambda root: (root / IMAGE_FOLDER / "0000001.jpg").write_bytes(b"no image"), r"0000001\.jpg: 8 bytes"),
    (lambda root: (root / POSE_FOLDER / "0000001.npy").unlink(), r"0000001\.npy: the pose file .* missing"),
    (lambda root: (root / POSE_FOLDER / "0000001.npy").write_bytes(b"x"), r"0000001\.npy: not a readable"),
    (
      lambda root: save_pose(root / POSE_FOLDER / "0000001.npy", {"keypoints": np.zeros((14, 3))}),
      r"0000001\.npy: keypoints of shape \(14, 3\), expected \(17, 3\)",
    ),
    (
      lambda root: save_pose(root / POSE_FOLDER / "0000001.npy", {"joints": np.zeros((17, 3))}),
      r'0000001\.npy: no numbers at \[0\]\[0\]\["keypoints"\]',
    ),
    (
      lambda root: np.save(root / POSE_FOLDER / "0000001.npy", np.zeros(3)),
      r"0000001\.npy: no numbers",
    ),
  ],
)
def test_error_of_a_broken_record_names_its_file(root, damage, message):
  damage(root)
  source = open_all(root)
  with pytest.raises(BadRecordError, match=message):
    source[1]
  assert source[2]["image"].shape == (48, 20, 3)


def test_truncated_image_and_pose_are_bad_records(root):
  for folder, extension in ((IMAGE_FOLDER, "jpg"), (POSE_FOLDER, "npy")):
    path = root / folder / f"0000001.{extension}"
    data = path.read_bytes()
    for length in (len(data) // 2, len(data) - 2):
      path.write_bytes(data[:length])
      with pytest.raises(BadRecordError, match=path.name):
        open_all(root)[1]
    path.write_bytes(data)


def test_error_for_an_empty_root_names_the_key_the_remedy_and_the_demo():
  with pytest.raises(ValueError, match=r"config\.data\.root is empty.*--config\.data\.root=DIR.*make demo"):
    luperson.open_source(root="", split="train", seed=0)


def test_errors_name_missing_and_empty_folders_and_a_missing_list(tmp_path):
  with pytest.raises(ValueError, match=r"nowhere: no such folder.*LUPerson-data.*config\.data\.root"):
    open_all(tmp_path / "nowhere")
  with pytest.raises(ValueError, match="the folder is empty"):
    open_all(tmp_path)
  for folder in (IMAGE_FOLDER, POSE_FOLDER):
    (tmp_path / "note").touch()
    with pytest.raises(ValueError, match=f"{folder}: no such folder"):
      open_all(tmp_path)
    (tmp_path / folder).mkdir()
    with pytest.raises(ValueError, match=f"{folder}: the folder is empty"):
      open_all(tmp_path)
    (tmp_path / folder / "file").touch()
  with pytest.raises(ValueError, match=f"{LIST_FILE}: no such file; expected the pickled list"):
    open_all(tmp_path)


@pytest.mark.parametrize(
  ("content", "message"),
  [([], "is empty"), ({"a": 1}, "holds a dict"), (["a", 3], "expected a list"), (["a\nb"], "line breaks")],
)
def test_list_without_names_is_an_error(root, content, message):
  write_list(root, content)
  with pytest.raises(ValueError, match=rf"{LIST_FILE}.*{message}"):
    open_all(root)


def test_impossible_options_are_errors(root):
  with pytest.raises(ValueError, match=r"subset='half'.*first_half"):
    open_all(root, subset="half")
  with pytest.raises(ValueError, match=r"config\.data\.num_val=11: expected 0 to 10"):
    open_all(root, num_val=11)
  with pytest.raises(ValueError, match=r"num_val=10 of 10 records leaves no records"):
    open_all(root, num_val=10)
  with pytest.raises(ValueError, match="split='test'"):
    luperson.open_source(root=str(root), split="test", seed=0)
  with pytest.raises(IndexError, match="record 10 of 10"):
    open_all(root)[10]
