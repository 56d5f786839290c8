"""The source `aic_pose`: layouts, the original release, records and truth."""

import numpy as np
import pytest

from configs import pretrain_b16
from hap_jax.data.sources import aic_pose
from hap_jax.data.sources.base import BadRecordError
from hap_jax.tasks import pretrain
from tests.data import pose_files
from tests.data.pose_files import make_aic_person, make_coco

NEW, OLD = "ai_challenger_keypoint_train_20170909", "ai_challenger_keypoint_train_20170902"
VAL = "ai_challenger_keypoint_validation_20170911"
LAYOUTS = [
  ("train", "annotations/aic_train.json", f"{NEW}/keypoint_train_images_20170902"),
  ("train", f"{NEW}/aic_train.json", f"{NEW}/keypoint_train_images_20170902"),
  ("train", "annotations/aic_train.json", f"{OLD}/keypoint_train_images_20170902"),
  ("train", f"{OLD}/aic_train.json", f"{OLD}/keypoint_train_images_20170902"),
  ("val", "annotations/aic_val.json", f"{VAL}/keypoint_validation_images_20170911"),
]


def open_split(root, split="val", content=None, **options):
  """Writes `content` in the first layout of the split, if it is given, and opens the split."""
  if content is not None:
    _, annotations, images = LAYOUTS[-1 if split == "val" else 0]
    pose_files.write_aic(root, annotations=annotations, images=images, content=content)
  return aic_pose.open_source(root=str(root), split=split, seed=0, **options)


@pytest.mark.parametrize(("split", "annotations", "images"), LAYOUTS)
def test_every_layout_is_found(tmp_path, split, annotations, images):
  pose_files.write_aic(tmp_path, annotations=annotations, images=images)
  source = open_split(tmp_path, split)
  assert source.id.tolist() == [4, 5]
  record = source[0]
  assert record["image"].shape == (*pose_files.SIZE, 3)
  assert record["keypoints_xy"].shape == (14, 2)
  assert record["keypoints_visible"].tolist() == [False] + [True] * 13
  np.testing.assert_array_equal(record["box"], np.float32([4.5, 8, 23.5, 31]))
  assert source.spec.notes == ()


def test_an_error_lists_the_places_that_were_tried(tmp_path):
  (tmp_path / "other").mkdir()
  with pytest.raises(ValueError, match=r"annotations of train .* not found; tried ") as error:
    open_split(tmp_path, "train")
  for place in ("annotations/aic_train.json", f"{NEW}/aic_train.json", f"{OLD}/aic_train.json"):
    assert place in str(error.value)
  assert "config.data.aic_pose.train_annotations" in str(error.value)
  pose_files.write_json(tmp_path / "annotations" / "aic_val.json", make_coco(make_aic_person(1)))
  with pytest.raises(
    ValueError, match=rf"pictures of val not found; tried {VAL}/.*aic_pose\.val_images.*found there: annota"
  ):
    open_split(tmp_path)
  with pytest.raises(ValueError, match=r"not found; tried mine\.json; set"):
    open_split(tmp_path, val_annotations="mine.json")


def test_the_original_release_is_refused_with_its_conversion(tmp_path):
  original = [
    {
      "image_id": "one",
      "url": "",
      "keypoint_annotations": {"human1": [1, 2, 1] * 14},
      "human_annotations": {"human1": [1, 2, 3, 4]},
    }
  ]
  with pytest.raises(
    ValueError, match=r"aic_val\.json: no list under .*original release.*convert it to COCO's format"
  ):
    open_split(tmp_path, content=original)


def test_the_truth_is_the_unchanged_file_without_areas(tmp_path):
  content = make_coco(make_aic_person(4), make_aic_person(5, keypoints=[0] * 42, num_keypoints=0))
  source = open_split(tmp_path, content=content)
  truth = source.truth()
  assert truth.annotations == content
  assert "area" not in truth.annotations["annotations"][0]
  assert truth.person_id.tolist() == [4]
  assert truth.box_score.tolist() == [1]
  assert "1 without a labelled joint" in source.spec.notes[0]


def test_another_number_of_joints_is_an_error_that_names_both(tmp_path):
  with pytest.raises(ValueError, match="it has 17 joints, but aic14 has 14"):
    open_split(tmp_path, content=make_coco())


def test_a_picture_with_exchanged_sides_is_a_bad_record(tmp_path):
  source = open_split(tmp_path, content=make_coco(make_aic_person(4)))
  pose_files.write_picture(tmp_path / LAYOUTS[-1][2] / "one.jpg", pose_files.SIZE[::-1])
  with pytest.raises(BadRecordError, match="height and width are exchanged, because the picture was turned"):
    source[0]


def test_pre_training_with_masks_of_body_parts_refuses_joints_without_body_parts(tmp_path):
  source = open_split(tmp_path, content=make_coco(make_aic_person(4)))
  config = pretrain_b16.get_config()
  config.data.source = "aic_pose"
  with pytest.raises(
    ValueError, match=r"mask\.parts=True needs joints, and aic_pose has aic14, whose body parts .*luperson"
  ):
    pretrain.fields_of(config, source)
  config.mask.parts = False
  assert pretrain.fields_of(config, source) == ("image",)


def test_real_people(samples):
  source = open_split(samples / "pose2d" / "aic", val_annotations="test_aic.json", val_images=".")
  assert len(source) == 9
  assert source.spec.notes == ()
  assert source.truth().person_id.tolist() == list(range(4, 13))
  for i in (0, 3, 8):
    record = source[i]
    assert record["keypoints_xy"][record["keypoints_visible"]].min() > 0
    assert record["image"].shape[1] in (900, 950)
