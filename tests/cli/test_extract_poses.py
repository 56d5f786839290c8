"""`hap extract_poses` finds the joints of a folder of people, part by part, and pre-training reads them."""

import json
import os
import shutil

import numpy as np
import pytest

from hap_jax import config_sources
from hap_jax.cli.__main__ import main as hap
from hap_jax.data import pose_parts
from hap_jax.data.skeletons import COCO17, MPII16
from hap_jax.data.sources import base
from hap_jax.inference import extract_poses
from hap_jax.inference.predict import pose2d as predicting
from tests.cli.test_predict_pose2d import SIZE, describe, joints, pixels, predict, save, write
from tests.data import pose_files

NUM, PART = 11, 4
FAST = ["--batch_size=8", "--no_flip"]
BROKEN = "7.png"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
  monkeypatch.setattr(extract_poses, "PART_SIZE", PART)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  return save(tmp_path_factory.mktemp("pose") / "own", describe(COCO17))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
  """Returns a folder of 11 pictures. One of them is damaged, and one is in a sub-folder."""
  root = tmp_path_factory.mktemp("pictures")
  for i in range(NUM):
    name = "more/10.png" if i == 10 else f"{i}.png"
    write(root / name, pixels(i, (SIZE[0] + i, SIZE[1])))
  (root / BROKEN).write_bytes((root / BROKEN).read_bytes()[:200])
  return root


@pytest.fixture(scope="module")
def whole(checkpoint, pictures, tmp_path_factory):
  """Returns the folder of poses of an uninterrupted run."""
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(extract_poses, "PART_SIZE", PART)
    return extract(checkpoint, pictures, tmp_path_factory.mktemp("whole") / "poses")


def extract(checkpoint, root, out, *words):
  assert hap(["extract_poses", str(checkpoint), str(root), f"--out={out}", *words, *GIVEN]) == 0
  return out


GIVEN = [*FAST, "--max_bad_share=0.1"]


def error_of(capsys, *words):
  assert hap(["extract_poses", *map(str, words)]) == 1
  line = capsys.readouterr().err.splitlines()[-1]
  assert line.startswith("error: ")
  return line


def parts_of(folder):
  return {path.name: pose_parts.read_part(path) for path in sorted(folder.glob("poses-*.npz"))}


def assert_same(folder, whole):
  found, expected = parts_of(folder), parts_of(whole)
  assert found.keys() == expected.keys()
  for name, part in expected.items():
    assert part.keys() == found[name].keys()
    for key in part:
      np.testing.assert_array_equal(found[name][key], part[key])
  for file in ("poses.json", "settings.json", "sheet.jpg"):
    assert (folder / file).read_bytes() == (whole / file).read_bytes()
  assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}


def open_posed(root, poses, **options):
  return config_sources.open_named_source(
    "posed_folder", root=str(root), split="train", options={"poses": str(poses), **options}
  )


def test_the_joints_equal_those_of_predict(whole, checkpoint, pictures, tmp_path):
  """The two commands have other batches, so their results differ by rounding errors."""
  kept = tmp_path / "pictures"
  shutil.copytree(pictures, kept)
  (kept / BROKEN).unlink()
  found = {
    name.item(): keypoints
    for part in parts_of(whole).values()
    for name, keypoints in zip(part["name"], part["keypoints"], strict=True)
  }
  results = predict(checkpoint, kept, tmp_path / "predicted")
  assert found.keys() == {result["file_name"] for result in results}
  for result in results:
    np.testing.assert_allclose(found[result["file_name"]], joints(result), rtol=1e-4, atol=1e-3)


def test_the_summary_states_model_counts_and_statistics(whole, checkpoint):
  summary = json.loads((whole / "poses.json").read_text())
  assert summary["file"] == str(checkpoint)
  assert summary["licence"]
  assert summary["counts"] == {"people": NUM - 1, "unreadable": 1}
  assert summary["unreadable"] == [BROKEN]
  assert [rows for _, rows in summary["parts"]] == [4, 3, 3]
  assert summary["settings"]["padding"] == 1.25
  parts = parts_of(whole).values()
  x, y, score = np.moveaxis(np.concatenate([part["keypoints"] for part in parts]), -1, 0)
  sizes = np.concatenate([part["image_size"] for part in parts])
  is_inside = (x >= 0) & (y >= 0) & (x < sizes[:, 1:]) & (y < sizes[:, :1])
  statistics = summary["statistics"]
  assert statistics["joints_inside"] == pytest.approx(is_inside.mean())
  assert statistics["joints_per_picture"] == pytest.approx(is_inside.sum(axis=1).mean())
  assert statistics["mean_score"] == pytest.approx(score[is_inside].mean(), rel=1e-6)
  assert statistics["pictures_by_joints"] == np.bincount(is_inside.sum(axis=1), minlength=18).tolist()


def test_a_restart_does_the_remaining_parts_alone(whole, checkpoint, pictures, tmp_path, monkeypatch, capsys):
  """A command is stopped in its second part, and again in its third part. Two shards end the work."""
  out, write_part = tmp_path / "poses", pose_parts.write_part
  words = ["extract_poses", str(checkpoint), str(pictures), f"--out={out}", *GIVEN]
  for done in (1, 1):
    left = [done]

    def write_or_stop(path, left=left, **arrays):
      if not left.pop() if left else True:
        raise KeyboardInterrupt
      write_part(path, **arrays)

    monkeypatch.setattr(pose_parts, "write_part", write_or_stop)
    assert hap(words) == 130
  monkeypatch.setattr(pose_parts, "write_part", write_part)
  printed = capsys.readouterr().out
  assert "poses-00000-of-00003.npz: 4 people" in printed
  assert "kept from an earlier start: 1 of 3 parts (poses-00000-of-00003.npz)" in printed
  assert len(parts_of(out)) == 2
  with pytest.raises(ValueError, match="so its poses are not complete: start the command"):
    open_posed(pictures, out)
  rest = out / ".poses-00001-of-00003.0123456789abcdef.part.npz"
  rest.write_bytes(b"a killed process left this")

  assert hap([*words, "--shard=2/2"]) == 0
  printed = capsys.readouterr().out
  assert "kept from an earlier start: 1 of 1 parts (poses-00001-of-00003.npz)" in printed
  assert "2 of 3 parts are complete: start the other shards" in printed
  assert hap([*words, "--shard=1/2"]) == 0
  printed = capsys.readouterr().out
  assert "kept from an earlier start: 1 of 2 parts (poses-00000-of-00003.npz)" in printed
  assert printed.count("people, 0 unreadable\n") + printed.count("people, 1 unreadable\n") == 1
  assert_same(out, whole)


def test_the_source_has_the_joints_that_are_inside_their_pictures(whole, pictures, caplog):
  source = open_posed(pictures, whole)
  assert len(source) == NUM - 1
  assert not caplog.records
  rows = [
    row for part in parts_of(whole).values() for row in zip(part["name"], part["keypoints"], strict=True)
  ]
  for i, (name, keypoints) in enumerate(rows):
    record = source[i]
    assert source.name(i) == os.path.join(pictures, name)
    np.testing.assert_array_equal(record["image"], base.read_image(pictures / name))
    np.testing.assert_array_equal(record["keypoints_xy"], keypoints[:, :2])
    H, W = record["image"].shape[:2]
    (x, y), visible = record["keypoints_xy"].T, record["keypoints_visible"]
    np.testing.assert_array_equal(visible, (x >= 0) & (y >= 0) & (x < W) & (y < H))


def test_the_official_layout_holds_the_same_joints(whole, checkpoint, pictures, tmp_path):
  out = extract(checkpoint, pictures, tmp_path / "official", "--format=luperson")
  (out / "LUPerson-data").symlink_to(pictures)
  options = {"subset": "all"}
  official = config_sources.open_named_source("luperson", root=str(out), split="train", options=options)
  ours = open_posed(pictures, whole)
  assert len(official) == len(ours)
  for i in range(len(ours)):
    one, other = official[i], ours[i]
    for field in one:
      np.testing.assert_array_equal(one[field], other[field])


def test_boxes_padding_and_the_smallest_score_change_the_joints(whole, checkpoint, pictures, tmp_path):
  root = tmp_path / "pictures"
  root.mkdir()
  shutil.copy(pictures / "0.png", root)
  boxes = tmp_path / "boxes.json"
  boxes.write_text(json.dumps({"0.png": [2, 3, 20, 40]}))
  results = predict(
    checkpoint, root, tmp_path / "predicted", boxes=[{"file_name": "0.png", "bbox": [2, 3, 20, 40]}]
  )
  found = extract(checkpoint, root, tmp_path / "boxed", f"--boxes={boxes}")
  (boxed,) = parts_of(found).values()
  np.testing.assert_allclose(boxed["keypoints"][0], joints(results[0]), rtol=1e-4, atol=1e-3)

  score = np.sort(boxed["keypoints"][0, :, 2])[8:10].mean()
  words = [f"--boxes={boxes}", f"--min_score={score}", "--padding=1.25"]
  (marked,) = parts_of(extract(checkpoint, root, tmp_path / "marked", *words)).values()
  is_missing = boxed["keypoints"][..., 2] < score
  np.testing.assert_array_equal(marked["keypoints"][..., :2] == -1, is_missing[..., None].repeat(2, axis=-1))
  np.testing.assert_array_equal(marked["keypoints"][~is_missing], boxed["keypoints"][~is_missing])
  (wider,) = parts_of(extract(checkpoint, root, tmp_path / "w", f"--boxes={boxes}", "--padding=2")).values()
  assert not np.allclose(wider["keypoints"], boxed["keypoints"])


def test_any_source_of_pictures_of_one_person_gets_joints(checkpoint, tmp_path):
  out = tmp_path / "poses"
  words = ["--data.source=synthetic", "--set=num_train=5", "--set=image_size=(32, 16)", f"--out={out}", *FAST]
  assert hap(["extract_poses", str(checkpoint), *words]) == 0
  assert [len(part["name"]) for part in parts_of(out).values()] == [4, 1]


def test_bad_input_is_one_line(whole, checkpoint, pictures, tmp_path, capsys):
  out = f"--out={tmp_path / 'out'}"
  both = [checkpoint, pictures, out, *FAST]
  line = error_of(capsys, *both)
  assert (
    "1 of 11 pictures cannot be read, more than the share 0.01 that --max_bad_share allows (7.png)" in line
  )
  for shard in ("3/2", "0/2", "2", "a/b", "1/2/3"):
    assert f"--shard={shard}: expected K/N" in error_of(capsys, *both, f"--shard={shard}")
  line = error_of(capsys, *both, "--max_bad_share=0.1", "--padding=1.5")
  assert "it was started with padding=1.25, but this command has padding=1.5: give another --out" in line
  assert "inside the folder of the pictures" in error_of(
    capsys, checkpoint, pictures, f"--out={pictures}/poses"
  )
  assert "exists, but has no settings.json" in error_of(capsys, checkpoint, pictures, f"--out={tmp_path}")
  assert "--padding=0.0: expected" in error_of(capsys, *both, "--padding=0")
  assert "remove one of them" in error_of(capsys, *both, "--data.source=folder")
  assert "expected PICTURES" in error_of(capsys, checkpoint, out)
  words = [checkpoint, "--data.source=synthetic_captions", "--split=test_captions", out]
  assert "the records of synthetic_captions have no pictures" in error_of(capsys, *words)
  pose_files.write_coco(tmp_path / "coco", split="train")
  line = error_of(capsys, checkpoint, "--data.source=coco_pose", f"--data.root={tmp_path / 'coco'}", out)
  assert "coco_pose has several people in the picture train2017/" in line

  mpii = save(tmp_path / "mpii", describe(MPII16))
  line = error_of(capsys, mpii, pictures, out)
  assert "it finds the 16 joints of mpii16, without nose, left_eye, right_eye, left_ear, right_ear" in line


def test_boxes_that_do_not_fit_the_pictures_are_one_line(checkpoint, pictures, tmp_path, capsys):
  path, words = tmp_path / "boxes.json", [checkpoint, pictures, f"--out={tmp_path / 'out'}", *FAST]
  names = [f"{i}.png" for i in range(10)] + ["more/10.png"]
  for content, message in (
    (
      {"0.png": [1, 1, 5, 5], "x": [1, 1, 5, 5]},
      "10 have no box (1.png, 2.png, 3.png, 4.png, 5.png, ...), and 1",
    ),
    ({name: [1, 1, 0, 5] for name in names}, "0.png has a box without area, [1, 1, 0, 5]"),
    ({name: [1, 1, 5] for name in names}, "has 3 values under 0.png, expected 4 (x, y, width, height)"),
    ([], "is []; expected an object of boxes {picture: [x, y, width, height]}"),
  ):
    path.write_text(json.dumps(content))
    assert message in error_of(capsys, *words, f"--boxes={path}")
  path.write_text(json.dumps({name: [500, 1, 5, 5] for name in names}))
  assert "pictures cannot be read" in error_of(capsys, *words, f"--boxes={path}")


def test_two_names_that_become_one_file_are_an_error(checkpoint, tmp_path, capsys):
  for name in ("a.png", "a.jpg"):
    write(tmp_path / "pictures" / name, pixels())
  words = [checkpoint, tmp_path / "pictures", f"--out={tmp_path / 'out'}", *FAST]
  line = error_of(capsys, *words, "--format=luperson")
  assert "a.jpg and a.png would both have the joints in a.npy: rename one of them" in line
  assert not (tmp_path / "out").exists()


def test_the_view_of_a_model_has_the_padding_of_the_command(checkpoint):
  description = predicting.reading.read(checkpoint).description
  assert [predicting.view_of(description, padding=p)[0].padding for p in (1.25, 2.0)] == [1.25, 2.0]
