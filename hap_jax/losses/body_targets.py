"""Targets of 3D pose and shape: joints and rotations of the true body as the image shows them."""

import functools

import jax.numpy as jnp
import numpy as np

from hap_jax.data.skeletons import SMPL30
from hap_jax.models import crop_camera, rotations, smpl

_MIRROR = np.array((-1.0, 1.0, 1.0), np.float32)  # points of the camera frame times this array are mirrored
_einsum = functools.partial(jnp.einsum, precision="highest")


def make_targets(body, *, pose, betas, translation, intrinsics, crop_matrix, rotation, is_mirrored, side):
  """Computes the targets of B people.

  The parameters and the camera belong to the picture as it was read. If the image shows the mirrored picture,
  left and right joints are exchanged. The official code poses a mirrored body instead. The result is the same
  if the left and the right half of the body are equal.

  Args:
    body: `smpl.BodyArrays` that the parameters belong to.
    pose: [B, 72] float32, axis-angles.
    betas: [B, 10] float32.
    translation: [B, 3] float32, metres in the camera frame.
    intrinsics: [B, 3, 3] float32, pixels of the picture.
    crop_matrix: [B, 2, 3] float32, see `square_crop`.
    rotation: [B] float32, degrees by which the image was turned relative to the picture, see
      `square_crop.square_matrix`.
    is_mirrored: [B] bool.
    side: side of the image in pixels.
  Returns:
    {"joints_3d": [B, 30, 3] float32, metres relative to the pelvis,
     "joints_2d": [B, 30, 2] float32, halves of the image, see `to_halves`,
     "is_inside": [B, 30] bool, True for a joint inside the image,
     "rotations": [B, J, 3, 3] float32,
     "betas": [B, 10] float32}
  """
  matrices = rotations.axis_angle_to_matrix(pose.reshape(len(pose), -1, 3))
  joints = pose_joints(body, matrices, betas)
  focal, center = jnp.diagonal(intrinsics[:, :2, :2], axis1=1, axis2=2), intrinsics[:, :2, 2]
  pixels = crop_camera.project(joints + translation[:, None], focal[:, None], center[:, None])
  pixels = _einsum("bij,bkj->bki", crop_matrix[:, :, :2], pixels) + crop_matrix[:, None, :, 2]
  joints = joints - joints[:, :1]

  def choose(mirrored, plain):
    return jnp.where(is_mirrored.reshape(-1, *[1] * (plain.ndim - 1)), mirrored, plain)

  order = _exchange_sides(len(SMPL30.joints))
  pixels, joints = choose(pixels[:, order], pixels), choose(joints[:, order] * _MIRROR, joints)
  matrices, turn = choose(mirror_pose(matrices), matrices), _about_depth(-rotation)
  return {
    "joints_3d": _einsum("bij,bkj->bki", turn, joints),
    "joints_2d": to_halves(pixels, side),
    "is_inside": ((pixels >= 0) & (pixels < side)).all(axis=-1),
    "rotations": matrices.at[:, 0].set(_einsum("bij,bjk->bik", turn, matrices[:, 0])),
    "betas": betas,
  }


def pose_joints(body, matrices, betas):
  """Returns the joints [B, 30, 3] of the posed body in metres, without a translation."""
  vertices, _ = smpl.pose_body(body, matrices, betas, jnp.zeros((len(betas), 3)))
  return smpl.regress_joints(body, vertices)


def _exchange_sides(count):
  """Returns the indices of the first `count` joints of SMPL30, with left and right exchanged."""
  order = np.arange(count)
  for left, right in SMPL30.flip_pairs:
    if max(left, right) < count:
      order[[left, right]] = right, left
  return order


def mirror_pose(matrices):
  """Returns the rotations of the mirrored person, [B, J, 3, 3]: left and right exchanged, x negated."""
  # The first 24 joints of SMPL30 are the joints of the chain.
  return matrices[:, _exchange_sides(matrices.shape[1])] * (_MIRROR[:, None] * _MIRROR)


def to_halves(pixels, side):
  """Converts pixels of a square image to halves of the image from its centre: -1 to 1."""
  return pixels / (side / 2) - 1


def _about_depth(degrees):
  """Returns the rotations [B, 3, 3] about the depth axis by angles [B] in degrees, from x towards y."""
  cos, sin = jnp.cos(jnp.radians(degrees)), jnp.sin(jnp.radians(degrees))
  zero, one = jnp.zeros_like(cos), jnp.ones_like(cos)
  rows = ((cos, -sin, zero), (sin, cos, zero), (zero, zero, one))
  return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
