"""Tells the family of a foreign file, the grid of its tables and what else its tensors do not say."""

import math

import numpy as np

from hap_jax.convert import names
from hap_jax.convert.weights import grid_text, some
from hap_jax.models import layers, pixels

# Grids of published models whose learned tables do not tell theirs, by number of cells.
_PUBLISHED_GRIDS = {
  ("hap", 128): ((16, 8), "the published HAP grid, images of 256 x 128"),
  ("reid-vit", 128): ((16, 8), "ReID at 256 x 128"),
  ("reid-lem", 128): ((16, 8), "ReID at 256 x 128"),
  ("reid-vit", 192): ((24, 8), "ReID at 384 x 128"),
  ("reid-lem", 192): ((24, 8), "ReID at 384 x 128"),
  ("attributes-vit", 192): ((16, 12), "attributes at 256 x 192"),
}
# Families whose published code normalises alike.
_SAME_PIXELS = ("hap", "mae", "hf-vitmae", "reid-vit", "reid-lem", "attributes-vit")

# Of layer norms: PyTorch's default. Up to it, transformers' own 1e-12 included, features stay what they are.
_MAX_EPSILON = 1e-5


def find_family(source, family=""):
  """Returns the Family of a Source.

  HAP and MAE share their names: a file is HAP's if it has HAP's `arch` entry beside the weights or a number
  of patches that is not a square. An encoder under the same names is timm's if it was a backbone, or stands
  bare in its file with a classifier.

  Args:
    source: a Source. family: its name if the caller knows it.
  Raises:
    ValueError: if there is no such family or the file is of none.
  """
  family = family or source.record.get("family", "")
  if family:
    if family not in names.FAMILIES:
      raise ValueError(f"{source.path}: family {family!r} is not one of {', '.join(names.FAMILIES)}")
    return names.FAMILIES[family]
  return names.FAMILIES[_guess(source)]


def _guess(source):
  state = source.state
  if any(name.endswith("embeddings.patch_embeddings.projection.weight") for name in state):
    has_decoder = any(name.startswith("decoder.") for name in state)
    return "hf-vitmae" if has_decoder or source.config.get("model_type") == "vit_mae" else "hf-vit"
  if "patch_embed.proj.weight" not in state or "pos_embed" not in state:
    raise ValueError(
      f"{source.path}: of no known family ({', '.join(names.FAMILIES)}): it lacks patch_embed.proj.weight or "
      f"pos_embed; it holds {some(list(state))}"
    )
  if any(name.startswith("conv_head.") for name in state):
    return "reid-lem"
  if "classifier.logits.0.weight" in state:
    return "attributes-vit"
  arch = str(source.beside.get("arch", ""))
  is_square = state["pos_embed"].ndim == 3 and square_side(state["pos_embed"].shape[1] - 1) is not None
  has_head, has_decoder = "head.weight" in state, "mask_token" in state or "decoder_embed.weight" in state
  if not has_decoder and (source.is_backbone or (has_head and not source.is_nested)):
    return "timm"
  if has_head and not has_decoder and (arch or not is_square):
    return "reid-vit"
  return "hap" if arch or not is_square else "mae"


def check_config(source, family):
  """Raises ValueError if a Hugging Face folder's config.json tells of another encoder than this project's."""
  if family.name not in ("hf-vit", "hf-vitmae"):
    return
  activation = source.config.get("hidden_act", "gelu")
  epsilon = source.config.get("layer_norm_eps", layers.LAYER_NORM_EPSILON)
  if activation != "gelu":
    raise ValueError(
      f"{source.path / 'config.json'}: hidden_act is {activation!r}, but this project's encoder computes the "
      "exact 'gelu': its features would be others; use a checkpoint with that"
    )
  if type(epsilon) not in (int, float) or not 0 <= epsilon <= _MAX_EPSILON:
    raise ValueError(
      f"{source.path / 'config.json'}: layer_norm_eps is {epsilon!r}, but this project's encoder computes "
      f"with {layers.LAYER_NORM_EPSILON:g}: its features would be others; use a checkpoint with at most "
      f"{_MAX_EPSILON:g}"
    )


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
  if (family.name, L) in _PUBLISHED_GRIDS:
    grid, what = _PUBLISHED_GRIDS[family.name, L]
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


def square_side(L):
  """Returns the side of a square of L cells, None if L is no square."""
  side = math.isqrt(max(L, 0))
  return side if side and side * side == L else None


def normalization(source, family):
  """Returns what pixels a file's weights expect, and how that is known."""
  recorded = source.record.get("normalization")
  if recorded:
    return {"from": "recorded in the file", **recorded}
  mean, std, how = _told_pixels(source)
  if how is None:
    mean, std = pixels.IMAGENET_MEAN, pixels.IMAGENET_STD
    how = (
      f"published {family.name} code" if family.name in _SAME_PIXELS else "assumed: the file does not tell"
    )
  return {"mean": list(mean), "std": list(std), "range": [0, 1], "from": how}


def _told_pixels(source):
  """Returns (mean, std, the file that tells them), each None where none of a folder's files does."""
  if not source.processor.get("do_normalize", True):
    return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "preprocessor_config.json: not normalised"
  places = (
    ("preprocessor_config.json", source.processor, "image_mean", "image_std"),
    ("config.json", source.config.get("pretrained_cfg"), "mean", "std"),  # as timm publishes its models
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
