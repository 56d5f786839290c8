"""Targets of 3D pose and shape: joints and rotations of the true body as the image shows them."""

import functools

import jax.numpy as jnp
import numpy as np

from hap_jax.data.skeletons import SMPL30
from hap_jax.models import crop_camera, rotations, smpl

_MIRROR = np.array((-1.0, 1.0, 1.0), np.float32)  # product with it mirrors points of the camera frame
_einsum = functools.partial(jnp.einsum, precision="highest")


def make_targets(body, *, pose, betas, translation, intrinsics, crop, rotation, is_mirrored, side):
  """Computes the targets of B people.

  The parameters are those of the picture before it was mirrored. Each image is cut out of the mirrored
  picture and turned. A mirrored person is the person with the mirrored pose, as in the official code. The
  projection is exact for a body with equal halves.

  Args:
    body: `smpl.BodyArrays` of the parameters.
    pose: [B, 72] float32, axis-angles.
    betas: [B, 10] float32.
    translation: [B, 3] float32, metres in the camera frame.
    intrinsics: [B, 3, 3] float32, pixels of the mirrored picture.
    crop: [B, 2, 3] float32, the matrix from pixels of the mirrored picture to pixels of the image.
    rotation: [B] float32, degrees by which the image was turned against the picture, see
      `square_crop.crop_matrix`.
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
  matrices = jnp.where(is_mirrored[:, None, None, None], mirror_pose(matrices), matrices)
  joints, pelvis = pose_joints(body, matrices, betas)
  # The translation is relative to the origin of the body. The pelvis is the place that the mirror moves.
  place = pelvis + translation
  translation = jnp.where(is_mirrored[:, None], place * _MIRROR, place) - pelvis
  focal, center = jnp.diagonal(intrinsics[:, :2, :2], axis1=1, axis2=2), intrinsics[:, :2, 2]
  pixels = crop_camera.project(joints + translation[:, None], focal[:, None], center[:, None])
  pixels = _einsum("bij,bkj->bki", crop[:, :, :2], pixels) + crop[:, None, :, 2]
  turn = _about_depth(-rotation)
  return {
    "joints_3d": _einsum("bij,bkj->bki", turn, joints - joints[:, :1]),
    "joints_2d": to_halves(pixels, side),
    "is_inside": ((pixels >= 0) & (pixels < side)).all(axis=-1),
    "rotations": matrices.at[:, 0].set(_einsum("bij,bjk->bik", turn, matrices[:, 0])),
    "betas": betas,
  }


def pose_joints(body, matrices, betas):
  """Returns (joints [B, 30, 3] of the posed body, its pelvis [B, 3]), in metres from its origin."""
  vertices, chain = smpl.pose_body(body, matrices, betas, jnp.zeros((len(betas), 3)))
  # The root turns around the pelvis of the chain, so the pose does not move it.
  return smpl.regress_joints(body, vertices), chain[:, 0]


def mirror_pose(matrices):
  """Returns the rotations of the mirrored person, [B, J, 3, 3]: left and right exchanged, x negated."""
  order = np.arange(matrices.shape[1])
  for left, right in SMPL30.flip_pairs:
    if max(left, right) < len(order):  # the first joints are those of the chain
      order[[left, right]] = right, left
  return matrices[:, order] * (_MIRROR[:, None] * _MIRROR)


def to_halves(pixels, side):
  """Converts pixels of a square image to halves of the image from its centre: -1 to 1."""
  return pixels / (side / 2) - 1


def _about_depth(degrees):
  """Returns the rotations [B, 3, 3] that turn the picture by angles [B] in degrees, from x towards y."""
  cos, sin = jnp.cos(jnp.radians(degrees)), jnp.sin(jnp.radians(degrees))
  zero, one = jnp.zeros_like(cos), jnp.ones_like(cos)
  rows = ((cos, -sin, zero), (sin, cos, zero), (zero, zero, one))
  return jnp.stack([jnp.stack(row, axis=-1) for row in rows], axis=-2)
