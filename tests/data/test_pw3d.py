"""The source pw3d reads the test set of 3DPW as 3DCrowdNet publishes it. The files contain drawn people."""

import json
import shutil

import numpy as np
import pytest

from hap_jax.data.body_model import GENDERS
from hap_jax.data.sources import pw3d, synthetic
from hap_jax.data.sources.base import BadRecordError

FILE = "3DPW_latest_test.json"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
  root = tmp_path_factory.mktemp("pw3d") / "people"
  synthetic.write_3dpw(root, num_test=9, image_size=(64, 32), workers=0)
  return root


@pytest.fixture
def root(drawn, tmp_path):
  """Returns a copy of the annotation file, with a link to the pictures."""
  shutil.copy(drawn / FILE, tmp_path)
  (tmp_path / "imageFiles").symlink_to(drawn / "imageFiles")
  return tmp_path


def change(root, edit):
  content = json.loads((root / FILE).read_text())
  edit(content)
  (root / FILE).write_text(json.dumps(content))


def test_records_have_the_parameters_of_the_drawn_people(drawn):
  source = pw3d.open_source(root=drawn, split="test", seed=0)
  people = synthetic.open_source(split="test", num_test=9, image_size=(64, 32))
  assert len(source) == 9
  for i in (0, 8):
    found, expected = source[i], people[i]
    assert found.keys() == set(pw3d.FIELDS)
    for name in ("smpl_pose", "smpl_betas", "smpl_translation", "intrinsics"):
      np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-6)
    assert GENDERS[found["gender"]] in ("male", "female", "neutral")
    # JPEG changes the pixels a little.
    assert np.abs(found["image"].astype(int) - expected["image"]).mean() < 6
    assert source.columns["smpl_pose"].shape == (9, 72)
    assert str(drawn) in source.name(i)


def test_the_box_comes_from_confident_joints_or_else_from_the_annotation(root):
  def edit(content):
    first, second = content["annotations"][:2]
    first["openpose_result"] = [[0, 0, 0.0]] * 16 + [[10, 20, 0.9], [20, 50, 0.06]]
    second["openpose_result"] = [[9, 9, 0.05]] * 18
    second["bbox"] = [1, 2, 10, 20]

  change(root, edit)
  source = pw3d.open_source(root=root, split="test", seed=0)
  np.testing.assert_allclose(source.columns["box"][0], [9, 17, 21, 53])  # 10 x 30 pixels, times 1.2
  np.testing.assert_allclose(source.columns["box"][1], [1, 2, 11, 22])
  (note,) = source.spec.notes
  assert note.endswith("1 people have no joints of OpenPose, so their annotated boxes are used")


BAD = {
  "no fit": (lambda c: c["annotations"][0].pop("smpl_param"), r'annotation 0 has no key "smpl_param"'),
  "no gender": (lambda c: c["annotations"][0]["smpl_param"].pop("gender"), r'has no key "gender"'),
  "other gender": (
    lambda c: c["annotations"][0]["smpl_param"].update(gender="m"),
    r"has 'm' under gender, expected one of neutral, male, female",
  ),
  "short pose": (
    lambda c: c["annotations"][0]["smpl_param"].update(pose=[0.0] * 69),
    r"69 values under pose, expected 72",
  ),
  "no camera": (lambda c: c["images"][0].pop("cam_param"), r'image 0 has no key "cam_param"'),
  "no focal length": (
    lambda c: c["images"][0]["cam_param"].update(focal=[0, 1]),
    r"under focal, expected numbers above 0",
  ),
  "train": (
    lambda c: c["images"][0].update(sequence="courtyard_golf_00"),
    r"sequence courtyard_golf_00, which is in 3DPW's train or validation set: expected 3DPW_latest_test",
  ),
  "outside": (lambda c: c["images"][0].update(sequence="../x"), r"\.\./x"),
  "joints": (lambda c: c["annotations"][0].update(openpose_result=[[1, 2, 3]]), r"1 values.*expected 18"),
  "nobody": (lambda c: c.update(annotations=[]), r"no annotations"),
}


@pytest.mark.parametrize(("edit", "message"), BAD.values(), ids=BAD)
def test_a_wrong_annotation_is_an_error_of_one_line_that_names_it(root, edit, message):
  change(root, edit)
  with pytest.raises(ValueError, match=message) as error:
    pw3d.open_source(root=root, split="test", seed=0)
  assert "\n" not in str(error.value)
  assert FILE in str(error.value)


def test_pickles_of_3dpw_are_not_read(root):
  (root / "sequenceFiles").mkdir()
  (root / FILE).unlink()
  with pytest.raises(ValueError, match=r"sequenceFiles/ are not read; expected 3DPW_latest_test.*3DCrowdNet"):
    pw3d.open_source(root=root, split="test", seed=0)
  with pytest.raises(ValueError, match=r"downtown\.pkl: a pickle of 3DPW's sequenceFiles, which is not read"):
    pw3d.open_source(root=root, split="test", seed=0, annotations="sequenceFiles/downtown.pkl")
  with pytest.raises(ValueError, match=r"pw3d has only \"test\""):
    pw3d.open_source(root=root, split="train", seed=0)


def test_a_picture_of_another_size_is_a_bad_record(root):
  change(root, lambda content: content["images"][0].update(height=640, width=320))
  source = pw3d.open_source(root=root, split="test", seed=0)
  with pytest.raises(BadRecordError, match=r"another version of the picture"):
    source[0]
