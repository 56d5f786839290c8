"""Reads the options of the data sources and their default values from the source code of the sources.

The files are parsed, not imported, because a source imports OpenCV. A configuration contains the options of
every source, and the training command must read its flags before it imports OpenCV.
"""

import ast
import functools
import pathlib
from typing import NamedTuple

FOLDER = pathlib.Path(__file__).parent / "sources"
COMMON = (
  "root",
  "split",
  "seed",
  "num_val",
)  # arguments of every source; all other arguments are options of a single source


class _Options(NamedTuple):
  """The options of one source.

  Attributes:
    defaults: {option: default value}, from the arguments of the function `open_source`.
    places: names of the options whose value is a file or a folder.
    has_joints: True if the source has joints for masks of body parts.
  """

  defaults: dict[str, object]
  places: tuple[str, ...]
  has_joints: bool = False


def defaults():
  """Returns {source: {option: default value}} of all sources, without the arguments in COMMON."""
  return {name: dict(options.defaults) for name, options in _read_all().items()}


def place_keys():
  """Returns the config keys whose value is a file or folder of a source, such as "data.peta.images"."""
  return {f"data.{name}.{option}" for name, options in _read_all().items() for option in options.places}


def with_joints():
  """Returns the names of the sources that have joints for masks of body parts (JOINTS = True in the file)."""
  return sorted(name for name, options in _read_all().items() if options.has_joints)


@functools.cache
def _read_all():
  paths = sorted(FOLDER.glob("*.py"))
  return {path.stem: read(path) for path in paths if path.stem not in ("__init__", "base")}


def read(path):
  """Reads the options of one source from its file.

  Args:
    path: pathlib.Path of the file.

  Returns:
    _Options. Its `places` is the constant PLACES of the file, or () if there is no such constant.

  Raises:
    ValueError: if there is no function `open_source`, if the default value of an option is missing or not a
      literal, or if PLACES contains a name that is not an option.
  """
  functions, constants = {}, {}
  for statement in ast.parse(path.read_text(encoding="utf-8"), str(path)).body:
    if isinstance(statement, ast.FunctionDef):
      functions[statement.name] = statement
    elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
      constants[statement.targets[0].id] = statement.value
  if "open_source" not in functions:
    raise ValueError(f"{path}: no function open_source; expected open_source(*, root, split, seed, ...)")
  # All options are keyword-only arguments, so kw_defaults has one entry per argument. None means no default.
  arguments = functions["open_source"].args
  found = {
    argument.arg: _literal(value, f"{path}: the default of option {argument.arg} of open_source")
    for argument, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    if argument.arg not in COMMON
  }
  places = _literal(constants["PLACES"], f"{path}: PLACES") if "PLACES" in constants else ()
  if unknown := [name for name in places if name not in found]:
    raise ValueError(f"{path}: PLACES names {', '.join(unknown)}; expected options of open_source")
  has_joints = "JOINTS" in constants and _literal(constants["JOINTS"], f"{path}: JOINTS")
  return _Options(found, places, bool(has_joints))


def _literal(node, what):
  try:
    return ast.literal_eval(node)
  except (ValueError, TypeError) as error:  # TypeError: `node` is None, because there is no default value
    raise ValueError(
      f"{what}: expected a literal such as 0.5, because this file is read without importing it"
    ) from error
