"""The project's own body in the layout of SMPL: its mesh, its joints in every shape and pose, its digest."""

import jax
import numpy as np
import pytest

from hap_jax.data import body_model
from hap_jax.models import smpl
from hap_jax.synthetic import bare_body, body, pose, smpl_body

BODY_SET = smpl_body.make_body_set()
BODY = BODY_SET.of("neutral")
MIRROR = np.array((-1, 1, 1))
REST = np.tile(np.eye(3), (24, 1, 1))


def test_the_arrays_fit_together_and_are_used_for_every_gender():
  body_model.check_body_set(BODY_SET, "own body")
  assert 1000 < BODY.num_vertices < 3000
  assert BODY_SET.of("female") is BODY_SET.of("male") is BODY
  assert "Apache-2.0" in BODY_SET.licence


def test_the_digest_stays_the_same():
  # Checkpoints record it. A new value means that they no longer fit, so it needs an entry in the changelog.
  assert BODY_SET.digest == "4a330941f2535d63"


def test_the_body_is_read_as_it_was_written(tmp_path):
  body_model.write_body_set(tmp_path / "body", BODY_SET)
  again = body_model.read_body_set(tmp_path / "body", need_h36m=True)
  assert again.digest == BODY_SET.digest
  np.testing.assert_array_equal(again.h36m_regressor, BODY_SET.h36m_regressor)
  np.testing.assert_array_equal(again.mirrored, BODY_SET.mirrored)


def test_every_surface_is_closed_and_its_triangles_show_their_outside():
  faces = BODY.faces
  assert len(np.unique(faces)) == BODY.num_vertices
  edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
  # Each edge belongs to two triangles, which use it in opposite directions.
  forward = {tuple(edge) for edge in edges.tolist()}
  assert len(forward) == len(edges)
  assert forward == {(end, start) for start, end in forward}
  a, b, c = BODY.v_template.astype(float)[faces.T]
  volume = (a * np.cross(b, c)).sum(axis=1) / 6
  owner = np.searchsorted([part.start for part in bare_body.parts().values()], faces[:, 0], side="right")
  assert (np.bincount(owner, volume)[1:] > 1e-6).all()  # cubic metres; the nose is the smallest part
  assert 0.05 < volume.sum() < 0.09  # an adult has about 0.07, and the parts overlap a little


def test_left_and_right_are_mirror_images():
  ids = BODY_SET.mirrored
  other = [body.JOINT_INDEX[_swap(name)] for name in body.JOINTS]
  np.testing.assert_allclose(BODY.v_template[ids] * MIRROR, BODY.v_template, atol=1e-7)
  np.testing.assert_allclose(BODY.shapedirs[ids] * MIRROR[:, None], BODY.shapedirs, atol=1e-7)
  np.testing.assert_array_equal(BODY.weights[ids][:, other], BODY.weights)
  np.testing.assert_allclose(BODY.J_regressor[other][:, ids], BODY.J_regressor, atol=1e-7)
  mirrored = {frozenset(face) for face in ids[BODY.faces].tolist()}
  assert mirrored == {frozenset(face) for face in BODY.faces.tolist()}


def _swap(name):
  side, _, rest = name.partition("_")
  return {"left": f"right_{rest}", "right": f"left_{rest}"}.get(side, name)


@pytest.mark.parametrize("shape", smpl_body.SHAPES)
@pytest.mark.parametrize("beta", [-1.0, 1.0])
def test_joints_and_face_of_every_shape_equal_the_drawn_person(shape, beta):
  betas = beta * (np.array(smpl_body.SHAPES) == shape)
  person = smpl_body.make_person(betas)
  joints, frames = body.place_joints(person, REST)
  vertices = BODY.v_template + BODY.shapedirs.astype(float) @ betas
  np.testing.assert_allclose(BODY.J_regressor @ vertices, joints, atol=1e-5)
  face = body.coco_joints(person, joints, frames)[:5]
  np.testing.assert_allclose(BODY_SET.joint_regressor[24:29] @ vertices, face, atol=1e-5)
  skin = bare_body.surface(person)
  # Widths are powers of the girth. Everything else is proportional to the direction.
  assert np.abs(vertices - skin).max() < (0.005 if shape == "girth" else 1e-5)


def test_the_regressors_find_the_joints_of_the_posed_body():
  rng = np.random.default_rng(0)
  rotations = np.stack([pose.sample_pose(rng).rotations for _ in range(20)])
  # Joints that drawn people never turn are turned too.
  rotations[:, [10, 11, 22, 23]] = rotations[:, [4, 5, 18, 19]]
  betas, translation = rng.normal(0, 2, (20, 10)), rng.normal(0, 1, (20, 3))
  arrays = smpl.body_arrays(BODY_SET)
  columns = (array.astype(np.float32) for array in (rotations, betas, translation))
  vertices, joints = jax.jit(smpl.pose_body)(arrays, *columns)
  found = np.einsum("kv,bvc->bkc", BODY_SET.joint_regressor, vertices)
  np.testing.assert_allclose(found[:, :24], joints, atol=1e-5)
  crown = found[:, 29] - found[:, 15]
  assert np.all(np.linalg.norm(crown, axis=1) > 0.1)
  human36m = np.einsum("kv,bvc->bkc", BODY_SET.h36m_regressor, vertices)
  # pelvis, right leg, left leg, spine, neck, nose, head, left arm, right arm (spec of the official code)
  order = [0, 2, 5, 8, 1, 4, 7, 3, 12, 24, 29, 16, 18, 20, 17, 19, 21]
  np.testing.assert_allclose(human36m, found[:, order], atol=1e-5)


def test_every_joint_moves_skin():
  assert (BODY.weights.max(axis=0) > 0.9).all()
