"""`hap prepare synthetic --format=3dpw` writes 3DPW's layout, and its numbers agree with the pictures."""

import json

import cv2
import jax
import numpy as np
import pytest

from hap_jax.cli import __main__ as cli
from hap_jax.data import body_model
from hap_jax.data.sources import synthetic
from hap_jax.models import smpl
from hap_jax.synthetic import draw, export_3dpw

SEED = 9  # some joints of its pictures are outside
SIZE = (64, 32)
COUNT = 20  # pictures of three people
# The joint of `joint_regressor` for each joint of OpenPose (nose, neck, right arm, left arm, legs, face).
FROM_30 = [24, 12, 17, 19, 21, 16, 18, 20, 2, 5, 8, 1, 4, 7, 26, 25, 28, 27]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  out = tmp_path_factory.mktemp("prepare") / "people"
  words = [f"--out={out}", f"--seed={SEED}", f"--num_test={COUNT}", "--image_size=64x32", "--workers=0"]
  assert cli.main(["prepare", "synthetic", "--format=3dpw", *words]) == 0
  return out


def content(folder):
  return json.loads((folder / "3DPW_latest_test.json").read_text(encoding="utf-8"))


def test_the_folder_has_the_layout_of_3dpw_and_a_body(folder):
  assert {path.name for path in folder.iterdir()} == {
    *("imageFiles", "3DPW_latest_test.json", "body", "README.txt")
  }
  entries = content(folder)
  images, people = entries["images"], entries["annotations"]
  assert len(images) == len(people) == COUNT
  files = {f"{image['sequence']}/{image['file_name']}" for image in images}
  pictures = folder / "imageFiles"
  assert files == {path.relative_to(pictures).as_posix() for path in pictures.rglob("*.jpg")}
  assert len({image["sequence"] for image in images}) == 3
  assert [person["image_id"] for person in people] == [image["id"] for image in images]
  readme = (folder / "README.txt").read_text(encoding="utf-8")
  for fact in (
    f"seed {SEED}",
    "64x32",
    f"--num_test={COUNT}",
    "pixel centres are whole numbers",
    "Apache-2.0",
  ):
    assert fact in readme


def test_the_pictures_and_parameters_are_those_of_the_split_test(folder):
  source = synthetic.open_source(split="test", seed=SEED, num_test=COUNT, image_size=SIZE)
  entries = content(folder)
  for record, image, person in zip(source, entries["images"], entries["annotations"], strict=True):
    path = folder / "imageFiles" / image["sequence"] / image["file_name"]
    written = cv2.imread(str(path))[..., ::-1]
    assert np.abs(written.astype(int) - record["image"]).mean() < 2  # the files are JPEG
    assert (image["height"], image["width"]) == SIZE
    names = {"pose": "smpl_pose", "shape": "smpl_betas", "trans": "smpl_translation"}
    for key, field in names.items():
      np.testing.assert_array_equal(np.float32(person["smpl_param"][key]), record[field])
    is_female = draw.look_of(SEED, int(record["pid"])).is_female
    assert person["smpl_param"]["gender"] == ("female" if is_female else "male")
    x, y, width, height = person["bbox"]
    assert 0 <= x < x + width <= SIZE[1]
    assert 0 <= y < y + height <= SIZE[0]
    inside = np.clip(record["box"], 0, np.array(SIZE[::-1] * 2) - 1)
    np.testing.assert_allclose((x, y, x + width - 1, y + height - 1), inside, atol=0.5)


def test_the_body_and_the_camera_give_the_joints_of_openpose(folder):
  body_set = body_model.read_body_set(folder / "body", need_h36m=True)
  entries = content(folder)
  fits = [person["smpl_param"] for person in entries["annotations"]]
  arrays = smpl.body_arrays(body_set, fits[0]["gender"])
  columns = (np.float32([fit[key] for fit in fits]) for key in ("pose", "shape", "trans"))
  vertices, _ = jax.jit(smpl.pose_body)(arrays, *columns)
  joints = np.einsum("kv,bvc->bkc", body_set.joint_regressor, vertices)[:, FROM_30]
  cameras = [image["cam_param"] for image in entries["images"]]
  focal, center = (np.array([camera[key] for camera in cameras])[:, None] for key in ("focal", "princpt"))
  xy = joints[..., :2] / joints[..., 2:] * focal + center
  openpose = np.array([person["openpose_result"] for person in entries["annotations"]])
  found = openpose[..., 2] == 1
  np.testing.assert_allclose(openpose[found, :2], xy[found], atol=0.01)
  assert not openpose[~found].any()
  is_inside = ((xy >= -0.5) & (xy < np.array(SIZE[::-1]) - 0.5)).all(axis=-1)
  np.testing.assert_array_equal(found, is_inside)
  assert 0 < (~found).sum() < 0.2 * found.size


def test_the_order_of_openpose_is_that_of_its_skeleton():
  assert export_3dpw.OPENPOSE[:5] == ("nose", "neck", "right_shoulder", "right_elbow", "right_wrist")
  assert len(set(export_3dpw.OPENPOSE)) == 18


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (("synthetic", "--num_train=8"), "--num_train: works only with"),
    (("synthetic", "--num_val=8"), "--num_val: works only with"),
    (("synthetic", "--split=test"), "--split: works only with"),
    (("synthetic_captions",), "--format=3dpw: synthetic_captions cannot"),
    (("market1501", "--root=."), "--format=3dpw: market1501 cannot"),
  ],
)
def test_what_3dpws_layout_cannot_hold_is_refused(words, message, tmp_path, capsys):
  assert cli.main(["prepare", *words, "--format=3dpw", f"--out={tmp_path / 'people'}"]) == 1
  assert message in capsys.readouterr().err
  assert not list(tmp_path.iterdir())
