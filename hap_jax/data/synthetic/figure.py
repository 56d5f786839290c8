"""The surface of one dressed person: tubes around the posed skeleton."""

import dataclasses

import numpy as np

from hap_jax.data.synthetic.body import JOINT_INDEX
from hap_jax.data.synthetic.mesh import Tube

PARTS = (
  *("background", "head", "torso", "left_upper_arm", "right_upper_arm", "left_lower_arm", "right_lower_arm"),
  *("left_hand", "right_hand", "left_upper_leg", "right_upper_leg", "left_lower_leg", "right_lower_leg"),
  *("left_foot", "right_foot", "carried", "other_person", "occluder"),
)
PART_INDEX = {name: i for i, name in enumerate(PARTS)}
TILES = ("head", "skin", "hair", "hat", "top", "sleeve", "bottom", "shoe", "bag", "glasses", "inner")
TILE_INDEX = {name: i for i, name in enumerate(TILES)}

# Rows: joint whose frame carries the ring, height above that joint, half-width, half-depth, shift to the front.
_TORSO = (
  ("pelvis", -0.135, 0.172, 0.118, -0.008, "hip"),
  ("pelvis", -0.06, 0.168, 0.120, -0.010, "hip"),
  ("pelvis", 0.02, 0.158, 0.112, -0.004, "waist"),
  ("spine1", 0.01, 0.147, 0.106, 0.004, "waist"),
  ("spine1", 0.08, 0.147, 0.106, 0.008, "waist"),
  ("spine2", 0.03, 0.157, 0.112, 0.006, "shoulder"),
  ("spine3", 0.005, 0.168, 0.116, 0.002, "shoulder"),
  ("spine3", 0.06, 0.172, 0.112, -0.002, "shoulder"),
  ("spine3", 0.105, 0.160, 0.096, -0.010, "shoulder"),
  ("spine3", 0.140, 0.128, 0.080, -0.016, "shoulder"),
  ("spine3", 0.168, 0.086, 0.066, -0.018, "neck"),
  ("spine3", 0.190, 0.062, 0.058, -0.012, "neck"),
)
_HIPS = (
  ("pelvis", -0.165, 0.050, 0.060, -0.010, "hip"),
  ("pelvis", -0.145, 0.115, 0.098, -0.012, "hip"),
  ("pelvis", -0.10, 0.160, 0.112, -0.012, "hip"),
  ("pelvis", -0.04, 0.162, 0.113, -0.010, "hip"),
  ("pelvis", 0.03, 0.150, 0.106, -0.004, "waist"),
  ("spine1", 0.0, 0.142, 0.102, 0.002, "waist"),
)
# Head rings from chin to crown: height above the head joint, half-width, half-depth, shift to the front.
_HEAD = np.array(
  (
    (-0.088, 0.010, 0.012, 0.060),
    (-0.080, 0.034, 0.036, 0.044),
    (-0.058, 0.052, 0.062, 0.026),
    (-0.028, 0.063, 0.080, 0.014),
    (0.010, 0.070, 0.091, 0.008),
    (0.045, 0.073, 0.097, 0.002),
    (0.080, 0.072, 0.095, -0.002),
    (0.108, 0.062, 0.083, -0.004),
    (0.130, 0.042, 0.057, -0.005),
    (0.140, 0.010, 0.014, -0.005),
  )
)
# Arm rings: position along shoulder (0), elbow (1), wrist (2); radius across and along the palm's normal.
_ARM = ((0.0, 0.050), (0.12, 0.052), (0.35, 0.047), (0.7, 0.042), (1.0, 0.039), (1.2, 0.040), (1.55, 0.033), (2.0, 0.025))
_LEG = (
  (0.0, 0.083),
  (0.2, 0.084),
  (0.55, 0.071),
  (0.85, 0.058),
  (1.0, 0.054),
  (1.15, 0.053),
  (1.35, 0.055),
  (1.65, 0.044),
  (1.9, 0.037),
  (2.0, 0.037),
)
# Hand rings along the fingers: distance from the wrist, half-thickness, half-width, bend to the palm.
_HAND = ((0.0, 0.022, 0.027, 0.0), (0.03, 0.022, 0.036, 0.0), (0.07, 0.021, 0.044, 0.004), (0.11, 0.018, 0.036, 0.014), (0.15, 0.014, 0.026, 0.030), (0.165, 0.005, 0.010, 0.038))
# Foot rings from heel to toe: distance in front of the ankle, half-width, half-height, height of the centre.
_FOOT = ((-0.072, 0.010, 0.014, -0.035), (-0.062, 0.030, 0.034, -0.032), (-0.03, 0.037, 0.046, -0.025), (0.02, 0.040, 0.044, -0.028), (0.07, 0.045, 0.033, -0.040), (0.12, 0.046, 0.026, -0.047), (0.16, 0.034, 0.020, -0.052), (0.178, 0.010, 0.010, -0.056))


@dataclasses.dataclass(frozen=True)
class _Posed:
  """A body in a pose: what every builder below needs."""

  body: object
  joints: np.ndarray
  frames: np.ndarray

  def joint(self, name):
    return self.joints[JOINT_INDEX[name]]

  def frame(self, name):
    return self.frames[JOINT_INDEX[name]]


def build_figure(body, joints, frames, look):
  """Dresses a posed body.

  Args:
    body: Body. joints: [24, 3]. frames: [24, 3, 3]. look: Appearance.
  Returns:
    list of Tube in the frame of `joints`.
  """
  posed = _Posed(body, joints, frames)
  tubes = [*_head(posed, look), *_trunk(posed, look)]
  for side in ("left", "right"):
    tubes += _arm(posed, look, side)
    tubes += _leg(posed, look, side)
  tubes += _belongings(posed, look)
  return tubes


def _stack(posed, table, ease, bottom=None):
  """Rings of the trunk from a table; `ease` is the cloth's distance from the skin in metres."""
  body = posed.body
  factor = {"hip": body.hip, "waist": body.waist, "shoulder": body.shoulder, "neck": 1.0}
  centers, across, depth = [], [], []
  for joint, height, half_width, half_depth, front, zone in table:
    if bottom is not None and joint == "pelvis" and height < bottom:
      continue
    frame = posed.frame(joint)
    bulk = body.girth if zone != "neck" else 1.0
    centers.append(posed.joint(joint) + frame @ np.array((0.0, height, front)) * body.scale)
    across.append(frame[:, 0] * (half_width * body.scale * factor[zone] + ease))
    depth.append(frame[:, 2] * (half_depth * body.scale * bulk + ease))
  return np.array(centers), np.array(across), np.array(depth)


def _trunk(posed, look):
  part = PART_INDEX["torso"]
  ease = {"shirt": 0.006, "jacket": 0.016, "coat": 0.020}[look.top]
  tucked = look.bottom in ("skirt",)
  centers, across, depth = _stack(posed, _TORSO, ease, bottom=-0.0 if tucked else None)
  if look.top == "coat" or look.bottom == "dress":
    length = 0.85 if look.top == "coat" else look.bottom_length
    tail = _leg_hull(posed, np.linspace(length, 0.25, 4), ease + 0.01, flare=0.05 if look.bottom == "dress" else 0.03)
    centers, across, depth = (np.concatenate([a, b]) for a, b in zip(tail, (centers, across, depth), strict=True))
  v = np.linspace(0, 1, len(centers))
  tubes = [Tube(centers, across, depth, v, TILE_INDEX["top"], part, is_open=True, lift=0.01)]
  hips = _stack(posed, _HIPS, 0.004)
  tubes.append(Tube(*hips, np.linspace(0.8, 1, len(hips[0])), TILE_INDEX["bottom"], part))
  if look.bottom == "skirt":
    low = _leg_hull(posed, np.linspace(look.bottom_length, 0.2, 4), 0.012, flare=0.06)
    high = _stack(posed, _HIPS[3:], 0.012)
    rings = [np.concatenate([a, b]) for a, b in zip(low, high, strict=True)]
    tubes.append(Tube(*rings, np.linspace(0, 1, len(rings[0])), TILE_INDEX["bottom"], part, is_open=True, lift=0.015))
  neck = posed.joint("neck")
  top = posed.joint("head")
  frame = posed.frame("neck")
  scale = posed.body.scale
  points = np.array([neck - frame[:, 1] * 0.05 * scale, neck, top, top + posed.frame("head")[:, 1] * 0.02])
  radii = np.array((0.066, 0.054, 0.050, 0.048))[:, None] * scale * posed.body.girth**0.5
  tubes.append(Tube(points, frame[:, 0] * radii, frame[:, 2] * radii, np.linspace(0, 1, 4), TILE_INDEX["skin"], PART_INDEX["head"]))
  return tubes


def _leg_hull(posed, along, ease, flare):
  """Rings around both legs together, as a skirt or the tail of a coat hangs; `along` counts knees as 1."""
  scale = posed.body.scale
  left, right = (_limb_points(posed, side, ("hip", "knee", "ankle"), along) for side in ("left", "right"))
  center = (left + right) / 2
  frame = posed.frame("pelvis")
  gap = left - right
  sideways = np.abs(gap @ frame[:, 0]) / 2
  forward = np.abs(gap @ frame[:, 2]) / 2
  radius = np.interp(along, [p for p, _ in _LEG], [r for _, r in _LEG]) * scale * posed.body.girth
  width = sideways + radius + ease + flare * along
  thick = forward + radius * 1.05 + ease + flare * along
  return center, frame[:, 0] * width[:, None], frame[:, 2] * thick[:, None]


def _limb_points(posed, side, names, along):
  """Points along a two-bone limb; 0, 1, 2 are its joints."""
  a, b, c = (posed.joint(f"{side}_{name}") for name in names)
  along = np.asarray(along)[:, None]
  return np.where(along <= 1, a + (b - a) * along, b + (c - b) * (along - 1))


def _limb(posed, side, names, table, bulk, axes, span=(0.0, 2.0), ease=0.0, minimum=0.0):
  """Rings of a two-bone limb: the ring at the middle joint bisects the bend."""
  along = np.array([p for p, _ in table])
  radii = np.array([r for _, r in table]) * posed.body.scale * bulk
  inside = along[(along > span[0]) & (along < span[1])]
  positions = np.concatenate([[span[0]], inside, [span[1]]])
  radius = np.maximum(np.interp(positions, along, radii) + ease, minimum)
  upper, lower = posed.frame(f"{side}_{names[0]}"), posed.frame(f"{side}_{names[1]}")
  weight = np.clip((positions - 0.86) / 0.28, 0, 1)[:, None]
  across, depth = (upper[:, axis] * (1 - weight) + lower[:, axis] * weight for axis in axes)
  across /= np.linalg.norm(across, axis=1, keepdims=True)
  depth /= np.linalg.norm(depth, axis=1, keepdims=True)
  return _limb_points(posed, side, names, positions), across * radius[:, None], depth * radius[:, None], positions


def _split(rings, lower_part, upper_part, tile, **options):
  """Cuts a limb's rings at its middle joint into two tubes with their own part labels."""
  centers, across, depth, positions = rings
  v = positions / 2
  upper, lower = positions <= 1.0, positions >= 1.0
  if not np.any(positions == 1.0):
    lower = positions >= positions[upper][-1] if upper.any() else lower
  tubes = []
  for rows, part in ((upper, upper_part), (lower, lower_part)):
    if rows.sum() > 1:
      tubes.append(Tube(centers[rows], across[rows], depth[rows], v[rows], tile, PART_INDEX[part], **options))
  return tubes


_ARM_JOINTS = ("shoulder", "elbow", "wrist")
_LEG_JOINTS = ("hip", "knee", "ankle")


def _arm(posed, look, side):
  bulk = posed.body.girth**0.7
  ease = {"shirt": 0.004, "jacket": 0.014, "coat": 0.018}[look.top]
  parts = (f"{side}_lower_arm", f"{side}_upper_arm")
  end = 1.95 if look.sleeve == "long" else 0.62
  tubes = []
  if look.sleeve == "short":
    skin = _limb(posed, side, _ARM_JOINTS, _ARM, bulk, (1, 2), span=(0.3, 2.0))
    tubes += _split(skin, *parts, TILE_INDEX["skin"])
  sleeve = _limb(posed, side, _ARM_JOINTS, _ARM, bulk, (1, 2), span=(0.0, end), ease=ease + (0.006 if look.sleeve == "short" else 0.0))
  tubes += _split(sleeve, *parts, TILE_INDEX["sleeve"], is_open=True)
  # The rounded top of the shoulder reaches into the trunk.
  shoulder, frame = posed.joint(f"{side}_shoulder"), posed.frame(f"{side}_shoulder")
  collar = posed.joint(f"{side}_collar") - shoulder
  inward = collar / np.linalg.norm(collar)
  radius = 0.050 * posed.body.scale * bulk + ease
  reach = np.array((0.055, 0.035, 0.0))[:, None] * posed.body.scale * inward
  size = np.array((0.70, 0.93, 1.0))[:, None] * radius
  tubes.append(
    Tube(shoulder + reach, frame[:, 1] * size, frame[:, 2] * size, np.array((0.0, 0.0, 0.0)), TILE_INDEX["sleeve"], PART_INDEX[f"{side}_upper_arm"])
  )
  tubes.append(_hand(posed, side))
  return tubes


def _hand(posed, side):
  table = np.array(_HAND) * posed.body.scale
  frame, wrist = posed.frame(f"{side}_wrist"), posed.joint(f"{side}_wrist")
  fingers = frame[:, 0] * (1 if side == "left" else -1)
  centers = wrist + table[:, :1] * fingers - table[:, 3:] * frame[:, 1]
  return Tube(centers, frame[:, 1] * table[:, 1:2], frame[:, 2] * table[:, 2:3], np.linspace(0, 1, len(table)), TILE_INDEX["skin"], PART_INDEX[f"{side}_hand"])


def _leg(posed, look, side):
  bulk = posed.body.girth**0.85
  parts = (f"{side}_lower_leg", f"{side}_upper_leg")
  tubes = []
  bare = look.bottom != "trousers"
  if bare:
    skin = _limb(posed, side, _LEG_JOINTS, _LEG, bulk, (0, 2))
    tubes += _split(skin, *parts, TILE_INDEX["skin"])
  if look.bottom == "trousers":
    width = (0.042 + 0.036 * look.fit) * posed.body.scale
    cloth = _limb(posed, side, _LEG_JOINTS, _LEG, bulk, (0, 2), ease=0.006 + 0.012 * look.fit, minimum=width)
    tubes += _split(cloth, *parts, TILE_INDEX["bottom"], is_open=True, lift=0.004)
  if look.bottom == "shorts":
    cloth = _limb(posed, side, _LEG_JOINTS, _LEG, bulk, (0, 2), span=(0.0, look.bottom_length), ease=0.016, minimum=0.08 * posed.body.scale)
    tubes += _split(cloth, *parts, TILE_INDEX["bottom"], is_open=True, lift=0.01)
  if look.shoes == "boots":
    shaft = _limb(posed, side, _LEG_JOINTS, _LEG, bulk, (0, 2), span=(1.55, 2.0), ease=0.012)
    tubes.append(Tube(*shaft[:3], np.linspace(1, 0.6, len(shaft[3])), TILE_INDEX["shoe"], PART_INDEX[f"{side}_lower_leg"], is_open=True, lift=0.012))
  table = np.array(_FOOT) * posed.body.scale
  frame, ankle = posed.frame(f"{side}_ankle"), posed.joint(f"{side}_ankle")
  centers = ankle + table[:, :1] * frame[:, 2] + table[:, 3:] * frame[:, 1]
  tubes.append(Tube(centers, frame[:, 0] * table[:, 1:2], frame[:, 1] * table[:, 2:3], np.linspace(0, 0.5, len(table)), TILE_INDEX["shoe"], PART_INDEX[f"{side}_foot"]))
  return tubes


def _head(posed, look):
  part = PART_INDEX["head"]
  size = posed.body.head
  frame, joint = posed.frame("head"), posed.joint("head")

  def rings(table):
    table = np.asarray(table) * size
    centers = joint + table[:, :1] * frame[:, 1] + table[:, 3:4] * frame[:, 2]
    return centers, frame[:, 0] * table[:, 1:2], frame[:, 2] * table[:, 2:3]

  v = (_HEAD[:, 0] + 0.088) / 0.228
  tubes = [Tube(*rings(_HEAD), v, TILE_INDEX["head"], part)]
  nose = np.array(((0.03, 0.007, 0.008, 0.097), (0.012, 0.010, 0.014, 0.103), (-0.002, 0.013, 0.014, 0.101), (-0.008, 0.004, 0.005, 0.097)))
  tubes.append(Tube(*rings(nose), np.full(4, 0.45), TILE_INDEX["skin"], part, lift=0.006))
  for mirror in (1, -1):
    ear = np.array(((0.055, 0.003, 0.006, -0.002), (0.045, 0.009, 0.017, -0.002), (0.015, 0.008, 0.014, 0.0), (0.0, 0.003, 0.005, 0.002)))
    centers, across, depth = rings(ear)
    tubes.append(Tube(centers + frame[:, 0] * (mirror * 0.074 * size), across, depth, np.full(4, 0.3), TILE_INDEX["skin"], part))
  tubes += [Tube(*rings(table), np.linspace(0, 1, len(table)), TILE_INDEX["hair"], part, lift=0.004) for table in _hair_tables(look)]
  tubes += [Tube(*rings(table), np.linspace(0, 1, len(table)), TILE_INDEX["hat"], part, lift=0.02) for table in _hat_tables(look)]
  return tubes


def _hair_tables(look):
  """Rings of hair, as rows of _HEAD; the front of the lower rings lies inside the face."""
  if look.hair == "bald":
    return []
  volume = 0.006 if look.hair == "short" else 0.014
  cap = np.array(
    (
      (-0.03, 0.050, 0.040, -0.048),
      (0.0, 0.066, 0.056, -0.042),
      (0.035, 0.073, 0.072, -0.028),
      (0.070, 0.075, 0.088, -0.013),
      (0.098, 0.068, 0.091, -0.003),
      (0.122, 0.053, 0.074, -0.002),
      (0.140, 0.030, 0.042, -0.004),
      (0.148, 0.006, 0.008, -0.005),
    )
  )
  cap[:, 1:3] += volume
  cap[-2:, 0] += volume
  tables = [cap]
  if look.hair in ("medium", "long"):
    low = -0.10 if look.hair == "medium" else -0.24
    heights = np.linspace(low, 0.06, 6)
    curtain = np.stack([heights, np.array((0.055, 0.078, 0.086, 0.087, 0.086, 0.080)), np.array((0.022, 0.042, 0.052, 0.056, 0.062, 0.07)), np.array((-0.062, -0.06, -0.05, -0.042, -0.035, -0.03))], axis=1)
    tables.append(curtain)
  if look.hair == "bun":
    tables.append(np.array(((0.06, 0.01, 0.01, -0.12), (0.07, 0.035, 0.035, -0.125), (0.10, 0.042, 0.042, -0.125), (0.125, 0.032, 0.032, -0.122), (0.135, 0.008, 0.008, -0.12))))
  if look.hair == "ponytail":
    tables.append(np.array(((-0.16, 0.008, 0.008, -0.125), (-0.12, 0.024, 0.020, -0.13), (-0.03, 0.032, 0.026, -0.14), (0.04, 0.030, 0.028, -0.13), (0.075, 0.012, 0.014, -0.105))))
  return tables


def _hat_tables(look):
  if look.hat == "none":
    return []
  crown = np.array(((0.058, 0.084, 0.106, -0.002), (0.085, 0.084, 0.107, -0.003), (0.12, 0.074, 0.094, -0.004), (0.152, 0.048, 0.06, -0.005), (0.162, 0.008, 0.01, -0.005)))
  if look.hat == "beanie":
    crown[:2, 0] -= 0.012
    crown[3:, 0] += 0.012
    return [crown]
  if look.hat == "cap":
    peak = np.array(((0.060, 0.010, 0.012, 0.10), (0.062, 0.062, 0.055, 0.115), (0.070, 0.064, 0.052, 0.11), (0.072, 0.012, 0.012, 0.10)))
    return [crown, peak]
  brim = np.array(((0.060, 0.06, 0.07, 0.0), (0.058, 0.15, 0.175, 0.0), (0.066, 0.15, 0.175, 0.0), (0.07, 0.06, 0.07, 0.0)))
  return [crown, brim]


def _belongings(posed, look):
  scale, part = posed.body.scale, PART_INDEX["carried"]
  tile = TILE_INDEX["bag"]
  tubes = []
  chest, frame = posed.joint("spine3"), posed.frame("spine3")
  if look.backpack:
    heights = np.array((-0.24, -0.22, -0.10, 0.05, 0.12, 0.14))
    width = np.array((0.06, 0.135, 0.15, 0.14, 0.105, 0.04))
    thick = np.array((0.03, 0.075, 0.085, 0.075, 0.055, 0.02))
    back = -(0.115 * posed.body.girth + 0.065)
    centers = chest + (heights[:, None] * frame[:, 1] + back * frame[:, 2]) * scale
    tubes.append(Tube(centers, frame[:, 0] * width[:, None] * scale, frame[:, 2] * thick[:, None] * scale, np.linspace(0, 1, 6), tile, part))
    for mirror in (1, -1):
      tubes.append(_strap(posed, mirror))
  if look.shoulder_bag:
    hip, pelvis = posed.joint("pelvis"), posed.frame("pelvis")
    side = 1 if look.hair_colour < "c" else -1
    center = hip + pelvis @ np.array((side * (0.19 * posed.body.hip + 0.03), -0.06, -0.01)) * scale
    tubes += _bag(center, pelvis, scale, (0.05, 0.15, 0.12))
    shoulder = posed.joint("left_collar" if side < 0 else "right_collar") + frame @ np.array((side * -0.02, 0.075, 0.0)) * scale
    tubes.append(_cord(shoulder, center + frame[:, 1] * 0.1 * scale, frame, posed, side))
  if look.hand_bag:
    wrist, hand = posed.joint("right_wrist"), posed.joint("right_hand")
    grip = wrist + (hand - wrist) * 1.1
    tubes += _bag(grip - np.array((0, 0.20, 0)) * scale, posed.frame("pelvis"), scale, (0.055, 0.15, 0.11))
  return tubes


def _bag(center, frame, scale, size):
  thick, long, high = size
  heights = np.array((-1.0, -0.97, -0.5, 0.4, 0.95, 1.0)) * high
  widths = np.array((0.6, 1.0, 1.06, 0.98, 0.85, 0.4))
  centers = center + heights[:, None] * np.array((0.0, 1.0, 0.0)) * scale
  return [Tube(centers, frame[:, 0] * (widths * thick * scale)[:, None], frame[:, 2] * (widths * long * scale)[:, None], np.linspace(0, 1, 6), TILE_INDEX["bag"], PART_INDEX["carried"])]


def _strap(posed, mirror):
  """A backpack's strap over one shoulder, from the chest to the back."""
  chest, frame, body = posed.joint("spine3"), posed.frame("spine3"), posed.body
  path = np.array(((0.0, -0.14, 0.118), (0.0, 0.02, 0.128), (0.0, 0.12, 0.10), (0.0, 0.172, 0.0), (0.0, 0.13, -0.10)))
  path[:, 0] = mirror * np.array((0.125, 0.11, 0.095, 0.09, 0.09))
  path[:, 2] *= body.girth**0.8
  centers = chest + path @ frame.T * body.scale
  across = np.tile(frame[:, 0] * 0.02 * body.scale, (5, 1))
  depth = (np.array((1, 1, 0.7, 0.0, -0.7))[:, None] * frame[:, 2] + np.array((0.0, 0.0, 0.7, 1, 0.7))[:, None] * frame[:, 1]) * 0.012 * body.scale
  return Tube(centers, across, depth, np.full(5, 0.9), TILE_INDEX["bag"], PART_INDEX["torso"], lift=0.03)


def _cord(shoulder, bag, frame, posed, side):
  """A bag's strap across the chest."""
  along = np.linspace(0, 1, 5)[:, None]
  centers = shoulder + (bag - shoulder) * along
  centers = centers + frame[:, 2] * (np.array((0.03, 0.11, 0.135, 0.12, 0.02))[:, None] * posed.body.scale * posed.body.girth)
  across = np.tile(frame[:, 0] * 0.014 + frame[:, 1] * 0.010, (5, 1)) * posed.body.scale
  depth = np.tile(frame[:, 2] * 0.008, (5, 1)) * posed.body.scale
  return Tube(centers, across, depth, np.full(5, 0.9), TILE_INDEX["bag"], PART_INDEX["torso"], lift=0.03)
