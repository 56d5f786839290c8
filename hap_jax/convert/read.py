"""Reads foreign checkpoints into this project's parameters, and fits them to a model."""

import collections.abc
import dataclasses
import hashlib
import math
import pathlib
import re

import ml_dtypes
import numpy as np

from hap_jax.convert import names
from hap_jax.io import torch_file
from hap_jax.models import posemb, vit

_NESTS = ("model", "state_dict")  # where training scripts put the weights, beside optimizer and epoch
_PREFIXES = ("module.",)  # what data-parallel wrappers put before every name
_FLOATS = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)
_HAP_GRID = (16, 8)  # of the published pre-training, images of 256 x 128


@dataclasses.dataclass(frozen=True)
class Weights:
  """The weights of one checkpoint under this project's names.

  Attributes:
    params: {"encoder": ..., "decoder": ... if the file has one}, nested dicts of float32 arrays.
    source_names: {path in params, with slashes: name in the file}.
    family: of names, a key of `names.FAMILIES`; another word for weights that no table has read.
    grid: (Gh, Gw) of the position tables in patches; None: the file does not tell.
    grid_from: how the grid was found, or why not.
    patch, width, depth: of the encoder.
    num_heads: of the variant of this size, since weights do not tell it; None: there is no such variant.
    unused: names in the file that this project has no use for.
    lineage: {"file", "sha256", "family", "licence"}, what they come from.
  """

  params: dict
  source_names: dict[str, str]
  family: str
  grid: tuple[int, int] | None
  grid_from: str
  patch: int
  width: int
  depth: int
  num_heads: int | None
  unused: tuple[str, ...]
  lineage: dict[str, str]


@dataclasses.dataclass(frozen=True)
class FitReport:
  """What `fit_to` did, each a tuple of names.

  Attributes:
    loaded: paths of the model's parameters that were replaced. missing: that kept their values.
    unused: names in the file that went nowhere. resized: "path old grid -> new grid"; these are loaded too.
  """

  loaded: tuple[str, ...]
  missing: tuple[str, ...]
  unused: tuple[str, ...]
  resized: tuple[str, ...]

  def lines(self):
    """Returns the report as lines of text for a log."""
    kinds = [("kept at their initial values", self.missing), ("in the file, not used", self.unused)]
    kinds.append(("position tables resized", self.resized))
    return [f"loaded: {len(self.loaded)} tensors"] + [
      f"{kind}: {len(items)} ({', '.join(items)})" for kind, items in kinds if items
    ]


def read_checkpoint(path, *, family="", grid=None):
  """Reads an official HAP or MAE .pth file; nothing in it is executed.

  Args:
    path: the file.
    family: "hap" or "mae"; "": told from the file. The two share their names; a file is HAP's if it has HAP's
      `arch` entry beside the weights or a number of patches that is not a square.
    grid: (Gh, Gw) of the file's position tables; None: from the file, see `Weights.grid_from`.
  Returns:
    Weights.
  Raises:
    UnsafePickleError: if the file asks for code. ValueError: if it is damaged or of no known family, holds a
      name that no table knows, lacks one, or holds a tensor of another shape or type or with NaN or infinity.
  """
  path = pathlib.Path(path)
  content, state = _find_state(path, torch_file.load(path))
  family = _find_family(path, content, state, family)
  rows, unused = _match(path, family, state)
  sizes = _check_shapes(path, rows, state)
  claimed = sum(state[row.reference].nbytes for row in rows)
  if claimed > path.stat().st_size:
    raise ValueError(
      f"{path}: its weights claim {claimed} bytes, more than the file has: they share storages"
    )
  flat = {
    row.ours: np.ascontiguousarray(row.layout.to_ours(_to_float32(path, row.reference, state[row.reference])))
    for row in rows
  }
  params = _unflatten(flat)
  grid, grid_from = _find_grid(path, family, params, grid)
  width, depth = sizes["D"], _depth(params["encoder"])
  heads = {(v.width, v.depth): v.num_heads for v in vit.VARIANTS.values()}
  with path.open("rb") as file:
    sha256 = hashlib.file_digest(file, "sha256").hexdigest()
  return Weights(
    params=params,
    source_names={row.ours: row.reference for row in rows},
    family=family.name,
    grid=grid,
    grid_from=grid_from,
    patch=sizes["P"],
    width=width,
    depth=depth,
    num_heads=heads.get((width, depth)),
    unused=unused,
    lineage={"file": path.name, "sha256": sha256, "family": family.name, "licence": family.licence},
  )


def _find_state(path, content):
  """Returns (the outer dict, {name: array} of the weights in it without wrappers' prefixes)."""
  state = content
  for nest in _NESTS:
    if isinstance(state, dict) and isinstance(state.get(nest), dict):
      state = state[nest]
  if not isinstance(state, dict) or not state:
    raise ValueError(f"{path}: holds a {type(state).__name__}, not a state dict with names")
  for name, value in state.items():
    if type(name) is not str or not isinstance(value, np.ndarray):
      raise ValueError(
        f"{path}: expected a state dict, or one under {' or '.join(map(repr, _NESTS))}; {name!r} is a "
        f"{type(value).__name__}, not a tensor"
      )
  for prefix in _PREFIXES:
    if all(name.startswith(prefix) for name in state):
      state = {name.removeprefix(prefix): value for name, value in state.items()}
  return content, state


def _find_family(path, content, state, family):
  if family:
    if family not in names.FAMILIES:
      raise ValueError(f"family {family!r} is not one of {', '.join(names.FAMILIES)}")
    return names.FAMILIES[family]
  if "patch_embed.proj.weight" not in state or "pos_embed" not in state:
    raise ValueError(
      f"{path}: of no known family ({', '.join(names.FAMILIES)}): it lacks patch_embed.proj.weight or "
      f"pos_embed; it holds {_some(list(state))}"
    )
  is_square = state["pos_embed"].ndim == 3 and _square_side(state["pos_embed"].shape[1] - 1) is not None
  return names.FAMILIES["hap" if "arch" in content or not is_square else "mae"]


def _match(path, family, state):
  """Accounts for every name: returns (rows of the family's table for this file, known names without use)."""
  unused = tuple(name for name in state if name.startswith(family.unused))
  has_decoder = any(row.stack == "decoder" and row.reference in state for row in family.entries)
  try:
    depth = names.count_blocks(family, "encoder", state)
    # One block at least where there is anything of a decoder, so that the lack of blocks is an error.
    decoder_depth = max(int(has_decoder), names.count_blocks(family, "decoder", state))
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error
  rows = names.table(family, depth=max(1, depth), decoder_depth=decoder_depth)
  unknown = sorted(state.keys() - {row.reference for row in rows} - set(unused))
  if unknown:
    raise ValueError(f"{path}: no name of the {family.name} family: {_some(unknown)}")
  lacking = [row.reference for row in rows if row.reference not in state]
  lacking = [name for name in lacking if family.stand_ins.get(name) not in state]
  if lacking:
    raise ValueError(f"{path}: lacks {_some(lacking)} of the {family.name} family")
  return tuple(row for row in rows if row.reference in state), unused


def _check_shapes(path, rows, state):
  """Binds the letters of the tables' shapes to numbers, each where it first stands alone; returns them."""
  sizes, origin = {}, {}
  # The projection of patches comes first: the file's width is what it says.
  for row in sorted(rows, key=lambda row: row.layout is not names.PATCH_CONV):
    shape = state[row.reference].shape
    if len(shape) == len(row.shape):
      for letter, number in zip(row.shape, shape, strict=True):
        if letter.isalpha() and letter not in sizes:
          sizes[letter], origin[letter] = number, row.reference
    expected = tuple(_size_of(token, sizes) for token in row.shape)
    if shape != expected or 0 in shape:
      told_by = sorted({origin[letter] for token in row.shape for letter in token if letter in origin})
      raise ValueError(
        f"{path}: tensor {row.reference} has shape {shape}, expected ({', '.join(map(str, expected))})"
        + (f" by {', '.join(told_by)}" if told_by else "")
      )
  return sizes


def _size_of(token, sizes):
  """Returns the number that a token such as "1", "D" or "3PP" stands for, "?" where a letter is open."""
  factor, letters = re.fullmatch(r"(\d*)([A-Z]*)", token).groups()
  if not all(letter in sizes for letter in letters):
    return "?"
  return int(factor or 1) * math.prod(sizes[letter] for letter in letters)


def _to_float32(path, name, array):
  if array.dtype not in _FLOATS:
    raise ValueError(f"{path}: tensor {name} has dtype {array.dtype}, expected floating point")
  with np.errstate(over="ignore"):
    array = array.astype(np.float32)
  if not np.isfinite(array).all():
    bad = np.size(array) - np.count_nonzero(np.isfinite(array))
    raise ValueError(f"{path}: tensor {name} has {bad} values that are NaN, infinite or beyond float32")
  return array


def _find_grid(path, family, params, grid):
  """Returns (grid or None, how it was found), most certain source first."""
  tables = {stack: params[stack]["pos_embed"] for stack in params}
  L = tables["encoder"].shape[1] - 1
  # The decoder's table first: the encoder's may have been resized from another grid's.
  found = next(filter(None, map(_sincos_grid, reversed(tables.values()))), None)
  if grid is not None:
    grid = tuple(grid)
    if grid[0] * grid[1] != L or found not in (None, grid):
      reason = (
        f"its sin-cos table is of {found[0]}x{found[1]}" if found else f"its position table has {L} cells"
      )
      raise ValueError(f"{path}: grid {grid[0]}x{grid[1]} was given, but {reason}")
    return grid, "given by the caller"
  if found:
    return found, "read off the sin-cos position table"
  if family.name == "hap" and math.prod(_HAP_GRID) == L:
    return _HAP_GRID, "assumed: the published HAP grid, images of 256 x 128"
  side = _square_side(L)
  if side is not None:
    return (side, side), f"assumed square: {L} cells"
  return None, f"unknown: {L} cells are no square, and the position table is not a fixed sin-cos one"


def _sincos_grid(table):
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


def fit_to(params, weights, *, grid, with_decoder):
  """Puts a checkpoint's weights into a model's parameters; position tables are resized if the grids differ.

  Args:
    params: the model's, nested dicts with "encoder" and perhaps "decoder" and others, left as they are.
    weights: Weights. grid: (Gh, Gw) of the model.
    with_decoder: take the decoder too if the file and the model have one.
  Returns:
    (params with float32 NumPy arrays where loaded and the given leaves elsewhere, FitReport).
  Raises:
    ValueError: if the encoder is of another size, a tensor of another shape, or the file's grid is unknown.
  """
  source = weights.lineage["file"]
  _check_sizes(source, weights, params, with_decoder)
  given = _flatten(weights.params)
  fitted, missing, resized = _flatten(params), [], []
  for path, old in fitted.items():
    if path not in given or not (with_decoder or path.startswith("encoder/")):
      missing.append(path)
      continue
    new = given.pop(path)
    if path.endswith("/pos_embed") and weights.grid != tuple(grid):
      if weights.grid is None:
        raise ValueError(f"{source}: its grid is {weights.grid_from}; pass grid= to read_checkpoint")
      new = posemb.resize_table(new, weights.grid, grid)
      resized.append(f"{path} {_text(weights.grid)} -> {_text(grid)}")
    if new.shape != tuple(old.shape):
      raise ValueError(
        f"{source}: tensor {weights.source_names[path]} becomes {path} with shape {new.shape}, the model has "
        f"{tuple(old.shape)}: change config.model to the file's sizes, or config.init_from"
      )
    fitted[path] = new
  report = FitReport(
    loaded=tuple(path for path in fitted if path not in missing),
    missing=tuple(missing),
    unused=(*weights.unused, *(weights.source_names[path] for path in given)),
    resized=tuple(resized),
  )
  return _unflatten(fitted), report


def _check_sizes(source, weights, params, with_decoder):
  if "encoder" not in params:
    raise ValueError(f"{source}: the model has no encoder for it, only {', '.join(params)}")
  encoder = params["encoder"]
  kernel = encoder["patch_embed"]["kernel"]
  model = (kernel.shape[1], _depth(encoder), math.isqrt(kernel.shape[0] // 3))
  file = (weights.width, weights.depth, weights.patch)
  if file != model:
    raise ValueError(
      f"{source}: checkpoint is {_size_text(*file)}, but config.model.variant and config.model.patch make "
      f"{_size_text(*model)}: change them, or config.init_from"
    )
  if with_decoder and "decoder" in params and "decoder" in weights.params:
    in_file, in_model = _depth(weights.params["decoder"]), _depth(params["decoder"])
    if in_file != in_model:
      raise ValueError(
        f"{source}: its decoder has {in_file} blocks, but config.model.decoder_depth={in_model}: change it, "
        "or take the encoder alone"
      )


def _size_text(width, depth, patch):
  variants = [f"-{name}" for name, v in vit.VARIANTS.items() if (v.width, v.depth) == (width, depth)]
  return f"ViT{''.join(variants)} (width {width}, depth {depth}, patch {patch})"


def _depth(stack):
  return sum(name.startswith("blocks_") for name in stack)


def _square_side(L):
  side = math.isqrt(max(L, 0))
  return side if side and side * side == L else None


def _text(grid):
  return f"{grid[0]}x{grid[1]}"


def _some(items):
  more = f" and {len(items) - 5} more" if len(items) > 5 else ""
  return ", ".join(items[:5]) + more


def _flatten(tree, prefix=""):
  flat = {}
  for name, value in tree.items():
    if isinstance(value, collections.abc.Mapping):
      flat.update(_flatten(value, f"{prefix}{name}/"))
    else:
      flat[f"{prefix}{name}"] = value
  return flat


def _unflatten(flat):
  tree = {}
  for path, value in flat.items():
    *parents, leaf = path.split("/")
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[leaf] = value
  return tree
