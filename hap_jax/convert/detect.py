"""Tells the family of a foreign file, the grid of its tables and what else its tensors do not say."""

import math

import numpy as np

from hap_jax.convert import families
from hap_jax.convert.family import NO
from hap_jax.convert.weights import grid_text, some, square_side
from hap_jax.pixels.normalize import IMAGENET_MEAN, IMAGENET_STD


def find_family(source, family=""):
  """Returns the Family of a Source.

  Every family says how sure it is that the file is its own, see `family.py`; the surest one wins.

  Args:
    source: a Source.
    family: its name if the caller knows it.
  Raises:
    ValueError: if there is no such family, the file is of none, or several are equally sure.
  """
  family = family or source.record.get("family", "")
  try:
    return families.load(family or _guess(source))
  except ValueError as error:
    raise ValueError(f"{source.path}: {error}") from error


def _guess(source):
  known = families.load_all()
  sureness = {family.name: family.recognise(source) for family in known}
  most = max(sureness.values())
  surest = [name for name, value in sureness.items() if value == most]
  if most == NO:
    raise ValueError(
      f"of no known family ({', '.join(sureness)}): the names of its tensors are of none of them; it holds "
      f"{some(list(source.state))}"
    )
  if len(surest) > 1:
    raise ValueError(f"may be of the families {' and '.join(surest)}: give one of them by --from")
  return surest[0]


def find_grid(source, family, tables, grid):
  """Finds the grid of a file's position tables, most certain source first.

  Args:
    source: a Source. family: its Family. tables: [1, 1 + L, C] each, encoder's first. grid: by the caller.
  Returns:
    (grid or None, how it was found).
  Raises:
    ValueError: if the caller's grid, or the one that the file records, cannot be that of the tables, or they
      differ.
  """
  L = tables[0].shape[1] - 1
  # The decoder's table first: the encoder's may have been resized from another grid's.
  found = next(filter(None, map(sincos_grid, reversed(tables))), None)
  told = _recorded_grid(source)
  if told is not None and math.prod(told) != L:
    raise ValueError(
      f"{source.path}: records a grid of {grid_text(told)}, but its position table has {L} cells"
    )
  if grid is not None:
    grid = tuple(grid)
    if grid[0] * grid[1] != L or found not in (None, grid):
      reason = f"its sin-cos table is of {grid_text(found)}" if found else f"its position table has {L} cells"
      raise ValueError(f"{source.path}: grid {grid_text(grid)} was given, but {reason}")
    if told not in (None, grid):
      raise ValueError(
        f"{source.path}: grid {grid_text(grid)} was given, but it records {grid_text(told)}: give none"
      )
    return grid, "given by the caller"
  if told is not None:
    return told, "recorded in the file"
  if found:
    return found, "read off the sin-cos position table"
  if L in family.grids:
    grid, what = family.grids[L]
    return grid, f"assumed: {what}"
  side = square_side(L)
  if side is not None:
    return (side, side), f"assumed square: {L} cells"
  return None, f"unknown: {L} cells are no square, and the position table is not a fixed sin-cos one"


def _recorded_grid(source):
  told = source.record.get("model", {}).get("grid")
  if told is None and "image_size" in source.config and "patch_size" in source.config:
    sizes = [source.config[key] for key in ("image_size", "patch_size")]
    try:
      (H, W), (P, Q) = (size if isinstance(size, list) else (size, size) for size in sizes)
      told = (H // P, W // Q)
    except (TypeError, ValueError, ZeroDivisionError) as error:
      raise ValueError(
        f"{source.path}: config.json tells image_size={sizes[0]!r} and patch_size={sizes[1]!r}, expected "
        "numbers of pixels or pairs of them"
      ) from error
  return told and tuple(told)


def sincos_grid(table):
  """Returns the grid of a fixed sin-cos position table [1, 1 + L, C], or None for any other table.

  Of a cell's quarters [sin column, cos column, sin row, cos row] the third is zero in the first row alone and
  the first in the first column alone, exactly.
  """
  L, C = table.shape[1] - 1, table.shape[2]
  if C % 4:
    return None
  cells = table[0, 1:].reshape(L, 4, C // 4)
  is_first_column, is_first_row = ~cells[:, 0].any(axis=1), ~cells[:, 2].any(axis=1)
  Gw, index = int(is_first_row.sum()), np.arange(L)
  if not Gw or L % Gw or not np.array_equal(is_first_row, index < Gw):
    return None
  return (L // Gw, Gw) if np.array_equal(is_first_column, index % Gw == 0) else None


def normalization(source, family):
  """Returns what pixels a file's weights expect, and how that is known."""
  recorded = source.record.get("normalization")
  if recorded:
    return {"from": "recorded in the file", **recorded}
  mean, std, how = _told_pixels(source)
  if how is None:
    mean, std, how = IMAGENET_MEAN, IMAGENET_STD, family.pixels_from
  return {"mean": list(mean), "std": list(std), "range": [0, 1], "from": how}


def _told_pixels(source):
  """Returns (mean, std, the file that tells them), each None where none of a folder's files does."""
  if not source.processor.get("do_normalize", True):
    return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "preprocessor_config.json: not normalised"
  places = (
    ("preprocessor_config.json", source.processor, "image_mean", "image_std"),
    ("config.json", source.config.get("pretrained_cfg"), "mean", "std"),  # of encoders without a processor
  )
  for file, content, *keys in places:
    if isinstance(content, dict) and set(keys) <= content.keys():
      return *(_three(source.path / file, key, content[key]) for key in keys), file
  return None, None, None


def _three(path, key, values):
  is_good = (
    isinstance(values, list) and len(values) == 3 and all(type(value) in (int, float) for value in values)
  )
  if not is_good or (key.endswith("std") and min(values) <= 0):
    raise ValueError(f"{path}: {key} is {values!r}, expected a number for each of red, green and blue")
  return [float(value) for value in values]
