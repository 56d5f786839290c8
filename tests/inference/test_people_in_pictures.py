"""People come from a file of boxes or of joints, and each one belongs to a picture of the folder."""

import json

import numpy as np
import pytest
from PIL import Image

from hap_jax.data.sources import folder
from hap_jax.inference import people_in_pictures as people

BOX = [4, 5, 10, 20]  # x, y, width, height
TRANSPOSED = 6  # the orientation in an EXIF header: a viewer turns the stored pixels clockwise


def save(path, size=(40, 30), orientation=None, value=0):
  """Writes a grey picture of `size` (H, W) as it is stored."""
  path.parent.mkdir(parents=True, exist_ok=True)
  exif = Image.Exif()
  if orientation is not None:
    exif[0x0112] = orientation
  Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path, exif=exif)


@pytest.fixture
def pictures(tmp_path):
  """Returns a folder source of the pictures cam_2/000000000785.jpg and img_7.png, 40 x 30 pixels (H, W)."""
  save(tmp_path / "pictures" / "img_7.png", value=7)
  save(tmp_path / "pictures" / "cam_2" / "000000000785.jpg", value=200)
  return folder.open_source(root=tmp_path / "pictures")


def write(tmp_path, content):
  path = tmp_path / "boxes.json"
  path.write_text(content if isinstance(content, str) else json.dumps(content))
  return path


def test_without_a_file_every_picture_is_the_box_of_one_person(pictures):
  found = people.whole_pictures(pictures)
  assert [found.file(i) for i in range(len(found))] == ["cam_2/000000000785.jpg", "img_7.png"]
  assert found.image_id.tolist() == [785, 7]
  assert found.score.tolist() == [1, 1]
  for i in range(2):
    np.testing.assert_array_equal(found[i]["box"], np.float32([0, 0, 30, 40]))
    assert found[i]["image"].shape == (40, 30, 3)


@pytest.mark.parametrize(
  "numbers",
  [
    {"a3.png": 3, "b10.png": 10},
    {"2024_05.png": 5, "x1_y22.jpg": 22},
    # Without a number in each name, or with equal numbers, the pictures are numbered in their order.
    {"a.png": 1, "b10.png": 2},
    {"a/1.png": 1, "b/1.png": 2},
    {"7.png": 1, f"{2**63}.png": 2},  # too large for int64
  ],
)
def test_each_picture_has_its_own_number(tmp_path, numbers):
  for name in numbers:
    save(tmp_path / name)
  source = folder.open_source(root=tmp_path)
  assert dict(zip(source.paths, people.picture_numbers(source).tolist(), strict=True)) == numbers


def test_a_box_belongs_to_the_picture_of_its_name_or_else_of_its_number(tmp_path, pictures):
  entries = [
    {"file_name": "img_7.png", "bbox": BOX},
    {"image_id": 785, "bbox": BOX, "score": 0.25, "category_id": 1},
    # The name decides, and the number is kept.
    {"file_name": "./cam_2/000000000785.jpg", "image_id": 7, "bbox": BOX},
    {"image_id": 7.0, "bbox": [-4.5, -1, 8, 500]},
  ]
  found = people.in_boxes(pictures, write(tmp_path, entries))
  assert [found.file(i) for i in range(4)] == [
    "img_7.png",
    "cam_2/000000000785.jpg",
    "cam_2/000000000785.jpg",
    "img_7.png",
  ]
  assert found.image_id.tolist() == [7, 785, 7, 7]
  assert found.score.tolist() == [1, 0.25, 1, 1]
  assert found.notes == ()
  np.testing.assert_array_equal(found[1]["box"], np.float32([4, 5, 14, 25]))
  np.testing.assert_array_equal(found[3]["box"], np.float32([-4.5, -1, 3.5, 499]))
  assert abs(int(found[0]["image"].mean()) - 7) <= 1
  assert abs(int(found[1]["image"].mean()) - 200) <= 1


def test_people_that_cannot_be_used_are_left_out_and_counted_with_the_first_five(tmp_path, pictures):
  good = {"image_id": 7, "bbox": BOX}
  bad_boxes = [
    [30, 0, 5, 5],  # begins where the picture ends
    [-9, 0, 9, 5],
    [3, 40, 5, 5],
    [3, 3, 0, 5],
    [3, 3, 5, -1],
    [3, 3, 1e-9, 5],  # too narrow for float32
  ]
  entries = [{**good, "bbox": box} for box in bad_boxes]
  entries += [{**good, "image_id": 8}, {"file_name": "../img_7.png", "bbox": BOX}]
  entries += [{**good, "category_id": 18}, good]
  path = write(tmp_path, entries)
  found = people.in_boxes(pictures, path)
  assert len(found) == 1
  assert found.notes == (
    f"{path}: 6 people without area in the picture are left out (entry 1, 2, 3, 4, 5, ...)",
    f"{path}: 2 people of pictures that are not in the folder are left out (entry 7, 8)",
    f"{path}: 1 people of another category (category_id is not 1) are left out (entry 9)",
  )
  with pytest.raises(ValueError, match=r"6 people without area.*; .*2 people of pictures"):
    people.in_boxes(pictures, write(tmp_path, entries[:-1]))


@pytest.mark.parametrize("orientation", [None, TRANSPOSED])
def test_boxes_are_pixels_of_the_picture_as_a_viewer_shows_it(tmp_path, orientation):
  save(tmp_path / "pictures" / "1.png", size=(40, 30), orientation=orientation)
  entries = [{"image_id": 1, "bbox": [32, 2, 5, 5]}, {"image_id": 1, "bbox": [2, 32, 5, 5]}]
  path = write(tmp_path, entries)
  for exif in ("apply", "ignore"):
    source = folder.open_source(root=tmp_path / "pictures", exif=exif)
    found = people.in_boxes(source, path)
    is_turned = orientation == TRANSPOSED and exif == "apply"
    assert found[0]["image"].shape == ((30, 40, 3) if is_turned else (40, 30, 3))
    assert found[0]["box"][0] == (32 if is_turned else 2)
    assert len(found) == 1


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("[", "not a JSON file"),
    ([], "the list is empty, expected a list of people"),
    ({"annotations": []}, "found {'annotations': .*}, expected a list of people in COCO's format"),
    ([7], "entry 1 is 7; expected an object of a list of people"),
    ([{"bbox": BOX}], "entry 1 has no file_name and no image_id, expected one of them for its picture"),
    ([{"image_id": "7", "bbox": BOX}], "entry 1 has '7' under image_id, expected a whole number"),
    ([{"file_name": 7, "bbox": BOX}], "entry 1 has 7 under file_name, expected a text"),
    ([{"image_id": 7}], 'entry 1 has no key "bbox"'),
    ([{"image_id": 7, "bbox": BOX[:3]}], "entry 1 has 3 values under bbox, expected 4"),
    ([{"image_id": 7, "bbox": [0, 0, float("nan"), 5]}], "entry 1 has nan among the values under bbox"),
    ([{"image_id": 7, "bbox": [0, 0, 3e9, 5]}], "entry 1 has a box that reaches to 3e.09 pixels"),
    ([{"image_id": 7, "bbox": BOX, "score": None}], "entry 1 has null under score, expected a finite number"),
  ],
)
def test_a_file_of_another_format_is_one_line(tmp_path, pictures, content, message):
  path = write(tmp_path, content)
  with pytest.raises(ValueError, match=rf"^\S*boxes\.json: {message}") as raised:
    people.in_boxes(pictures, path)
  assert "\n" not in str(raised.value)


def test_a_file_that_does_not_exist_is_one_line_with_the_option(tmp_path, pictures):
  with pytest.raises(ValueError, match=r"none\.json: no such file; .* set --boxes to another file"):
    people.in_boxes(pictures, tmp_path / "none.json")
  with pytest.raises(ValueError, match=r"none\.json: no such file; .* set --poses to another file"):
    people.around_joints(pictures, tmp_path / "none.json")


def test_a_number_of_two_pictures_is_an_error_only_if_a_box_uses_it(tmp_path):
  for name in ("a/1.png", "b/1.png", "c/2.png"):
    save(tmp_path / "pictures" / name)
  source = folder.open_source(root=tmp_path / "pictures")
  found = people.in_boxes(source, write(tmp_path, [{"image_id": 2, "bbox": BOX}]))
  assert found.file(0) == "c/2.png"
  path = write(tmp_path, [{"image_id": 1, "bbox": BOX}])
  with pytest.raises(ValueError, match=r"entry 1 has the image_id 1, .*2 pictures, such as a/1\.png and b/1"):
    people.in_boxes(source, path)
  found = people.in_boxes(source, write(tmp_path, [{"file_name": "b/1.png", "bbox": BOX}]))
  assert (found.file(0), found.image_id[0]) == ("b/1.png", 2)  # the second picture in the order of the paths


def test_a_damaged_picture_of_a_box_is_one_line_with_its_name(tmp_path):
  (tmp_path / "pictures").mkdir()
  (tmp_path / "pictures" / "1.png").write_bytes(b"no picture")
  source = folder.open_source(root=tmp_path / "pictures")
  with pytest.raises(ValueError, match=r"1\.png: 10 bytes cannot be decoded as a picture"):
    people.in_boxes(source, write(tmp_path, [{"image_id": 1, "bbox": BOX}]))


def test_the_box_around_joints_is_their_tight_box_enlarged_by_a_fifth(tmp_path, pictures):
  # Two certain joints at (5, 10) and (15, 30). The others have a score below 0.3.
  keypoints = [5, 10, 0.9, 15, 30, 0.3, 0, 0, 0.29, 29, 39, 0]
  entries = [{"image_id": 7, "keypoints": keypoints}, {"image_id": 7, "keypoints": [5, 10, 0.9, 6, 9, 0.1]}]
  path = write(tmp_path, entries)
  found = people.around_joints(pictures, path)
  np.testing.assert_allclose(found[0]["box"], [4, 8, 16, 32], atol=1e-5)
  assert found.notes == (
    f"{path}: 1 people with fewer than two joints of a score of at least 0.3 are left out (entry 2)",
  )
  with pytest.raises(ValueError, match=r"entry 1 has \[1, 2\] under keypoints, expected x, y and score"):
    people.around_joints(pictures, write(tmp_path, [{"image_id": 7, "keypoints": [1, 2]}]))
