"""A small rasteriser: depth-sorted quadrilaterals into a map of indices, then colours per pixel from planes.

Quadrilaterals are filled from far to near, so that the map names the nearest surface of each pixel; what varies
over a quadrilateral (texture coordinates, light, depth) is a plane in the picture, fitted to its corners.
"""

import dataclasses

import cv2
import numpy as np

_SUBPIXEL_BITS = 4


@dataclasses.dataclass(frozen=True)
class Fragments:
  """The covered pixels of a finer grid.

  Attributes:
    grid: (H, W) of the finer grid.
    pixel: [N] flat indices of the covered pixels.
    quad: [N] index of the quadrilateral seen at each.
    x, y: [N] float32 positions, in pixels of the finer grid.
    gradient: [Q, 4] float32: the inverse of each quadrilateral's diagonals, for `interpolate`.
    center: [Q, 2] float32.
    corners: [Q, 4] vertex indices.
  """

  grid: tuple[int, int]
  pixel: np.ndarray
  quad: np.ndarray
  x: np.ndarray
  y: np.ndarray
  gradient: np.ndarray
  center: np.ndarray
  corners: np.ndarray


def rasterize(mesh, points, depth, grid):
  """Finds the quadrilateral seen at each pixel.

  Args:
    mesh: Mesh. points: [V, 2] (x, y) in pixels of the grid, pixel centres at whole numbers. depth: [V] metres
      from the camera plane. grid: (H, W).
  Returns:
    Fragments.
  """
  corners = mesh.quads
  quad_points = points[corners]                                                        # [Q, 4, 2]
  first, second = quad_points[:, 2] - quad_points[:, 0], quad_points[:, 3] - quad_points[:, 1]
  area = first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]
  low, high = quad_points.min(axis=1), quad_points.max(axis=1)
  seen = (high >= -1).all(axis=1) & (low[:, 0] <= grid[1]) & (low[:, 1] <= grid[0])
  seen &= depth[corners].min(axis=1) > 0.2
  seen &= mesh.is_facing(points) | mesh.is_open
  order = np.flatnonzero(seen)
  key = depth[corners[order]].mean(axis=1) - mesh.lift[order]
  order = order[np.argsort(-key, kind="stable")]
  index_map = np.zeros(grid, np.int32)
  fixed = np.rint(quad_points[order] * (1 << _SUBPIXEL_BITS)).astype(np.int32)
  fill = cv2.fillConvexPoly
  for index, polygon in zip((order + 1).tolist(), fixed, strict=True):
    fill(index_map, polygon, index, 8, _SUBPIXEL_BITS)
  flat = index_map.ravel()
  pixel = np.flatnonzero(flat)
  safe = np.where(np.abs(area) > 0.5, area, np.inf)[:, None]
  inverse = np.stack([second[:, 1], -first[:, 1], -second[:, 0], first[:, 0]], axis=1) / safe
  row, column = np.divmod(pixel, grid[1])
  return Fragments(
    grid=grid,
    pixel=pixel,
    quad=flat[pixel] - 1,
    x=column.astype(np.float32),
    y=row.astype(np.float32),
    gradient=inverse.astype(np.float32),
    center=quad_points.mean(axis=1).astype(np.float32),
    corners=corners,
  )


def interpolate(fragments, values):
  """Interpolates a quantity known at the vertices.

  Args:
    fragments: Fragments. values: [V] float.
  Returns:
    [N] float32, one value a covered pixel; a plane over each quadrilateral.
  """
  at = values[fragments.corners].astype(np.float32)
  first, second = at[:, 2] - at[:, 0], at[:, 3] - at[:, 1]
  inverse = fragments.gradient
  slope_x = first * inverse[:, 0] + second * inverse[:, 1]
  slope_y = first * inverse[:, 2] + second * inverse[:, 3]
  offset = at.mean(axis=1) - slope_x * fragments.center[:, 0] - slope_y * fragments.center[:, 1]
  quad = fragments.quad
  return slope_x.take(quad) * fragments.x + slope_y.take(quad) * fragments.y + offset.take(quad)
