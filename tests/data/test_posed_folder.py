"""The source posed_folder and the folder of poses that it reads."""

import json
import logging
import os
import shutil

import numpy as np
import pytest

from hap_jax import config
from hap_jax.data import pose_parts
from hap_jax.data.sources.base import BadRecordError, read_image
from hap_jax.io import npz_file
from tests.data import test_reid_sources as reid_files

NAMES = ["a.jpg", "below/b.jpg", "c.jpg", "d.jpg", "e.jpg"]
COUNTS = (2, 0, 3)  # people in each part


def write_poses(folder, names=NAMES, counts=COUNTS, size=(16, 8), unreadable=(), **facts):
  """Writes poses of pictures of `size`. Joint 0 of each person is missing, and joint 1 is outside."""
  pose_parts.start(folder, {"part_size": 3})
  keypoints = np.random.default_rng(0).uniform(0, 7, (len(names), 17, 3)).astype(np.float32)
  keypoints[:, 0, :2] = pose_parts.MISSING
  keypoints[:, 1, 0] = 100
  files, start = [], 0
  for number, count in enumerate(counts):
    rows = slice(start, start + count)
    files.append(pose_parts.part_of_pictures(number, len(counts)))
    pose_parts.write_part(
      folder / files[-1],
      name=names[rows],
      keypoints=keypoints[rows],
      image_size=[size] * count,
      unreadable=unreadable if number == 1 else (),
    )
    start += count
  pose_parts.write_summary(folder, {**pose_parts.summarize(folder, files), "exif": "ignore", **facts})
  return keypoints


@pytest.fixture
def folders(tmp_path):
  """Returns (folder of pictures, folder of poses, joints)."""
  reid_files.write_pictures(tmp_path / "pictures", NAMES)
  return tmp_path / "pictures", tmp_path / "poses", write_poses(tmp_path / "poses")


def open_source(pictures, poses, split="train", **options):
  return config.load("data/sources", "posed_folder").open_source(
    root=str(pictures), split=split, seed=0, poses=str(poses), **options
  )


def test_records_have_the_joints_of_their_pictures(folders):
  pictures, poses, keypoints = folders
  source = open_source(pictures, poses)
  assert [source.name(i) for i in range(len(source))] == [os.path.join(pictures, name) for name in NAMES]
  for i, name in enumerate(NAMES):
    record = source[i]
    np.testing.assert_array_equal(record["image"], read_image(pictures / name))
    np.testing.assert_array_equal(record["keypoints_xy"], keypoints[i, :, :2])
    assert record["keypoints_visible"].tolist() == [False, False] + [True] * 15
  with pytest.raises(IndexError):
    source[5]


def test_the_last_records_are_held_out(folders):
  pictures, poses, keypoints = folders
  val = open_source(pictures, poses, "val", num_val=2)
  assert len(open_source(pictures, poses, num_val=2)) == 3
  assert [os.path.basename(val.name(i)) for i in range(2)] == ["d.jpg", "e.jpg"]
  np.testing.assert_array_equal(val[1]["keypoints_xy"], keypoints[4, :, :2])


def test_the_statistics_count_joints_inside_their_pictures(folders):
  _, poses, keypoints = folders
  summary = json.loads((poses / "poses.json").read_text())
  assert summary["statistics"]["joints_inside"] == pytest.approx(15 / 17)
  assert summary["statistics"]["joints_per_picture"] == 15
  assert summary["statistics"]["mean_score"] == pytest.approx(keypoints[:, 2:, 2].mean(), rel=1e-6)
  assert summary["statistics"]["pictures_by_joints"] == [0] * 15 + [5, 0, 0]
  assert summary["parts"] == [[f"poses-0000{k}-of-00003.npz", count] for k, count in enumerate(COUNTS)]


def test_pictures_without_poses_are_counted(folders, caplog):
  pictures, poses, _ = folders
  reid_files.write_pictures(pictures, ["f.jpg", "below/g.jpg"])
  with caplog.at_level(logging.WARNING):
    source = open_source(pictures, poses)
  note = f"5 pictures of the folder {pictures} have poses, 2 have none (below/g.jpg, f.jpg) and are left out"
  assert list(source.spec.notes) == [note]
  assert note in caplog.text


def test_an_unreadable_picture_is_not_a_picture_without_poses(tmp_path):
  reid_files.write_pictures(tmp_path / "pictures", [*NAMES, "f.jpg"])
  write_poses(tmp_path / "poses", unreadable=["f.jpg"])
  assert open_source(tmp_path / "pictures", tmp_path / "poses").spec.notes == ()


def test_poses_of_other_pictures_are_counted_both_ways(folders):
  pictures, poses, _ = folders
  for name in ("a.jpg", "below/b.jpg"):
    (pictures / name).rename(pictures / name.replace(".jpg", ".png"))
  with pytest.raises(ValueError, match="2 of 5 poses belong to pictures that are not in") as raised:
    open_source(pictures, poses)
  assert "(a.jpg, below/b.jpg); 3 pictures of" in str(raised.value)
  assert "2 have none (a.png, below/b.png): set config.data.root" in str(raised.value)


def test_a_picture_of_another_size_is_a_bad_record(folders):
  pictures, poses, _ = folders
  shutil.rmtree(poses)
  write_poses(poses, size=(16, 9))
  with pytest.raises(BadRecordError, match=r"its joints were found in a picture of \(16, 9\)"):
    open_source(pictures, poses)[0]


def test_damaged_poses_are_one_line(folders):
  pictures, poses, _ = folders
  part = poses / "poses-00002-of-00003.npz"
  whole = part.read_bytes()
  part.write_bytes(whole[:-200])
  with pytest.raises(ValueError, match=f"{part}: not a part of these poses"):
    open_source(pictures, poses)
  part.unlink()
  with pytest.raises(ValueError, match=r"not a part of these poses: .*No such file"):
    open_source(pictures, poses)
  arrays = {"name": np.array(NAMES[2:]), "image_size": np.full((3, 2), (16, 8), np.int32)}
  for keypoints, message in (
    (np.zeros((3, 14, 3), np.float32), "keypoints of shape \\(3, 14, 3\\)"),
    (np.zeros((4, 17, 3), np.float32), "keypoints of shape \\(4, 17, 3\\) with 3, 3, 3 names"),
    (np.zeros((3, 17, 3)), "keypoints of type float64, expected float32"),
    (np.asfortranarray(np.zeros((3, 17, 3), np.float32)), "stored column by column"),
  ):
    np.savez(part, keypoints=keypoints, **arrays)
    with pytest.raises(ValueError, match=message):
      open_source(pictures, poses)
  np.savez_compressed(part, keypoints=np.zeros((3, 17, 3), np.float32), **arrays)
  with pytest.raises(ValueError, match="is compressed"):
    open_source(pictures, poses)
  np.savez(part, keypoints=np.full((3, 17, 3), np.nan, np.float32), **arrays)
  with pytest.raises(BadRecordError, match="row 0 has no finite joints"):
    open_source(pictures, poses)[2]


def test_poses_of_another_format_are_one_line(folders):
  pictures, poses, _ = folders
  path = poses / "poses.json"
  summary = json.loads(path.read_text())
  for changed, message in (
    ({"format": 2}, "format 2, expected format 1"),
    ({"parts": [["../x.npz", 3]]}, r"\['../x.npz', 3\] under parts, expected"),
    ({"parts": 3}, "3 under parts"),
    ({"exif": "turn"}, "exif='turn': expected"),
  ):
    path.write_text(json.dumps(summary | changed))
    with pytest.raises(ValueError, match=message):
      open_source(pictures, poses)
  path.write_text("[]")
  with pytest.raises(ValueError, match="expected an object of poses"):
    open_source(pictures, poses)
  path.unlink()
  with pytest.raises(ValueError, match=r"its poses are not complete: start the command"):
    open_source(pictures, poses)
  with pytest.raises(ValueError, match=r"config.data.posed_folder.poses is empty"):
    open_source(pictures, "")
  with pytest.raises(ValueError, match="no such folder; expected a folder that hap"):
    open_source(pictures, poses / "absent")


@pytest.mark.parametrize("name", ["/etc/x.jpg", "../x.jpg", "a.jpg"])
def test_names_must_be_different_paths_below_the_folder(tmp_path, name):
  reid_files.write_pictures(tmp_path / "pictures", NAMES)
  write_poses(tmp_path / "poses", names=[*NAMES[:4], name])
  with pytest.raises(
    ValueError, match="one person per picture" if name == "a.jpg" else "expected a path below"
  ):
    open_source(tmp_path / "pictures", tmp_path / "poses")


def test_a_part_of_people_without_finite_joints_is_not_written(tmp_path):
  with pytest.raises(ValueError, match="not finite numbers: check its weights"):
    pose_parts.write_part(
      tmp_path / "p.npz", name=["a"], keypoints=np.full((1, 17, 3), np.inf), image_size=[(1, 1)]
    )
  assert os.listdir(tmp_path) == []


def test_rows_are_found_in_any_file_that_numpy_writes(tmp_path):
  path, rng = tmp_path / "x.npz", np.random.default_rng(0)
  arrays = {"a": rng.random((3, 2)), "long_name_" * 9: rng.random((4, 17, 3)).astype(np.float32)}
  np.savez(path, **arrays)
  for name, array in arrays.items():
    position, dtype, shape = npz_file.find_stored(path, name)
    assert (dtype, shape) == (array.dtype, array.shape)
    found = np.frombuffer(path.read_bytes(), dtype, array.size, position)
    np.testing.assert_array_equal(found, array.ravel())
  with pytest.raises(ValueError, match=r"no item named 'b.npy'"):
    npz_file.find_stored(path, "b")


def test_a_folder_in_which_another_process_writes_its_settings_is_started(tmp_path):
  (tmp_path / "poses").mkdir()
  (tmp_path / "poses" / ".settings.0123456789abcdef.part.json").write_text("{")
  pose_parts.start(tmp_path / "poses", {"padding": 1.25})
  pose_parts.start(tmp_path / "poses", {"padding": 1.25})
  with pytest.raises(ValueError, match=r"started with padding=1.25, but this command has padding=1.5"):
    pose_parts.start(tmp_path / "poses", {"padding": 1.5})
