"""A small rasteriser: quadrilaterals, far to near, into a map of indices; then values per pixel from planes.

What varies over a quadrilateral (texture coordinates, light, depth) is a plane in the picture, fitted to its
four corners.
"""

import dataclasses
import functools

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
  x, y = (column.take(mesh.corners) for column in np.ascontiguousarray(points.T))
  facing = ((x[2] - x[0]) * (y[3] - y[1]) - (y[2] - y[0]) * (x[3] - x[1])) * mesh.turn > 0
  candidates = facing | mesh.is_open if shown is None else (facing | mesh.is_open) & shown
  order = np.concatenate([[0], np.flatnonzero(candidates)])  # row 0 of every table stands for nothing
  corners = mesh.corners.take(order, axis=1)
  x, y, z = x.take(order, axis=1), y.take(order, axis=1), depth.take(corners)
  (low_x, high_x), (low_y, high_y) = _extent(x), _extent(y)
  seen = (
    (high_x >= 0)
    & (low_x <= grid[1] - 1)
    & (high_y >= 0)
    & (low_y <= grid[0] - 1)
    & (_extent(z)[0] > _NEAREST)
  )
  seen[0] = False
  drawn = np.flatnonzero(seen)
  nearness = mesh.lift.take(order) * facing.take(order) - _sum_corners(z) / 4
  drawn = drawn[np.argsort(nearness[drawn], kind="stable")]

  box = []
  for low, high, limit in ((low_y, high_y, grid[0]), (low_x, high_x, grid[1])):
    start = min(int(max(low[drawn].min(initial=limit), 0)), limit - 1) // align * align
    stop = min(-(-int(min(high[drawn].max(initial=0), limit - 1) + 2) // align) * align, limit)
    box += [start, max(stop, start + align)]
  top, bottom, left, right = box
  drawn = np.concatenate([[0], drawn])
  x, y = x.take(drawn, axis=1) - left, y.take(drawn, axis=1) - top
  return View(
    top=top,
    left=left,
    index_map=_fill(x, y, (bottom - top, right - left)),
    quad=order[drawn],
    corners=corners.take(drawn, axis=1),
    center_x=_sum_corners(x) / 4,
    center_y=_sum_corners(y) / 4,
    inverse=_invert_diagonals(x, y),
  )


def _fill(x, y, size):
  """Draws quadrilaterals 1, 2 ... of [4, K + 1] corners over one another; [h, w] int32 of their numbers."""
  index_map = np.zeros(size, np.int32)
  fixed = np.empty((x.shape[1], 4, 2), np.int32)
  fixed[..., 0], fixed[..., 1] = np.rint(x.T * (1 << _SUBPIXEL_BITS)), np.rint(y.T * (1 << _SUBPIXEL_BITS))
  fill, line = cv2.fillConvexPoly, cv2.LINE_8  # looked up once: the loop is a sixth of a picture's time
  for row, polygon in enumerate(list(fixed)[1:], start=1):
    fill(index_map, polygon, row, line, _SUBPIXEL_BITS)
  return index_map


# numpy reduces over a short first axis several times slower than these add and compare whole rows.
def _extent(values):
  """[4, Q] -> (smallest, largest) of the corners, [Q] each."""
  low, high = np.minimum(values[0], values[1]), np.maximum(values[0], values[1])
  return (
    np.minimum(low, np.minimum(values[2], values[3])),
    np.maximum(high, np.maximum(values[2], values[3])),
  )


def _sum_corners(values):
  """[..., 4, Q] -> [..., Q]."""
  return values[..., 0, :] + values[..., 1, :] + values[..., 2, :] + values[..., 3, :]


def _invert_diagonals(x, y):
  """Inverts the 2x2 matrix of each quadrilateral's diagonals; x, y: [4, Q] -> [4, Q]."""
  first, second = (x[2] - x[0], y[2] - y[0]), (x[3] - x[1], y[3] - y[1])
  area = first[0] * second[1] - first[1] * second[0]
  area = np.where(np.abs(area) < 0.5, np.inf, area)  # a sliver has its mean value everywhere
  return np.stack([second[1], -first[1], -second[0], first[0]]) / area


@dataclasses.dataclass(frozen=True)
class Samples:
  """Where the pixels of a picture coarser than a View's map look it up; only the N that see something.

  Attributes:
    size: (h, w) of the View's box in pixels of that picture.
    in_box: [N] int, the pixels that see something, counted row by row in the box.
    in_picture: [N] int, the same counted in the whole picture.
    rows: [S, N] int, row of the View's tables at S places of each; 0 where that place sees nothing.
    x, y: [S, N] float32, pixels of the map.
  """

  size: tuple[int, int]
  in_box: np.ndarray
  in_picture: np.ndarray
  rows: np.ndarray
  x: np.ndarray
  y: np.ndarray


# For a picture `fine` times coarser than the map: where in a pixel's square it is sampled, (row, column).
# Each row and column once: edges near the horizontal and the vertical come out smooth.
_SAMPLE_PATTERNS = {2: ((0, 0), (1, 1)), 3: ((0, 1), (1, 2), (2, 0)), 4: ((0, 1), (1, 3), (2, 0), (3, 2))}


def sample(view, fine, width):
  """Looks a View up at `fine` places of each pixel of a picture `fine` (2, 3 or 4) times coarser.

  Args:
    view: View. fine: see above. width: pixels of a row of the coarser picture.
  Returns:
    Samples.
  """
  pattern = _SAMPLE_PATTERNS[fine]
  rows = np.stack([view.index_map[row::fine, column::fine] for row, column in pattern])
  size = rows.shape[1:]
  pixel = np.flatnonzero(functools.reduce(np.bitwise_or, rows) != 0)
  line = pixel // size[1]
  column = pixel - line * size[1]
  start = np.array(pattern, np.float32)
  return Samples(
    size=size,
    in_box=pixel,
    in_picture=pixel + line * (width - size[1]) + (view.top // fine * width + view.left // fine),
    rows=rows.reshape(len(pattern), -1).take(pixel, axis=1).astype(np.intp),
    x=column.astype(np.float32) * fine + start[:, 1:],
    y=line.astype(np.float32) * fine + start[:, :1],
  )


@dataclasses.dataclass(frozen=True)
class Planes:
  """Q quantities as planes over the quadrilaterals of a View: value = slope_x * x + offset + slope_y * y.

  Each is [Q, K + 1] float32, x and y in pixels of the map.
  """

  slope_x: np.ndarray
  slope_y: np.ndarray
  offset: np.ndarray


def fit_planes(view, values, scale):
  """Fits planes to quantities known at the vertices.

  Args:
    view: View. values: [Q, V] float. scale: [K + 1] float, a factor of the first two quantities for each
      row of the View.
  Returns:
    Planes.
  """
  at = values.take(view.corners, axis=1)
  at[:2] *= scale
  first, second = at[:, 2] - at[:, 0], at[:, 3] - at[:, 1]
  slope_x = first * view.inverse[0] + second * view.inverse[1]
  slope_y = first * view.inverse[2] + second * view.inverse[3]
  offset = _sum_corners(at) / 4 - slope_x * view.center_x - slope_y * view.center_y
  return Planes(*(plane.astype(np.float32) for plane in (slope_x, slope_y, offset)))


def interpolate(planes, quantity, samples, places=slice(None)):
  """Spreads one quantity of Planes over samples.

  Args:
    planes: Planes. quantity: number of the quantity. samples: Samples. places: which of the S places.
  Returns:
    [S, N] float32; meaningless where nothing is seen.
  """
  rows = samples.rows[places]
  result = planes.slope_x[quantity].take(rows)
  result *= samples.x[places]
  result += planes.offset[quantity].take(rows)
  slope = planes.slope_y[quantity].take(rows)
  slope *= samples.y[places]
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
  row = np.where(inside, view.index_map.take(np.where(inside, line * width + column, 0)), 0)
  at = values[view.corners[:, row]]
  first, second, inverse = at[2] - at[0], at[3] - at[1], view.inverse[:, row]
  slope_x = first * inverse[0] + second * inverse[1]
  slope_y = first * inverse[2] + second * inverse[3]
  return row, at.sum(axis=0) / 4 + slope_x * (x - view.center_x[row]) + slope_y * (y - view.center_y[row])
