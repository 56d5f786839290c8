"""Finds the family, the grid and the pixel statistics of a foreign file. The tensors do not state them."""

import math

from hap_jax.convert import beyond, families
from hap_jax.convert.family import NO
from hap_jax.convert.weights import grid_text, some, square_side
from hap_jax.description import MAX_PIXEL
from hap_jax.models import posemb
from hap_jax.models.layers import LAYER_NORM_EPSILON

# (part of the name of a function of PyTorch, kind of the tensor that it makes)
_KINDS_OF_UNREAD = (
  ("sparse", "a sparse tensor"),
  ("meta_tensor", "a meta tensor without values"),
  ("qtensor", "a quantized tensor"),
)


def find_family(source, family=""):
  """Returns the Family of a Source.

  Each family returns how likely the file belongs to it, see `family.py`. The most likely family is chosen.

  Args:
    source: a Source.
    family: the name of the family. "": it is detected from the file.
  Raises:
    ValueError: if there is no such family, the file belongs to no family, or several families are equally
      likely. Also if the encoder has parts that this project's encoder does not have.
  """
  missing = beyond.find(source)
  if missing:
    raise ValueError(f"{source.path}: {missing}")
  # A file that this project wrote records its family.
  family = family or source.record.get("family", "")
  try:
    return families.load(family or _guess(source))
  except ValueError as error:
    raise ValueError(f"{source.path}: {error}") from error


def _guess(source):
  surest = [family.name for family in likely(source)]
  if not surest:
    for name, tensor in source.unread.items():
      raise ValueError(unread_text(source.names[name], tensor))
    missing = beyond.find_missing(source)
    if missing:
      raise ValueError(missing)
    raise ValueError(
      f"of no known family ({', '.join(families.names())}): no family has its tensor names, such as "
      f"{some(list(source.state))}"
    )
  if len(surest) > 1:
    raise ValueError(f"may be of the families {' and '.join(surest)}: choose one of them with --from")
  return surest[0]


def likely(source):
  """Returns the Families that a Source most likely belongs to, as a tuple. () if it belongs to no family."""
  known = families.load_all()
  sureness = [family.recognise(source) for family in known]
  most = max(sureness)
  return tuple(f for f, value in zip(known, sureness, strict=True) if value == most) if most != NO else ()


def unread_text(name, tensor):
  """Returns the message about a needed tensor that is an `Unread`."""
  kinds = (kind for part, kind in _KINDS_OF_UNREAD if part in tensor.name)
  kind = next(kinds, "an object of a class that is not read")
  return f"tensor {name} is {kind} ({tensor.name}): save it as a dense tensor with values"


def find_grid(source, family, tables, grid):
  """Returns the grid of a file's position tables, from the most reliable source that states it.

  Args:
    source: a Source.
    family: the Family of the source.
    tables: the position tables, each [1, 1 + L, C]. The table of the encoder comes first.
    grid: (Gh, Gw) from the caller, or None.
  Returns:
    (grid or None, text that says where the grid comes from).
  Raises:
    ValueError: if the caller's grid or the recorded grid does not fit the tables, or if the two grids differ.
  """
  L = tables[0].shape[1] - 1
  # reversed: the decoder's table is tried first, because the encoder's table may have been resized.
  found = next(filter(None, map(posemb.sincos_grid, reversed(tables))), None)
  recorded = _recorded_grid(source)
  if recorded is not None and math.prod(recorded) != L:
    raise ValueError(
      f"{source.path}: records a grid of {grid_text(recorded)}, but its position table has {L} patches"
    )
  # A sin-cos table shows its grid with certainty, so the caller's grid must be the same.
  if grid is not None:
    grid = tuple(grid)
    if grid[0] * grid[1] != L or found not in (None, grid):
      reason = (
        f"its sin-cos table is for {grid_text(found)}" if found else f"its position table has {L} patches"
      )
      raise ValueError(f"{source.path}: grid {grid_text(grid)} was given, but {reason}")
    if recorded not in (None, grid):
      raise ValueError(
        f"{source.path}: grid {grid_text(grid)} was given, but the file records {grid_text(recorded)}: "
        "give no grid"
      )
    return grid, "given by the caller"
  if recorded is not None:
    return recorded, "recorded in the file"
  if found:
    return found, "computed from the sin-cos position table"
  # From here on the grid is only assumed. The returned text says so.
  if L in family.grids:
    grid, origin = family.grids[L]
    return grid, f"assumed: {origin}"
  side = square_side(L)
  if side is not None:
    return (side, side), f"assumed square: {L} patches"
  text = f"unknown: {L} patches are not a square, and the position table is not a fixed sin-cos table"
  side = family.class_token and square_side(L + 1)
  if side:
    text += f"; if no row of the table belongs to the class token, the grid is {side}x{side}"
  return None, text


def _recorded_grid(source):
  """Returns the grid that the file's record or config.json states, or None.

  Raises:
    ValueError: if the sizes in config.json are not numbers or pairs of numbers.
  """
  recorded = source.record.get("model", {}).get("grid")
  if recorded is None and "image_size" in source.config and "patch_size" in source.config:
    sizes = [source.config[key] for key in ("image_size", "patch_size")]
    try:
      (H, W), (P, Q) = (size if isinstance(size, list) else (size, size) for size in sizes)
      recorded = (H // P, W // Q)
    except (TypeError, ValueError, ZeroDivisionError) as error:
      raise ValueError(
        f"{source.path}: config.json has image_size={sizes[0]!r} and patch_size={sizes[1]!r}, expected a "
        "number of pixels, or a pair of numbers, for each key"
      ) from error
  return recorded and tuple(recorded)


def norm_eps(source, family):
  """Returns the epsilon of the layer norms of a file.

  Args:
    source: a Source. Its `config` is the result of `family.read_config`.
    family: the Family of the source.
  Raises:
    ValueError: if the epsilon in config.json is not a number between 0 and 1.
  """
  if source.record:  # earlier versions did not record the epsilon, because it was always the same
    return source.record["model"].get("norm_eps", LAYER_NORM_EPSILON)
  found = source.config.get("layer_norm_eps", family.norm_eps) if family.states_norm_eps else family.norm_eps
  if type(found) not in (int, float) or not 0 < found < 1:
    raise ValueError(
      f"{source.path / 'config.json'}: layer_norm_eps is {found!r}, expected a number between 0 and 1"
    )
  return float(found)


def normalization(source, family):
  """Returns the pixel normalisation of a file, a dict. Its key "from" says where the values were found."""
  recorded = source.record.get("normalization")
  if recorded:
    return {"from": "recorded in the file", **recorded}
  mean, std, how = _pixels_in_folder(source)
  if how is None:
    (mean, std), how = family.pixels, family.pixels_from
  return {"mean": list(mean), "std": list(std), "range": [0, 1], "from": how}


def _pixels_in_folder(source):
  """Returns (mean, std, name of the file that states them), or (None, None, None) if no file states them."""
  # A processor that does not normalise may still list a mean, which it does not use.
  if not source.processor.get("do_normalize", True):
    return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "preprocessor_config.json: not normalised"
  places = (
    ("preprocessor_config.json", source.processor, "image_mean", "image_std"),
    # A folder of timm has no processor file.
    ("config.json", source.config.get("pretrained_cfg"), "mean", "std"),
  )
  for file, content, *keys in places:
    if isinstance(content, dict) and set(keys) <= content.keys():
      return *(_three(source.path / file, key, content[key]) for key in keys), file
  return None, None, None


def _three(path, key, values):
  # JSON has integers of any length, and Python's reader also accepts NaN and Infinity.
  is_good = (
    isinstance(values, list)
    and len(values) == 3
    and all(type(value) in (int, float) and abs(value) <= MAX_PIXEL for value in values)
  )
  if not is_good or (key.endswith("std") and min(values) <= 0):
    raise ValueError(f"{path}: {key} is {values!r}, expected three numbers: red, green, blue")
  return [float(value) for value in values]  # JSON may have integers, such as 1
