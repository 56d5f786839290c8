"""A small rasteriser.

It draws the indices of quadrilaterals into a map, from far to near. Then it computes the values of pixels.
Texture coordinates, light and depth vary over a quadrilateral. Each of them is approximated by a plane: a
linear function of x and y that is fitted to the four corners.
"""

import dataclasses
import functools

import cv2
import numpy as np

_SUBPIXEL_BITS = 4  # OpenCV takes corners in units of 1/2^4 pixel
_NEAREST = 0.3  # metres from the camera plane. Nearer quadrilaterals are not drawn


@dataclasses.dataclass(frozen=True)
class View:
  """The visible quadrilaterals of a mesh, from far to near, and a map of the nearest quadrilaterals.

  Row 0 of every table represents the background.

  Attributes:
    top, left: position of the map's first pixel in the picture.
    index_map: [h, w] int32, row of the tables for each pixel in the box around the mesh. 0: background.
    quad: [K + 1] index of the quadrilateral in the mesh. K quadrilaterals are visible.
    corners: [4, K + 1] vertex indices.
    center_x, center_y: [K + 1] centre of the quadrilateral in pixels of the map.
    inverse: [4, K + 1], inverse of the 2x2 matrix of its two diagonals.
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
  """Finds the nearest quadrilateral at each pixel.

  Args:
    mesh: Mesh.
    points: [V, 2] (x, y) pixels. Pixel centres are at whole numbers.
    depth: [V] metres from the camera plane.
    grid: (H, W) of the picture.
    align: number of pixels. The box of the map starts and ends at multiples of this number.
    shown: [Q] bool, quadrilaterals to draw. None: all.
  Returns:
    View.
  """
  x, y = (column.take(mesh.corners) for column in np.ascontiguousarray(points.T))
  # The sign of the area shows whether the camera sees the outside or the inside.
  facing = ((x[2] - x[0]) * (y[3] - y[1]) - (y[2] - y[0]) * (x[3] - x[1])) * mesh.turn > 0
  candidates = facing | mesh.is_open if shown is None else (facing | mesh.is_open) & shown
  order = np.concatenate([[0], np.flatnonzero(candidates)])  # row 0 is the background
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
  # Far quadrilaterals come first, so that near ones are drawn over them. A stable sort keeps the order of
  # quadrilaterals at equal depth.
  drawn = np.flatnonzero(seen)
  nearness = mesh.lift.take(order) * facing.take(order) - _sum_corners(z) / 4
  drawn = drawn[np.argsort(nearness[drawn], kind="stable")]

  # The map covers only the box around the mesh, because a person fills a small part of a wide picture.
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
  """Draws the indices of quadrilaterals into a map. Later ones cover earlier ones.

  Args:
    x: [4, K + 1] pixels of the corners; column 0 is not drawn.
    y: same as `x`.
    size: (h, w) of the map.
  Returns:
    [h, w] int32, for each pixel the column of the last quadrilateral that was drawn there, or 0.
  """
  index_map = np.zeros(size, np.int32)
  fixed = np.empty((x.shape[1], 4, 2), np.int32)
  fixed[..., 0], fixed[..., 1] = np.rint(x.T * (1 << _SUBPIXEL_BITS)), np.rint(y.T * (1 << _SUBPIXEL_BITS))
  # Local names are faster, and this loop takes a sixth of the time for a picture.
  fill, line = cv2.fillConvexPoly, cv2.LINE_8
  for row, polygon in enumerate(list(fixed)[1:], start=1):
    fill(index_map, polygon, row, line, _SUBPIXEL_BITS)
  return index_map


# The next two functions work on whole rows, because numpy's reductions are much slower on short axes.
def _extent(values):
  """Returns the smallest and the largest value of the four corners, [4, Q] -> ([Q], [Q])."""
  low, high = np.minimum(values[0], values[1]), np.maximum(values[0], values[1])
  return (
    np.minimum(low, np.minimum(values[2], values[3])),
    np.maximum(high, np.maximum(values[2], values[3])),
  )


def _sum_corners(values):
  """Returns the sum over the four corners, [..., 4, Q] -> [..., Q]."""
  return values[..., 0, :] + values[..., 1, :] + values[..., 2, :] + values[..., 3, :]


def _invert_diagonals(x, y):
  """Inverts the 2x2 matrix of each quadrilateral's diagonals, x, y: [4, Q] -> [4, Q]."""
  first, second = (x[2] - x[0], y[2] - y[0]), (x[3] - x[1], y[3] - y[1])
  area = first[0] * second[1] - first[1] * second[0]
  # A very thin quadrilateral would have huge slopes. So its slopes are set to 0, and it has its mean value
  # everywhere.
  area = np.where(np.abs(area) < 0.5, np.inf, area)
  return np.stack([second[1], -first[1], -second[0], first[0]]) / area


@dataclasses.dataclass(frozen=True)
class Samples:
  """Positions in a View's map at which the pixels of a coarser picture are sampled.

  A pixel is sampled at S positions. Only the N pixels that show a quadrilateral at some position are listed.

  Attributes:
    size: (h, w) of the View's box in pixels of the coarser picture.
    in_box: [N] int, index of the pixel, counted row by row in the box.
    in_picture: [N] int, index of the pixel, counted row by row in the whole picture.
    rows: [S, N] int, row of the View's tables at each position. 0: background.
    x, y: [S, N] float32, the positions in pixels of the map.
  """

  size: tuple[int, int]
  in_box: np.ndarray
  in_picture: np.ndarray
  rows: np.ndarray
  x: np.ndarray
  y: np.ndarray


# {fine: positions (row, column) in the fine x fine cells of a pixel}. Each row and each column occurs once,
# so that almost horizontal and almost vertical edges are smooth.
_SAMPLE_PATTERNS = {2: ((0, 0), (1, 1)), 3: ((0, 1), (1, 2), (2, 0)), 4: ((0, 1), (1, 3), (2, 0), (3, 2))}


def sample(view, fine, width):
  """Samples a View at `fine` positions in each pixel of a picture that is `fine` times coarser.

  Args:
    view: View.
    fine: 2, 3 or 4.
    width: width of the coarser picture in pixels.
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
  """Q quantities on the quadrilaterals of a View: value = slope_x * x + slope_y * y + offset.

  Each field is [Q, K + 1] float32. x and y are in pixels of the map.
  """

  slope_x: np.ndarray
  slope_y: np.ndarray
  offset: np.ndarray


def fit_planes(view, values, scale):
  """Fits planes to quantities that are known at the vertices.

  Args:
    view: View.
    values: [Q, V] float.
    scale: [K + 1] float, one factor per row of the View. It multiplies the first two quantities.
  Returns:
    Planes.
  """
  at = values.take(view.corners, axis=1)
  at[:2] *= scale
  # The two diagonals give two equations for the two slopes. The mean of the corners gives the offset.
  first, second = at[:, 2] - at[:, 0], at[:, 3] - at[:, 1]
  slope_x = first * view.inverse[0] + second * view.inverse[1]
  slope_y = first * view.inverse[2] + second * view.inverse[3]
  offset = _sum_corners(at) / 4 - slope_x * view.center_x - slope_y * view.center_y
  return Planes(*(plane.astype(np.float32) for plane in (slope_x, slope_y, offset)))


def interpolate(planes, quantity, samples, places=slice(None)):
  """Computes one quantity of Planes at samples.

  Args:
    planes: Planes.
    quantity: index of the quantity, 0 to Q - 1.
    samples: Samples.
    places: index or slice of the S positions.
  Returns:
    [S, N] float32. The value has no meaning where a sample shows the background.
  """
  rows = samples.rows[places]
  # Operations are in place, because allocating arrays of this size takes longer than the arithmetic.
  result = planes.slope_x[quantity].take(rows)
  result *= samples.x[places]
  result += planes.offset[quantity].take(rows)
  slope = planes.slope_y[quantity].take(rows)
  slope *= samples.y[places]
  result += slope
  return result


def look_up(view, points, values):
  """Returns the nearest quadrilateral at each point, and the interpolated value of a vertex quantity.

  Args:
    view: View.
    points: [K, 2] (x, y) pixels of the picture.
    values: [V] float, the quantity at the vertices.
  Returns:
    (row, value). row: [K] int, row of the View's tables. 0: background. value: [K] float.
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
