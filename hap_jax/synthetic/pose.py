"""Draws random poses. A family of poses gives joint angles within limits, which become 24 joint rotations.

Angles are anatomical and in degrees. All angles are 0 when a person stands upright with hanging arms. A pair
of angles is (left, right). Each rotation is relative to the parent joint.
"""

import dataclasses
import math

import numpy as np

from hap_jax.synthetic.appearance import choose
from hap_jax.synthetic.body import JOINT_INDEX, JOINTS

# (lowest, highest) degrees. The limits are slightly narrower than the normal active range of motion of
# adults.
LIMITS = {
  "hip_flexion": (-20, 115),
  "hip_abduction": (-10, 45),
  "hip_rotation": (-30, 40),
  "knee_flexion": (0, 135),
  "ankle_flexion": (-35, 20),
  "shoulder_flexion": (-45, 170),
  "shoulder_abduction": (0, 150),
  "shoulder_rotation": (-70, 80),
  "elbow_flexion": (0, 145),
  "wrist_flexion": (-45, 60),
  "spine_bend": (-15, 80),
  "spine_lean": (-25, 25),
  "spine_twist": (-35, 35),
  "head_nod": (-30, 40),
  "head_turn": (-65, 65),
  "head_tilt": (-25, 25),
}

# Share of pictures that show each family.
FAMILY_RATES = {
  "walking": 0.46,
  "standing": 0.22,
  "phone": 0.07,
  "carrying": 0.06,
  "running": 0.06,
  "sitting": 0.04,
  "bending": 0.03,
  "arms_raised": 0.03,
  "hands_on_hips": 0.03,
}


@dataclasses.dataclass(frozen=True)
class Pose:
  """One pose.

  Attributes:
    family: a key of FAMILY_RATES.
    rotations: [24, 3, 3], relative to the parent joint.
    phone_side: hand that holds a telephone. 0: left, 1: right, None: no telephone.
  """

  family: str
  rotations: np.ndarray
  phone_side: int | None


# Mean and standard deviation of the joint angles of a relaxed person. All families start from this pose.
_RELAXED = {
  "hip_flexion": (2, 3),
  "hip_abduction": (4, 2),
  "hip_rotation": (8, 5),
  "knee_flexion": (5, 3),
  "ankle_flexion": (0, 2),
  "shoulder_flexion": (2, 6),
  "shoulder_abduction": (11, 4),
  "shoulder_rotation": (12, 10),
  "elbow_flexion": (22, 9),
  "wrist_flexion": (5, 8),
  "spine_bend": (3, 4),
  "spine_lean": (0, 2),
  "spine_twist": (0, 3),
  "head_nod": (4, 9),
  "head_turn": (0, 18),
  "head_tilt": (0, 4),
}
_RELAXED_MEAN, _RELAXED_SPREAD = (
  np.array(column, float)[:, None] for column in zip(*_RELAXED.values(), strict=True)
)
_LOWEST, _HIGHEST = (np.array(column, float)[:, None] for column in zip(*LIMITS.values(), strict=True))


def _relax(rng):
  """Draws the joint angles of a relaxed person.

  Returns:
    {name: [2] degrees}, left and right. Trunk and head use only the first number.
  """
  return dict(
    zip(_RELAXED, _RELAXED_MEAN + _RELAXED_SPREAD * rng.standard_normal((len(_RELAXED), 2)), strict=True)
  )


def _pair(rng, mean, spread):
  return rng.normal(mean, spread, 2)


def _standing(rng, angles):
  """Changes the angles to a standing pose, often with one bent leg, sometimes with folded arms."""
  if rng.random() < 0.5:
    free = rng.integers(2)
    angles["knee_flexion"][free] += rng.uniform(8, 25)
    angles["hip_flexion"][free] += rng.uniform(8, 18)
    angles["hip_abduction"][free] += rng.uniform(2, 10)
  # Folded arms, or hands together in front of the body.
  if rng.random() < 0.15:
    angles["shoulder_flexion"] = _pair(rng, 22, 4)
    angles["shoulder_rotation"] = _pair(rng, 62, 5)
    angles["elbow_flexion"] = _pair(rng, 98, 6)


def _stride(rng, angles, swing, knee, arm, elbow):
  """Moves legs and arms to a random phase of a gait cycle. An arm swings opposite to the leg on its side."""
  phase = rng.uniform(0, 2 * math.pi) + np.array([0.0, math.pi])
  angles["hip_flexion"] = swing * (0.15 + np.sin(phase)) + _pair(rng, 4, 2)
  # The knee bends while its leg swings forward. It is nearly straight while the leg carries the body.
  angles["knee_flexion"] = knee * np.clip(np.cos(phase + 0.35), 0, 1) ** 1.3 + np.abs(_pair(rng, 6, 3))
  angles["ankle_flexion"] = -0.8 * swing * np.clip(np.sin(phase + math.pi + 0.5), 0, 1) + _pair(rng, 3, 2)
  angles["shoulder_flexion"] = -arm * np.sin(phase) + _pair(rng, 2, 5)
  angles["elbow_flexion"] = elbow + 0.5 * arm * np.clip(-np.sin(phase), 0, 1) + np.abs(_pair(rng, 0, 8))
  angles["hip_rotation"] = _pair(rng, 5, 3)
  angles["hip_abduction"] = _pair(rng, 1, 1.5)
  angles["spine_twist"] += 0.25 * arm * math.sin(phase[0])


def _walking(rng, angles):
  swing = rng.uniform(14, 30)
  _stride(rng, angles, swing, knee=rng.uniform(45, 62), arm=rng.uniform(4, 30), elbow=rng.uniform(8, 28))
  # Sometimes one arm is bent, as if it held the strap of a bag.
  if rng.random() < 0.12:
    side = rng.integers(2)
    angles["shoulder_flexion"][side] = rng.normal(-12, 4)
    angles["elbow_flexion"][side] = rng.uniform(50, 75)


def _running(rng, angles):
  _stride(
    rng,
    angles,
    rng.uniform(32, 48),
    knee=rng.uniform(80, 110),
    arm=rng.uniform(30, 45),
    elbow=rng.uniform(75, 95),
  )
  angles["spine_bend"] += 9


def _phone(rng, angles):
  """Puts a telephone into one hand: at the ear, or in front of a person who looks down at it.

  Returns:
    0 for the left hand, 1 for the right hand.
  """
  (_walking if rng.random() < 0.4 else _standing)(rng, angles)
  side = rng.integers(2)
  if rng.random() < 0.4:
    angles["shoulder_flexion"][side] = rng.normal(42, 6)
    angles["shoulder_abduction"][side] = rng.normal(32, 8)
    angles["shoulder_rotation"][side] = rng.normal(48, 6)
    angles["elbow_flexion"][side] = rng.uniform(130, 142)
  else:
    angles["shoulder_flexion"][side] = rng.normal(28, 8)
    angles["shoulder_rotation"][side] = rng.normal(42, 8)
    angles["elbow_flexion"][side] = rng.normal(95, 10)
    angles["head_nod"] += 22
  return int(side)


def _carrying(rng, angles):
  """Bends both forearms forward, as if they held a box."""
  (_walking if rng.random() < 0.5 else _standing)(rng, angles)
  # Both arms have almost the same angles, because both hands hold the same box.
  angles["shoulder_flexion"] = rng.normal(16, 5) + _pair(rng, 0, 2)
  angles["shoulder_abduction"] = _pair(rng, 14, 3)
  angles["shoulder_rotation"] = _pair(rng, 24, 5)
  angles["elbow_flexion"] = rng.normal(82, 8) + _pair(rng, 0, 3)


def _sitting(rng, angles):
  angles["hip_flexion"] = rng.normal(84, 4) + _pair(rng, 0, 3)
  angles["hip_abduction"] = _pair(rng, 9, 4)
  angles["hip_rotation"] = _pair(rng, 0, 4)
  angles["knee_flexion"] = rng.normal(84, 7) + _pair(rng, 0, 8)
  angles["shoulder_flexion"] = _pair(rng, 25, 7)
  angles["shoulder_rotation"] = _pair(rng, 22, 8)
  angles["elbow_flexion"] = _pair(rng, 55, 12)
  angles["spine_bend"] += 5


def _bending(rng, angles):
  angles["spine_bend"] += rng.uniform(32, 66)
  angles["hip_flexion"] = rng.uniform(25, 60) + _pair(rng, 0, 5)
  angles["knee_flexion"] = rng.uniform(10, 60) + _pair(rng, 0, 6)
  angles["shoulder_flexion"] = _pair(rng, 55, 14)
  angles["head_nod"] -= 4


def _arms_raised(rng, angles):
  """Raises one arm or both, as people do to wave, to point or to reach up."""
  _standing(rng, angles)
  sides = [rng.integers(2)] if rng.random() < 0.6 else [0, 1]
  for side in sides:
    angles["shoulder_flexion"][side] = rng.uniform(70, 160)
    angles["shoulder_abduction"][side] = rng.uniform(5, 45)
    angles["elbow_flexion"][side] = abs(rng.normal(20, 25))


def _hands_on_hips(rng, angles):
  _standing(rng, angles)
  angles["shoulder_flexion"] = _pair(rng, -12, 3)
  angles["shoulder_abduction"] = _pair(rng, 46, 4)
  angles["shoulder_rotation"] = _pair(rng, 52, 4)
  angles["elbow_flexion"] = _pair(rng, 98, 5)


_FAMILIES = {
  "walking": _walking,
  "standing": _standing,
  "phone": _phone,
  "carrying": _carrying,
  "running": _running,
  "sitting": _sitting,
  "bending": _bending,
  "arms_raised": _arms_raised,
  "hands_on_hips": _hands_on_hips,
}


def sample_pose(rng, families=FAMILY_RATES, stoop=0.0):
  """Draws a pose within the joint limits.

  Args:
    rng: numpy Generator.
    families: {family: relative rate}.
    stoop: degrees that are added to the bend of the spine, for old people.
  Returns:
    Pose. The body faces +z.
  """
  family = choose(rng, families)
  angles = _relax(rng)
  phone_side = _FAMILIES[family](rng, angles)
  # A person with a bent spine lifts the head to look ahead.
  angles["spine_bend"] += stoop
  angles["head_nod"] -= 0.5 * stoop
  values = np.minimum(np.maximum(list(angles.values()), _LOWEST), _HIGHEST)
  return Pose(family, rotations_from_angles(values), phone_side)


def heading_rotation(degrees):
  """Returns the [3, 3] rotation about the vertical axis that turns the front from +z towards +x."""
  return _rotations(np.array([1]), np.array([degrees]))[0]


def rotations_from_angles(angles):
  """Converts anatomical angles to rotations relative to the parent joint.

  Args:
    angles: [16, 2] degrees, left and right, in the order of LIMITS. Trunk and head use only the left angle.
  Returns:
    [24, 3, 3].
  """
  degrees = np.zeros((3, len(JOINTS)))
  degrees[_STAGE, _JOINT] = _FACTOR * angles[_ANGLE, _SIDE]
  # In the rest pose the arms are stretched out. So an arm that hangs down is turned by 90 degrees. The collar
  # bone rises when an arm is lifted above 60 degrees.
  for side, mirror in ((0, 1), (1, -1)):
    degrees[1, _SHOULDERS[side]] -= mirror * 90
    raised = max(angles[_FLEXION, side], angles[_ABDUCTION, side]) - 60
    degrees[0, _COLLARS[side]] = mirror * max(raised, 0) / 4
  first, second, third = _rotations(_AXES, degrees)
  return first @ second @ third


_GENERATORS = np.array(
  (
    ((0, 0, 0), (0, 0, -1), (0, 1, 0)),
    ((0, 0, 1), (0, 0, 0), (-1, 0, 0)),
    ((0, -1, 0), (1, 0, 0), (0, 0, 0)),
  ),
  float,
)
_SQUARES = _GENERATORS @ _GENERATORS
_IDENTITY = np.eye(3)


def _rotations(axes, degrees):
  """Returns right-handed rotations by Rodrigues' formula.

  Args:
    axes: [...] int, 0, 1 or 2.
    degrees: [...] float.
  Returns:
    [..., 3, 3].
  """
  angle = np.radians(degrees)[..., None, None]
  generators, squares = (table.take(axes, axis=0) for table in (_GENERATORS, _SQUARES))
  return _IDENTITY + np.sin(angle) * generators + (1 - np.cos(angle)) * squares


# A joint's rotation is the product of three turns: stage 0, stage 1, stage 2. Stage 0 is applied last.
# Rows are (joint, stage, axis, angle, True if the right side turns in the other direction, factor).
_LIMB_TURNS = (
  ("hip", 0, 0, "hip_flexion", False, -1),
  ("hip", 1, 2, "hip_abduction", True, 1),
  ("hip", 2, 1, "hip_rotation", True, 1),
  ("knee", 0, 0, "knee_flexion", False, 1),
  ("ankle", 0, 0, "ankle_flexion", False, -1),
  ("shoulder", 0, 0, "shoulder_flexion", False, -1),
  ("shoulder", 1, 2, "shoulder_abduction", True, 1),
  ("shoulder", 2, 0, "shoulder_rotation", False, 1),
  ("elbow", 0, 1, "elbow_flexion", True, -1),
  ("wrist", 0, 2, "wrist_flexion", True, -1),
)
# Rows are (joint, stage, axis, angle, factor). Several joints share an angle, because the spine bends along
# its whole length.
_TRUNK_TURNS = (
  *((joint, 0, 1, "spine_twist", 1 / 3) for joint in ("spine1", "spine2", "spine3")),
  *((joint, 1, 0, "spine_bend", 1 / 3) for joint in ("spine1", "spine2", "spine3")),
  *((joint, 2, 2, "spine_lean", 1 / 3) for joint in ("spine1", "spine2", "spine3")),
  *((joint, 0, 1, "head_turn", 1 / 2) for joint in ("neck", "head")),
  *((joint, 1, 0, "head_nod", 1 / 2) for joint in ("neck", "head")),
  ("head", 2, 2, "head_tilt", 1),
)
_SHOULDERS = (JOINT_INDEX["left_shoulder"], JOINT_INDEX["right_shoulder"])
_FLEXION, _ABDUCTION = (list(LIMITS).index(f"shoulder_{name}") for name in ("flexion", "abduction"))
_COLLARS = (JOINT_INDEX["left_collar"], JOINT_INDEX["right_collar"])


def _list_terms():
  """Converts the tables of turns to arrays, so that one step computes all joints.

  Returns:
    (axes, joint, stage, angle, side, factor). axes: [3, 24], the axis of every turn. The other arrays have N
    entries. Entry n sets the turn of stage[n] and joint[n] to factor[n] * angles[angle[n], side[n]] degrees.
  """
  axes = np.zeros((3, len(JOINTS)), int)
  axes[0, list(_COLLARS)] = 2  # `rotations_from_angles` turns the collar bones
  terms, names = [], list(LIMITS)
  for name, stage, axis, angle, is_mirrored, factor in _LIMB_TURNS:
    for side, mirror in ((0, 1), (1, -1)):
      joint = JOINT_INDEX[f"{('left', 'right')[side]}_{name}"]
      axes[stage, joint] = axis
      terms.append((joint, stage, names.index(angle), side, factor * (mirror if is_mirrored else 1)))
  for name, stage, axis, angle, factor in _TRUNK_TURNS:
    axes[stage, JOINT_INDEX[name]] = axis
    terms.append((JOINT_INDEX[name], stage, names.index(angle), 0, factor))
  return axes, *(np.array(column) for column in zip(*terms, strict=True))


_AXES, _JOINT, _STAGE, _ANGLE, _SIDE, _FACTOR = _list_terms()
