"""A small rasteriser: quadrilaterals, far to near, into a map of indices; then values per pixel from planes.

What varies over a quadrilateral (texture coordinates, light, depth) is a plane in the picture, fitted to its
four corners.
"""

import dataclasses

import cv2
import numpy as np

_SUBPIXEL_BITS = 4
_NEAREST = 0.3  # metres from the camera plane; anything nearer is not drawn


@dataclasses.dataclass(frozen=True)
class View:
  """The quadrilaterals of a mesh that can be seen, far to near, and where each one is in front.

  Attributes:
    top, left: position of the map's first pixel in the picture.
    index_map: [h, w] int32 over the box around the mesh; 0 is nothing, k is row k of what follows.
    quad: [K + 1] index into the mesh's quadrilaterals; row 0 stands for nothing.
    corners: [4, K + 1] vertex indices.
    center_x, center_y: [K + 1] pixels of the map. inverse: [4, K + 1], of the two diagonals as a matrix.
  """

  top: int
  left: int
  index_map: np.ndarray
  quad: np.ndarray
  corners: np.ndarray
  center_x: np.ndarray
  center_y: np.ndarray
  inverse: np.ndarray


def rasterize(mesh, points, depth, grid, align=1, shown=None):
  """Finds which quadrilateral is seen at each pixel.

  Args:
    mesh: Mesh. points: [V, 2] (x, y) pixels, pixel centres at whole numbers. depth: [V] metres from the
      camera plane. grid: (H, W) of the picture. align: the map's box starts and ends at multiples of this.
    shown: [Q] bool, quadrilaterals to draw; None: all.
  Returns:
    View.
  """
  x, y = points[:, 0][mesh.corners], points[:, 1][mesh.corners]
  facing = ((x[2] - x[0]) * (y[3] - y[1]) - (y[2] - y[0]) * (x[3] - x[1])) * mesh.turn > 0
  candidates = facing | mesh.is_open if shown is None else (facing | mesh.is_open) & shown
  order = np.concatenate([[0], np.flatnonzero(candidates)])  # row 0 of every table stands for nothing
  x, y, z = x[:, order], y[:, order], depth[mesh.corners[:, order]]
  low_x, high_x, low_y, high_y = x.min(axis=0), x.max(axis=0), y.min(axis=0), y.max(axis=0)
  seen = (
    (high_x >= 0)
    & (low_x <= grid[1] - 1)
    & (high_y >= 0)
    & (low_y <= grid[0] - 1)
    & (z.min(axis=0) > _NEAREST)
  )
  nearness = mesh.lift[order] * facing[order] - z.sum(axis=0) / 4
  seen[0] = False
  drawn = np.argsort(nearness, kind="stable")
  drawn = drawn[seen[drawn]]

  box = []
  for low, high, limit in ((low_y, high_y, grid[0]), (low_x, high_x, grid[1])):
    start = min(int(max(low[drawn].min(initial=limit), 0)), limit - 1) // align * align
    stop = min(-(-int(min(high[drawn].max(initial=0), limit - 1) + 2) // align) * align, limit)
    box += [start, max(stop, start + align)]
  top, bottom, left, right = box
  drawn = np.concatenate([[0], drawn])
  order, x, y = order[drawn], x[:, drawn] - left, y[:, drawn] - top
  fixed = np.empty((len(drawn), 4, 2), np.int32)
  fixed[..., 0], fixed[..., 1] = np.rint(x.T * (1 << _SUBPIXEL_BITS)), np.rint(y.T * (1 << _SUBPIXEL_BITS))
  index_map = np.zeros((bottom - top, right - left), np.int32)
  fill = cv2.fillConvexPoly
  for row, polygon in enumerate(fixed[1:], start=1):
    fill(index_map, polygon, row, cv2.LINE_8, _SUBPIXEL_BITS)
  return View(
    top=top,
    left=left,
    index_map=index_map,
    quad=order,
    corners=mesh.corners[:, order],
    center_x=x.sum(axis=0) / 4,
    center_y=y.sum(axis=0) / 4,
    inverse=_invert_diagonals(x, y),
  )


def _invert_diagonals(x, y):
  """Inverts the 2x2 matrix of each quadrilateral's diagonals; x, y: [4, Q] -> [4, Q]."""
  first, second = (x[2] - x[0], y[2] - y[0]), (x[3] - x[1], y[3] - y[1])
  area = first[0] * second[1] - first[1] * second[0]
  area = np.where(np.abs(area) < 0.5, np.inf, area)  # a sliver has its mean value everywhere
  return np.stack([second[1], -first[1], -second[0], first[0]]) / area


def quad_gradients(x, y, values, inverse=None):
  """Fits a plane to values at the corners of quadrilaterals.

  Args:
    x, y, values: [4, Q]. inverse: [4, Q], known inverse of the diagonals.
  Returns:
    (slope along x [Q], slope along y [Q]); the plane passes through the mean of the corners.
  """
  inverse = _invert_diagonals(x, y) if inverse is None else inverse
  first, second = values[2] - values[0], values[3] - values[1]
  return first * inverse[0] + second * inverse[1], first * inverse[2] + second * inverse[3]


@dataclasses.dataclass(frozen=True)
class Samples:
  """The places of each pixel of the final picture at which a View is looked up.

  Attributes:
    rows: [S, h, w] int, row of the View's tables. x: [S, 1, w], y: [S, h, 1] float32, pixels of the map.
  """

  rows: np.ndarray
  x: np.ndarray
  y: np.ndarray


# For a picture `fine` times coarser than the map: where in a pixel's square it is sampled, (row, column).
# Each row and column once: edges near the horizontal and the vertical come out smooth.
_SAMPLE_PATTERNS = {2: ((0, 0), (1, 1)), 3: ((0, 1), (1, 2), (2, 0)), 4: ((0, 1), (1, 3), (2, 0), (3, 2))}


def sample(view, fine):
  """Looks a View up at `fine` places of each pixel of a picture `fine` (2, 3 or 4) times coarser."""
  height, width = view.index_map.shape
  rows, x, y = [], [], []
  for row, column in _SAMPLE_PATTERNS[fine]:
    rows.append(view.index_map[row::fine, column::fine])
    x.append(np.arange(column, width, fine, dtype=np.float32)[None])
    y.append(np.arange(row, height, fine, dtype=np.float32)[:, None])
  return Samples(np.stack(rows).astype(np.intp), np.stack(x), np.stack(y))


def interpolate(view, samples, values, scale=None):
  """Spreads a quantity known at the vertices over samples.

  Args:
    view: View. samples: Samples. values: [V] float. scale: [K + 1], a factor for each row of the View.
  Returns:
    [S, h, w] float32; meaningless where nothing is seen.
  """
  at = values[view.corners] if scale is None else values[view.corners] * scale
  slope_x, slope_y = quad_gradients(None, None, at, view.inverse)
  offset = at.sum(axis=0) / 4 - slope_x * view.center_x - slope_y * view.center_y
  result = slope_x.astype(np.float32).take(samples.rows)
  result *= samples.x
  result += offset.astype(np.float32).take(samples.rows)
  slope = slope_y.astype(np.float32).take(samples.rows)
  slope *= samples.y
  result += slope
  return result


def look_up(view, points, values):
  """Reads what is seen at single points.

  Args:
    view: View. points: [K, 2] (x, y) pixels of the picture. values: [V] float, known at the vertices.
  Returns:
    (row [K] of the View's tables, 0 where nothing is seen; the quantity there [K] float).
  """
  x, y = points[:, 0] - view.left, points[:, 1] - view.top
  height, width = view.index_map.shape
  column, line = np.rint(x).astype(int), np.rint(y).astype(int)
  inside = (column >= 0) & (column < width) & (line >= 0) & (line < height)
  row = np.where(inside, view.index_map[line.clip(0, height - 1), column.clip(0, width - 1)], 0)
  at = values[view.corners[:, row]]
  slope_x, slope_y = quad_gradients(None, None, at, view.inverse[:, row])
  return row, at.sum(axis=0) / 4 + slope_x * (x - view.center_x[row]) + slope_y * (y - view.center_y[row])
