"""Files of predicted poses: written files are read again, and malformed files give one clear error."""

import json
import os

import numpy as np
import pytest
import scipy.io

from hap_jax.data import pose_results
from hap_jax.data.skeletons import AIC14, COCO17
from hap_jax.metrics import keypoints2d

GOOD = {"image_id": 7, "category_id": 1, "keypoints": [10.5, 20, 0.5] * 14, "score": 0.25}
KEYS = ("image_id", "category_id", "keypoints", "score")
NUMBERS = "expected 42 numbers: x, y and score of the 14 joints of aic14"


def write(path, text):
  path.write_text(text if isinstance(text, str) else json.dumps(text))
  return path


def test_results_are_read_as_they_were_written(tmp_path):
  rng, path = np.random.default_rng(0), tmp_path / "keypoints.json"
  xy, joint_score, score = rng.uniform(-9, 999, (5, 17, 2)), rng.random((5, 17)), rng.random(5)
  results = keypoints2d.make_results(xy, joint_score, score, np.arange(5), 1, np.ones((5, 4)))
  write(path, "older")
  pose_results.write_coco_results(path, results)
  assert json.loads(path.read_text()) == results
  found = pose_results.read_coco_results(path, COCO17)
  assert found == [{key: result[key] for key in KEYS} for result in results]
  assert os.listdir(tmp_path) == ["keypoints.json"]


def test_results_that_are_not_finite_are_not_written(tmp_path):
  with pytest.raises(ValueError, match=r"keypoints\.json: the results cannot be written as JSON"):
    pose_results.write_coco_results(tmp_path / "keypoints.json", [{**GOOD, "score": float("nan")}])
  assert not os.listdir(tmp_path)


def test_results_of_other_programs_may_have_more_keys_and_whole_numbers_as_decimals(tmp_path):
  path = write(tmp_path / "r.json", [{**GOOD, "image_id": 7.0, "area": "unknown"}, GOOD])
  assert pose_results.read_coco_results(path, AIC14) == [GOOD, GOOD]
  assert pose_results.read_coco_results(write(path, []), AIC14) == []
  path.write_bytes(b"\xef\xbb\xbf" + json.dumps([GOOD]).encode())  # some editors write this mark
  assert pose_results.read_coco_results(path, AIC14) == [GOOD]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"keypoints": [1, 2, 3] * 17}, rf"51 values \(17 joints\) under keypoints; {NUMBERS}"),
    ({"keypoints": [1] * 28}, f"28 values under keypoints; {NUMBERS}"),
    ({"keypoints": [[1, 2, 3]] * 14}, f"14 values under keypoints; {NUMBERS}"),
    ({"keypoints": [[1, 2, 3]] * 42}, rf"\[1, 2, 3\] among the values under keypoints; {NUMBERS}"),
    ({"keypoints": ["1"] * 42}, f"'1' among the values under keypoints; {NUMBERS}"),
    ({"keypoints": [True] * 42}, f"True among the values under keypoints; {NUMBERS}"),
    ({"keypoints": [float("nan")] * 42}, f"nan among the values under keypoints; {NUMBERS}"),
    ({"keypoints": [1] * 41 + [1e39]}, rf"1e\+39 among the values under keypoints; {NUMBERS}"),
    ({"keypoints": [1] * 41 + [10**400]}, f"10*[.]{{3}}0* among the values under keypoints; {NUMBERS}"),
    ({"keypoints": None}, f"null under keypoints; {NUMBERS}"),
    ({"keypoints": {"nose": 1}}, f"{{'nose': 1}} under keypoints; {NUMBERS}"),
    ({"score": None}, "null under score; expected a finite number"),
    ({"score": float("-inf")}, "-inf under score; expected a finite number"),
    ({"image_id": "000000000785"}, "'000000000785' under image_id; expected a whole number"),
    ({"image_id": 7.5}, r"7\.5 under image_id; expected a whole number"),
    ({"category_id": True}, "True under category_id; expected a whole number"),
    ({"category_id": 2**63}, "9223372036854775808 under category_id; expected a whole number"),
  ],
)
def test_error_of_a_malformed_result_gives_the_file_and_its_number(tmp_path, changes, message):
  path = write(tmp_path / "r.json", [GOOD, {**GOOD, **changes}])
  with pytest.raises(ValueError, match=rf"^\S*r\.json: result number 2 of 2 has {message}$"):
    pose_results.read_coco_results(path, AIC14)


@pytest.mark.parametrize("key", KEYS)
def test_a_result_without_a_key_is_an_error(tmp_path, key):
  path = write(tmp_path / "r.json", [{name: value for name, value in GOOD.items() if name != key}])
  with pytest.raises(ValueError, match=rf'r\.json: result number 1 of 1 has no key "{key}"; expected'):
    pose_results.read_coco_results(path, AIC14)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("[" * 100_000, "nested too deeply"),
    ("", "not a readable JSON file: Expecting value"),
    (json.dumps([GOOD])[:-9], "not a readable JSON file"),
    ('{"annotations": []}', "found {'annotations': .*}; expected a list of COCO results"),
    # The message is short even if the user gives a large file of annotations by mistake.
    (json.dumps({"annotations": [GOOD] * 9}), r"found {'annotations': \[.{0,50}\]}; expected a list"),
    ("null", "found null; expected a list of COCO results"),
    ("[7]", "result number 1 of 1 is 7; expected an object of COCO results"),
    (f"[{'1' * 5000}]", "not a readable JSON file"),
    (b"[\xff]", "not a readable JSON file"),
  ],
)
def test_a_file_that_is_no_list_of_results_is_an_error(tmp_path, text, message):
  path = tmp_path / "r.json"
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  with pytest.raises(ValueError, match=rf"^\S*r\.json: (its lists or objects are )?{message}") as raised:
    pose_results.read_coco_results(path, AIC14)
  assert "\n" not in str(raised.value)


def test_predictions_for_mpii_are_read_as_they_were_written(tmp_path):
  path, xy = tmp_path / "pred.mat", np.random.default_rng(0).uniform(-9, 999, (3, 16, 2))
  xy[1] = np.nan  # a picture that could not be read
  pose_results.write_mpii_results(path, np.zeros((9, 16, 2)))
  pose_results.write_mpii_results(path, xy)
  np.testing.assert_array_equal(scipy.io.loadmat(path)["preds"], xy)
  np.testing.assert_array_equal(pose_results.read_mpii_results(path, 3), xy)
  assert os.listdir(tmp_path) == ["pred.mat"]
  pose_results.write_mpii_results(path, xy[:1].astype(np.float32))
  found = pose_results.read_mpii_results(path, 1)
  np.testing.assert_array_equal(found, xy[:1].astype(np.float32))
  assert found.dtype == np.float64


@pytest.mark.parametrize("shape", [(16, 2), (3, 17, 2), (3, 16, 3), ()])
def test_predictions_for_mpii_of_another_shape_are_not_written(tmp_path, shape):
  with pytest.raises(
    ValueError, match=r"pred\.mat: found .* of shape .*; expected numbers of shape \(.*16, 2\)"
  ):
    pose_results.write_mpii_results(tmp_path / "pred.mat", np.zeros(shape))
  assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
  ("variables", "message"),
  [
    (
      {"preds": np.zeros((4, 16, 2))},
      r"variable preds: found float64 of shape \(4, 16, 2\); .*\(3, 16",
    ),
    ({"preds": np.zeros((16, 2, 3))}, r"variable preds: found float64 of shape \(16, 2, 3\)"),
    ({"preds": np.zeros((3, 16, 2), complex)}, "variable preds: found complex128 of shape"),
    ({"preds": "joints"}, r"variable preds: found <U6 of shape \(1,\); expected numbers"),
    ({"preds": {"x": 1}}, "variable preds: found a struct with x of shape"),
    (
      {"preds": np.full((3, 16, 2), -np.inf)},
      "variable preds: the joints of 3 people are infinite, the first in row 0",
    ),
    ({"pred": np.zeros((3, 16, 2))}, "no preds; expected preds, found pred"),
  ],
)
def test_a_mat_file_without_predictions_for_these_people_is_an_error(tmp_path, variables, message):
  scipy.io.savemat(tmp_path / "pred.mat", variables)
  with pytest.raises(ValueError, match=rf"^\S*pred\.mat: {message}"):
    pose_results.read_mpii_results(tmp_path / "pred.mat", 3)


def test_a_text_file_is_no_mat_file(tmp_path):
  with pytest.raises(ValueError, match=r"pred\.mat: no readable \.mat file"):
    pose_results.read_mpii_results(write(tmp_path / "pred.mat", "[1, 2]"), 3)


READERS = [
  lambda path: pose_results.read_coco_results(path, COCO17),
  lambda path: pose_results.read_mpii_results(path, 3),
]


@pytest.mark.parametrize("read", READERS, ids=["coco", "mpii"])
def test_only_regular_files_are_read(tmp_path, read):
  with pytest.raises(ValueError, match=r"missing: no such file; expected a"):
    read(tmp_path / "missing")
  os.mkfifo(tmp_path / "fifo")
  for path in (tmp_path, tmp_path / "fifo", "/dev/zero"):
    with pytest.raises(ValueError, match=r"(expected a regular file, found|no such file)"):
      read(path)
