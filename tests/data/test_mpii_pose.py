"""The source `mpii_pose`: records, the comparison with mpii_gt_val.mat, and messages for malformed files."""

import pickle

import numpy as np
import pytest
import scipy.io

from hap_jax.data import mpii_truth
from hap_jax.data.skeletons import MPII16
from hap_jax.data.sources import mpii_pose
from hap_jax.data.sources.base import BadRecordError
from tests.data import pose_files
from tests.data.pose_files import make_entries, make_truth


def open_split(root, entries=None, truth=None, split="val", **options):
  """Writes `entries` and the variables `truth` in MPII's layout, if they are given, and opens a split."""
  if entries is not None:
    pose_files.write_mpii(root, entries, truth, split)
  return mpii_pose.open_source(root=str(root), split=split, seed=0, **options)


def open_with(root, truth_name, **options):
  """Opens the validation split with another file of the truth."""
  return mpii_pose.open_source(root=str(root), split="val", seed=0, truth=truth_name, **options)


def test_records_count_pixels_from_zero_and_boxes_are_squares(tmp_path):
  source = open_split(tmp_path, make_entries(), split="train")
  record = source[1]
  assert record["image"].shape == (*pose_files.SIZE, 3)
  np.testing.assert_array_equal(record["keypoints_xy"][2:], [(6 + j, 10 + j) for j in range(2, 16)])
  assert record["keypoints_visible"].tolist() == [j != 1 for j in range(16)]
  # The center (16, 18) moves down by 15 * 0.1, and the first pixel has the number 0. The side is 200 * 0.1.
  np.testing.assert_allclose(record["box"], [5, 8.5, 25, 28.5])
  assert source.name(1).endswith("1.jpg (entry 2)")
  assert source.truth() is None


def test_the_truth_has_the_order_of_the_entries(tmp_path):
  entries = make_entries()
  source = open_split(tmp_path, entries, make_truth(entries))
  truth = pickle.loads(pickle.dumps(source)).truth()
  assert truth.xy_one_based.shape == (3, 16, 2)
  visible = source.columns["keypoints_visible"]
  np.testing.assert_array_equal(truth.is_missing, ~visible)
  np.testing.assert_allclose(truth.xy_one_based[visible] - 1, source.columns["keypoints_xy"][visible])
  np.testing.assert_array_equal(truth.head_box, [[[10, 10], [14, 13]]] * 3)


def test_without_its_truth_the_split_cannot_be_scored_and_a_note_says_so(tmp_path):
  source = open_split(tmp_path, make_entries())
  assert source.truth() is None
  assert "cannot be scored: set config.data.mpii_pose.truth to mpii_gt_val.mat" in source.spec.notes[-1]
  assert "3 people; the official number is 2,958" in source.spec.notes[0]
  with pytest.raises(ValueError, match=r"other\.mat: no such file; .*\(config\.data\.mpii_pose\.truth\)"):
    open_with(tmp_path, "other.mat")


def test_the_option_truth_names_another_file(tmp_path):
  entries = make_entries()
  pose_files.write_mpii(tmp_path, entries)
  scipy.io.savemat(tmp_path / "mine.mat", make_truth(entries))
  assert open_with(tmp_path, "mine.mat").truth().is_missing.sum() == 3


def test_entries_in_another_order_or_number_are_an_error_that_names_both_files(tmp_path):
  entries = make_entries()
  with pytest.raises(ValueError, match=r"gt_val\.mat: 3 people, but .*mpii_val\.json has 2 entries"):
    open_split(tmp_path, entries[:2], make_truth(entries))
  with pytest.raises(ValueError, match=r"of 2 people differ from .*\(entry 1 2\.jpg, 3 0\.jpg\)"):
    open_split(tmp_path, entries[::-1], make_truth(entries))


@pytest.mark.parametrize(("shift", "is_same"), [(0.005, True), (0.02, False)])
def test_joints_may_differ_by_a_hundredth_of_a_pixel(tmp_path, shift, is_same):
  entries = make_entries()
  truth = make_truth(entries)
  entries[1]["joints"][5][0] += shift
  pose_files.write_mpii(tmp_path, entries, truth)
  if is_same:
    assert open_split(tmp_path).truth() is not None
  else:
    with pytest.raises(ValueError, match=r"the joints of 1 people differ .* 0\.01 pixels \(entry 2 1\.jpg\)"):
      open_split(tmp_path)


def test_a_joint_that_only_the_entry_has_is_a_difference(tmp_path):
  entries = make_entries()
  truth = make_truth(entries)
  entries[0]["joints_vis"][0] = 1
  with pytest.raises(ValueError, match=r"the joints of 1 people differ"):
    open_split(tmp_path, entries, truth)


def test_entries_without_a_joint_are_left_out_of_train_only(tmp_path):
  entries = make_entries()
  entries[1]["joints_vis"] = [0] * 16
  source = open_split(tmp_path, entries, split="train")
  assert source.id.tolist() == [1, 3]
  note = source.spec.notes[-1]
  assert "1 of 3 entries are left out, because they have no annotated joint (entry 2)" in note
  assert len(open_split(tmp_path, entries, make_truth(entries))) == 3
  for entry in entries:
    entry["joints_vis"] = [0] * 16
  with pytest.raises(ValueError, match=r"mpii_train\.json: no annotated joint in its 3 entries"):
    open_split(tmp_path, entries, split="train")


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("image", 3, "has 3 under image, expected a text"),
    ("center", [1], "has 1 values under center, expected 2"),
    ("center", [1, None], "has null among the values under center"),
    ("center", [1, 1e30], "expected a scale above 0 and numbers up to 1,000,000"),
    ("scale", 0, "0 under scale; expected a scale above 0"),
    ("scale", "1", "has '1' under scale, expected a finite number"),
    ("joints", [[1, 2]] * 17, "has 17 values under joints, expected 16 joints of mpii16"),
    ("joints", [[1, 2, 3]] * 16, "has 3 values under joints, expected 2"),
    ("joints", None, "has null under joints, expected 16 joints of mpii16"),
    ("joints_vis", [1] * 14, "has 14 values under joints_vis, expected 16 joints of mpii16"),
    ("joints_vis", [2] * 16, "has 2 under joints_vis, expected 0 or 1"),
    ("joints_vis", [None] * 16, "has null under joints_vis"),
    ("image", "../a.jpg", r": the file name is '\.\./a\.jpg'"),
  ],
)
def test_a_forbidden_value_is_an_error_of_one_line_with_file_and_entry(tmp_path, key, value, message):
  entries = make_entries()
  entries[1][key] = value
  with pytest.raises(ValueError, match=rf"mpii_val\.json: entry 2.*{message}") as error:
    open_split(tmp_path, entries)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [{}, [], [3]])
def test_a_file_of_another_form_is_an_error(tmp_path, content):
  with pytest.raises(
    ValueError, match=r"mpii_val\.json: .*expected (a list|an object) of MPII's annotations"
  ):
    open_split(tmp_path, content)


def test_a_missing_key_or_file_names_its_option(tmp_path):
  entries = make_entries()
  del entries[2]["scale"]
  with pytest.raises(ValueError, match=r'entry 3 has no key "scale"'):
    open_split(tmp_path, entries)
  with pytest.raises(ValueError, match=r"set config\.data\.mpii_pose\.train_annotations"):
    open_split(tmp_path, split="train")
  with pytest.raises(ValueError, match=r"config\.data\.mpii_pose\.val_images"):
    open_split(tmp_path, val_images="nowhere")


def test_a_box_outside_the_picture_is_a_bad_record(tmp_path):
  entries = make_entries()
  entries[1]["center"] = [500, 20]
  source = open_split(tmp_path, entries)
  assert source[0]["image"].size
  with pytest.raises(BadRecordError, match=r"1\.jpg: .*contains no part of the box of entry 2"):
    source[1]


# mpii_gt_val.mat


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"jnt_missing": None}, "no jnt_missing; expected"),
    ({"dataset_joints": np.array([["rank", "rkne"]], object)}, "dataset_joints is rank, rkne; expected"),
    ({"jnt_missing": np.zeros((14, 3))}, "jnt_missing is float64 of shape .14, 3.; expected 0 or 1 for each"),
    ({"jnt_missing": np.full((16, 3), 2)}, "jnt_missing is int64 .*; expected 0 or 1"),
    ({"pos_gt_src": np.zeros((16, 2, 4))}, r"pos_gt_src: expected numbers of shape \(16, 2, 3\), found"),
    ({"pos_gt_src": np.full((16, 2, 3), np.nan)}, r"not finite for 3 of 3 people \(columns 1, 2, 3\)"),
    ({"headboxes_src": np.zeros((2, 2, 3))}, "headboxes_src has no size above 0 for 3 of 3 people"),
    ({"headboxes_src": np.array([["a"]])}, r"headboxes_src: expected numbers of shape \(2, 2, 3\)"),
  ],
)
def test_another_form_of_the_truth_is_an_error(changes, message):
  variables = make_truth(make_entries()) | changes
  variables = {name: value for name, value in variables.items() if value is not None}
  with pytest.raises(ValueError, match=rf"^gt\.mat: .*{message}") as error:
    mpii_truth.truth_of(variables, "gt.mat")
  assert "\n" not in str(error.value)


def test_joints_of_the_truth_in_another_order_are_an_error():
  variables = make_truth(make_entries())
  variables["dataset_joints"] = variables["dataset_joints"][:, ::-1]
  with pytest.raises(ValueError, match=r"dataset_joints is lwri, lelb.*in the order rank, rkne"):
    mpii_truth.truth_of(variables, "gt.mat")


def test_joints_of_the_truth_are_the_joints_of_the_skeleton():
  short = {"ankle": "ank", "knee": "kne", "hip": "hip", "wrist": "wri", "elbow": "elb", "shoulder": "sho"}
  short |= {"pelvis": "pelv", "thorax": "thor", "upper_neck": "neck", "head_top": "head"}
  for name, joint in zip(mpii_truth.JOINTS, MPII16.joints, strict=True):
    side, _, part = joint.partition("_") if joint.startswith(("left", "right")) else ("", "", joint)
    assert name == side[:1] + short[part]


def test_the_truth_of_one_person_may_have_no_last_axis():
  variables = make_truth(make_entries(1))
  variables |= {name: variables[name][..., 0] for name in ("pos_gt_src", "headboxes_src")}
  assert mpii_truth.truth_of(variables, "gt.mat").xy_one_based.shape == (1, 16, 2)


def test_real_entries_and_their_truth(samples):
  root = samples / "pose2d" / "mpii"
  options = {"val_annotations": "test_mpii.json", "val_images": "."}
  source = open_with(root, "mpii_gt_val.mat", **options)
  assert len(source) == 5
  assert source.spec.notes == ()
  assert source[0]["image"].ndim == 3
  truth = source.truth()
  visible = source.columns["keypoints_visible"]
  np.testing.assert_array_equal(truth.is_missing, ~visible)
  np.testing.assert_allclose(
    truth.xy_one_based[visible] - 1, source.columns["keypoints_xy"][visible], atol=1e-4
  )
