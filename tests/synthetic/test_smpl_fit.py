"""SMPL's parameters of drawn people pose the project's own body as the picture shows the person."""

import functools

import cv2
import jax
import numpy as np
import pytest

from hap_jax.data.sources import synthetic
from hap_jax.models import smpl
from hap_jax.synthetic import anatomy, bare_body, body, camera, draw, smpl_fit

SIZE = (80, 40)
SEED = 2
INDICES = tuple(range(0, 40 * draw.PICTURES_PER_PERSON, 9))  # one picture of most of 40 people
BODY = synthetic.own_body().of("neutral")


@functools.cache
def records():
  drawn = (draw.draw_person(SEED, index, SIZE) for index in INDICES)
  return [record | smpl_fit.parameters_of(SEED, record) for record in drawn]


@functools.cache
def posed():
  """Returns (vertices, joints, 30 regressed joints) of the body for all records, in the camera frame."""
  columns = (
    np.stack([record[f"smpl_{name}"] for record in records()]) for name in ("pose", "betas", "translation")
  )
  body_set = synthetic.own_body()
  vertices, joints = jax.jit(smpl.pose_body)(smpl.body_arrays(body_set), *columns)
  found = np.einsum("kv,bvc->bkc", body_set.joint_regressor, vertices)
  return np.asarray(vertices), np.asarray(joints), found


def test_these_records_show_children_adults_and_seniors():
  assert {draw.look_of(SEED, record["pid"]).age for record in records()} == {"child", "adult", "senior"}


def test_joints_and_their_projections_are_those_of_the_record():
  for record, _, joints, found in zip(records(), *posed(), strict=True):
    wanted = np.concatenate([record["joints_3d"], record["keypoints_3d"][:5]])
    np.testing.assert_allclose(joints, wanted[:24], atol=1e-5)  # metres, up to 18 m from the camera
    np.testing.assert_allclose(found[:29], wanted, atol=2e-5)
    pixels = camera.project(found[_COCO], record["intrinsics"])
    np.testing.assert_allclose(pixels, record["keypoints_xy"], atol=0.01)


# The place of each COCO joint among the 30 joints.
_COCO = [24, 25, 26, 27, 28, 16, 17, 18, 19, 20, 21, 1, 2, 4, 5, 7, 8]


def test_the_skin_is_where_the_picture_shows_the_person():
  shares = []
  for record, vertices in zip(records(), posed()[0], strict=True):
    x, y = np.rint(camera.project(vertices, record["intrinsics"])).astype(int).T
    inside = (x >= 0) & (x < SIZE[1]) & (y >= 0) & (y < SIZE[0])
    parts = record["parts"][y[inside], x[inside]]
    shares.append((parts != anatomy.PART_INDEX["background"]).mean())
  # Fingers and toes are thinner than a pixel. Clothes are wider than the skin.
  assert np.mean(shares) > 0.9
  assert min(shares) > 0.7


def test_records_of_the_source_have_the_parameters_and_its_body():
  source = synthetic.open_source(split="train", seed=SEED, num_train=16, image_size=SIZE)
  record = source[INDICES[1]]
  for name, shape in (("smpl_pose", (72,)), ("smpl_betas", (10,)), ("smpl_translation", (3,))):
    assert record[name].shape == shape
    assert record[name].dtype == np.float32
    np.testing.assert_array_equal(record[name], records()[1][name])
  assert source.body() is synthetic.own_body()


def test_the_skin_equals_the_skin_of_the_person_within_five_millimetres():
  errors = []
  for number in range(60):
    rng = np.random.default_rng((number, 1))
    person = body.sample_body(rng, bool(number % 2), ("child", "adult", "senior")[number % 3])
    fitted = BODY.v_template + BODY.shapedirs @ smpl_fit.fit_betas(person)
    errors.append(np.linalg.norm(fitted - bare_body.surface(person), axis=1))
  assert np.mean(errors) < 1e-4
  assert np.max(errors) < 5e-3


def test_a_shape_parameter_is_one_standard_deviation_of_adults():
  adults = (body.sample_body(np.random.default_rng((k, 2)), k % 2 == 0, "adult") for k in range(300))
  betas = np.array([smpl_fit.fit_betas(adult) for adult in adults])
  assert np.all(np.abs(betas.mean(axis=0)) < 0.25), betas.mean(axis=0)
  assert np.all(np.abs(betas.std(axis=0) - 1) < 0.2), betas.std(axis=0)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 1.0, np.pi - 1e-3, np.pi - 1e-7, np.pi])
def test_rotation_vectors_give_the_rotation_again(angle):
  rng = np.random.default_rng(0)
  axes = np.concatenate([np.eye(3), -np.eye(3), rng.normal(size=(200, 3))])
  vectors = angle * axes / np.linalg.norm(axes, axis=1, keepdims=True)
  rotations = np.stack([cv2.Rodrigues(vector)[0] for vector in vectors])
  found = smpl_fit.axis_angles(rotations)
  assert found.shape == vectors.shape
  assert np.all(np.linalg.norm(found, axis=1) <= np.pi + 1e-12)
  again = np.stack([cv2.Rodrigues(vector)[0] for vector in found])
  np.testing.assert_allclose(again, rotations, atol=1e-7)
  # The records have float32 matrices.
  rounded = smpl_fit.axis_angles(rotations.astype(np.float32))
  again = np.stack([cv2.Rodrigues(vector)[0] for vector in rounded])
  np.testing.assert_allclose(again, rotations, atol=1e-6)
