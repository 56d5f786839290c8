"""The source `coco_pose`: records, boxes, detections, truth, and messages for malformed files."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from hap_jax.data import coco_people, pack
from hap_jax.data.skeletons import AIC14
from hap_jax.data.sources import coco_pose, tfds
from hap_jax.data.sources.base import BadRecordError
from tests.data import pose_files
from tests.data.pose_files import make_coco, make_person


def open_val(root, content=None, **options):
  """Writes `content` as COCO's validation split, if it is given, and opens this split."""
  if content is not None:
    pose_files.write_coco(root, content)
  return coco_pose.open_source(root=str(root), split="val", seed=0, **options)


def test_a_record_is_a_whole_picture_and_one_person(tmp_path):
  source = open_val(pose_files.write_coco(tmp_path))
  assert len(source) == 2
  record = source[1]
  assert record["image"].shape == (*pose_files.SIZE, 3)
  np.testing.assert_array_equal(record["keypoints_xy"][1:], [(5 + j, 10 + j) for j in range(1, 17)])
  np.testing.assert_array_equal(record["keypoints_visible"], [False] + [True] * 16)  # joint 1 is hidden
  # The box (4.5, 8, 20, 24) loses one pixel of its width and of its height, as in the reference.
  np.testing.assert_array_equal(record["box"], np.float32([4.5, 8, 23.5, 31]))
  assert source.name(1).endswith("val2017/one.jpg (annotation 9)")


def test_a_joint_outside_the_picture_stays_visible(tmp_path):
  person = make_person(1)
  person["keypoints"][6:9] = -3.5, 99, 1
  record = open_val(tmp_path, make_coco(person))[0]
  np.testing.assert_array_equal(record["keypoints_xy"][2], [-3.5, 99])
  assert record["keypoints_visible"][2]


@pytest.mark.parametrize(
  ("box", "clean"),
  [
    ((4, 8, 20, 24), (4, 8, 23, 31)),
    ((-4, -8, 20, 24), (0, 0, 19, 23)),  # the corner moves, the size stays
    ((20, 30, 100, 100), (20, 30, 29, 39)),
    ((4, 8, 1, 24), None),
    ((4, 8, 20, 0), None),
    ((29, 8, 20, 24), None),
    ((4, 60, 20, 24), None),
    ((-50, 8, 20, 24), (0, 8, 19, 31)),
    ((4, 8, 1e38, -1e38), None),
  ],
)
def test_boxes_are_cut_at_the_border_as_in_the_reference(box, clean):
  assert coco_people.clean_box(box, pose_files.SIZE) == clean


def test_people_left_out_are_counted_and_wrong_entries_are_named(tmp_path):
  no_keypoints = make_person(2)
  del no_keypoints["keypoints"]
  people = [
    make_person(1, iscrowd=1),
    no_keypoints,
    make_person(3, keypoints=[0] * 51, num_keypoints=0),
    make_person(4, num_keypoints=0),
    make_person(5, category_id=2),
    make_person(6, area=0),
    *(make_person(k, bbox=[50, 8, 20, 24]) for k in range(10, 16)),
    make_person(20),
  ]
  categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "cat"}]
  source = open_val(tmp_path, make_coco(*people, categories=categories))
  assert source.id.tolist() == [20]
  note = source.spec.notes[0]
  for part in (
    "1 people; left out of its 13 annotations: 1 crowds, 1 without keypoints, 2 without a labelled joint",
    "1 of a category other than person, 1 with an area that is not above 0 (annotation 6)",
    "6 with a box without area in the picture (annotation 10, 11, 12, 13, 14, ...)",
  ):
    assert part in note
  with pytest.raises(ValueError, match="but all 1 are left out: 1 crowds"):
    open_val(tmp_path, make_coco(make_person(1, iscrowd=1)))


def test_an_annotation_without_area_is_read_but_cannot_be_scored(tmp_path):
  person = make_person(1)
  del person["area"]
  source = open_val(tmp_path, make_coco(person, make_person(2)))
  assert len(source) == 2
  with pytest.raises(ValueError, match=r"val2017\.json: 1 annotations have no area \(1\)"):
    source.truth()


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"bbox": None}, "annotation 2 has null under bbox, expected 4 numbers"),
    ({"keypoints": [0] * 6}, "annotation 2 has 6 values under keypoints, expected 51"),
    ({"keypoints": None}, "annotation 2 has null under keypoints, expected 51 numbers"),
    ({"area": None}, "annotation 2 has null under area, expected a finite number"),
    ({"category_id": None}, "annotation 2 has null under category_id, expected a whole number"),
  ],
)
def test_a_forbidden_value_of_a_crowd_is_found_before_the_first_score(tmp_path, changes, message):
  source = open_val(tmp_path, make_coco(make_person(1), make_person(2, iscrowd=1, **changes)))
  with pytest.raises(ValueError, match=message):
    source.truth()


def test_a_person_without_keypoints_needs_a_box_for_the_score(tmp_path):
  person = make_person(2)
  del person["keypoints"]
  assert open_val(tmp_path / "good", make_coco(make_person(1), person)).truth()
  del person["bbox"]
  with pytest.raises(ValueError, match='annotation 2 has no key "bbox"'):
    open_val(tmp_path / "bad", make_coco(make_person(1), person)).truth()


def test_the_truth_is_the_unchanged_file_and_the_numbers_of_the_records(tmp_path):
  content = make_coco(make_person(7, iscrowd=1), make_person(3), make_person(5, image_id=2))
  content["images"].append({**content["images"][0], "id": 2})
  truth = open_val(tmp_path, content).truth()
  assert truth.annotations == json.loads(json.dumps(content))
  assert truth.category_id == 1
  assert truth.person_id.tolist() == [3, 5]
  assert truth.image_id.tolist() == [1, 2]
  assert truth.box_score.tolist() == [1, 1]


def test_the_truth_needs_one_category_of_people(tmp_path):
  people = make_person(1, category_id=3), make_person(2, category_id=5)
  names = [{"id": 3, "name": "person"}, {"id": 5, "name": "Person"}]
  with pytest.raises(ValueError, match=r"people have the category ids 3, 5; expected one"):
    open_val(tmp_path, make_coco(*people, categories=names)).truth()
  assert open_val(tmp_path, make_coco(people[0], categories=[])).truth().category_id == 3


@pytest.mark.parametrize(
  ("size", "options", "message"),
  [
    (
      (30, 40),
      {},
      r"\(30, 40\) pixels .* states \(40, 30\): height and width are exchanged, because the ",
    ),
    ((30, 40), {"exif": True}, r"exchanged, because the EXIF header says to turn"),
    ((80, 60), {}, r"\(80, 60\) pixels .* states \(40, 30\): the file is another version"),
  ],
)
def test_a_picture_of_another_size_is_a_bad_record_with_its_cause(tmp_path, size, options, message):
  source = open_val(pose_files.write_coco(tmp_path))
  if options:
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif}
  pose_files.write_picture(tmp_path / "val2017" / "one.jpg", size, **options)
  with pytest.raises(BadRecordError, match=rf"one\.jpg: {message}" if "pixels" in message else message):
    source[0]


def test_a_missing_picture_is_a_bad_record(tmp_path):
  source = open_val(tmp_path, make_coco(pictures=("absent.jpg",)))
  with pytest.raises(BadRecordError, match=r"absent\.jpg: cannot be read"):
    source[0]


def test_another_number_of_joints_is_an_error_that_names_both(tmp_path):
  with pytest.raises(ValueError, match=r"annotation 1 has 42 values .*it has 14 joints, but coco17 has 17"):
    open_val(tmp_path, make_coco(make_person(1, AIC14)))


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("bbox", [1, 2, 3], "annotation 7 has 3 values under bbox, expected 4"),
    ("keypoints", [None] * 51, "annotation 7 has null among the values under keypoints"),
    ("num_keypoints", "many", "annotation 7 has 'many' under num_keypoints"),
    ("area", None, "annotation 7 has null under area, expected a finite number"),
    ("id", 9, "annotation 9 occurs twice in the list annotations"),
    ("image_id", 5, "annotation 7: its image_id is 5, which is not in the list images"),
  ],
)
def test_a_forbidden_value_is_an_error_of_one_line_with_file_and_entry(tmp_path, key, value, message):
  with pytest.raises(ValueError, match=rf"person_keypoints_val2017\.json: {message}") as error:
    open_val(tmp_path, make_coco(make_person(7) | {key: value}, make_person(9)))
  assert "\n" not in str(error.value)


def test_messages_name_the_option_of_the_split(tmp_path):
  pose_files.write_coco(tmp_path)
  with pytest.raises(ValueError, match=r"set config\.data\.coco_pose\.val_annotations to another file"):
    open_val(tmp_path, val_annotations="other.json")
  with pytest.raises(ValueError, match=r"config\.data\.coco_pose\.val_images"):
    open_val(tmp_path, val_images="nowhere")
  with pytest.raises(ValueError, match=r"config\.data\.coco_pose\.train_images"):
    coco_pose.open_source(root=str(tmp_path), split="train", seed=0)
  with pytest.raises(ValueError, match=r"set config\.data\.coco_pose\.detections to another file"):
    open_val(tmp_path, detections="other.json")
  with pytest.raises(ValueError, match="split='test'"):
    coco_pose.open_source(root=str(tmp_path), split="test", seed=0)


def test_options_name_other_files_and_the_note_on_the_official_number_is_left_out(tmp_path):
  pose_files.write_json(tmp_path / "mine.json", make_coco())
  pose_files.write_coco(tmp_path)
  notes = open_val(tmp_path).spec.notes
  assert notes[0].endswith("val2017.json: 2 people; the official number is 6,352")
  options = {"train_annotations": "mine.json", "train_images": "val2017"}
  source = coco_pose.open_source(root=str(tmp_path), split="train", seed=0, **options)
  assert len(source) == 2
  assert source[0]["image"].size
  assert source.spec.notes == ()


# Detections


def detection(**changes):
  return {"image_id": 1, "category_id": 1, "bbox": [-2.5, 1, 50, 60], "score": 0.25, **changes}


def open_detections(root, *entries, content=None):
  pose_files.write_coco(root, content)
  pose_files.write_json(root / "boxes.json", list(entries))
  return open_val(root, detections="boxes.json")


def test_detections_are_records_of_val_with_their_own_boxes(tmp_path):
  source = open_detections(tmp_path, detection(), detection(score=-1.0, bbox=[1, 2, 3.5, 4]))
  np.testing.assert_array_equal(source.columns["box"], np.float32([[-2.5, 1, 47.5, 61], [1, 2, 4.5, 6]]))
  assert not source[0]["keypoints_visible"].any()
  truth = source.truth()
  assert truth.person_id is None
  assert truth.box_score.tolist() == [0.25, -1]
  assert truth.image_id.tolist() == [1, 1]
  assert [entry["id"] for entry in truth.annotations["annotations"]] == [7, 9]
  assert source.name(1).endswith("one.jpg (detection 2)")


def test_detections_do_not_change_the_training_split(tmp_path):
  pose_files.write_coco(tmp_path, split="train")
  source = coco_pose.open_source(root=str(tmp_path), split="train", seed=0, detections="absent.json")
  assert source.id.tolist() == [7, 9]


def test_detections_that_do_not_fit_are_counted_and_named(tmp_path):
  entries = [
    *(detection(image_id=k) for k in range(2, 9)),
    detection(category_id=3),
    detection(bbox=[90, 1, 5, 5]),
    detection(bbox=[5, 5, 0, 5]),
    detection(),
  ]
  source = open_detections(tmp_path, *entries)
  assert source.id.tolist() == [11]
  note = source.spec.notes[-1]
  assert "boxes.json: 1 detections; left out of its 11: 7 of pictures that are not in" in note
  assert "(detection 1, 2, 3, 4, 5, ...)" in note
  assert "2 with a box without area in the picture (detection 9, 10)" in note
  with pytest.raises(ValueError, match=r"boxes\.json: expected at least one .* all 7 are left out"):
    open_detections(tmp_path, *entries[:7])


@pytest.mark.parametrize(
  ("entry", "message"),
  [
    (3, "detection 2 is 3; expected an object of detections"),
    (detection(score=None), "detection 2 has null under score"),
    (detection(score=float("nan")), "detection 2 has nan under score"),
    (detection(bbox=[1, 2]), "detection 2 has 2 values under bbox"),
    (detection(bbox=[1, 2, 3e38, 3e38]), "detection 2 has .* under bbox, expected at most"),
    (detection(image_id="1"), "detection 2 has '1' under image_id"),
    ({"image_id": 1}, 'detection 2 has no key "category_id"'),
  ],
)
def test_a_malformed_detection_is_an_error_of_one_line_with_file_and_entry(tmp_path, entry, message):
  with pytest.raises(ValueError, match=rf"boxes\.json: {message}"):
    open_detections(tmp_path, detection(), entry)
  pose_files.write_json(tmp_path / "boxes.json", {})
  with pytest.raises(ValueError, match=r"boxes\.json: expected a list of detections"):
    open_val(tmp_path, detections="boxes.json")


def test_the_pickle_has_no_content_of_the_annotation_file(tmp_path):
  content = make_coco(info={"description": "x" * 100_000})
  source = open_val(tmp_path, content)
  data = pickle.dumps(source)
  assert len(data) < 10_000
  copy = pickle.loads(data)
  np.testing.assert_array_equal(copy[1]["image"], source[1]["image"])
  assert copy.truth().annotations == content


def test_packed_people_are_equal(tmp_path):
  source = open_val(pose_files.write_coco(tmp_path / "coco"))
  pack.write_dataset(tmp_path / "packed", {"val": source}, root=tmp_path / "coco")
  packed = tfds.open_source(root=str(tmp_path / "packed"), split="val", seed=0)
  assert packed.spec.skeleton is source.spec.skeleton
  for i in range(2):
    record = packed[i]
    assert record.keys() == source[i].keys()
    for field, value in source[i].items():
      np.testing.assert_array_equal(record[field], value)
  assert packed.name(1) == "val2017/one.jpg (annotation 9)"


def test_real_people_and_detections(samples):
  root, options = samples / "pose2d" / "coco", {"val_annotations": "test_coco.json", "val_images": "."}
  source = open_val(root, **options)
  assert len(source) == 12  # the file has 14 people, and two of them have no labelled joint
  assert "2 without a labelled joint" in source.spec.notes[0]
  assert len(source.truth().annotations["annotations"]) == 14
  for i in range(len(source)):
    record = source[i]
    left, top, right, bottom = record["box"]
    H, W = record["image"].shape[:2]
    assert 0 <= left < right <= W - 1
    assert 0 <= top < bottom <= H - 1
  detected = open_val(root, **options, detections="test_coco_det_AP_H_56.json")
  assert len(detected) == 118
  assert detected.spec.notes == ()
  assert len(np.unique(detected.truth().image_id)) == 4
