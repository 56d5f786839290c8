"""Computes SMPL's parameters of drawn people, for the body model of `smpl_body`.

The joints are exact, because the bones of that body model vary in the same way as the bones of drawn people.
The skin is approximate, because a person's thicknesses are products of several properties.
"""

import functools

import numpy as np

from hap_jax.synthetic import bare_body, body, draw, smpl_body

_OF_BONES = ("stature", "legs", "arms", "trunk", "shoulders", "hips")  # the shape directions that move joints
_BONES = [smpl_body.SHAPES.index(name) for name in _OF_BONES]
_SKIN = [k for k in range(len(smpl_body.SHAPES)) if k not in _BONES]


def fit_betas(person):
  """Returns the shape parameters of the project's own body model that fit a person best.

  Args:
    person: body.Body.
  Returns:
    [10] float64. The bones have exactly the person's lengths. Under this condition, the sum of squared
    distances between the vertices of the two bare skins is minimal.
  """
  offsets, skin, skin_steps, bones_inverse, skin_inverse = _linear_model()
  betas = np.zeros(len(smpl_body.SHAPES))
  betas[_BONES] = bones_inverse @ (person.offsets - offsets).ravel()
  rest = (bare_body.surface(person) - skin).ravel() - betas @ skin_steps
  betas[_SKIN] = skin_inverse @ rest
  return betas


@functools.cache
def _linear_model():
  """Returns the mean body, its change with the shape, and the pseudo-inverses for least squares.

  Returns:
    (offsets [24, 3], skin [V, 3], skin steps [10, 3 * V], pseudo-inverse for the bones [6, 72],
    pseudo-inverse for the skin [4, 3 * V]).
  """
  skin, joints, skin_steps, joint_steps = smpl_body.shape_space()
  offsets, offset_steps = _offsets(joints), _offsets(joint_steps)
  skin_steps = skin_steps.reshape(len(skin_steps), -1)
  bones_inverse = np.linalg.pinv(offset_steps[_BONES].reshape(len(_BONES), -1).T)
  return offsets, skin, skin_steps, bones_inverse, np.linalg.pinv(skin_steps[_SKIN].T)


def _offsets(joints):
  """Returns the offset of each joint from its parent, [..., 24, 3], from [..., 24 or more, 3] joints."""
  parents = np.array(body.PARENTS)
  offsets = joints[..., : len(parents), :].copy()
  offsets[..., 1:, :] -= joints[..., parents[1:], :]
  return offsets


def parameters_of(seed, drawn):
  """Returns SMPL's parameters of a drawn person in the camera frame.

  Args:
    seed: seed of the people.
    drawn: the result of `draw.draw_person`. Only pid, rotations and joints_3d are used.
  Returns:
    dict of float32: smpl_pose [72] radians, smpl_betas [10], smpl_translation [3] metres. The
    translation is the position of the pelvis, because the pelvis of this body model is at the origin for
    every shape.
  """
  return {
    "smpl_pose": axis_angles(drawn["rotations"]).ravel().astype(np.float32),
    "smpl_betas": _betas(seed, drawn["pid"]).astype(np.float32),
    "smpl_translation": drawn["joints_3d"][0].copy(),
  }


@functools.lru_cache(maxsize=1024)
def _betas(seed, pid):
  return fit_betas(draw.sample_person(seed, pid).body)


def axis_angles(rotations):
  """Converts rotations to rotation vectors with angles in [0, pi].

  Args:
    rotations: [..., 3, 3].
  Returns:
    [..., 3] float64 radians.
  """
  m = np.moveaxis(np.asarray(rotations, float), (-2, -1), (0, 1))
  x, y, z = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
  xy, xz, yz = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1]
  # Row i is the quaternion (w, x, y, z), multiplied by four times its entry i. The largest row is exact for
  # every angle. A formula with only the trace would be wrong near pi. The root rotation of an upright person
  # in front of a camera is near pi.
  rows = (
    (1 + m[0, 0] + m[1, 1] + m[2, 2], x, y, z),
    (x, 1 + m[0, 0] - m[1, 1] - m[2, 2], xy, xz),
    (y, xy, 1 - m[0, 0] + m[1, 1] - m[2, 2], yz),
    (z, xz, yz, 1 - m[0, 0] - m[1, 1] + m[2, 2]),
  )
  rows = np.moveaxis(np.array(rows), 1, -1)  # [4, ..., 4]
  largest = np.argmax([row[..., k] for k, row in enumerate(rows)], axis=0)
  quaternion = np.take_along_axis(rows, largest[None, ..., None], axis=0)[0]
  quaternion *= np.where(quaternion[..., :1] < 0, -1, 1)
  length = np.linalg.norm(quaternion[..., 1:], axis=-1, keepdims=True)
  angle = 2 * np.arctan2(length, quaternion[..., :1])
  return quaternion[..., 1:] * (angle / np.maximum(length, 1e-30))
