"""The targets of 3D pose follow the mirror, the turn and the cut of the picture."""

import functools

import jax
import numpy as np
import pytest

from hap_jax.data.skeletons import COCO17, SMPL30
from hap_jax.data.sources import synthetic
from hap_jax.data.transforms import square_crop
from hap_jax.losses import body_targets
from hap_jax.models import smpl

SIDE = 64

# One program for all tests compiles faster than the separate operations.
make_targets = jax.jit(functools.partial(body_targets.make_targets, side=SIDE))


@pytest.fixture(scope="module")
def body():
  return smpl.body_arrays(synthetic.own_body(), "neutral")


@pytest.fixture(scope="module")
def record():
  return synthetic.open_source(split="train", num_train=2, image_size=(96, 48))[1]


class Turn:
  """Turns and scales the region by fixed amounts."""

  adds = ("rotation",)

  def __init__(self, degrees, factor):
    self.degrees, self.factor = degrees, factor

  def __call__(self, record, rng):
    region = record["region"] * np.array([1, 1, self.factor, self.factor], np.float32)
    return {**record, "region": region, "rotation": np.float32(self.degrees)}


def targets_of(body, record, *, mirror, degrees=0.0, factor=1.0):
  rng = np.random.default_rng(0)
  steps = (
    square_crop.PersonSquare(),
    square_crop.MirrorBody(COCO17.flip_pairs, float(mirror)),
    Turn(degrees, factor),
    square_crop.WarpSquare((SIDE, SIDE)),
  )
  for step in steps:
    record = step(record, rng)
  names = ("intrinsics", "crop_matrix", "rotation", "is_mirrored")
  found = make_targets(
    body,
    pose=record["smpl_pose"][None],
    betas=record["smpl_betas"][None],
    translation=record["smpl_translation"][None],
    **{name: np.asarray(record[name])[None] for name in names},
  )
  return {name: np.asarray(value)[0] for name, value in found.items()}, record


def swapped(joints):
  order = np.arange(len(joints))
  for left, right in SMPL30.flip_pairs:
    order[[left, right]] = right, left
  return joints[order]


def to_pixels(halves):
  return (halves + 1) * SIDE / 2


def test_the_joints_lie_on_the_joints_of_the_picture(body, record):
  found, moved = targets_of(body, record, mirror=False)
  # The drawn joints of the limbs are those of the chain, and the body was fitted to them.
  pixels = np.concatenate([record["keypoints_xy"], np.ones((17, 1))], axis=1) @ moved["crop_matrix"].T
  left_knee, right_wrist = 4, 21
  np.testing.assert_allclose(to_pixels(found["joints_2d"][left_knee]), pixels[13], atol=0.7)
  np.testing.assert_allclose(to_pixels(found["joints_2d"][right_wrist]), pixels[10], atol=0.7)


@pytest.mark.parametrize(("degrees", "factor"), [(0.0, 1.0), (35.0, 1.2)])
def test_a_mirrored_picture_has_mirrored_targets(body, record, degrees, factor):
  plain, _ = targets_of(body, record, mirror=False, degrees=-degrees, factor=factor)
  found, _ = targets_of(body, record, mirror=True, degrees=degrees, factor=factor)
  mirrored = swapped(plain["joints_3d"]) * (-1, 1, 1)
  np.testing.assert_allclose(found["joints_3d"], mirrored, atol=2e-5)
  # The official rule maps the middle of the region to the pixel S/2, so a mirrored pixel is S - x.
  pixels = swapped(to_pixels(plain["joints_2d"]))
  pixels[:, 0] = SIDE - pixels[:, 0]
  np.testing.assert_allclose(to_pixels(found["joints_2d"]), pixels, atol=1e-2)


def test_a_turned_picture_has_turned_targets(body, record):
  plain, _ = targets_of(body, record, mirror=False)
  found, _ = targets_of(body, record, mirror=False, degrees=30.0)
  cos, sin = np.cos(np.radians(-30)), np.sin(np.radians(-30))
  turn = np.array(((cos, -sin, 0), (sin, cos, 0), (0, 0, 1)))
  np.testing.assert_allclose(found["joints_3d"], plain["joints_3d"] @ turn.T, atol=1e-5)
  np.testing.assert_allclose(found["joints_2d"], plain["joints_2d"] @ turn[:2, :2].T, atol=1e-4)
  np.testing.assert_allclose(found["rotations"][0], turn @ plain["rotations"][0], atol=1e-5)
  np.testing.assert_allclose(found["rotations"][1:], plain["rotations"][1:], atol=1e-6)


def test_the_rotations_of_the_targets_give_their_joints(body, record):
  found, _ = targets_of(body, record, mirror=True, degrees=20.0)
  joints = jax.jit(body_targets.pose_joints)(body, found["rotations"][None], found["betas"][None])
  joints = np.asarray(joints)[0]
  np.testing.assert_allclose(joints - joints[0], found["joints_3d"], atol=1e-5)


def test_joints_outside_the_image_are_not_inside(body, record):
  found, _ = targets_of(body, record, mirror=False, factor=0.3)
  pixels = to_pixels(found["joints_2d"])
  is_inside = ((pixels >= 0) & (pixels < SIDE)).all(axis=1)
  assert 0 < is_inside.sum() < 30
  np.testing.assert_array_equal(found["is_inside"], is_inside)
