"""SMPL's body layer: pose and shape to vertices and joints (Loper et al., SIGGRAPH Asia 2015).

The arrays of a body are always an argument. A compiled function that closes over them would hold megabytes
of licensed numbers in its program and in the compilation cache.

With the shape b, the rotations R, the joints j and the weights w, for joint i with parent p:

  v_s = template + shapedirs b          j = J_regressor v_s
  v_p = v_s + posedirs vec(R_1 - I, ..., R_23 - I)
  G_0 = [R_0 | j_0]                     G_i = G_p [R_i | j_i - j_p]
  G'_i = [rotation of G_i | translation of G_i - rotation of G_i times j_i]
  v = sum_i w_i G'_i (v_p, 1) + translation
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hap_jax.data import body_model
from hap_jax.models import rotations

_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


@struct.dataclass
class BodyArrays:
  """The arrays of the body of one gender. V is the number of vertices.

  Attributes:
    v_template: [V, 3] float32, in metres.
    shapedirs: [V, 3, S] float32, with S = 10.
    posedirs: [V, 3, 9 * (J - 1)] float32, with J = 24.
    J_regressor: [J, V] float32, computes the joints from the vertices of the body without pose.
    weights: [V, J] float32, the share of each joint's motion in the motion of a vertex.
    joint_regressor: [30, V] float32, computes the joints `skeletons.SMPL30` from the posed vertices.
    parents: J whole numbers, the parent of each joint; -1 for the root.
  """

  v_template: jax.Array
  shapedirs: jax.Array
  posedirs: jax.Array
  J_regressor: jax.Array
  weights: jax.Array
  joint_regressor: jax.Array
  parents: tuple[int, ...] = struct.field(pytree_node=False)


def load(folder, gender="neutral"):
  """Reads the body of a gender from a folder of `hap body`, see `body_model.read_body_set`."""
  return body_arrays(body_model.read_body_set(folder), gender)


def body_arrays(body_set, gender="neutral"):
  """Returns the arrays of a gender of a `body_model.BodySet`, on the host."""
  body = body_set.of(gender)
  return BodyArrays(
    v_template=body.v_template,
    shapedirs=body.shapedirs,
    posedirs=body.posedirs,
    J_regressor=body.J_regressor,
    weights=body.weights,
    joint_regressor=body_set.joint_regressor,
    parents=tuple(body.parents.tolist()),
  )


def pose_body(body, pose, betas, translation):
  """Computes the vertices and the joints of posed bodies.

  Args:
    body: BodyArrays, an argument of the compiled function that calls this one.
    pose: [B, 72] float32 rotation vectors, or [B, 24, 3, 3] float32 matrices. Joint 0 is the root.
    betas: [B, 10] float32, shape coefficients.
    translation: [B, 3] float32 in metres.
  Returns:
    (vertices [B, V, 3] float32, joints [B, 24, 3] float32), in metres. The joints are the joints around which
    the body bends. Losses and metrics use `regress_joints` instead.
  Raises:
    ValueError: if an argument has another shape.
  """
  J, S = len(body.parents), body.shapedirs.shape[-1]
  B = len(betas)
  if pose.shape not in ((B, 3 * J), (B, J, 3, 3)) or betas.shape != (B, S) or translation.shape != (B, 3):
    raise ValueError(
      f"pose {pose.shape}, betas {betas.shape}, translation {translation.shape}: expected [B, {3 * J}] or "
      f"[B, {J}, 3, 3], [B, {S}] and [B, 3]"
    )
  matrix = rotations.axis_angle_to_matrix(pose.reshape(B, J, 3)) if pose.ndim == 2 else pose
  shaped = body.v_template + _einsum("vcs,bs->bvc", body.shapedirs, betas)
  joints = _einsum("jv,bvc->bjc", body.J_regressor, shaped)
  bend = (matrix[:, 1:] - jnp.eye(3, dtype=matrix.dtype)).reshape(B, 9 * (J - 1))
  posed = shaped + _einsum("vcp,bp->bvc", body.posedirs, bend)

  turn, place = _follow_chain(matrix, joints, body.parents)
  offset = place - _apply(turn, joints)
  motion = jnp.concatenate([turn, offset[..., None]], axis=-1).reshape(B, J, 12)
  motion = _einsum("vj,bjm->bvm", body.weights, motion).reshape(B, -1, 3, 4)
  # Written out, this is three times as fast on a CPU as a sum over the last axis.
  vertices = sum(motion[..., axis] * posed[..., axis, None] for axis in range(3)) + motion[..., 3]
  return vertices + translation[:, None], place + translation[:, None]


def regress_joints(body, vertices):
  """Returns the 30 joints [B, 30, 3] of `skeletons.SMPL30` from posed vertices [B, V, 3]."""
  return _einsum("jv,bvc->bjc", body.joint_regressor, vertices)


def _follow_chain(matrix, joints, parents):
  """Returns the rotation [B, J, 3, 3] and the place [B, J, 3] of each joint in one common frame.

  At first, the motion of each joint is relative to its parent. Each round composes the motion of every joint
  with the motion of the ancestor that it is relative to. This doubles the number of bones that a motion
  spans. The longest chain of SMPL has nine joints, so four rounds are enough. There is no gather, whose
  gradient is slow, and the program compiles faster than a loop over joints.
  """
  ancestor = np.array(parents)
  turn, place = matrix, joints - _einsum("ij,bjc->bic", _pick(ancestor), joints)
  while (ancestor >= 0).any():
    pick = _pick(ancestor)
    is_done = np.where(ancestor[:, None, None] < 0, np.eye(3), 0).astype(np.float32)
    above_turn = _einsum("ij,bjcd->bicd", pick, turn) + is_done
    above_place = _einsum("ij,bjc->bic", pick, place)
    turn, place = _compose(above_turn, turn), _apply(above_turn, place) + above_place
    ancestor = np.where(ancestor < 0, -1, ancestor[ancestor])
  return turn, place


def _pick(ids):
  """Returns a [J, J] float32 matrix. Row j of its product with joints is joint ids[j], or zeros for -1."""
  return (ids[:, None] == np.arange(len(ids))).astype(np.float32)


# Sums of elementwise products are faster than batched products of 3 x 3 matrices, and are float32 everywhere.
def _compose(left, right):
  """Returns the product of [..., 3, 3] matrices."""
  return (left[..., :, :, None] * right[..., None, :, :]).sum(-2)


def _apply(matrix, vector):
  """Returns [..., 3, 3] matrices times [..., 3] vectors."""
  return (matrix * vector[..., None, :]).sum(-1)
