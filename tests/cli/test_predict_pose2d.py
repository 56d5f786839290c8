"""`hap predict` finds the joints of people in a folder with a checkpoint of 2D pose."""

import errno
import json
import os

import jax
import numpy as np
import pytest
from PIL import Image

from hap_jax.cli.__main__ import main as hap
from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources import base
from hap_jax.description import Description, Encoder
from hap_jax.inference.predict import pose2d as predicting
from hap_jax.io import checkpoint_file, picture_file
from hap_jax.tasks import base as base_task
from hap_jax.tasks import pose2d

SIZE = (60, 44)  # (H, W) of a picture in pixels
SIDEWAYS = 6  # the orientation in an EXIF header: a viewer turns the stored pixels clockwise
FAST = ["--batch_size=8", "--no_flip"]


def describe(skeleton, **sizes):
  network = {
    "num_joints": len(skeleton.joints),
    "skeleton": skeleton.name,
    "head": "simple",
    "head_channels": [],
    "codec": "udp",
    "fit_aspect": True,
    **sizes,
  }
  encoder = Encoder(32, 1, 2, (4, 3), 8, patch_padding=1, class_token=False)
  return Description("pose2d", encoder, network, classes={"joints": list(skeleton.joints)})


def save(folder, description):
  """Writes a checkpoint with random weights whose heat maps have clear maxima."""
  model = pose2d.network(description)
  variables = jax.jit(base_task.make_init(model, train=False))(jax.random.key(0))
  variables = jax.tree.map(lambda x: np.array(x, np.float32), variables)
  head = variables["params"]["keypoint_head"]
  head.update(jax.tree.map(lambda x: 500 * x, dict(head)))
  checkpoint_file.write(folder, variables, description.to_json())
  return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  """Returns the path of a checkpoint for 17 joints and pictures of 32 x 24."""
  return save(tmp_path_factory.mktemp("pose") / "own", describe(COCO17))


def pixels(seed=0, size=SIZE):
  """Returns a smooth picture [H, W, 3] uint8 that differs from its mirror images."""
  y, x = np.mgrid[: size[0], : size[1]] / max(size)
  waves = [np.sin(9 * x * (k + 1) + 7 * y * (k + 2) + seed + k) for k in range(3)]
  return np.uint8(127 + 120 * np.stack(waves, axis=-1))


def write(path, image, **options):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(image).save(path, **options)


def predict(checkpoint, root, out, *words, boxes=None):
  """Runs the command. Returns the content of keypoints.json."""
  if boxes is not None:
    path = out.parent / f"{out.name}.json"
    path.write_text(json.dumps(boxes))
    words = (*words, f"--boxes={path}")
  assert hap(["predict", str(checkpoint), str(root), f"--out={out}", *FAST, *words]) == 0
  return json.loads((out / "keypoints.json").read_text())


def joints(result):
  return np.array(result["keypoints"]).reshape(-1, 3)


def overlay(out, name):
  return base.read_image(out / "overlays" / name)


def test_pictures_of_any_kind_get_joints_and_an_overlay(checkpoint, tmp_path, capsys):
  """An EXIF-rotated, a greyscale, a huge and two tiny pictures, without boxes."""
  root, out, exif = tmp_path / "pictures", tmp_path / "out", Image.Exif()
  exif[0x0112] = SIDEWAYS
  upright, grey = pixels(), pixels(1)[..., 0]
  write(root / "1_upright.png", upright)
  write(root / "2_rotated.png", np.rot90(upright), exif=exif)
  write(root / "3_grey.png", grey)
  write(root / "more" / "4_grey_as_rgb.bmp", np.repeat(grey[..., None], 3, axis=2))
  write(root / "5_huge.jpg", np.kron(upright[:, :, :1], np.ones((60, 60, 3), np.uint8)))
  write(root / "6_tiny.png", upright[:1, :1])
  write(root / "7_thin.webp", upright[:1], lossless=True)
  found = predict(checkpoint, root, out)
  assert [entry["file_name"] for entry in found] == [
    *("1_upright.png", "2_rotated.png", "3_grey.png", "5_huge.jpg", "6_tiny.png", "7_thin.webp"),
    "more/4_grey_as_rgb.bmp",
  ]
  assert [entry["image_id"] for entry in found] == [1, 2, 3, 5, 6, 7, 4]
  by_id = {entry["image_id"]: entry for entry in found}
  H, W = SIZE
  np.testing.assert_array_equal(joints(by_id[1]), joints(by_id[2]))
  np.testing.assert_array_equal(joints(by_id[3]), joints(by_id[4]))
  assert not np.array_equal(joints(by_id[1]), joints(by_id[3]))
  assert by_id[1]["bbox"] == by_id[2]["bbox"] == [0, 0, W, H]
  assert by_id[5]["bbox"] == [0, 0, 60 * W, 60 * H]
  assert by_id[6]["bbox"] == [0, 0, 1, 1]
  assert by_id[7]["bbox"] == [0, 0, W, 1]
  for entry in found:
    center, region = np.array(entry["center"]), 200 * np.array(entry["scale"])
    # Most joints are in the region, in pixels of the picture. Random heat maps may put some far away.
    assert (np.median(np.abs(joints(entry)[:, :2] - center), axis=0) <= region).all()
    assert entry["category_id"] == 1
  assert len({tuple(point) for point in joints(by_id[1])[:, :2]}) > 5  # the joints are in different places
  assert overlay(out, "2_rotated.jpg").shape == overlay(out, "1_upright.jpg").shape == (960, 704, 3)
  assert overlay(out, "5_huge.jpg").shape == (1920, 1408, 3)
  assert overlay(out, "6_tiny.jpg").shape == (960, 960, 3)
  assert overlay(out, "more/4_grey_as_rgb.jpg").shape == (960, 704, 3)
  assert "7 people in 7 pictures" in capsys.readouterr().out


def test_boxes_by_name_and_by_number_give_the_same_joints(checkpoint, tmp_path, capsys):
  root = tmp_path / "pictures"
  write(root / "000000000785.png", pixels())
  write(root / "sub" / "12.png", pixels(2))
  box, other = [10.5, 4, 20, 40.25], [-8, -2, 30, 30]
  bad = [{"image_id": 99, "bbox": box}, {"image_id": 12, "bbox": [100, 100, 5, 5]}]
  by_number = [{"image_id": 785, "bbox": box}, {"image_id": 12, "bbox": other, "score": 0.5}, *bad]
  by_name = [
    {"file_name": "000000000785.png", "bbox": box},
    {"file_name": "sub/12.png", "bbox": other, "score": 0.5},
  ]
  found = predict(checkpoint, root, tmp_path / "number", boxes=by_number)
  printed = capsys.readouterr().out
  assert "1 people of pictures that are not in the folder are left out (entry 3)" in printed
  assert "1 people without area in the picture are left out (entry 4)" in printed
  assert found == predict(checkpoint, root, tmp_path / "name", boxes=by_name)
  assert [entry["bbox"] for entry in found] == [box, other]
  assert [entry["image_id"] for entry in found] == [785, 12]
  # The score is the score of the box times the mean of the joint scores above 0.2.
  scores = [joints(entry)[:, 2] for entry in found]
  expected = [weight * row[row > 0.2].mean() for weight, row in zip((1, 0.5), scores, strict=True)]
  np.testing.assert_allclose([entry["score"] for entry in found], expected, rtol=1e-6)


def test_the_region_is_fitted_to_the_network_or_is_the_square_of_models_like_mpii(checkpoint, tmp_path):
  variables, facts = checkpoint_file.read(checkpoint)
  squeezed = tmp_path / "squeezed"
  checkpoint_file.write(squeezed, variables, {**facts, "model": facts["model"] | {"fit_aspect": False}})
  root = tmp_path / "pictures"
  write(root / "1.png", pixels())
  boxes = [{"image_id": 1, "bbox": [10, 5, 12, 40]}, {"image_id": 1, "bbox": [2, 9, 40, 10]}]
  fitted, square = (
    predict(path, root, tmp_path / f"out-{k}", boxes=boxes) for k, path in enumerate((checkpoint, squeezed))
  )
  for entry, size in zip(fitted, [(30, 40), (40, 40 / 0.75)], strict=True):
    np.testing.assert_allclose(200 * np.array(entry["scale"]), 1.25 * np.array(size), rtol=1e-6)
  for entry, center in zip(square, [(16, 25), (22, 14)], strict=True):
    np.testing.assert_allclose(entry["center"], center, rtol=1e-6)
    np.testing.assert_allclose(200 * np.array(entry["scale"]), [50, 50], rtol=1e-6)


def test_no_flip_leaves_out_the_mirrored_image(checkpoint, tmp_path):
  """The picture has a long name that is not UTF-8, and is given in place of a folder."""
  root, name = tmp_path / "pictures", os.fsdecode(b"caf\xe9" + b"x" * 246 + b".png")
  write(root / "a.png", pixels())
  (root / "a.png").rename(root / name)
  once = predict(checkpoint, root, tmp_path / "once")
  words = ["predict", str(checkpoint), str(root / name), f"--out={tmp_path / 'twice'}", "--batch_size=8"]
  assert hap(words) == 0
  twice = json.loads((tmp_path / "twice" / "keypoints.json").read_text())
  for found, out in ((once, "once"), (twice, "twice")):
    assert [entry["file_name"] for entry in found] == [name]
    assert os.listdir(tmp_path / out / "overlays") == [name.replace(".png", ".jpg")]
  assert joints(once[0]).tolist() != joints(twice[0]).tolist()


def test_a_checkpoint_that_cannot_find_joints_is_one_line(checkpoint, tmp_path, capsys):
  write(tmp_path / "pictures" / "1.png", pixels())
  variables, facts = checkpoint_file.read(checkpoint)
  encoder = {"params": {"encoder": variables["params"]["encoder"]}}
  wrong = {"joints": ["nose"] * 17}
  for name, arrays, changes, message in (
    ("headless", encoder, {}, "it has no head for joints (keypoint_head), found only encoder; expected"),
    ("unnamed", variables, {"classes": wrong}, "it predicts 17 joints, and records 17 names of joints; exp"),
    ("pretrain", encoder, {"task": "pretrain"}, "is a checkpoint for pretrain, but --no_flip needs a checkp"),
  ):
    checkpoint_file.write(tmp_path / name, arrays, {**facts, **changes})
    words = ["predict", str(tmp_path / name), str(tmp_path / "pictures"), f"--out={tmp_path / 'out'}", *FAST]
    assert hap(words) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path / name}")
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_error_while_the_results_are_written_leaves_no_folder(checkpoint, tmp_path, monkeypatch, capsys):
  write(tmp_path / "pictures" / "1.png", pixels())

  def fill_the_disk(*_):
    raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(picture_file, "encode_jpeg", fill_the_disk)
  words = ["predict", str(checkpoint), str(tmp_path / "pictures"), f"--out={tmp_path / 'out'}", *FAST]
  assert hap(words) == 1
  error = f"error: [Errno 28] No space left on device: '{tmp_path / 'out'}'\n"
  assert capsys.readouterr().err == error
  assert os.listdir(tmp_path) == ["pictures"]


def test_overlays_have_the_names_of_their_pictures_without_collisions():
  paths = ["a.bmp", "a.jpg", "b.png", "c/d.webp", "e.jpg.png", "e.jpg", "f.bmp", "f.bmp.jpg", "f.jpg"]
  paths += ["g.jpg/h.jpg/i.png", "g.jpg/h.webp", "g.png"]  # two folders with the ending of a picture
  names = predicting.overlay_names(paths)
  assert names == [
    *("a.bmp.jpg", "a.jpg", "b.jpg", "c/d.jpg", "e.jpg.jpg", "e.jpg"),
    *("f.bmp.jpg.jpg", "f.bmp.jpg", "f.jpg"),
    *("g.jpg/h.jpg/i.jpg", "g.jpg/h.webp.jpg", "g.png.jpg"),
  ]
  assert len(set(names)) == len(names)
