import json
import pickle

import cv2
import numpy as np
import pytest

from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources import coco_persons, luperson
from hap_jax.data.sources.base import BadRecordError
from hap_jax.data.transforms.image import ResizeWhole
from tests.data import luperson_files


def make_annotation(i, **changes):
  """Returns a person of image 1: 17 joints on a diagonal from (10, 20), v = 2. Joint 0 has no label."""
  joints = [(10 + j, 20 + 2 * j, 2) for j in range(17)]
  joints[0] = (0, 0, 0)
  return {
    "id": i,
    "image_id": 1,
    "bbox": [10.5, 20, 20, 40],
    "keypoints": [value for joint in joints for value in joint],
    "num_keypoints": 16,
    "iscrowd": 0,
    **changes,
  }


def make_coco(*annotations, **more):
  return {
    "images": [{"id": 1, "file_name": "one.jpg", "height": 80, "width": 60}],
    "annotations": list(annotations) or [make_annotation(7)],
    **more,
  }


@pytest.fixture
def root(tmp_path):
  """Returns a folder in COCO's layout with one picture. Its red is the column, and its green is the row."""
  image = np.zeros((80, 60, 3), np.uint8)
  image[..., 2], image[..., 1] = 4 * np.arange(60), 3 * np.arange(80)[:, None]
  for split in ("train", "val"):
    (tmp_path / f"{split}2017").mkdir()
    cv2.imwrite(str(tmp_path / f"{split}2017" / "one.jpg"), image, (cv2.IMWRITE_JPEG_QUALITY, 100))
  (tmp_path / "annotations").mkdir()
  write(tmp_path, make_coco())
  return tmp_path


def write(root, coco, split="train"):
  (root / "annotations" / f"person_keypoints_{split}2017.json").write_text(json.dumps(coco))


def open_train(root, **options):
  return coco_persons.open_source(root=str(root), split="train", seed=0, **options)


def test_box_is_cut_with_its_margin_and_joints_are_shifted(root):
  record = open_train(root, margin=0.1)[0]
  # x is from 10.5 - 2 to 30.5 + 2 and y from 20 - 4 to 60 + 4, both rounded outwards to whole pixels.
  assert record["image"].shape == (64 - 16, 33 - 8, 3)
  # The top left pixel is column 8, row 16 of the picture, within the error of JPEG.
  np.testing.assert_allclose(record["image"][0, 0], (4 * 8, 3 * 16, 0), atol=6)
  expected = np.array([(10 + j - 8, 20 + 2 * j - 16) for j in range(1, 17)])
  np.testing.assert_array_equal(record["keypoints_xy"][1:], expected)
  np.testing.assert_array_equal(record["keypoints_visible"], [False] + [True] * 16)
  assert record["keypoints_xy"].dtype == np.float32


def test_cut_stays_inside_the_picture(root):
  write(root, make_coco(make_annotation(1, bbox=[-5, -5, 80, 100])))
  assert open_train(root, margin=0.5)[0]["image"].shape == (80, 60, 3)


def test_a_hidden_joint_with_label_is_visible_and_a_joint_outside_the_cut_is_not(root):
  keypoints = make_annotation(1)["keypoints"]
  keypoints[3 * 5 + 2] = 1  # labelled, hidden
  keypoints[3 * 6 : 3 * 6 + 3] = 1, 1, 2  # labelled, outside the box
  write(root, make_coco(make_annotation(1, keypoints=keypoints)))
  visible = open_train(root)[0]["keypoints_visible"]
  assert visible[5]
  assert not visible[6]


def test_crowds_people_without_joints_and_empty_boxes_are_left_out(root):
  write(
    root,
    make_coco(
      make_annotation(1, iscrowd=1),
      make_annotation(2, keypoints=[0] * 51),
      make_annotation(3, bbox=[70, 20, 10, 10]),
      make_annotation(4),
      make_annotation(5, keypoints=[20, 20, 2] + [0] * 48),
    ),
  )

  def ids(**options):
    source = open_train(root, **options)
    return [int(source.name(i).split("annotation ")[1].rstrip(")")) for i in range(len(source))]

  assert ids() == [4, 5]
  assert ids(min_keypoints=2) == [4]
  with pytest.raises(ValueError, match="at least one annotation of a person, but all 5 are left out"):
    ids(min_keypoints=17)


def ids_and_notes(root, *annotations, **more):
  """Returns (annotation ids of the records, all notes in one text)."""
  write(root, make_coco(*annotations, **more))
  source = open_train(root)
  assert sorted(source[0]) == ["image", "keypoints_visible", "keypoints_xy"]
  return source.id.tolist(), " ".join(source.spec.notes)


@pytest.mark.parametrize(
  "box", [[20, 30, 0, 0], [20, 30, 0, 9], [20, 30, 9, -1], [60, 20, 9, 9], [5, -9, 9, 9], [9, 9, 1e-20, 9]]
)
def test_box_without_area_in_the_picture_is_left_out_and_counted(root, box):
  ids, notes = ids_and_notes(root, make_annotation(1, bbox=box), make_annotation(2))
  assert ids == [2]
  assert "left out of its 2 annotations: 1 with a box without area in the picture" in notes


def test_annotation_without_keypoints_is_left_out_and_counted(root):
  car, crowd = make_annotation(1), make_annotation(2, iscrowd=1)
  del car["keypoints"], crowd["keypoints"]
  ids, notes = ids_and_notes(root, car, crowd, make_annotation(3), {**car, "id": 4})
  assert ids == [3]
  assert "2 without keypoints" in notes
  assert "1 crowds" in notes


def test_person_is_the_category_with_this_name_and_any_number(root):
  animals = [make_annotation(i, category_id=i) for i in (1, 17, 5, 90)]
  names = {1: "cat", 17: "person", 5: "Person", 3: "car"}  # some annotation tools write a capital letter
  categories = [{"id": number, "name": name} for number, name in names.items()]
  ids, notes = ids_and_notes(root, *animals, categories=categories)
  assert ids == [17, 5]
  assert "2 of a category other than person" in notes


@pytest.mark.parametrize("categories", [{}, {"categories": []}])
def test_all_annotations_of_a_file_without_categories_are_people(root, categories):
  animals = [make_annotation(i, category_id=i) for i in (1, 17, 5, 90)]
  ids, notes = ids_and_notes(root, *animals, **categories)
  assert ids == [1, 17, 5, 90]
  assert "has no categories, so all of its annotations are read as people" in notes


def test_joints_outside_the_cut_are_not_counted_for_min_keypoints(root):
  outside = make_annotation(1, keypoints=[5, 5, 2, 50, 70, 2] + [0] * 45)
  write(root, make_coco(outside, make_annotation(2)))
  source = open_train(root)
  assert source.id.tolist() == [2]
  assert "1 with fewer than 1 joints inside the cut" in source.spec.notes[0]
  assert open_train(root, margin=1.0).id.tolist() == [1, 2]  # the cut is larger


def test_numbers_of_annotations_left_out_are_logged(root, caplog):
  write(root, make_coco(make_annotation(1, iscrowd=1), make_annotation(2)))
  with caplog.at_level("WARNING", logger="absl"):
    open_train(root)
  assert "1 people; left out of its 2 annotations: 1 crowds" in caplog.text


HUGE = 10**400  # larger than any float


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("bbox", None, "null under bbox, expected 4 numbers"),
    ("bbox", "20 30 9 9", "'20 30 9 9' under bbox"),
    ("bbox", 7, "7 under bbox"),
    ("bbox", {}, "{} under bbox"),
    ("bbox", [20, 30], "2 values under bbox, expected 4"),
    ("bbox", [20, 30, 9, 9, 9], "5 values under bbox"),
    ("bbox", [20, 30, None, 9], "null among the values under bbox"),
    ("bbox", [20, 30, "9", 9], "'9' among the values under bbox"),
    ("bbox", [20, float("nan"), 9, 9], "nan among the values under bbox"),
    ("bbox", [20, 30, float("inf"), 9], "inf among the values under bbox"),
    ("bbox", [20, 30, [9], 9], r"\[9\] among the values under bbox"),
    ("bbox", [20, 30, HUGE, 9], "among the values under bbox, expected 4 finite numbers"),
    ("bbox", [20, 30, True, 9], "True among the values under bbox"),
    ("keypoints", None, "null under keypoints, expected 51 numbers"),
    ("keypoints", "x" * 51, "under keypoints, expected 51 numbers"),
    ("keypoints", [], "0 values under keypoints, expected 51"),
    ("keypoints", [[1, 2, 2]] * 17, "17 values under keypoints, expected 51"),
    ("keypoints", [None] * 51, "null among the values under keypoints"),
    ("keypoints", ["1"] * 51, "'1' among the values under keypoints"),
    ("keypoints", [float("nan")] + [2] * 50, "nan among the values under keypoints"),
    ("keypoints", [float("-inf")] + [2] * 50, "-inf among the values under keypoints"),
    ("keypoints", [1e39] + [2] * 50, "1e[+]39 among the values under keypoints"),
    ("id", "seven", "'seven' under id, expected a whole number"),
    ("id", None, "null under id"),
    ("id", 1.5, "1.5 under id"),
    ("id", True, "True under id"),
    ("id", 2**63, "under id, expected a whole number"),
    ("id", [1], r"\[1\] under id"),
    ("image_id", "1", "'1' under image_id, expected a whole number"),
    ("image_id", None, "null under image_id"),
    ("image_id", [1], r"\[1\] under image_id"),
    ("image_id", float("nan"), "nan under image_id"),
    ("category_id", "1", "'1' under category_id"),
    ("category_id", None, "null under category_id"),
    ("iscrowd", None, "null under iscrowd, expected 0 or 1"),
    ("iscrowd", "0", "'0' under iscrowd"),
    ("iscrowd", float("nan"), "nan under iscrowd"),
    ("iscrowd", [0], r"\[0\] under iscrowd"),
  ],
)
def test_error_for_a_forbidden_value_names_its_annotation(root, key, value, message):
  annotation = make_annotation(7, category_id=1) | {key: value}
  write(root, make_coco(annotation, categories=[{"id": 1, "name": "person"}]))
  with pytest.raises(ValueError, match=rf"person_keypoints_train2017\.json: annotation .*{message}") as error:
    open_train(root)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("id", "one", "image number 1 of the list has 'one' under id"),
    ("height", None, "image 1 has null under height"),
    ("height", "80", "image 1 has '80' under height"),
    ("width", 0, "image 1 has 0 under width, expected a whole number from 1 to"),
    ("width", float("nan"), "image 1 has nan under width"),
    ("width", HUGE, "image 1 has .* under width"),
    ("file_name", None, "image 1 has null under file_name, expected a text"),
    ("file_name", 5, "image 1 has 5 under file_name"),
  ],
)
def test_error_for_a_forbidden_value_names_its_image(root, key, value, message):
  coco = make_coco()
  coco["images"][0][key] = value
  write(root, coco)
  with pytest.raises(ValueError, match=rf"person_keypoints_train2017\.json: {message}"):
    open_train(root)


def test_images_and_categories_with_equal_ids_are_errors(root):
  coco = make_coco()
  coco["images"] *= 2
  write(root, coco)
  with pytest.raises(ValueError, match="image 1 occurs twice in the list images"):
    open_train(root)
  categories = [{"id": 1, "name": "person"}, {"id": 1, "name": "cat"}]
  write(root, make_coco(make_annotation(7, category_id=1), categories=categories))
  with pytest.raises(ValueError, match="category number 2 of the list has the id 1 of another category"):
    open_train(root)


def test_each_split_has_its_own_file(root):
  write(root, make_coco(make_annotation(1), make_annotation(2)), split="val")
  assert len(open_train(root)) == 1
  source = coco_persons.open_source(root=str(root), split="val", seed=0)
  assert len(source) == 2
  assert source.name(0).endswith("one.jpg (annotation 1)")
  assert len(open_train(root, num_val=1)) == 1
  source = coco_persons.open_source(root=str(root), split="val", seed=0, num_val=1)
  assert [source.name(i)[-14:] for i in range(len(source))] == ["(annotation 2)"]


def test_one_file_is_split_by_num_val(root):
  path = root / "train2017" / "people.json"
  path.write_text(json.dumps(make_coco(*(make_annotation(i) for i in range(5)))))

  def names(split, num_val):
    options = {"annotations": "train2017/people.json", "num_val": num_val}
    source = coco_persons.open_source(root=str(root), split=split, seed=0, **options)
    return [source.name(i) for i in range(len(source))]

  assert names("train", 2) + names("val", 2) == names("train", 0)
  with pytest.raises(ValueError, match='leaves no records for split "val"'):
    names("val", 0)


def test_picture_that_is_missing_or_has_another_size_is_a_bad_record(root):
  coco = make_coco(make_annotation(1), make_annotation(2, image_id=2), make_annotation(3, image_id=3))
  coco["images"] += [
    {"id": 2, "file_name": "one.jpg", "height": 90, "width": 60},
    {"id": 3, "file_name": "absent.jpg", "height": 80, "width": 60},
  ]
  write(root, coco)
  source = open_train(root)
  assert source[0]["image"].size
  with pytest.raises(BadRecordError, match=r"one\.jpg: \(80, 60\) pixels .* annotation says \(90, 60\)"):
    source[1]
  with pytest.raises(BadRecordError, match=r"absent\.jpg"):
    source[2]


@pytest.mark.parametrize("key", ["bbox", "image_id", "id"])
def test_error_names_the_missing_key_of_an_annotation(root, key):
  annotation = make_annotation(7)
  del annotation[key]
  write(root, make_coco(annotation))
  with pytest.raises(ValueError, match=rf'person_keypoints_train2017\.json: annotation .* no key "{key}"'):
    open_train(root)


@pytest.mark.parametrize("key", ["height", "width", "file_name", "id"])
def test_error_names_the_missing_key_of_an_image(root, key):
  coco = make_coco()
  del coco["images"][0][key]
  write(root, coco)
  with pytest.raises(ValueError, match=f'image.* no key "{key}"'):
    open_train(root)


@pytest.mark.parametrize(
  ("coco", "message"),
  [
    ({"images": []}, 'no list under the key "annotations"'),
    ([1], 'no list under the key "images"'),
    (make_coco(make_annotation(7, image_id=9)), "7: its image_id is 9, which is not in the list images"),
    (make_coco(make_annotation(7, keypoints=[0] * 42)), "42 values under keypoints, expected 51"),
    (None, 'no list under the key "images"'),
    ({"images": {}, "annotations": []}, 'no list under the key "images"'),
    ({"images": [None], "annotations": []}, "image number 1 of the list is null; expected an object"),
    ({"images": [], "annotations": ["x"]}, "annotation number 1 of the list is 'x'; expected an object"),
    (make_coco() | {"categories": None}, "null under categories, expected a list"),
    (make_coco() | {"categories": [1]}, "category number 1 of the list is 1; expected an object"),
    (make_coco() | {"categories": [{"id": 1}]}, 'category number 1 of the list has no key "name"'),
    (make_coco() | {"categories": [{"id": 1, "name": 2}]}, "category number 1 of the list has 2 under name"),
    (make_coco() | {"categories": [{"id": 1, "name": "cat"}]}, r"no category is named .*found \['cat'\]"),
  ],
)
def test_file_of_another_form_is_an_error(root, coco, message):
  write(root, coco)
  with pytest.raises(ValueError, match=message):
    open_train(root)


def test_missing_files_and_impossible_options_are_errors(root, tmp_path_factory):
  with pytest.raises(ValueError, match=r"config\.data\.root is empty"):
    coco_persons.open_source(root="", split="train", seed=0)
  with pytest.raises(ValueError, match="nowhere: no such folder"):
    open_train(root / "nowhere")
  with pytest.raises(ValueError, match=r"people\.json: no such file.*coco_persons\.annotations"):
    open_train(root, annotations="annotations/people.json")
  with pytest.raises(ValueError, match=r"pictures: no such folder.*coco_persons\.images"):
    open_train(root, images="pictures")
  with pytest.raises(ValueError, match=r"margin=-0\.1"):
    open_train(root, margin=-0.1)
  with pytest.raises(ValueError, match="split='test'"):
    coco_persons.open_source(root=str(root), split="test", seed=0)
  (root / "annotations" / "person_keypoints_train2017.json").write_text("{")
  with pytest.raises(ValueError, match="not a JSON file"):
    open_train(root)


def test_source_can_be_pickled(root):
  source = pickle.loads(pickle.dumps(open_train(root)))
  np.testing.assert_array_equal(source[0]["image"], open_train(root)[0]["image"])


# Real people


@pytest.fixture
def people(samples):
  return coco_persons.open_source(
    root=str(samples / "pose2d" / "coco"), split="train", seed=0, annotations="test_coco.json"
  )


def test_real_file_gives_its_twelve_people(people):
  assert len(people) == 12  # the file has 14 people, and two of them have no joints
  for i in range(len(people)):
    record = people[i]
    visible = record["keypoints_visible"]
    H, W = record["image"].shape[:2]
    assert visible.sum() >= 12
    assert (record["keypoints_xy"][visible] >= 0).all()
    assert (record["keypoints_xy"][visible] < (W, H)).all()


def test_real_person_is_upright_in_the_cut(people):
  for i in range(len(people)):
    record = people[i]
    joint = dict(zip(COCO17.joints, record["keypoints_xy"], strict=True))
    seen = dict(zip(COCO17.joints, record["keypoints_visible"], strict=True))
    if seen["nose"] and seen["left_ankle"]:
      assert joint["nose"][1] < joint["left_ankle"][1]


def test_real_people_written_in_luperson_s_layout_are_read_back(people, tmp_path):
  records = [people[i] for i in range(len(people))]
  assert luperson_files.write(tmp_path, records) == 12
  source = luperson.open_source(root=str(tmp_path), split="train", seed=0, subset="all")
  for i, record in enumerate(records):
    read = source[i]
    assert read["image"].shape == record["image"].shape
    assert np.abs(read["image"].astype(int) - record["image"]).mean() < 3  # JPEG at quality 95
    visible = record["keypoints_visible"]
    np.testing.assert_array_equal(read["keypoints_visible"], visible)
    np.testing.assert_array_equal(read["keypoints_xy"][visible], record["keypoints_xy"][visible])
    resize = ResizeWhole((256, 128))
    a, b = (resize(r, np.random.default_rng(0)) for r in (read, record))
    np.testing.assert_array_equal(a["keypoints_visible"], b["keypoints_visible"])
    np.testing.assert_array_equal(a["keypoints_xy"], b["keypoints_xy"])
