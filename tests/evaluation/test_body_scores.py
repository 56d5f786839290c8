"""Scores of 3D pose: values per joint, the two baselines, and the lines printed with the scores."""

import dataclasses

import numpy as np
import pytest

from hap_jax.data.skeletons import EVAL_JOINTS, EVAL_NAMES
from hap_jax.description import Description, Encoder
from hap_jax.evaluation import body_scores
from hap_jax.train import initial_body
from tests import bodies


def make_rows(num_people=6):
  rng = np.random.default_rng(0)
  true = rng.normal(0, 0.3, (num_people, 17, 3)).astype(np.float32)
  return {"predicted": true + rng.normal(0, 0.05, true.shape).astype(np.float32), "true": true}


def test_the_mean_over_joints_is_the_score():
  scores = body_scores.make_score("test")({"test": make_rows()})
  for name in ("MPJPE", "PA-MPJPE"):
    by_joint = [scores[f"{name}_{joint}"] for joint in EVAL_NAMES]
    assert np.mean(by_joint) == pytest.approx(scores[name])
    assert len(set(by_joint)) == len(EVAL_JOINTS)


def test_one_pose_and_the_mean_joints_fit_equal_people_exactly():
  rows = make_rows()
  rows["true"][:] = rows["true"][0]
  scores = body_scores.make_score("test")({"test": rows})
  assert scores["MPJPE_mean_joints"] == pytest.approx(0, abs=1e-3)
  assert scores["PA-MPJPE_one_pose"] == pytest.approx(0, abs=1e-3)


def test_one_pose_ignores_place_size_and_direction_of_people():
  rng = np.random.default_rng(1)
  pose, people = rng.normal(size=(14, 3)), []
  for _ in range(5):
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    turn *= np.sign(np.linalg.det(turn))
    people.append(rng.uniform(0.5, 2) * pose @ turn.T + rng.normal(size=3))
  found = body_scores.one_pose(np.array(people))
  scale = np.linalg.norm(found - found.mean(axis=0)) / np.linalg.norm(pose - pose.mean(axis=0))
  gram = [centred @ centred.T for centred in (found - found.mean(axis=0), pose - pose.mean(axis=0))]
  np.testing.assert_allclose(gram[0], scale**2 * gram[1], atol=1e-9)


def test_a_body_that_differs_from_the_training_gives_a_line():
  encoder = Encoder(width=8, depth=1, num_heads=1, grid=(2, 2), patch=4)
  description = Description("pose3d", encoder, network={"body": bodies.random_set().digest})
  assert initial_body.notes(description, bodies.random_set()) == ()
  (line,) = initial_body.notes(description, bodies.random_set(seed=1))
  assert "is not the body of the training" in line


def test_bodies_with_other_vertices_have_no_mpvpe():
  small, large = bodies.random_set(), bodies.random_set(num_vertices=50)
  assert len(body_scores.notes(small, small)) == 1
  _, line = body_scores.notes(small, dataclasses.replace(large, name="large"))
  assert line.startswith("there is no MPVPE: the body of the network (random) has 40 vertices")
