"""Position tables. No other file of the project makes or resizes them."""

import numpy as np


def sincos_table(grid, width):
  """Returns the fixed 2D sin-cos position table of a grid, with a zero row for the class token.

  The cell at row r and column c gets [sin(c f), cos(c f), sin(r f), cos(r f)] with the width/4 frequencies
  f_i = 10000^(-4i / width) (MAE, arXiv 2111.06377).

  Args:
    grid: (Gh, Gw) in patches.
    width: D, the number of columns of the table; a multiple of 4.
  Returns:
    [1, 1 + Gh*Gw, D] float32; the cells are row-major.
  Raises:
    ValueError: if the width is not a multiple of 4.
  """
  if width % 4:
    raise ValueError(f"a 2D sin-cos position table needs a width that is a multiple of 4, got {width}")
  frequency = 10000.0 ** (-np.arange(width // 4, dtype=np.float64) / (width // 4))
  row, column = np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij")
  column_angle = column.reshape(-1, 1) * frequency  # [L, D/4]
  row_angle = row.reshape(-1, 1) * frequency
  # Parity: the official repository puts the column before the row.
  table = np.concatenate(
    [np.sin(column_angle), np.cos(column_angle), np.sin(row_angle), np.cos(row_angle)], axis=1
  )
  return np.concatenate([np.zeros((1, width)), table])[None].astype(np.float32)


def sincos_grid(table):
  """Returns the grid of a fixed sin-cos position table [1, 1 + L, C], or None for any other table.

  The channels of a patch are four equal parts: [sin column, cos column, sin row, cos row]. The sine of the
  row is exactly zero only in the first row. The sine of the column is exactly zero only in the first column.
  """
  L, C = table.shape[1] - 1, table.shape[2]
  if C % 4:
    return None
  cells = table[0, 1:].reshape(L, 4, C // 4)
  is_first_column, is_first_row = ~cells[:, 0].any(axis=1), ~cells[:, 2].any(axis=1)
  Gw, index = int(is_first_row.sum()), np.arange(L)  # the first row has Gw patches
  if not Gw or L % Gw or not np.array_equal(is_first_row, index < Gw):
    return None
  return (L // Gw, Gw) if np.array_equal(is_first_column, index % Gw == 0) else None


def resize_table(table, old_grid, new_grid, interpolation="bicubic"):
  """Resizes a position table to another grid. The row of the class token is copied.

  Cells have half-pixel centres, the border is clamped, and there is no anti-aliasing. The coefficient of the
  cubic kernel is a = -0.75. These are the rules of the official repository. `jax.image.resize` has a = -0.5,
  and anti-aliasing by default.

  One rule differs from the official code. Here a table is resized whenever the grids differ, also if they
  have the same number of patches. The official code leaves an 8x16 table unchanged for a 16x8 grid, so
  patches get the rows of other positions.

  Args:
    table: [1, 1 + Gh*Gw, D], the table of the old grid.
    old_grid: (Gh, Gw) in patches.
    new_grid: (Gh', Gw') in patches.
    interpolation: "bicubic", as in the official pre-training and most of its tasks, or "bilinear", as in the
      official text-to-image ReID.
  Returns:
    [1, 1 + Gh'*Gw', D] float32.
  Raises:
    ValueError: if the shape of the table does not match old_grid, or if the interpolation has another name.
  """
  table = np.asarray(table)
  num_cells = old_grid[0] * old_grid[1]
  if table.ndim != 3 or table.shape[:2] != (1, 1 + num_cells):
    raise ValueError(
      f"a position table of grid {old_grid[0]}x{old_grid[1]} is [1, {1 + num_cells}, D], got {table.shape}"
    )
  if interpolation not in _MATRICES:
    raise ValueError(f"interpolation {interpolation!r} is not one of {', '.join(_MATRICES)}")
  if tuple(old_grid) == tuple(new_grid):
    return table.astype(np.float32)
  cells = table[0, 1:].astype(np.float64).reshape(*old_grid, -1)
  # Both kernels are products of two 1D kernels, so one matrix for each axis is enough.
  rows, columns = (_MATRICES[interpolation](*sides) for sides in zip(old_grid, new_grid, strict=True))
  cells = np.einsum("ih,jw,hwd->ijd", rows, columns, cells, optimize=True)
  cells = cells.reshape(1, new_grid[0] * new_grid[1], -1)
  return np.concatenate([table[:, :1], cells], axis=1).astype(np.float32)


def resize_matrix(old, new, interpolation):
  """Returns the [new, old] matrix of a one-dimensional resize, see `resize_table`."""
  return _MATRICES[interpolation](old, new)


def _cubic_matrix(old, new):
  """Returns the [new, old] matrix of a one-dimensional cubic resize from `old` to `new` cells."""
  a = -0.75

  def weight(distance):
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance <= 1, near, far)

  return _resize_matrix(old, new, taps=(-1, 0, 1, 2), weight=weight)


def _linear_matrix(old, new):
  """Returns the [new, old] matrix of a one-dimensional linear resize from `old` to `new` cells."""
  return _resize_matrix(old, new, taps=(0, 1), weight=lambda distance: 1 - distance)


def _resize_matrix(old, new, taps, weight):
  """Returns the [new, old] matrix of a one-dimensional resize.

  Args:
    old, new: numbers of cells.
    taps: the old cells that a new cell reads. Cell 0 is the last old cell whose centre is not to the right of
      the new centre. Cell 1 is its right neighbour.
    weight: a function from the distance between the centres, in old cells, to the weight of the old cell.
  """
  # Half-pixel centres: the centre of cell i is at i + 0.5.
  source = (np.arange(new) + 0.5) * old / new - 0.5
  first = np.floor(source).astype(int)
  matrix = np.zeros((new, old))
  for tap in taps:
    # Beyond the border, several taps are clipped to the same cell. `np.add.at` adds all of their weights, but
    # `+=` would add only one.
    cell = np.clip(first + tap, 0, old - 1)
    np.add.at(matrix, (np.arange(new), cell), weight(np.abs(source - (first + tap))))
  return matrix


_MATRICES = {"bicubic": _cubic_matrix, "bilinear": _linear_matrix}
