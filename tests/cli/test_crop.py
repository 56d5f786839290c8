"""`hap crop` finds people in videos and pictures, and pre-training reads them."""

import json

import numpy as np
import pytest

from hap_jax.cli.__main__ import main as hap
from hap_jax.data import pose_parts
from hap_jax.data.sources import base, posed_folder
from hap_jax.inference import crop_people, whole_pictures
from tests.cli.test_predict_pose2d import write
from tests.io import video_files
from tests.models import tfjs_files

# (ymin, xmin, ymax, xmax) of people, as shares of the network's input. The joints of the third one have low
# scores, and the other three people are empty. The scores are multiplied by the brightness.
BOXES = ((0.1, 0.2, 0.6, 0.5), (0.2, 0.6, 0.7, 0.9), (0.1, 0.1, 0.5, 0.3))
SCORES = (0.6, 0.9, 0.1)
NUM_FRAMES, PART_FRAMES, EVERY = 14, 4, 2
FAST = ["--side=64", "--batch_size=8"]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
  monkeypatch.setattr(whole_pictures, "PART_FRAMES", PART_FRAMES)
  monkeypatch.setattr(whole_pictures, "PART_SIZE", 2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
  """Returns a model that finds two people in every picture: the joints are on the diagonal of the box."""
  people = np.zeros((6, 56), np.float32)
  for row, box, score in zip(people, BOXES, SCORES, strict=False):
    ymin, xmin, ymax, xmax = box
    row[:51] = np.stack(
      [np.linspace(ymin, ymax, 17), np.linspace(xmin, xmax, 17), np.full(17, score)], 1
    ).ravel()
    row[51:] = (*box, 0.5)
  return tfjs_files.write_multi(tmp_path_factory.mktemp("movenet") / "multi.json", people)


def bright(number, size=video_files.SIZE):
  """Returns a picture that is bright, with a dark frame 4."""
  image = np.full((*size, 3), 10 if number == 4 else 250, np.uint8)
  image[: size[0] // 2, :, 0] -= number % 10
  return image


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
  return video_files.write(tmp_path_factory.mktemp("video") / "clip.avi", NUM_FRAMES, bright)


@pytest.fixture(scope="module")
def whole(model, clip, tmp_path_factory):
  """Returns the output of an uninterrupted command for a video."""
  with pytest.MonkeyPatch.context() as patched:
    patched.setattr(whole_pictures, "PART_FRAMES", PART_FRAMES)
    out = tmp_path_factory.mktemp("whole") / "people"
    assert hap(words_of(model, clip, out, f"--every={EVERY}")) == 0
  return out


def words_of(model, pictures, out, *words):
  return ["crop", str(pictures), f"--model={model}", f"--out={out}", *FAST, *words]


def rows_of(out, **others):
  """Returns the rows of all parts, {name: array}."""
  kinds = {"box": ("f", 2), "score": ("f", 1), **others}
  parts = [pose_parts.read_part(path, **kinds) for path in sorted(out.glob("poses-*.npz"))]
  return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def files_of(out):
  return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_video_becomes_pictures_of_people_with_frame_box_and_score(whole):
  rows, (H, W) = rows_of(whole, frame=("i", 1)), video_files.SIZE
  assert [path.name for path in sorted(whole.glob("poses-*.npz"))] == [
    *("poses-f00000000.npz", "poses-f00000004.npz", "poses-f00000008.npz", "poses-f00000012.npz"),
  ]
  frames = [number for number in range(0, NUM_FRAMES, EVERY) if number != 4]  # the dark frame has low scores
  assert rows["frame"].tolist() == np.repeat(frames, 2).tolist()
  assert rows["name"].tolist() == [f"f{frame:08d}-{k}.jpg" for frame in frames for k in (0, 1)]
  for k, person in enumerate((1, 0)):  # the person with the higher score comes first
    ymin, xmin, ymax, xmax = BOXES[person]
    # The side of 64 pixels makes the network's input 64 x 64. The picture is in its upper 48 rows.
    box = np.float32((64 * xmin, 64 * ymin, 64 * xmax, 64 * ymax))
    np.testing.assert_allclose(rows["box"][k::2], [box] * len(frames), rtol=1e-5)
    np.testing.assert_allclose(rows["score"][k::2], SCORES[person] * 48 / 64, rtol=0.05)
    left, top, right, bottom = box
    margin = 0.1 * (right - left), 0.1 * (bottom - top)
    corner = np.maximum((0, 0), (np.floor(left - margin[0]), np.floor(top - margin[1])))
    end = np.minimum((W, H), (np.ceil(right + margin[0]), np.ceil(bottom + margin[1])))
    assert rows["image_size"][k].tolist() == (end - corner)[::-1].tolist()
    np.testing.assert_allclose(
      rows["keypoints"][k, [0, -1], :2], [box[:2] - corner, box[2:] - corner], atol=1e-3
    )
    image = base.read_image(whole / "pictures" / rows["name"][k])
    assert image.shape[:2] == tuple(rows["image_size"][k])
    expected = bright(0)[int(corner[1]) : int(end[1]), int(corner[0]) : int(end[0])]
    assert np.abs(image.astype(int) - expected).mean() < 5
  summary = json.loads((whole / "poses.json").read_text())
  assert summary["counts"] == {"people": 12, "unreadable": 0}
  assert summary["family"] == "movenet"


def test_the_people_of_a_video_are_records_for_pre_training(whole):
  source = posed_folder.open_source(root=str(whole / "pictures"), split="train", seed=0, poses=str(whole))
  assert len(source) == 12
  rows = rows_of(whole)
  for i in range(len(source)):
    np.testing.assert_array_equal(source[i]["keypoints_xy"], rows["keypoints"][i, :, :2])
    assert source[i]["image"].shape[:2] == tuple(rows["image_size"][i])


def test_a_restart_and_shards_give_the_same_files(whole, model, clip, tmp_path, monkeypatch, capsys):
  out, write_part = tmp_path / "people", pose_parts.write_part
  words = words_of(model, clip, out, f"--every={EVERY}")

  def write_or_stop(path, **arrays):
    if "00000004" in path.name:
      raise KeyboardInterrupt
    write_part(path, **arrays)

  monkeypatch.setattr(pose_parts, "write_part", write_or_stop)
  assert hap(words) == 130
  monkeypatch.setattr(pose_parts, "write_part", write_part)
  assert not (out / "poses.json").exists()
  capsys.readouterr()
  assert hap([*words, "--shard=1/2"]) == 0
  printed = capsys.readouterr().out
  assert "kept from an earlier start: 1 parts" in printed
  assert "poses-f00000000.npz:" not in printed
  assert "2 of 4 parts are complete: start the other shards" in printed
  assert hap([*words, "--shard=2/2"]) == 0
  assert "poses-f00000008.npz:" not in capsys.readouterr().out
  assert files_of(out) == files_of(whole)
  assert hap(words) == 0
  assert "complete since an earlier start" in capsys.readouterr().out


def test_damaged_frames_are_listed(model, clip, tmp_path):
  damaged = tmp_path / "clip.avi"
  damaged.write_bytes(clip.read_bytes())
  video_files.damage_frame(damaged, 8)
  out = tmp_path / "people"
  words = words_of(model, damaged, out, f"--every={EVERY}", "--max_bad_share=0.2")
  assert hap(words) == 0
  rows = rows_of(out, frame=("i", 1))
  assert rows["unreadable"].tolist() == ["f00000008"]
  assert sorted(set(rows["frame"].tolist())) == [0, 2, 6, 10, 12]


def test_pictures_of_any_shape_are_cropped(model, tmp_path, capsys):
  """One of the pictures is damaged. A part has two pictures."""
  root, out = tmp_path / "whole", tmp_path / "people"
  for name, size in (("a.png", (48, 64)), ("b/c.png", (90, 70)), ("d.png", (20, 20))):
    write(root / name, bright(0, size))
  (root / "e.png").write_bytes(b"damaged")
  assert hap(words_of(model, root, out, "--max_bad_share=0.5")) == 0
  rows = rows_of(out, picture=("U", 1))
  assert rows["picture"].tolist() == ["a.png"] * 2 + ["b/c.png"] * 2 + ["d.png"] * 2
  assert rows["name"][2] == "b/c.png-0.jpg"
  assert rows["unreadable"].tolist() == ["e.png"]
  # A picture fills the square of the network's input along its longer side.
  ymin, xmin, ymax, xmax = BOXES[1]
  np.testing.assert_allclose(rows["box"][2], np.float32((xmin, ymin, xmax, ymax)) * 90, rtol=0.02)
  assert "6 people, 1 unreadable of 4 pictures" in capsys.readouterr().out
  assert (out / "pictures" / "b" / "c.png-0.jpg").exists()


def test_bad_input_is_one_line(model, clip, whole, tmp_path, capsys):
  def error_of(*words):
    assert hap([*map(str, words)]) == 1
    error = capsys.readouterr().err
    return error.splitlines()[-1]

  out = tmp_path / "out"
  (tmp_path / "x.txt").write_text("no video")
  write(tmp_path / "pictures" / "a.png", bright(0))
  (tmp_path / "pictures" / "b.png").write_bytes(b"damaged")
  single = tfjs_files.write_single(tmp_path / "single.json")
  assert "x.txt: not a video that can be read" in error_of(
    *words_of(model, tmp_path / "x.txt", tmp_path / "o")
  )
  assert "a model for one person; expected a model for several" in error_of(*words_of(single, clip, out))
  assert "--shard=9/2: expected K/N" in error_of(*words_of(model, clip, out, "--shard=9/2"))
  assert "--side=50: expected a multiple of 32" in error_of(*words_of(model, clip, out, "--side=50"))
  assert "--every=0: expected" in error_of(*words_of(model, clip, out, "--every=0"))
  pictures = words_of(model, tmp_path / "pictures", out)
  assert "--every: works only with a video" in error_of(*pictures, "--every=2")
  line = error_of(*pictures)
  assert (
    "1 of 2 pictures cannot be read, more than the share 0.01 that --max_bad_share allows (b.png)" in line
  )
  line = error_of(*words_of(model, clip, whole, "--every=3"))
  assert "it was started with every=2, but this command has every=3" in line
  dark = video_files.write(tmp_path / "dark.mp4", 3, lambda number: bright(4))
  assert "no person was found in 3 frames" in error_of(*words_of(model, dark, tmp_path / "dark"))
  assert crop_people.Settings().side == 512
