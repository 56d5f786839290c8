"""The human body: 24 joints in SMPL's order, bone lengths of one person, forward kinematics.

In the body frame, x points to the person's left, y up and z to the front. Lengths are in metres. In the rest
pose, the arms are stretched out to the sides.
"""

import dataclasses

import numpy as np

JOINTS = (
  *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle"),
  *("right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head"),
  *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
  *("left_hand", "right_hand"),
)
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
JOINT_INDEX = {name: i for i, name in enumerate(JOINTS)}

# Offset of each joint from its parent in the rest pose of an adult of 1.70 m. Only the left side is listed.
# The right side is its mirror image.
_REST_OFFSETS = {
  "pelvis": (0.0, 0.0, 0.0),
  "left_hip": (0.085, -0.075, 0.0),
  "spine1": (0.0, 0.09, -0.01),
  "left_knee": (0.005, -0.405, 0.005),
  "spine2": (0.0, 0.13, 0.0),
  "left_ankle": (0.0, -0.40, -0.02),
  "spine3": (0.0, 0.06, 0.005),
  "left_foot": (0.01, -0.055, 0.125),
  "neck": (0.0, 0.205, -0.015),
  "left_collar": (0.065, 0.09, -0.01),
  "head": (0.0, 0.085, 0.025),
  "left_shoulder": (0.11, 0.015, -0.005),
  "left_elbow": (0.275, 0.0, -0.01),
  "left_wrist": (0.245, 0.0, 0.01),
  "left_hand": (0.085, 0.0, 0.0),
}
_REST_HEIGHT = 1.70

# Eyes, ears and nose on the surface of the head: offsets from the head joint, for a head of size 1.
_FACE_POINTS = {
  "nose": (0.0, 0.010, 0.103),
  "left_eye": (0.031, 0.045, 0.080),
  "right_eye": (-0.031, 0.045, 0.080),
  "left_ear": (0.077, 0.025, 0.005),
  "right_ear": (-0.077, 0.025, 0.005),
}
_COCO_FROM_BODY = (
  *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
  *("left_hip", "right_hip", "left_knee", "right_knee", "left_ankle", "right_ankle"),
)


@dataclasses.dataclass(frozen=True)
class Body:
  """One person's bone lengths and thicknesses.

  Attributes:
    offsets: [24, 3] metres, from each joint's parent to the joint, in the rest pose.
    stature: standing height in metres.
    scale: stature divided by the stature of the reference adult. It also scales all thicknesses.
    girth: thickness of trunk and limbs relative to the average.
    shoulder: half-width of the trunk at the shoulders, relative to the average.
    waist: half-width at the waist, relative to the average.
    hip: half-width at the hips, relative to the average.
    bust: depth of the bust in metres.
    head: size of the head relative to the reference adult.
  """

  offsets: np.ndarray
  stature: float
  scale: float
  girth: float
  shoulder: float
  waist: float
  hip: float
  bust: float
  head: float


def _rest_offsets():
  offsets = np.zeros((len(JOINTS), 3))
  for name, offset in _REST_OFFSETS.items():
    offsets[JOINT_INDEX[name]] = offset
    # x points to the left, so a mirror image has the opposite x.
    if name.startswith("left_"):
      offsets[JOINT_INDEX[name.replace("left_", "right_")]] = np.multiply(offset, (-1, 1, 1))
  return offsets


_OFFSETS = _rest_offsets()
_LEG = [JOINT_INDEX[f"{side}_{name}"] for side in ("left", "right") for name in ("knee", "ankle")]
_ARM = [JOINT_INDEX[f"{side}_{name}"] for side in ("left", "right") for name in ("elbow", "wrist", "hand")]
_SHOULDER = [JOINT_INDEX[f"{side}_{name}"] for side in ("left", "right") for name in ("collar", "shoulder")]
_HIP = [JOINT_INDEX["left_hip"], JOINT_INDEX["right_hip"]]
_TRUNK = [JOINT_INDEX[name] for name in ("spine1", "spine2", "spine3", "neck")]


def rest_offset(name):
  """Returns the offset of a joint from its parent in the rest pose of the reference adult, [3] metres."""
  return _OFFSETS[JOINT_INDEX[name]]


def sample_body(rng, is_female, age):
  """Draws a random body. Means and deviations follow published measurements of adults and children.

  Args:
    rng: numpy Generator.
    is_female: bool.
    age: "child", "adult" or "senior".
  Returns:
    Body.
  """
  stature = rng.normal(1.625, 0.065) if is_female else rng.normal(1.755, 0.07)
  if age == "child":
    stature = rng.uniform(1.12, 1.48)
  elif age == "senior":
    stature -= 0.04
  girth = float(np.clip(rng.lognormal(0.0, 0.12), 0.82, 1.38))
  # People of the same stature differ in the proportions of legs, arms and trunk.
  legs, arms, trunk = rng.normal(1.0, 0.025), rng.normal(1.0, 0.025), rng.normal(1.0, 0.02)
  shoulder = rng.normal(0.94 if is_female else 1.04, 0.035)
  hip = rng.normal(1.04 if is_female else 0.97, 0.04)
  # A child's head is large for its stature.
  head = rng.normal(1.0, 0.025) * (1.0 if age != "child" else 1.0 + 0.28 * (1.6 - stature) / 0.5 * 0.5)
  scale = stature / _REST_HEIGHT
  return build_body(
    stature=stature,
    legs=legs,
    arms=arms,
    trunk=trunk,
    shoulders=shoulder,
    hips=hip,
    waist=rng.normal(0.9 if is_female else 1.0, 0.05),
    girth=girth,
    bust=float(rng.uniform(0.012, 0.04)) if is_female and age != "child" else 0.0,
    head=head * (scale if age != "child" else scale**0.55),
  )


def build_body(*, stature, legs, arms, trunk, shoulders, hips, waist, girth, bust, head):
  """Returns the Body with these proportions.

  Args:
    stature: standing height in metres.
    legs: length of the leg bones, relative to the average for this stature.
    arms: length of the arm bones, relative to the average for this stature.
    trunk: length of the trunk bones, relative to the average for this stature.
    shoulders: width of the shoulder bones, relative to the average for this stature.
    hips: width of the hip bones, relative to the average for this stature.
    waist: half-width at the waist, relative to the average for this stature and girth.
    girth: same as in Body.
    bust: same as in Body.
    head: same as in Body.
  Returns:
    Body.
  """
  scale = stature / _REST_HEIGHT
  offsets = _OFFSETS * scale
  offsets[_LEG] *= legs
  offsets[_ARM] *= arms
  offsets[_TRUNK] *= trunk
  offsets[_SHOULDER, 0] *= shoulders
  offsets[_HIP, 0] *= hips
  return Body(
    offsets=offsets,
    stature=float(stature),
    scale=float(scale),
    girth=girth,
    shoulder=float(shoulders * girth**0.25),
    waist=float(waist * girth),
    hip=float(hips * girth**0.6),
    bust=bust,
    head=float(head),
  )


def place_joints(body, rotations):
  """Runs forward kinematics.

  Args:
    body: Body.
    rotations: [24, 3, 3], rotation of each joint relative to its parent. rotations[0] turns the whole body.
  Returns:
    (joints, frames). joints: [24, 3] metres, with the pelvis at the origin. frames: [24, 3, 3], the global
    rotation of each joint.
  """
  joints, frames = np.zeros((len(JOINTS), 3)), rotations.copy()
  # SMPL sorts the joints by the number of bones between joint and pelvis. Each pass of this loop places all
  # joints with the same number of bones.
  for level, parents in _LEVELS:
    frame = frames.take(parents, axis=0)
    frames[level] = frame @ rotations[level]
    joints[level] = joints.take(parents, axis=0) + (frame @ body.offsets[level, :, None])[..., 0]
  return joints, frames


def _list_levels():
  """Groups the joints by the number of bones to the pelvis. Returns [(slice of n joints, [n] parents)]."""
  levels, start = [], 1
  while start < len(PARENTS):
    stop = next((joint for joint in range(start, len(PARENTS)) if PARENTS[joint] >= start), len(PARENTS))
    levels.append((slice(start, stop), np.array(PARENTS[start:stop])))
    start = stop
  return levels


_LEVELS = _list_levels()


def coco_joints(body, joints, frames):
  """Returns the 17 COCO joints, [17, 3] metres, in the frame of `joints`. Face points are on the skin."""
  head = JOINT_INDEX["head"]
  return np.concatenate([joints[head] + (_FACE * body.head) @ frames[head].T, joints.take(_LIMBS, axis=0)])


_FACE = np.array(list(_FACE_POINTS.values()))
_LIMBS = [JOINT_INDEX[name] for name in _COCO_FROM_BODY]
