"""Errors of 3D joints: alignment against a plain loop, and what each metric ignores."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from hap_jax.data import skeletons
from hap_jax.metrics import keypoints3d as metrics


def people(count=6, joints=17, seed=0):
  return np.random.default_rng(seed).normal(0, 0.4, (count, joints, 3))


def random_similarities(count, seed=1):
  rng = np.random.default_rng(seed)
  rotation = Rotation.random(count, random_state=seed).as_matrix()
  return rng.uniform(0.5, 2, count), rotation, rng.normal(0, 2, (count, 3))


def move(points, scale, rotation, translation):
  return scale[:, None, None] * (points @ rotation.transpose(0, 2, 1)) + translation[:, None]


def test_a_known_similarity_is_found():
  source, expected = people(), random_similarities(6)
  for found, value in zip(metrics.procrustes(source, move(source, *expected)), expected, strict=True):
    np.testing.assert_allclose(found, value, atol=1e-8)
  np.testing.assert_allclose(
    metrics.align(source, move(source, *expected)), move(source, *expected), atol=1e-8
  )


def test_alignment_equals_a_loop_over_people_also_for_mirrored_ones():
  source, target = people(8), people(8, seed=2)
  target[4:] = source[4:] * [-1, 1, 1] + 0.01 * target[4:]  # the best fit of these would be a reflection
  scale, rotation, translation = metrics.procrustes(source, target)
  np.testing.assert_allclose(np.linalg.det(rotation), 1, atol=1e-12)
  for i in range(len(source)):
    a, b = source[i] - source[i].mean(axis=0), target[i] - target[i].mean(axis=0)
    expected, _ = Rotation.align_vectors(b, a)  # SciPy's solution, also without a reflection
    expected = expected.as_matrix()
    np.testing.assert_allclose(rotation[i], expected, atol=1e-8)
    turned = a @ expected.T
    np.testing.assert_allclose(scale[i], (turned * b).sum() / (a**2).sum(), atol=1e-8)
    expected = target[i].mean(axis=0) - scale[i] * expected @ source[i].mean(axis=0)
    np.testing.assert_allclose(translation[i], expected, atol=1e-8)


def test_no_small_change_of_the_alignment_is_better():
  source, target = people(1), people(1, seed=2)
  scale, rotation, translation = metrics.procrustes(source, target)
  best = np.square(move(source, scale, rotation, translation) - target).sum()
  for step in np.concatenate([np.eye(7), -np.eye(7)]) * 1e-3:
    turned = Rotation.from_rotvec(step[:3]).as_matrix() @ rotation
    changed = move(source, scale + step[3], turned, translation + step[4:])
    assert np.square(changed - target).sum() > best


def test_points_in_one_place_are_moved_to_the_middle_of_the_target():
  source, target = np.ones((1, 14, 3)), people(1, 14)
  np.testing.assert_allclose(
    metrics.align(source, target), np.broadcast_to(target.mean(axis=1)[:, None], target.shape)
  )


def test_a_perfect_prediction_has_no_error_wherever_it_stands():
  target, shift = people(), np.array([1, -2, 30])
  for predicted in (target, target + shift):
    assert metrics.score(predicted, target, np.zeros(6)) == pytest.approx(
      {"MPJPE": 0, "PA-MPJPE": 0, "MPVPE": 0}, abs=1e-6
    )
  vertices = people(joints=100)
  error = metrics.mpvpe(vertices + shift, vertices, target[:, 0] + shift, target[:, 0])
  np.testing.assert_allclose(error, 0, atol=1e-6)


def test_only_the_aligned_error_ignores_rotation_and_scale():
  target = people()
  found = metrics.score(move(target, *random_similarities(6)), target)
  assert set(found) == {"MPJPE", "PA-MPJPE"}
  assert found["PA-MPJPE"] == pytest.approx(0, abs=1e-6)
  assert found["MPJPE"] > 100
  mirrored = metrics.score(target * [-1, 1, 1], target)
  assert mirrored["PA-MPJPE"] > 10  # a reflection is not ignored


def test_errors_are_computed_by_hand_for_two_people():
  target = np.zeros((2, 17, 3))
  predicted = target.copy()
  predicted[0, 1] = 0.03, 0.04, 0  # right hip: 50 mm
  predicted[1, [0, 7, 9]] = 0, 0, 0.1  # the pelvis moves all 14 joints by 100 mm; torso and nose do not count
  errors = metrics.mpjpe(metrics.eval_joints(predicted), metrics.eval_joints(target))
  np.testing.assert_allclose(errors, [50 / 14, 100])
  joints = metrics.score_joints(predicted, target)["MPJPE"]
  assert joints.pop("right_hip") == pytest.approx(75)
  assert joints == pytest.approx(dict.fromkeys(joints, 50.0))
  vertices = np.zeros((2, 4, 3))
  found = metrics.mpvpe(vertices, vertices, np.array([[0.1, 0, 0], [0, 0, 0]]), np.zeros((2, 3)))
  np.testing.assert_allclose(found, [100, 0])


def test_the_mean_over_the_joints_is_the_score():
  predicted, target = people(), people(seed=2)
  scores, joints = metrics.score(predicted, target), metrics.score_joints(predicted, target)
  for name, value in scores.items():
    assert list(joints[name]) == list(skeletons.EVAL_NAMES)
    assert np.mean(list(joints[name].values())) == pytest.approx(value)


def test_what_cannot_be_scored_is_an_error():
  target = people()
  broken = target.copy()
  broken[3, 2, 1] = np.nan
  for function in (metrics.mpjpe, metrics.pa_mpjpe, metrics.procrustes, metrics.score):
    with pytest.raises(ValueError, match="row 3 of 6 people has a number that is not finite"):
      function(broken, target)
  with pytest.raises(ValueError, match=r"points \(6, 17, 3\) and \(5, 17, 3\): expected the same shape"):
    metrics.mpjpe(target, target[:5])
  with pytest.raises(ValueError, match="no people"):
    metrics.score(target[:0], target[:0])
  with pytest.raises(ValueError, match=r"vertex_error_mm \(5,\): expected one number for each of 6 people"):
    metrics.score(target, target, np.zeros(5))
  with pytest.raises(ValueError, match="row 5 of 6 people"):
    metrics.score(target, target, np.array([0, 0, 0, 0, 0, np.inf]))
