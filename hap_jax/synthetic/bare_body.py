"""The bare skin of drawn people as one triangle mesh: closed tubes around the bones in the rest pose.

Neighbouring tubes, such as trunk and arm, overlap. A vertex has the same index in the mesh of every body, so
bodies can be compared vertex by vertex. The mesh is symmetric: the parts of the left side are built, and then
mirrored for the right side. The tables of `anatomy` define the shape. `smpl_body` makes a body model from the
mesh.
"""

import dataclasses
import functools
from typing import NamedTuple

import numpy as np

from hap_jax.synthetic import anatomy, body, mesh, skin
from hap_jax.synthetic.body import JOINT_INDEX, JOINTS


@dataclasses.dataclass(frozen=True)
class Part:
  """A closed tube of R rings with C corners each.

  Attributes:
    rings: [R] of dtype skin.RING.
    places: [R] positions of the rings, in the units of the part's table in `anatomy`.
    weights: [R, 24] share of each joint in the motion of a ring.
    corners: number C of corners of a ring, a multiple of 4.
    section: cross-section, see `mesh`.
    is_left: True: the part has a mirror image on the right side. False: the part itself is symmetric.
    bust: [R, C] share of the bust by which a vertex moves to the front, or None.
    start: index of the first vertex. A part has R * C vertices on rings, and one vertex at each end.
  """

  rings: np.ndarray
  places: np.ndarray
  weights: np.ndarray
  corners: int
  section: int
  is_left: bool
  bust: np.ndarray | None = None
  start: int = 0

  @property
  def num_vertices(self):
    return len(self.rings) * self.corners + 2

  @property
  def stop(self):
    """The index after the last vertex, including the mirror image."""
    return self.start + self.num_vertices * (2 if self.is_left else 1)

  @property
  def last(self):
    """The index of the vertex that closes the last ring, on the left side or in the middle of the body."""
    return self.start + self.num_vertices - 1

  def ring(self, place):
    """Returns the indices of the vertices of the ring at `place`, [C]."""
    row = int(np.flatnonzero(np.isclose(self.places, place))[0])
    return self.start + row * self.corners + np.arange(self.corners)


# Positions of the rings of each part, in the units of its table. Each joint has a ring at its own
# position. Limbs have more rings where they bend.
# fmt: off
_PLACES = {
  "trunk": (-0.165, -0.145, -0.100, -0.050, 0.0, 0.045, 0.090, 0.130, 0.170, 0.220, 0.250, 0.285, 0.320,
            0.350, 0.390, 0.422, 0.445, 0.467),
  "neck": (-0.050, -0.025, 0.0, 0.015, 0.030, 0.042, 0.054, 0.066, 0.080),
  "head": (-0.088, -0.080, -0.058, -0.028, 0.0, 0.025, 0.045, 0.063, 0.080, 0.095, 0.108, 0.120, 0.130,
           0.140),
  "nose": (0.032, 0.020, 0.010, -0.004, -0.010),
  "ear": (0.056, 0.044, 0.025, 0.014, 0.0),
  "leg": (-0.14, -0.10, -0.05, 0.0, 0.1, 0.2, 0.375, 0.55, 0.7, 0.8, 0.87, 0.935, 1.0, 1.065, 1.13, 1.2, 1.35,
          1.5, 1.65, 1.8, 1.9, 2.0, 2.05),
  "arm": (-0.15, -0.12, -0.08, -0.04, 0.0, 0.08, 0.19, 0.3, 0.5, 0.7, 0.8, 0.87, 0.935, 1.0, 1.065, 1.13, 1.2,
          1.4, 1.55, 1.8, 1.93, 2.0, 2.04),
  "hand": (-0.010, 0.030, 0.055, 0.070, 0.085, 0.110, 0.130, 0.150, 0.165),
  "foot": (-0.070, -0.058, -0.035, -0.010, 0.020, 0.050, 0.090, 0.125, 0.145, 0.160, 0.178),
  "collar": (-0.3, -0.2, 0.0, 0.33, 0.67, 1.0, 1.1),
}
# The joints that move the rings. A ring at the position of a row moves with the joint of this row. A ring
# between two rows moves with both joints. A ring at a joint moves with the joint, its parent or both. In all
# three cases the joint stays in the middle of its ring, so the ring gives the position of the joint in every
# pose.
_MOVED_BY = {
  "trunk": ((0.03, "pelvis"), (0.15, "spine1"), (0.19, "spine1"), (0.25, "spine2"), (0.32, "spine3")),
  "neck": ((-0.04, "spine3"), (0.04, "neck"), (0.06, "neck"), (0.12, "head")),
  "head": ((0.0, "head"),),
  "nose": ((0.0, "head"),),
  "ear": ((0.0, "head"),),
  "leg": ((0.86, "left_hip"), (1.14, "left_knee"), (1.93, "left_knee"), (2.07, "left_ankle")),
  "arm": ((0.86, "left_shoulder"), (1.14, "left_elbow"), (1.9, "left_elbow"), (2.1, "left_wrist")),
  "hand": ((0.055, "left_wrist"), (0.115, "left_hand")),
  "foot": ((0.095, "left_ankle"), (0.155, "left_foot")),
  "collar": ((-0.4, "spine3"), (0.4, "left_collar")),
}
_CORNERS = {"trunk": 24, "head": 20, "neck": 16, "leg": 16, "arm": 12, "hand": 12, "foot": 12, "collar": 8,
            "nose": 8, "ear": 8}
# fmt: on
_DOME = {"leg": ((-0.14, 0.026), (-0.10, 0.055), (-0.05, 0.076)), "arm": ()}  # rows above the joint


@functools.cache
def parts():
  """Returns {name: Part}."""
  built = {
    "trunk": _trunk(),
    "neck": _part("neck", _neck()),
    "head": _part("head", _level("HEAD", _PLACES["head"])),
    "nose": _part("nose", _level("NOSE", _PLACES["nose"])),
    "leg": _part("leg", _limb("leg"), is_left=True),
    "foot": _part("foot", _foot(), section=mesh.OVAL, is_left=True),
    "collar": _part("collar", _collar(), is_left=True),
    "arm": _part("arm", _limb("arm"), is_left=True),
    "hand": _part("hand", _hand(), section=mesh.OVAL, is_left=True),
    "ear": _part("ear", _level("EAR", _PLACES["ear"], left=anatomy.EAR_SIDE), is_left=True),
  }
  start = 0
  for name, part in built.items():
    built[name] = dataclasses.replace(part, start=start)
    start = built[name].stop
  return built


def num_vertices():
  """Returns the number V of vertices."""
  return max(part.stop for part in parts().values())


def surface(person):
  """Returns the vertices of the bare skin in the rest pose, with the pelvis at the origin.

  Args:
    person: body.Body.
  Returns:
    [V, 3] float64 metres.
  """
  layout = _layout()
  joints, frames = body.place_joints(person, _REST)
  nothing = np.zeros(len(layout.rings))
  fitted = skin.fit(person, layout.rings, nothing, nothing)
  # The trunk grows around its joints, not around the centres of its rings. So a mean of the ring's vertices
  # with fixed weights is the joint, for every girth.
  fitted.offset[layout.is_trunk, 2] *= person.girth
  centers, across, depth = (axis.take(layout.ring, axis=0) for axis in skin.hang(fitted, joints, frames))
  points = centers + across * layout.x + depth * layout.y
  points[:, 2] += person.bust * layout.bust
  return points.take(layout.source, axis=0) * layout.sign


_REST = np.tile(np.eye(3), (len(JOINTS), 1, 1))  # rotations of the rest pose


class _Layout(NamedTuple):
  """Tables of the N vertices of the left side and the middle, and of all V vertices.

  Attributes:
    rings: [R] of dtype skin.RING, the rings of all parts.
    is_trunk: [R] bool.
    ring: [N] index of the ring of each vertex.
    x, y: [N, 1] position of each vertex in its ring, divided by the radii.
    bust: [N] share of the bust by which the vertex moves to the front.
    source: [V] index among the N vertices. Each of the V vertices is its copy or its mirror image.
    sign: [V, 3] signs of the coordinates: -1 for the x of a mirror image, else +1.
  """

  rings: np.ndarray
  is_trunk: np.ndarray
  ring: np.ndarray
  x: np.ndarray
  y: np.ndarray
  bust: np.ndarray
  source: np.ndarray
  sign: np.ndarray


@functools.cache
def _layout():
  rings, is_trunk, columns, copies = [], [], [], []
  num_rings = num_own = 0
  for name, part in parts().items():
    count = len(part.rings)
    x, y = mesh.sections(part.corners)[:2, part.section, :-1]
    bust = np.zeros((count, part.corners)) if part.bust is None else part.bust
    # The last two vertices are the centres of the first and the last ring.
    columns.append(
      (
        np.append(np.repeat(np.arange(count), part.corners), (0, count - 1)) + num_rings,
        np.append(np.tile(x, count), (0, 0)),
        np.append(np.tile(y, count), (0, 0)),
        np.append(bust, (0, 0)),
      )
    )
    copies += [(num_own + np.arange(part.num_vertices), side) for side in ((1, -1) if part.is_left else (1,))]
    rings.append(part.rings)
    is_trunk += [name == "trunk"] * count
    num_rings, num_own = num_rings + count, num_own + part.num_vertices
  ring, x, y, bust = (np.concatenate(column) for column in zip(*columns, strict=True))
  sign = np.ones((sum(len(own) for own, _ in copies), 3))
  sign[:, 0] = np.concatenate([np.full(len(own), side) for own, side in copies])
  source = np.concatenate([own for own, _ in copies])
  return _Layout(skin.join_rings(rings), np.array(is_trunk), ring, x[:, None], y[:, None], bust, source, sign)


def mirrored():
  """Returns the index of the mirror image of each vertex, [V] int32."""
  numbers = np.zeros(num_vertices(), np.int32)
  for part in parts().values():
    own, count = np.arange(part.num_vertices), part.num_vertices
    if part.is_left:
      numbers[part.start + own] = part.start + count + own
      numbers[part.start + count + own] = part.start + own
    else:
      ring, corner = np.divmod(own[:-2], part.corners)
      other = ring * part.corners + (part.corners // 2 - corner) % part.corners
      numbers[part.start + own] = part.start + np.concatenate([other, own[-2:]])
  return numbers


def weights():
  """Returns the share of each joint in the motion of each vertex, [V, 24]."""
  shares = []
  for part in parts().values():
    ends = part.weights[[0, -1]]
    own = np.concatenate([np.repeat(part.weights, part.corners, axis=0), ends])
    shares.append(own)
    if part.is_left:
      shares.append(own[:, _OTHER_SIDE])
  return np.concatenate(shares)


def _other_side():
  swap = {"left": "right", "right": "left"}
  sides = [name.split("_") for name in JOINTS]
  return [JOINT_INDEX["_".join([swap.get(side, side), *rest])] for side, *rest in sides]


_OTHER_SIDE = _other_side()  # [24], index of the joint on the other side


def faces(vertices):
  """Returns the triangles, [F, 3] int32. Seen from outside, the corners run counterclockwise.

  Args:
    vertices: [V, 3], the result of `surface` for one body. All bodies give the same triangles.
  """
  triangles = []
  for part in parts().values():
    own = _triangles(len(part.rings), part.corners, not part.is_left) + part.start
    a, b, c = vertices[own.T]
    if (a * np.cross(b, c)).sum() < 0:  # six times the volume of the tube
      own = own[:, ::-1]
    triangles.append(own)
    if part.is_left:
      triangles.append(own[:, ::-1] + part.num_vertices)
  return np.concatenate(triangles).astype(np.int32)


def _triangles(num_rings, corners, is_middle):
  """Returns the triangles of a closed tube, [F, 3]. For a tube in the middle, they are symmetric."""
  ring, corner = (axis.ravel() for axis in np.mgrid[: num_rings - 1, :corners])
  after = (corner + 1) % corners
  low, low_after = ring * corners + corner, ring * corners + after
  high, high_after = low + corners, low_after + corners
  # Each quadrilateral is cut along a diagonal. Its mirror image is cut along the mirrored diagonal.
  is_right = is_middle & (corner >= corners // 4) & (corner < 3 * corners // 4)
  one = np.where(is_right, (low, low_after, high), (low, low_after, high_after))
  two = np.where(is_right, (low_after, high_after, high), (low, high_after, high))
  corner, after = np.arange(corners), (np.arange(corners) + 1) % corners
  first, last = num_rings * corners, num_rings * corners + 1
  top = (num_rings - 1) * corners
  caps = (np.full(corners, first), after, corner), (np.full(corners, last), top + corner, top + after)
  return np.concatenate([one.T, two.T, *(np.transpose(cap) for cap in caps)])


def _part(name, rings, *, section=mesh.ROUND, is_left=False, bust=None):
  places = np.array(_PLACES[name])
  positions, joints = zip(*_MOVED_BY[name], strict=True)
  table = np.zeros((len(joints), len(JOINTS)))
  table[np.arange(len(joints)), [JOINT_INDEX[joint] for joint in joints]] = 1
  moved = np.stack([np.interp(places, positions, column) for column in table.T], axis=1)
  return Part(rings, places, moved, _CORNERS[name], section, is_left, bust)


def _level(name, heights, joint="head", left=0.0):
  """Returns the rings of a table of `anatomy` at these heights."""
  table = getattr(anatomy, name)
  order = np.argsort(table[:, 0])  # np.interp needs heights that increase
  above, *columns = table[order].T
  heights = np.asarray(heights)
  rows = np.stack([heights, *(np.interp(heights, above, column) for column in columns)], axis=1)
  return skin.level_rings_at(rows, joint, left=left)


def _neck():
  rings = _level("NECK", _PLACES["neck"], "neck")
  # The upper end is inside the head. It is narrow, so that neck and head cross at a large angle.
  rings["radii"] *= np.interp(_PLACES["neck"], (0.042, 0.080), (1.0, 0.5))[:, None]
  return rings


def _trunk():
  places = np.array(_PLACES["trunk"])
  rings = skin.trunk_rings_at(places)
  rings["bust"] = 0  # the bust moves vertices, not rings
  # Clothes hide the steps between the rows of the table. On bare skin they are visible, so they are smoothed.
  for k, column in enumerate(anatomy.TRUNK_ZONE.T, start=1):
    rings["growth"][:, 0, k] = np.interp(places, anatomy.TRUNK_HEIGHT, column)
  rings["growth"][:, 0, 0] = 1 - rings["growth"][:, 0, 1:].sum(axis=1)
  _smooth(rings["radii"])
  _smooth(rings["offset"][:, 2:])
  x, y = mesh.sections(_CORNERS["trunk"])[:2, mesh.OVAL, :-1]
  side = np.abs(x) * rings["radii"][:, :1]
  high = np.exp(-(((places - 0.290) / 0.050) ** 2))[:, None]
  bust = high * np.exp(-(((side - 0.075) / 0.050) ** 2)) * np.maximum(y, 0) ** 2
  return _part("trunk", rings, section=mesh.OVAL, bust=bust)


def _limb(limb):
  places = np.array(_PLACES[limb])
  rings = skin.limb_rings_at("left", limb, places)
  for place, radius in _DOME[limb]:
    rings["radii"][np.isclose(places, place)] = radius
  if limb == "leg":
    # Thighs are deeper than wide at the hip, where the trunk is deep.
    rings["radii"][:, 1] *= np.interp(places, (0.1, 0.6), (1.14, 1.0))
  _smooth(rings["radii"])
  return rings


def _smooth(columns):
  """Replaces each row, except the first and the last, by a mean of the row and its neighbours. In place."""
  columns[1:-1] = (columns[:-2] + 2 * columns[1:-1] + columns[2:]) / 4


def _collar():
  """Returns rings along the collar bone, from its inner end to the shoulder."""
  places = np.array(_PLACES["collar"])
  rings = np.zeros(len(places), skin.RING)
  rings["joints"] = rings["frames"] = JOINT_INDEX["left_collar"], JOINT_INDEX["left_shoulder"]
  rings["between"] = places
  rings["axes"] = (1, 2)
  rings["radii"] = np.interp(places, (-0.3, -0.2, 0.0, 1.0, 1.1), (0.012, 0.036, 0.047, 0.043, 0.030))[
    :, None
  ]
  rings["growth"] = skin.grow(limb=1.0)
  return rings


def _hand():
  """Returns the rings of the left hand, between wrist and hand joint, so that they fit arms of any length."""
  rings, places = _resample(skin.hand_rings("left"), anatomy.HAND[:, 0], "hand")
  rings["joints"] = JOINT_INDEX["left_wrist"], JOINT_INDEX["left_hand"]
  rings["between"] = places / body.rest_offset("left_hand")[0]
  rings["offset"][:, 0] = 0
  return rings


def _foot():
  return _resample(skin.foot_rings("left"), anatomy.FOOT[:, 0], "foot")[0]


def _resample(rings, positions, kind):
  """Returns (rings of a part, their positions). Shift and radii are interpolated."""
  places = np.array(_PLACES[kind])
  more = np.repeat(rings[:1], len(places))
  for field in ("offset", "radii"):
    columns = [np.interp(places, positions, column) for column in rings[field].T]
    more[field] = np.stack(columns, axis=1)
  return more, places
