"""Finds the joints in heat maps of a 2D pose network.

The steps are: merge the maps of a picture and of its mirror image, find the maxima, refine them to fractions
of a cell, and convert them to pixels of the picture. All functions run on the device, inside the evaluation
step. The axes of heat maps are [B, h, w, K].
"""

import jax
import jax.numpy as jnp
import numpy as np

_BLUR_TAPS = 11  # length of the Gaussian of the refinement, in cells
_BLUR_SIGMA = 0.3 * ((_BLUR_TAPS - 1) / 2 - 1) + 0.8  # 2.0 cells: OpenCV's rule for this length
_LOG_RANGE = (1e-3, 50.0)  # blurred values are clipped to this range before the logarithm
_EPSILON = float(np.finfo(np.float32).eps)
# By default, accelerators multiply with less than float32 precision. The refinement divides differences of
# logarithms, so it needs all digits.
_HIGHEST = jax.lax.Precision.HIGHEST


def merge_mirrored(heatmaps, heatmaps_of_mirrored, flip_pairs, is_udp):
  """Returns the mean of the heat maps of a picture and of its mirror image.

  The maps of the mirror image are mirrored back, and the maps of left and right joints are exchanged. Maps of
  records that are not UDP are then moved by one cell: h'[x] = h[x - 1], and column 0 keeps its values.

  Args:
    heatmaps: [B, h, w, K] float32.
    heatmaps_of_mirrored: [B, h, w, K] float32, the network's maps of the mirror image.
    flip_pairs: pairs (left, right) of joint indices.
    is_udp: [B] bool.
  Returns:
    [B, h, w, K] float32.
  """
  order = np.arange(heatmaps.shape[-1])
  for left, right in flip_pairs:
    order[[left, right]] = right, left
  back = heatmaps_of_mirrored[:, :, ::-1, order]
  # Parity: pixel W - 1 - x of an image lies between two cells under the older rule, so the official code
  # aligns both maps by a shift.
  shifted = jnp.concatenate([back[:, :, :1], back[:, :, :-1]], axis=2)
  back = jnp.where(is_udp[:, None, None, None], back, shifted)
  return (heatmaps + back).astype(jnp.float32) * 0.5


def decode(heatmaps, region, is_udp):
  """Returns the joints of heat maps in pixels of the picture, and their scores.

  The place of a joint is the cell with the largest value, refined by `refine_udp` or `shift_quarter`. A map
  without a positive value has no place: its joint is at cell (-1, -1).

  Args:
    heatmaps: [B, h, w, K] float.
    region: [B, 4] float32, (centre x, centre y, width, height) in pixels of the picture.
    is_udp: [B] bool, the rule of each record.
  Returns:
    (keypoints_xy [B, K, 2] float32 in pixels of the picture, score [B, K] float32). The score is the largest
    value of the map. Joints may lie outside the picture.
  """
  heatmaps = heatmaps.astype(jnp.float32)
  h, w = heatmaps.shape[1:3]
  cell, score = find_maximum(heatmaps)
  to_udp = is_udp[:, None, None]
  place = jnp.where(to_udp, refine_udp(heatmaps, cell), shift_quarter(heatmaps, cell))
  # The official code also refines these joints, but with values of other maps. Here they stay at (-1, -1).
  place = jnp.where(score[..., None] > 0, place, -1.0)
  cells = jnp.where(to_udp, jnp.array([w - 1, h - 1], jnp.float32), jnp.array([w, h], jnp.float32))
  center, size = region[:, None, :2], region[:, None, 2:]
  return place * size / cells + center - size / 2, score


def find_maximum(heatmaps):
  """Returns the cell of the largest value of each map, and this value.

  Args:
    heatmaps: [B, h, w, K] float32.
  Returns:
    (cell [B, K, 2] int32, (x, y) of the first largest value in row-major order; value [B, K] float32).
  """
  B, h, w, K = heatmaps.shape
  flat = heatmaps.reshape(B, h * w, K)
  index = jnp.argmax(flat, axis=1).astype(jnp.int32)
  value = jnp.take_along_axis(flat, index[:, None], axis=1)[:, 0]
  return jnp.stack([index % w, index // w], axis=-1), value


def shift_quarter(heatmaps, cell):
  """Moves a maximum by a quarter of a cell towards its larger neighbour, in x and in y.

  Args:
    heatmaps: [B, h, w, K] float32.
    cell: [B, K, 2] int32, (x, y) of the maxima.
  Returns:
    [B, K, 2] float32, (x, y) in cells.
  """
  B, h, w, K = heatmaps.shape
  flat = heatmaps.reshape(B, h * w, K)
  x, y = cell[..., 0], cell[..., 1]
  # Parity: the official code does not move a maximum in the first two or the last column or row.
  is_inside = (x > 1) & (x < w - 1) & (y > 1) & (y < h - 1)
  index = y * w + x
  steps = jnp.array([1, -1, w, -w])[:, None]
  # Indices next to the border are clipped. Their values are not used.
  neighbours = jnp.clip(index[:, None] + steps, 0, h * w - 1)  # [B, 4, K]
  right, left, below, above = jnp.moveaxis(jnp.take_along_axis(flat, neighbours, axis=1), 1, 0)
  sign = jnp.sign(jnp.stack([right - left, below - above], axis=-1))
  return cell + jnp.where(is_inside[..., None], 0.25 * sign, 0)


def refine_udp(heatmaps, cell):
  """Moves a maximum by one Newton step on the logarithm of the blurred map.

  Let g and H be the gradient and the Hessian of this logarithm, by finite differences. Then the joint is at
  p = cell - (H + eps I)^-1 g. Source: DARK (arXiv 1910.06278) in the variant of UDP (arXiv 1911.07524). As in
  the official code, the step has no limit.

  Args:
    heatmaps: [B, h, w, K] float32.
    cell: [B, K, 2] int32, (x, y) of the maxima.
  Returns:
    [B, K, 2] float32, (x, y) in cells. Within six cells of the border, the error is up to 1.3 cells, because
    the blur reflects the map there.
  """
  value = jnp.log(jnp.clip(_blurred_neighbours(heatmaps, cell), *_LOG_RANGE))  # [B, K, 3, 3], rows are y
  (corner, above, _), (left, middle, right), (_, below, far_corner) = (
    tuple(jnp.moveaxis(row, -1, 0)) for row in jnp.moveaxis(value, -2, 0)
  )
  gx, gy = (right - left) / 2, (below - above) / 2
  xx = right - 2 * middle + left + _EPSILON
  yy = below - 2 * middle + above + _EPSILON
  xy = (far_corner - right - below + 2 * middle - left - above + corner) / 2
  determinant = xx * yy - xy * xy
  step = jnp.stack([yy * gx - xy * gy, xx * gy - xy * gx], axis=-1)
  # A singular Hessian gives no direction, so the maximum then stays at its cell.
  is_regular = (determinant != 0)[..., None]
  return cell - jnp.where(is_regular, step / jnp.where(is_regular, determinant[..., None], 1), 0)


def _blurred_neighbours(heatmaps, cell):
  """Returns the blurred values of the 3 x 3 cells around each maximum, [B, K, 3 (y), 3 (x)] float32.

  The blur is two matrix products. Only three rows of each matrix are needed, so a product costs less than a
  twentieth of a blur of the whole map. Beyond its border, a blurred map continues with its border cells.
  """
  offsets = jnp.arange(-1, 2)
  h, w = heatmaps.shape[1:3]
  columns, rows = (
    jnp.asarray(_blur_matrix(size))[jnp.clip(cell[..., axis, None] + offsets, 0, size - 1)]
    for axis, size in enumerate((w, h))
  )  # [B, K, 3, w], [B, K, 3, h]
  lines = jnp.einsum("bkih,bhwk->bkiw", rows, heatmaps, precision=_HIGHEST)
  return jnp.einsum("bkiw,bkjw->bkij", lines, columns, precision=_HIGHEST)


def _blur_matrix(size):
  """Returns the matrix that blurs a line of `size` cells, [size, size] float32.

  Beyond the border, the line is reflected, and the border cell is not repeated: the cells before cell 0 are
  1, 2, 3, ...
  """
  radius = _BLUR_TAPS // 2
  distance = np.arange(-radius, radius + 1)
  taps = np.exp(-(distance**2) / (2 * _BLUR_SIGMA**2))
  taps /= taps.sum()
  source = np.arange(size)[:, None] + distance
  if size > 1:  # a line of one cell is its own reflection
    period = 2 * (size - 1)
    source = source % period
    source = np.minimum(source, period - source)
  matrix = np.zeros((size, size))
  np.add.at(matrix, (np.arange(size)[:, None], np.clip(source, 0, size - 1)), taps)
  return matrix.astype(np.float32)
