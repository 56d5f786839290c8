"""Surfaces: tubes of elliptic rings, joined into one list of quadrilaterals.

A limb, a trunk, a sleeve, a skirt, a head or a bag is a tube: rings along a curve, each an ellipse spanned by
two axes. Angle 0 of a ring points along `across`, 90 degrees along `depth`; u runs once around, v along.
"""

import dataclasses

import numpy as np

SIDES = 12
_ANGLES = np.arange(SIDES + 1) * (2 * np.pi / SIDES)
_COS, _SIN = np.cos(_ANGLES)[:, None], np.sin(_ANGLES)[:, None]


@dataclasses.dataclass(frozen=True)
class Tube:
  """Rings along a curve.

  Attributes:
    centers, across, depth: [R, 3] metres; the axes' lengths are the ring's radii.
    v: [R] in [0, 1], texture coordinate of each ring.
    tile: index of its picture in the texture atlas.
    part: label of the body part, for masks.
    is_open: its inside can be seen (skirt, hood).
    lift: metres by which it is sorted nearer to the camera than it is, so that cloth beats the skin below.
  """

  centers: np.ndarray
  across: np.ndarray
  depth: np.ndarray
  v: np.ndarray
  tile: int
  part: int
  is_open: bool = False
  lift: float = 0.0


@dataclasses.dataclass(frozen=True)
class Mesh:
  """Quadrilaterals over shared vertices.

  Attributes:
    vertices, normals: [V, 3] metres and unit vectors; normals point outwards.
    uv: [V, 2] in [0, 1].
    quads: [Q, 4] int vertex indices, in ring order.
    tile, part: [Q] int. is_open: [Q] bool. lift: [Q] metres.
    turn: [Q] +1 or -1, the sense of rotation of the corners in a picture that shows the outside.
  """

  vertices: np.ndarray
  normals: np.ndarray
  uv: np.ndarray
  quads: np.ndarray
  tile: np.ndarray
  part: np.ndarray
  is_open: np.ndarray
  lift: np.ndarray
  turn: np.ndarray

  def is_facing(self, points):
    """Tells which quadrilaterals show their outside, given the vertices in the picture, [V, 2] (x, y)."""
    a, b, c, d = (points[self.quads[:, k]] for k in range(4))
    first, second = c - a, d - b
    return (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) * self.turn > 0


def build_mesh(tubes):
  """Joins tubes into one mesh; normals are those of the smooth surface."""
  lengths = np.array([len(tube.v) for tube in tubes])
  starts = np.cumsum(lengths) - lengths
  centers, across, depth = (np.concatenate([getattr(t, name) for t in tubes]) for name in ("centers", "across", "depth"))
  v = np.concatenate([t.v for t in tubes])
  vertices = centers[:, None] + across[:, None] * _COS + depth[:, None] * _SIN         # [R, SIDES + 1, 3]

  ring = np.arange(len(v))
  first = np.repeat(starts, lengths)
  last = np.repeat(starts + lengths - 1, lengths)
  ahead, behind = np.minimum(ring + 1, last), np.maximum(ring - 1, first)
  along = vertices[ahead] - vertices[behind]
  around = depth[:, None] * _COS - across[:, None] * _SIN
  normals = np.cross(around, along)
  # Rings may be listed up or down the limb: the sign of the ring's volume tells which way is out.
  turn = np.einsum("ri,ri->r", np.cross(across, depth), centers[ahead] - centers[behind])
  turn = np.sign(np.add.reduceat(turn, starts))
  normals *= np.repeat(turn, lengths)[:, None, None]
  normals /= np.sqrt(np.einsum("rsi,rsi->rs", normals, normals) + 1e-18)[..., None]

  lower = np.flatnonzero(ring != last)
  corner = lower[:, None] * (SIDES + 1) + np.arange(SIDES)
  quads = np.stack([corner, corner + 1, corner + SIDES + 2, corner + SIDES + 1], axis=-1).reshape(-1, 4)
  owner = np.repeat(np.repeat(np.arange(len(tubes)), lengths)[lower], SIDES)
  u = np.broadcast_to(np.arange(SIDES + 1) / SIDES, vertices.shape[:2])
  return Mesh(
    vertices=vertices.reshape(-1, 3),
    normals=normals.reshape(-1, 3),
    uv=np.stack([u, np.broadcast_to(v[:, None], u.shape)], axis=-1).reshape(-1, 2),
    quads=quads,
    tile=np.array([t.tile for t in tubes])[owner],
    part=np.array([t.part for t in tubes])[owner],
    is_open=np.array([t.is_open for t in tubes])[owner],
    lift=np.array([t.lift for t in tubes])[owner],
    turn=-turn[owner],
  )
