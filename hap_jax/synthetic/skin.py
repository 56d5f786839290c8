"""Places rings around a skeleton.

Each ring moves with two joints and their frames, and its size depends on the body. One vectorised step places
all rings of a dressed person. Tables of rings are computed once and cached.
"""

import dataclasses
import functools

import numpy as np

from hap_jax.synthetic import anatomy
from hap_jax.synthetic.body import JOINT_INDEX

# Names of the factors that multiply the radii of rings. `_growth` returns their values for a body. A ring has
# a weight for each factor.
GROWTH = ("fixed", "hip", "waist", "shoulder", "girth", "limb")

# All fields are float64, even whole numbers. So tables can be concatenated as plain arrays, which is much
# faster.
RING = np.dtype(
  [
    ("joints", "f8", 2),  # the centre of the ring is between these two joints
    ("between", "f8"),  # position between them: 0 at the first joint, 1 at the second
    ("frames", "f8", 2),  # the axes of the ring come from a mean of the frames of these two joints
    ("bend", "f8"),  # weight of the mean: 0 is the first frame, 1 the second
    ("offset", "f8", 3),  # shift of the centre in the mean frame, metres of the reference adult
    ("axes", "f8", 2),  # columns of the mean frame that span the ring
    ("radii", "f8", 2),  # radii along these axes, metres of the reference adult
    ("growth", "f8", (2, len(GROWTH))),  # weights of GROWTH for each radius
    ("is_head", "f8"),  # 1: the ring scales with the size of the head. 0: with the size of the body
    ("bust", "f8"),  # weight of the bust: one half enlarges the second radius, one half shifts the centre
    ("v", "f8"),  # texture coordinate
    ("part", "f8"),  # index into PARTS
  ]
)


def join_rings(tables):
  """Concatenates tables of dtype RING."""
  return np.concatenate([table.view(np.float64) for table in tables]).view(RING)


@dataclasses.dataclass(frozen=True)
class Fitted:
  """R rings, scaled to one body. They do not depend on the pose.

  Attributes:
    joints, frames: [2, R] int, same as in RING.
    between: [2, R, 1], weights of the two joints.
    bend: [2, R, 1, 1], weights of the two frames.
    offset: [R, 3, 1] metres.
    axes: [2, R, 3] int, indices of the two axes' coordinates in the flattened frames of all rings.
    radii: [2, R, 1] metres.
  """

  joints: np.ndarray
  between: np.ndarray
  frames: np.ndarray
  bend: np.ndarray
  offset: np.ndarray
  axes: np.ndarray
  radii: np.ndarray


def fit(body, rings, ease, minimum):
  """Fits rings to a body.

  Args:
    body: Body.
    rings: [R] of dtype RING.
    ease: [R] metres between skin and cloth.
    minimum: [R] metres, smallest radius.
  Returns:
    Fitted.
  """
  size = body.scale + rings["is_head"] * (body.head - body.scale)
  radii = rings["radii"] * (rings["growth"] @ _growth(body)) * size[:, None]
  bust = body.bust * rings["bust"]
  radii[:, 1] += bust / 2
  # The small rings at the end of a dome get less ease, so that cloth over the dome keeps its shape.
  radii = np.maximum(radii + (ease * np.clip(radii[:, 1] / 0.03, 0, 1))[:, None], minimum[:, None])
  offset = rings["offset"] * size[:, None]
  offset[:, 2] += bust / 2
  return Fitted(
    joints=rings["joints"].T.astype(int),
    between=np.stack([1 - rings["between"], rings["between"]])[..., None],
    frames=rings["frames"].T.astype(int),
    bend=np.stack([1 - rings["bend"], rings["bend"]])[..., None, None],
    offset=offset[..., None],
    axes=rings["axes"].T.astype(int)[..., None] + 3 * np.arange(3) + 9 * np.arange(len(rings))[:, None],
    radii=radii.T[..., None].copy(),
  )


def hang(fitted, joints, frames):
  """Places rings around a posed body.

  Args:
    fitted: Fitted.
    joints: [24, 3] metres.
    frames: [24, 3, 3].
  Returns:
    (centers, across, depth), each [R, 3] metres.
  """
  first, second = frames.take(fitted.frames, axis=0) * fitted.bend
  frame = first + second
  # The columns of a weighted sum of two rotations are shorter than 1, so they are normalised.
  square = frame * frame
  frame /= np.sqrt(square[:, :1] + square[:, 1:2] + square[:, 2:])
  first, second = joints.take(fitted.joints, axis=0) * fitted.between
  across, depth = frame.take(fitted.axes) * fitted.radii
  return first + second + (frame @ fitted.offset)[..., 0], across, depth


def _growth(body):
  return np.array((1.0, body.hip, body.waist, body.shoulder, body.girth, body.girth**0.7))


def grow(**weights):
  """Returns the weights of a radius for each factor in GROWTH."""
  return [weights.get(name, 0.0) for name in GROWTH]


@functools.cache
def level_rings(name, joint="head", part="head", left=0.0):
  """Returns the rings of a table of `anatomy` with the columns height, half-width, half-depth, front.

  Args:
    name: name of the table.
    joint: joint that moves the rings.
    part: label of the body part, a name in PARTS.
    left: shift of the centres to the person's left, in metres of the reference adult.
  """
  table = getattr(anatomy, name)
  rings = level_rings_at(table, joint, left)
  rings["v"] = np.linspace(0, 1, len(table))
  # On the head, v is proportional to the height, not to the index of the ring. So the face keeps its
  # proportions.
  if name == "HEAD":
    rings["v"] = (table[:, 0] - table[0, 0]) / np.ptp(table[:, 0])
  rings["part"] = anatomy.PART_INDEX[part]
  return rings


def level_rings_at(table, joint="head", left=0.0):
  """Returns the rings of rows [R, 4] with the columns height, half-width, half-depth, front."""
  rings = np.zeros(len(table), RING)
  rings["joints"] = rings["frames"] = JOINT_INDEX[joint]
  rings["offset"] = np.stack([np.full(len(table), left), table[:, 0], table[:, 3]], axis=1)
  rings["axes"] = (0, 2)
  rings["radii"] = table[:, 1:3]
  rings["growth"] = grow(fixed=0.7, girth=0.3) if joint == "neck" else grow(fixed=1.0)
  rings["is_head"] = joint == "head"
  return rings


@functools.lru_cache(maxsize=64)
def trunk_rings(low, high, v_low=0.0, v_high=1.0):
  """Returns the rings of the trunk between two heights above the pelvis, in metres of the reference adult.

  The texture coordinate runs from `v_low` at the height `low` to `v_high` at the height `high`.
  """
  height = anatomy.TRUNK_HEIGHT
  # Rows very near to an end are left out, because they would give very flat quadrilaterals.
  inside = height[(height > low + 0.012) & (height < high - 0.008)]
  wanted = np.concatenate([[low], inside, [high]])
  rings = trunk_rings_at(wanted)
  rings["v"] = v_low + (v_high - v_low) * (wanted - low) / (high - low)
  return rings


def trunk_rings_at(wanted):
  """Returns the rings of the trunk at these heights above the pelvis, [R] metres of the reference adult."""
  height = anatomy.TRUNK_HEIGHT
  nearest = np.abs(wanted[:, None] - height).argmin(axis=1)
  rings = np.zeros(len(wanted), RING)
  joints = np.array([JOINT_INDEX[name] for name in anatomy.TRUNK_JOINT])[nearest]
  rings["joints"] = rings["frames"] = joints[:, None]
  above, half_width, half_depth, front = (
    np.interp(wanted, height, column) for column in anatomy.TRUNK_RING.T
  )
  # The height above the joint jumps where the joint changes. So it is not interpolated, but computed from the
  # nearest row.
  above = anatomy.TRUNK_RING[nearest, 0] + wanted - height[nearest]
  rings["offset"] = np.stack([np.zeros(len(wanted)), above, front], axis=1)
  rings["axes"] = (0, 2)
  rings["radii"] = np.stack([half_width, half_depth], axis=1)
  zone = anatomy.TRUNK_ZONE[nearest]
  rings["growth"][:, 0, 1:4] = zone
  rings["growth"][:, 0, 0] = 1 - zone.sum(axis=1)
  is_trunk = zone.sum(axis=1) > 0.6
  rings["growth"][is_trunk, 1] = grow(girth=1.0)
  rings["growth"][~is_trunk, 1] = grow(fixed=1.0)
  rings["bust"] = np.exp(-(((wanted - 0.29) / 0.06) ** 2))
  rings["part"] = anatomy.PART_INDEX["torso"]
  return rings


@functools.lru_cache(maxsize=256)
def limb_rings(side, limb, start, stop):
  """Returns the rings of an arm or a leg between two positions.

  Positions 0, 1 and 2 are the three joints of the limb. The ring at the middle joint halves the angle
  between the two bones.
  """
  table = _LIMBS[limb][1]
  inside = table[(table[:, 0] > start + 0.05) & (table[:, 0] < stop - 0.05), 0]
  return limb_rings_at(side, limb, np.concatenate([[start], inside, [stop]]))


def limb_rings_at(side, limb, position):
  """Returns the rings of an arm or a leg at these positions, [R] as in `limb_rings`."""
  names, table, axes = _LIMBS[limb]
  upper, middle, lower = (JOINT_INDEX[f"{side}_{name}"] for name in names)
  is_lower = position >= 1.0
  rings = np.zeros(len(position), RING)
  rings["joints"] = np.where(is_lower[:, None], (middle, lower), (upper, middle))
  rings["between"] = position - is_lower
  rings["frames"] = (upper, middle)
  # Near the middle joint the rings turn gradually from one bone to the next, so that they do not cross.
  rings["bend"] = np.clip((position - 0.86) / 0.28, 0, 1)
  rings["axes"] = axes
  rings["radii"] = np.interp(position, table[:, 0], table[:, 1])[:, None]
  rings["growth"] = grow(limb=1.0)
  rings["v"] = (position - table[0, 0]) / (2.05 - table[0, 0])
  parts = [anatomy.PART_INDEX[f"{side}_{bone}_{limb}"] for bone in ("upper", "lower")]
  rings["part"] = np.where(is_lower, parts[1], parts[0])
  return rings


_LIMBS = {
  "arm": (("shoulder", "elbow", "wrist"), anatomy.ARM, (1, 2)),
  "leg": (("hip", "knee", "ankle"), anatomy.LEG, (0, 2)),
}


@functools.cache
def hand_rings(side):
  """Returns the rings of a hand, from the wrist to the fingers."""
  rings = _end_rings(side, "wrist", anatomy.HAND, (1, 2), "hand")
  fingers = anatomy.HAND[:, 0] * (1 if side == "left" else -1)
  rings["offset"] = np.stack([fingers, -anatomy.HAND[:, 3], np.zeros(len(rings))], axis=1)
  return rings


@functools.cache
def foot_rings(side):
  """Returns the rings of a shoe, from heel to toe."""
  rings = _end_rings(side, "ankle", anatomy.FOOT, (0, 1), "foot")
  rings["offset"] = np.stack([np.zeros(len(rings)), anatomy.FOOT[:, 3], anatomy.FOOT[:, 0]], axis=1)
  return rings


def _end_rings(side, joint, table, axes, part):
  rings = np.zeros(len(table), RING)
  rings["joints"] = rings["frames"] = JOINT_INDEX[f"{side}_{joint}"]
  rings["axes"] = axes
  rings["radii"] = table[:, 1:3]
  rings["growth"] = grow(fixed=1.0)
  rings["v"] = np.linspace(0, 1, len(table))
  rings["part"] = anatomy.PART_INDEX[f"{side}_{part}"]
  return rings
