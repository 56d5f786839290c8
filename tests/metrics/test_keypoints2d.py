"""Tests of the metrics of 2D poses: hand-computed cases, and inputs that are errors.

`test_coco_scores.py` compares the AP with pycocotools on files.
"""

import copy
import json
import subprocess
import sys

import numpy as np
import pytest

from hap_jax.data.pose_truth import MpiiTruth
from hap_jax.data.skeletons import AIC14, COCO17, MPII16
from hap_jax.metrics import keypoints2d, oks

JOINTS = [value for j in range(17) for value in (100 + 5 * j, 100 + 9 * j, 2)]
PERFECT = pytest.approx(1, abs=1e-9)  # pycocotools divides by the number of results plus 2e-16
SIZES = {"AP_M", "AR_M", "AP_L", "AR_L"}


def person(number, *, shift=0, **changes):
  """Returns the annotation of a large person in picture 1 with all joints, moved to the right by `shift`."""
  keypoints = [value + (shift if i % 3 == 0 else 0) for i, value in enumerate(JOINTS)]
  return {
    "id": number,
    "image_id": 1,
    "category_id": 1,
    "bbox": [90 + shift, 90, 100, 160],
    "area": 16_000,
    "iscrowd": 0,
    "keypoints": keypoints,
    "num_keypoints": 17,
    **changes,
  }


def result(score, /, *, shift=0, image_id=1, **changes):
  """Returns a result that equals `person` with the same shift."""
  keypoints = person(0, shift=shift)["keypoints"]
  return {"image_id": image_id, "category_id": 1, "keypoints": keypoints, "score": score, **changes}


def annotate(*people, num_images=1, **changes):
  """Returns the content of an annotation file."""
  images = [{"id": number + 1} for number in range(num_images)]
  return {
    "images": images,
    "categories": [{"id": 1, "name": "person"}],
    "annotations": list(people),
    **changes,
  }


def score(results, *people, skeleton=COCO17, num_images=1):
  return keypoints2d.coco_scores(results, annotate(*people, num_images=num_images), skeleton)


def test_the_metrics_import_neither_jax_nor_torch_nor_matplotlib():
  code = (
    "import sys; import hap_jax.metrics.keypoints2d; print({'jax', 'torch', 'matplotlib'} & set(sys.modules))"
  )
  found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert found.stdout.strip() == "set()"


def test_oks_of_a_pose_that_is_shifted_by_5_pixels_has_the_known_value():
  xy = np.random.default_rng(0).uniform(0, 200, (17, 2))
  known = pytest.approx(0.97074574, abs=5e-8)  # the official code computes it in float32
  assert oks.compare(xy, xy + np.array([5, 0]), 50_000, 50_000, COCO17.sigmas) == known
  assert oks.compare(xy, xy + np.array([3, 4]), 20_000, 80_000, COCO17.sigmas) == known


def test_score_of_a_person_is_the_box_score_times_the_mean_of_the_joint_scores_above_one_fifth():
  joints = [[0.2, 0.3, 0.5], [0.2, 0.1, 0.0], [1.0, 0.8, 0.9]]
  np.testing.assert_allclose(keypoints2d.rescore(joints, [0.5, 1, 1]), [0.2, 0, 0.9], atol=1e-12)


def suppress(shifts, scores, image_id, skeleton=COCO17):
  """Calls `suppress` for poses that are shifted to the right. All joints of a pose have its score."""
  xy = np.array(JOINTS, float).reshape(17, 3)[: len(skeleton.joints), :2]
  xy = xy + np.stack((shifts, np.zeros(len(shifts))), axis=-1)[:, None]
  joint_scores = np.repeat(np.array(scores)[:, None], xy.shape[1], axis=1)
  ones = np.ones(len(xy))
  return keypoints2d.suppress(xy, joint_scores, 16_000 * ones, ones, np.array(image_id), skeleton)


def test_of_two_equal_poses_in_a_picture_the_one_with_the_higher_score_is_kept():
  kept, scores = suppress([0, 0, 0], [0.5, 0.75, 0.25], [3, 3, 1])
  assert kept.tolist() == [1, 2]
  assert scores.tolist() == [0.75, 0.25]


def test_of_two_equal_poses_with_equal_scores_the_first_row_is_kept():
  kept, _ = suppress([0, 0, 400, 400], [0.5, 0.5, 0.5, 0.5], [2, 2, 2, 2])
  assert kept.tolist() == [0, 2]


def test_a_removed_pose_does_not_remove_others():
  # The OKS of neighbours is 0.945, and the OKS of the first and the last pose is 0.81.
  kept, _ = suppress([0, 4, 8], [0.9, 0.8, 0.7], [1, 1, 1])
  assert kept.tolist() == [0, 2]


def test_poses_are_more_different_with_the_smaller_tolerances_of_aic():
  assert len(suppress([0, 4], [0.9, 0.8], [1, 1], AIC14)[0]) == 2


def test_no_poses_give_no_poses():
  kept, scores = suppress(np.zeros(0), np.zeros(0), np.zeros(0, int))
  assert (kept.shape, scores.shape) == ((0,), (0,))


@pytest.mark.parametrize("block", [1, 600, 2**20])
def test_kept_poses_equal_a_search_over_all_pairs(monkeypatch, block):
  monkeypatch.setattr(keypoints2d, "_BLOCK", block)
  rng = np.random.default_rng(1)
  poses, N = rng.uniform(0, 150, (4, 17, 2)), 60
  xy = poses[rng.integers(4, size=N)] + rng.normal(0, rng.uniform(0, 6, (N, 1, 1)), (N, 17, 2))
  joint_score, box_score = rng.random((N, 17)), rng.random(N)
  area, image_id = rng.uniform(10_000, 30_000, N), rng.integers(3, size=N)
  total = keypoints2d.rescore(joint_score, box_score)
  expected = []
  for i in np.argsort(-total):
    same = [j for j in expected if image_id[j] == image_id[i]]
    if all(oks.compare(xy[i], xy[j], area[i], area[j], COCO17.sigmas) <= 0.9 for j in same):
      expected.append(i)
  kept, scores = keypoints2d.suppress(xy, joint_score, area, box_score, image_id, COCO17)
  assert kept.tolist() == sorted(expected)
  assert 12 < len(kept) < N - 5
  np.testing.assert_array_equal(scores, total[kept])


def test_suppression_of_poses_that_are_not_finite_is_an_error():
  with pytest.raises(ValueError, match=r"1 of 2 poses .* not finite, the first in row 1; .* weights"):
    suppress([0, np.nan], [0.5, 0.5], [1, 1])


def test_results_are_plain_numbers_with_the_official_center_and_scale():
  xy = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
  joint_score = np.array([[0.5, 0.25], [1, 0]], np.float32)
  region = np.array([[30, 40, 100, 200], [1, 2, 50, 300]], np.float32)
  results = keypoints2d.make_results(xy, joint_score, np.array([0.5, 0.75]), np.array([7, 9]), 1, region)
  assert json.loads(json.dumps(results)) == results
  assert results[1] == {
    "image_id": 9,
    "category_id": 1,
    "keypoints": [4, 5, 1, 6, 7, 0],
    "score": 0.75,
    "center": [1, 2],
    "scale": [0.25, 1.5],
  }
  empty = [part[:0] for part in (xy, joint_score, joint_score[:, 0], region[:, 0], region)]
  assert keypoints2d.make_results(*empty[:4], 1, empty[4]) == []


def test_perfect_results_score_1_and_sizes_without_people_are_absent():
  scores = score([result(0.5)], person(1))
  assert set(scores) == {"AP", "AP50", "AP75", "AP_L", "AR", "AR50", "AR75", "AR_L"}
  assert list(scores.values()) == [PERFECT] * 8
  assert "AP_M" in score([result(0.5)], person(1, area=2_000))


def test_no_results_score_0():
  assert set(score([], person(1)).values()) == {0.0}


def test_a_missed_person_lowers_recall_also_in_a_picture_without_results():
  for other in (person(2, shift=300), person(2, image_id=2)):
    scores = score([result(0.5)], person(1), other, num_images=2)
    assert scores["AR"] == pytest.approx(0.5)
    assert scores["AP"] == pytest.approx(51 / 101)  # the precision is 1 at the recalls 0, 0.01, ..., 0.5


def test_a_wrong_result_with_a_higher_score_halves_the_precision():
  scores = score([result(0.5), result(0.9, shift=900)], person(1))
  assert scores["AP"] == pytest.approx(0.5)
  assert scores["AR"] == 1


def test_results_on_a_crowd_and_on_a_person_without_joints_are_not_wrong():
  wrong = [result(0.5), result(0.9, shift=300)]
  unlabelled = {"keypoints": [0] * 51, "num_keypoints": 0}
  assert score(wrong, person(1), person(2, shift=300, iscrowd=1))["AP"] == PERFECT
  assert score(wrong, person(1), person(2, shift=300, **unlabelled))["AP"] == PERFECT
  # The results are on no box here.
  assert score(wrong, person(1), person(2, shift=900, **unlabelled))["AP"] == pytest.approx(0.5)


def test_only_20_results_of_a_picture_count():
  wrong = [result(0.9, shift=900) for _ in range(20)]
  assert score([*wrong, result(0.5)], person(1))["AR"] == 0
  assert score([*wrong[:19], result(0.5)], person(1))["AR"] == 1


def test_annotations_may_have_the_id_0_and_no_iscrowd_and_no_count_of_joints():
  annotation = person(0)
  del annotation["iscrowd"], annotation["num_keypoints"]
  assert score([result(0.5)], annotation)["AP"] == PERFECT


def test_an_annotation_without_the_key_keypoints_is_a_person_without_joints():
  other = person(2, shift=300)
  del other["keypoints"], other["num_keypoints"]
  assert score([result(0.5), result(0.9, shift=300)], person(1), other)["AP"] == PERFECT


def test_the_area_of_an_aic_person_comes_from_the_box():
  keypoints = JOINTS[: 3 * len(AIC14.joints)]
  shape = {"bbox": [90, 90, 100, 100], "area": 10, "keypoints": keypoints, "num_keypoints": 14}
  scores = score([result(0.5, keypoints=keypoints)], person(1, **shape), skeleton=AIC14)
  assert SIZES & set(scores) == {"AP_M", "AR_M"}  # 5,300 pixels are medium
  del shape["area"]
  scores = score(
    [result(0.5, keypoints=keypoints)], person(1, **{**shape, "bbox": [90, 90, 100, 200]}), skeleton=AIC14
  )
  assert SIZES & set(scores) == {"AP_L", "AR_L"}


def test_one_category_is_scored_if_it_is_given_and_all_categories_otherwise():
  categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "statue"}]
  annotations = annotate(person(1), person(2, category_id=2), categories=categories)
  results = [result(0.5), result(0.5, shift=900, category_id=2)]
  assert keypoints2d.coco_scores(results, annotations, COCO17)["AP"] == pytest.approx(0.5)
  assert keypoints2d.coco_scores(results, annotations, COCO17, category_id=1)["AP"] == PERFECT
  assert keypoints2d.coco_scores(results, annotations, COCO17, category_id=2)["AP"] == 0


def test_without_categories_all_annotations_and_results_are_people():
  annotations = annotate(person(1))
  del annotations["categories"], annotations["annotations"][0]["category_id"]
  assert (
    keypoints2d.coco_scores([result(0.5, category_id=3)], annotations, COCO17, category_id=3)["AP"] == PERFECT
  )


def test_scores_change_neither_annotations_nor_results_and_print_nothing(capfd):
  annotations, results = annotate(person(1), person(2, shift=300)), [result(0.5), result(0.4)]
  before = copy.deepcopy((annotations, results))
  keypoints2d.coco_scores(results, annotations, COCO17)
  assert (annotations, results) == before
  assert capfd.readouterr() == ("", "")


def test_results_of_unknown_pictures_are_an_error_with_their_count_and_the_first_five():
  results = [result(0.5, image_id=number) for number in (1, 9, 8, 8, 7, 6, 5, 4)]
  expected = r"7 of 8 results .* image_id .*\(6 different, the first: 9, 8, 7, 6, 5\); expected"
  with pytest.raises(ValueError, match=expected):
    score(results, person(1))


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"category_id": 4}, r"1 of 2 results have a value of category_id .*the first: 4\)"),
    (
      {"keypoints": JOINTS[:42]},
      "1 results do not have the 17 joints of coco17; .* number 2 with 42 numbers",
    ),
    ({"score": float("nan")}, "1 of 2 poses have numbers that are not finite, the first in row 1"),
    ({"keypoints": [*JOINTS[:-1], float("inf")]}, "1 of 2 poses .* not finite, the first in row 1"),
  ],
)
def test_malformed_results_are_an_error(wrong, message):
  with pytest.raises(ValueError, match=message):
    score([result(0.5), result(0.5, **wrong)], person(1))


@pytest.mark.parametrize(
  ("skeleton", "changes", "message"),
  [
    (COCO17, {"keypoints": JOINTS[:42]}, r"annotation 5 has keypoints of shape \[42\]; expected 51 numbers"),
    (COCO17, {"iscrowd": 1}, "none of the 1 annotations can be scored"),
    (COCO17, {"area": ...}, 'annotation 5 has no "area"; expected a value in each annotation'),
    (AIC14, {"bbox": ..., "keypoints": JOINTS[:42]}, 'annotation 5 has no "bbox"; expected a value'),
  ],
)
def test_annotations_that_cannot_be_scored_are_an_error(skeleton, changes, message):
  annotation = {key: value for key, value in person(5, **changes).items() if value is not ...}
  with pytest.raises(ValueError, match=message):
    score([], annotation, skeleton=skeleton)


def make_mpii(num_people):
  """Returns joints and truth of people whose head has the size 3 (0.6 times the diagonal of 3 x 4 pixels)."""
  xy = np.random.default_rng(0).uniform(0, 100, (num_people, 16, 2))
  head_box = np.tile([[10.0, 10.0], [13.0, 14.0]], (num_people, 1, 1))
  return xy.copy(), MpiiTruth(xy, np.zeros((num_people, 16), bool), head_box)


def test_pckh_of_a_worked_example():
  xy, truth = make_mpii(2)
  names = ("right_ankle", "left_knee", "pelvis", "head_top")
  ankle, knee, pelvis, head = (MPII16.joints.index(name) for name in names)
  xy[0, ankle] += [1.6, 0]  # an error of 0.53 heads
  xy[1, knee] += [0, 1.4]  # 0.47 heads, too far for a tenth of a head only
  xy[0, pelvis] += [9, 0]  # the total leaves this joint out
  xy[1, head] = np.nan
  truth.is_missing[1, ankle] = True
  scores = keypoints2d.pckh(xy, truth)
  assert scores["PCKh"] == pytest.approx(100 * 25 / 27)
  assert scores["PCKh@0.1"] == pytest.approx(100 * 24 / 27)
  assert scores["Ankle"] == pytest.approx(50)  # 0 of 1 on the right, 2 of 2 on the left
  assert scores["Knee"] == pytest.approx(100)
  assert scores["Head"] == scores["PCKh_head_top"] == pytest.approx(50)
  assert scores["PCKh_pelvis"] == pytest.approx(50)
  assert scores["PCKh_right_ankle"] == 0
  assert len(scores) == 2 + 7 + 16


def test_an_error_of_exactly_half_a_head_is_correct():
  xy, truth = make_mpii(1)
  truth.xy_one_based[:], truth.head_box[:] = 8, [[0, 0], [10, 0]]
  xy[:] = [11, 8]
  assert keypoints2d.pckh(xy, truth)["PCKh"] == 100


def test_joints_that_nobody_shows_have_no_score():
  xy, truth = make_mpii(2)
  for joint in ("left_knee", "right_knee", "left_hip"):
    truth.is_missing[:, MPII16.joints.index(joint)] = True
  xy[0, MPII16.joints.index("right_hip")] += 50
  scores = keypoints2d.pckh(xy, truth)
  assert not {"Knee", "PCKh_left_knee", "PCKh_right_knee", "PCKh_left_hip"} & set(scores)
  assert scores["Hip"] == scores["PCKh_right_hip"] == 50


def test_joints_of_a_head_without_size_are_wrong():
  xy, truth = make_mpii(2)
  truth.head_box[1] = 5
  assert keypoints2d.pckh(xy, truth)["PCKh"] == 50


def test_pckh_of_other_people_or_without_annotated_joints_is_an_error():
  xy, truth = make_mpii(3)
  with pytest.raises(ValueError, match=r"predictions of shape \[2, 16, 2\], but the truth .* \[3, 16, 2\]"):
    keypoints2d.pckh(xy[:2], truth)
  truth.is_missing[:, [j for j in range(16) if j not in (6, 7)]] = True
  with pytest.raises(ValueError, match="none of the 3 people has an annotated joint that PCKh counts"):
    keypoints2d.pckh(xy, truth)


def test_pck_is_the_share_of_visible_joints_that_are_nearer_than_a_tenth_of_the_box():
  truth_xy = np.zeros((2, 3, 2))
  xy = np.array([[[4.9, 0], [0, 5.0], [3, 4.1]], [[6, 7.9], [np.nan, 0], [99, 0]]])
  visible = np.array([[True, True, True], [True, True, False]])
  assert keypoints2d.pck(xy, truth_xy, visible, [50, 100]) == pytest.approx(2 / 5)
  assert keypoints2d.pck(xy, truth_xy, visible, [50, 100], threshold=0.2) == pytest.approx(4 / 5)
  with pytest.raises(ValueError, match="none of the 6 joints is visible"):
    keypoints2d.pck(xy, truth_xy, np.zeros((2, 3), bool), [50, 100])
