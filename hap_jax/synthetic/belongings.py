"""Builds the objects that people carry, the seats they sit on, and obstacles in front of them."""

import numpy as np

from hap_jax.synthetic.anatomy import PART_INDEX
from hap_jax.synthetic.body import JOINT_INDEX
from hap_jax.synthetic.figure import TILE_INDEX, upright_box
from hap_jax.synthetic.mesh import BOX, OVAL, one_tube

# Metres. Straps are drawn nearer to the camera by this length, so that cloth never covers them.
_OVER_CLOTHES = 0.11


def build_belongings(figure, pose):
  """Builds the bags and other objects that a person carries.

  Args:
    figure: Figure.
    pose: Pose. In some poses the person holds a telephone or a box.
  Returns:
    List of Tubes.
  """
  look = figure.look
  tubes = []
  if look.backpack:
    tubes += _backpack(figure)
  if look.shoulder_bag:
    tubes += _shoulder_bag(figure)
  if look.hand_bag:
    tubes += _hand_bag(figure)
  if look.suitcase:
    tubes += _suitcase(figure)
  if pose.phone_side is not None:
    tubes.append(_phone(figure, pose.phone_side))
  if pose.family == "carrying":
    tubes.append(_parcel(figure))
  return tubes


def _backpack(figure):
  body = figure.body
  # fmt: off
  rows = np.array((
    (-0.26, 0.06, 0.03), (-0.24, 0.135, 0.075), (-0.12, 0.155, 0.090), (0.03, 0.145, 0.080),
    (0.12, 0.110, 0.055), (0.15, 0.045, 0.02),
  )) * body.scale
  # fmt: on
  frame = figure.frame("spine3")
  back = -(0.118 * body.girth + 0.07) * body.scale
  centers = figure.joint("spine3") + rows[:, :1] * frame[:, 1] + back * frame[:, 2]
  rings = centers, frame[:, 0] * rows[:, 1:2], frame[:, 2] * rows[:, 2:]
  tubes = [one_tube(*rings, _BACKPACK_V, PART_INDEX["carried"], TILE_INDEX["bag"], OVAL)]
  # There is one strap over each shoulder. The table lists only the left strap.
  for mirror in (1, -1):
    offsets = _BACKPACK_STRAP * (mirror, 1, body.girth**0.8)
    points = figure.at([JOINT_INDEX["spine3"]] * len(offsets), offsets)
    # The strap is flat on the body. Its thin axis points forward on the chest and up on the shoulder.
    turn = np.array((0.0, 0.1, 0.7, 1.5, 2.6))[:, None]
    thin = frame[:, 2] * np.cos(turn) + frame[:, 1] * np.sin(turn)
    wide = np.tile(frame[:, 0], (5, 1))
    tubes.append(_strap(points, wide * 0.021 * body.scale, thin * 0.012 * body.scale))
  return tubes


_BACKPACK_V = np.linspace(0, 1, 6)
# Path of the left strap from the chest over the shoulder to the back. Each row is an offset (left, up, front)
# from the joint spine3.
# fmt: off
_BACKPACK_STRAP = np.array((
  (0.130, -0.15, 0.118), (0.118, 0.02, 0.130), (0.100, 0.12, 0.100), (0.095, 0.170, 0.0),
  (0.095, 0.12, -0.10),
))
# fmt: on


def _strap(points, wide, thin):
  kind = PART_INDEX["carried"], TILE_INDEX["bag"], BOX
  return one_tube(points, wide, thin, 0.95, *kind, is_open=True, lift=_OVER_CLOTHES)


def _shoulder_bag(figure):
  """Builds a bag at one hip and a strap across the chest and the back."""
  body, side = figure.body, figure.look.bag_side
  pelvis = figure.frame("pelvis")
  offset = np.array((side * (0.175 * body.hip + 0.05), -0.09, -0.02))
  center = figure.at([JOINT_INDEX["pelvis"]], offset[None])[0]
  half = np.array((0.045, 0.11, 0.15)) * body.scale
  tubes = [upright_box(center, pelvis, half, "carried", "bag", lift=0.08)]
  deep = body.girth
  # The strap runs up the chest, over the other shoulder and down the back. Each point of its path is given
  # by a joint and an offset: (joint, left, up, front).
  front = [("pelvis", side * 0.17 * body.hip, 0.02, 0.05), ("spine1", side * 0.11, 0.04, 0.122 * deep)]
  front += [("spine2", side * 0.02, 0.03, 0.135 * deep), ("spine3", -side * 0.05, 0.07, 0.124 * deep)]
  over = [("spine3", -side * 0.095, 0.170, 0.0)]
  behind = [(joint, left, up, -fore) for joint, left, up, fore in reversed(front)]
  path = (*front, *over, *behind)
  points = figure.at([JOINT_INDEX[step[0]] for step in path], np.array([step[1:] for step in path]))
  along = np.gradient(points, axis=0)
  along /= np.linalg.norm(along, axis=1, keepdims=True)
  # The thin axis points away from the spine, at a right angle to the path.
  out = points - figure.joint("spine2")
  thin = out - along * (out * along).sum(axis=1, keepdims=True)
  thin /= np.linalg.norm(thin, axis=1, keepdims=True)
  tubes.append(_strap(points, np.cross(along, thin) * 0.016 * body.scale, thin * 0.008 * body.scale))
  return tubes


def _hand_bag(figure):
  """Builds a bag that hangs from one hand."""
  scale = figure.body.scale
  side = "left" if figure.look.bag_side > 0 else "right"
  wrist, hand = figure.joint(f"{side}_wrist"), figure.joint(f"{side}_hand")
  grip = wrist + (hand - wrist) * 1.1
  frame = figure.frame("pelvis")
  # The bag is shifted to the side, so that it does not touch the leg.
  center = grip + (figure.look.bag_side * 0.06 * frame[:, 0] - np.array((0, 0.24, 0))) * scale
  half = np.array((0.05, 0.12, 0.15)) * scale
  tubes = [upright_box(center, frame, half, "carried", "bag", lift=0.05)]
  top = center + np.array((0, 0.11, 0)) * scale
  points = np.array((top + frame[:, 2] * 0.07 * scale, grip, top - frame[:, 2] * 0.07 * scale))
  wide = np.tile(frame[:, 0], (3, 1)) * 0.010 * scale
  tubes.append(_strap(points, wide, np.tile(frame[:, 2], (3, 1)) * 0.010 * scale))
  return tubes


def _suitcase(figure):
  """Builds a suitcase on wheels that the person pulls with one hand."""
  scale = figure.body.scale
  side = "right" if figure.look.bag_side > 0 else "left"
  grip = figure.joint(f"{side}_hand")
  ground = figure.joints[:, 1].min() - 0.07 * scale
  frame = figure.frame("pelvis")
  back = frame[:, 2] * (1, 0, 1)
  center = np.array((grip[0], ground + 0.33, grip[2])) - back * 0.28
  half = np.array((0.19, 0.28, 0.11))
  tubes = [upright_box(center, frame, half, "carried", "bag")]
  points = np.array((center + np.array((0, 0.27, 0)), grip))
  wide = np.tile(frame[:, 0], (2, 1)) * 0.05
  tubes.append(_strap(points, wide, np.tile(frame[:, 2], (2, 1)) * 0.008))
  return tubes


def _phone(figure, side):
  name = ("left", "right")[side]
  frame = figure.frame(f"{name}_wrist")
  fingers = frame[:, 0] * (1, -1)[side]
  center = figure.joint(f"{name}_wrist") + fingers * 0.10 - frame[:, 1] * 0.03
  centers = center + np.array((-0.07, -0.068, 0.068, 0.07))[:, None] * (fingers + 0.2 * frame[:, 1])
  size = np.array((0.6, 1.0, 1.0, 0.6))[:, None]
  rings = centers, frame[:, 1] * 0.006 * size, frame[:, 2] * 0.036 * size
  return one_tube(*rings, 0.1, PART_INDEX["carried"], TILE_INDEX["thing"], BOX, lift=_OVER_CLOTHES)


def _parcel(figure):
  """Builds a box that the person holds with both hands."""
  left, right = figure.joint("left_hand"), figure.joint("right_hand")
  frame = figure.frame("spine3")
  wide = max(np.linalg.norm(left - right) / 2 - 0.02, 0.08)
  center = (left + right) / 2 + np.array((0, 0.06, 0)) + frame[:, 2] * (1, 0, 1) * 0.02
  return upright_box(center, frame, (wide, 0.11, 0.13), "carried", "thing", lift=0.05)


def build_seat(figure):
  """Builds a seat under a sitting person. Its lower end is on the ground, y = 0."""
  scale = figure.body.scale
  hip = (figure.joint("left_hip") + figure.joint("right_hip")) / 2
  top = hip[1] - 0.10 * scale
  frame = figure.frame("pelvis")
  center = np.array((hip[0], top / 2, hip[2])) + frame[:, 2] * (1, 0, 1) * 0.06
  half = (0.28, max(top / 2, 0.05), 0.20)
  return upright_box(center, frame, half, "object", "thing")


def build_obstacle(rng):
  """Builds a post, a low wall or a box between the camera and the person.

  The person is at the origin. The camera is in the direction +z.
  """
  kind = rng.integers(3)
  front = rng.uniform(0.5, 1.4)
  frame = np.eye(3)
  if kind == 0:
    radius = rng.uniform(0.03, 0.09)
    high = 5.0 if rng.random() < 0.6 else 1.0
    left = rng.uniform(-0.32, 0.32)
    points = np.array(((left, 0, front), (left, high / 2, front), (left, high, front)))
    axis = np.tile(np.array((radius, 0, 0)), (3, 1)), np.tile(np.array((0, 0, radius)), (3, 1))
    return one_tube(points, *axis, 0.5, PART_INDEX["object"], TILE_INDEX["thing"])
  high = rng.uniform(0.15, 0.42) if kind == 1 else rng.uniform(0.3, 0.55)
  wide = rng.uniform(0.9, 2.0) if kind == 1 else rng.uniform(0.18, 0.3)
  side = rng.uniform(-0.4, 0.4) if kind == 1 else rng.choice((-1, 1)) * rng.uniform(0.12, 0.4)
  return upright_box(np.array((side, high, front)), frame, (wide, high, 0.2), "object", "thing")
