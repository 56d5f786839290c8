"""Builds surfaces as tubes of rings, and joins them into one list of quadrilaterals.

A limb, a trunk, a sleeve, a skirt, a head or a bag is a tube. A tube is a row of rings along a curve.
Two axes span each ring. Angle 0 of a ring is the direction of `across`, 90 degrees the direction of `depth`.
The texture coordinate u runs once around the ring, v runs along the tube.
"""

import dataclasses
import functools

import numpy as np

# Cross-sections. Each is a superellipse |x|^(2/n) + |y|^(2/n) = 1. `_EXPONENTS` has the n of each.
ROUND, OVAL, BOX = 0, 1, 2
_EXPONENTS = (1.0, 0.78, 0.35)


@dataclasses.dataclass(frozen=True)
class Tubes:
  """N tubes with R rings in total. The rings of one tube are consecutive.

  Attributes:
    centers: [R, 3] metres.
    across, depth: [R, 3] metres, the two axes of each ring. Their lengths are the radii of the ring.
    v: [R] in [0, 1], texture coordinate of each ring.
    part: [R] int, label of the body part between this ring and the next one.
    length: [N] int, number of rings of each tube.
    tile: [N] int, index of the picture in the texture atlas.
    section: [N] ROUND, OVAL or BOX, the shape of the rings.
    is_open: [N] bool, whether the inside can be seen, as in a skirt or a sleeve.
    lift: [N] metres. The outside is drawn nearer to the camera by this length, so that cloth covers skin.
  """

  centers: np.ndarray
  across: np.ndarray
  depth: np.ndarray
  v: np.ndarray
  part: np.ndarray
  length: np.ndarray
  tile: np.ndarray
  section: np.ndarray
  is_open: np.ndarray
  lift: np.ndarray


def one_tube(centers, across, depth, v, part, tile, section=ROUND, is_open=False, lift=0.0):
  """Returns Tubes with a single tube. `v` and `part` may be one value for all rings."""
  count = len(centers)
  return Tubes(
    centers=np.asarray(centers, float),
    across=across,
    depth=depth,
    v=np.full(count, v, float),
    part=np.full(count, part),
    length=np.array([count]),
    tile=np.array([tile]),
    section=np.array([section]),
    is_open=np.array([is_open]),
    lift=np.array([lift]),
  )


def join_tubes(several):
  """Concatenates Tubes."""
  return Tubes(*(np.concatenate([getattr(tubes, name) for tubes in several]) for name in _FIELDS))


_FIELDS = [field.name for field in dataclasses.fields(Tubes)]


@dataclasses.dataclass(frozen=True)
class Mesh:
  """Q quadrilaterals over V shared vertices.

  Attributes:
    vertices: [V, 3] metres.
    normals: [V, 3] unit vectors that point outwards.
    u, v: [V] texture coordinates in [0, 1].
    corners: [4, Q] vertex indices, in ring order.
    turn: [Q] +1 or -1, direction in which the corners run in the picture if the outside is visible.
    tile, part: [Q] int, same as in Tubes.
    is_open: [Q] bool, same as in Tubes.
    lift: [Q] metres, same as in Tubes.
  """

  vertices: np.ndarray
  normals: np.ndarray
  u: np.ndarray
  v: np.ndarray
  corners: np.ndarray
  turn: np.ndarray
  tile: np.ndarray
  part: np.ndarray
  is_open: np.ndarray
  lift: np.ndarray


def build_mesh(tubes, sides):
  """Builds the Mesh of tubes. A ring has `sides` corners. Normals are computed for the smooth surface."""
  grid = _grid(tuple(tubes.length.tolist()), sides)
  cosine, sine, cosine_slope, sine_slope = sections(sides).take(tubes.section[grid.owner], axis=1)
  # Arrays are [3, R, sides + 1], because numpy is slow on a short last axis.
  centers, across, depth = (axis.T[..., None] for axis in (tubes.centers, tubes.across, tubes.depth))
  vertices = centers + across * cosine + depth * sine

  # A normal is at right angles to the slope around the ring and to the slope along the tube.
  normals = _cross(
    across * cosine_slope + depth * sine_slope,
    vertices.take(grid.ahead, axis=1) - vertices.take(grid.behind, axis=1),
  )
  # Some tables list the rings upwards, others downwards. The sign of the tube's volume shows which direction
  # of the normal points outwards.
  along = centers.take(grid.ahead, axis=1) - centers.take(grid.behind, axis=1)
  volume = _dot(_cross(across, depth), along)[:, 0]
  outward = np.sign(np.add.reduceat(volume, grid.starts))[grid.owner]
  normals *= outward[:, None] / np.sqrt(_dot(normals, normals) + 1e-18)
  owner = grid.owner[grid.first]
  return Mesh(
    vertices=np.ascontiguousarray(vertices.reshape(3, -1).T),
    normals=np.ascontiguousarray(normals.reshape(3, -1).T),
    u=grid.u,
    v=np.repeat(tubes.v, sides + 1),
    corners=grid.corners,
    turn=-outward[grid.first],
    tile=tubes.tile[owner],
    part=tubes.part[grid.first],
    is_open=tubes.is_open[owner],
    lift=tubes.lift[owner],
  )


@dataclasses.dataclass(frozen=True)
class _Grid:
  """Index tables. They depend only on the number of rings of each of N tubes, so they can be cached.

  There are R rings, V vertices and Q quadrilaterals.

  Attributes:
    starts: [N] first ring of each tube.
    owner: [R] tube of each ring.
    ahead: [R] next ring of the same tube, or the ring itself if it is the last one.
    behind: [R] previous ring of the same tube, or the ring itself if it is the first one.
    first: [Q] ring at which each quadrilateral starts.
    corners: [4, Q] vertex indices.
    u: [V] texture coordinate.
  """

  starts: np.ndarray
  owner: np.ndarray
  ahead: np.ndarray
  behind: np.ndarray
  first: np.ndarray
  corners: np.ndarray
  u: np.ndarray


@functools.lru_cache(maxsize=64)  # most pictures of a person have tubes of the same lengths
def _grid(length, sides):
  ends = np.cumsum(length)
  starts = ends - length
  owner = np.repeat(np.arange(len(length)), length)
  ring, last = np.arange(len(owner)), ends[owner] - 1
  first = np.flatnonzero(ring != last)
  # A ring has sides + 1 vertices. The first and the last have the same position, but u = 0 and u = 1.
  corner = (first[:, None] * (sides + 1) + np.arange(sides)).ravel()
  arrays = {
    "starts": starts,
    "owner": owner,
    "ahead": np.minimum(ring + 1, last),
    "behind": np.maximum(ring - 1, starts[owner]),
    "first": np.repeat(first, sides),
    "corners": np.stack([corner, corner + 1, corner + sides + 2, corner + sides + 1]),
    "u": np.tile(np.arange(sides + 1) / sides, len(last)),
  }
  for array in arrays.values():
    array.flags.writeable = False  # all callers get the same arrays from the cache
  return _Grid(**arrays)


@functools.lru_cache
def sections(sides):
  """Returns x, y and their slopes at the corners of each cross-section, [4, sections, sides + 1]."""
  angle = np.arange(sides + 1) * (2 * np.pi / sides)
  cosine, sine = np.cos(angle), np.sin(angle)
  exponent = np.array(_EXPONENTS)[:, None]
  x = np.sign(cosine) * np.abs(cosine) ** exponent
  y = np.sign(sine) * np.abs(sine) ** exponent
  slope = [np.roll(c[:, :-1], -1, axis=1) - np.roll(c[:, :-1], 1, axis=1) for c in (x, y)]
  slope = [np.concatenate([c, c[:, :1]], axis=1) for c in slope]
  return np.stack([x, y, *slope])


def _cross(a, b):
  """Returns the cross product over the first axis. np.cross is much slower on arrays of this size."""
  return np.array((a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]))


def _dot(a, b):
  """Returns the dot product over the first axis."""
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
