"""Reads MATLAB's .mat files up to version 7.2: numbers, cells of strings and structs, nothing executed."""

import itertools
import os

import numpy as np

from hap_jax.io import mat_level5, regular_file

# Of an array that becomes int64: 128 MiB. The largest of the data sets, RAP's labels, has 3,825,820.
_MAX_INTEGERS = 2**24
_LARGEST = 2**53  # the whole numbers up to it are exact in every type
_MAX_LISTED, _MAX_NAME = 60, 60  # names in an error message, and characters of each


def load(path):
  """Reads the variables of a .mat file.

  Args:
    path: of the file.
  Returns:
    {name: array}, equal to the arrays of `scipy.io.loadmat`: cells are object arrays, structs are arrays with
    named fields. Time and memory are bounded, see `mat_level5`.
  Raises:
    ValueError: if there is no such file, or it is damaged, another format or a version that is not read, or
      one of its variables holds a sparse array, an object or a function.
  """
  if not os.path.isfile(path):
    raise ValueError(f"{path}: no such file; expected a .mat file of annotations")
  try:
    with regular_file.open_regular(path) as file:
      return mat_level5.read(file)
  except mat_level5.UnsupportedError as error:
    raise ValueError(f"{path}: {error}") from error
  except ValueError as error:
    raise ValueError(f"{path}: no readable .mat file (truncated or another format): {error}") from error


def pick(values, names, where):
  """Returns {name: value} of these names.

  Raises:
    ValueError: if one is missing, with those that are there.
  """
  missing = [name for name in names if name not in values]
  if missing:
    raise ValueError(
      f"{where}: no {', '.join(missing)}; expected {', '.join(names)}, found {_listed(values) or 'nothing'}"
    )
  return {name: values[name] for name in names}


def fields(value, where):
  """Returns {field: array} of a 1x1 struct.

  Raises:
    ValueError: if it is another kind of variable.
  """
  while isinstance(value, np.ndarray) and value.dtype == object and value.size == 1:
    value = value.reshape(-1)[0]  # a cell around the struct
  names = value.dtype.names if isinstance(value, np.ndarray) else None
  if not names or value.size != 1:
    raise ValueError(f"{where}: expected one struct, found {describe(value)}")
  record = value.reshape(-1)[0]
  return {name: record[name] for name in names}


def strings(cell, where):
  """Returns the strings of a cell, in MATLAB's order for one row or column.

  Raises:
    ValueError: if it is no cell, or an element is no string or is empty.
  """
  if not isinstance(cell, np.ndarray) or cell.dtype != object:
    raise ValueError(f"{where}: expected a cell of strings, found {describe(cell)}")
  found = []
  for number, item in enumerate(cell.reshape(-1), start=1):
    while isinstance(item, np.ndarray) and item.size == 1:
      item = item.reshape(-1)[0]
    if not isinstance(item, str) or not item.strip():
      raise ValueError(f"{where}: element {number} of {cell.size} is no text but {describe(item)}")
    found.append(str(item).strip())
  return found


def integers(value, where, ndim):
  """Returns an array of whole numbers as int64, which files hold in types that wrap around below 0.

  Args:
    ndim: 1 (a row or a column, flattened) or 2.
  Raises:
    ValueError: if it is another kind of array.
  """
  is_flat = isinstance(value, np.ndarray) and value.ndim == 2 and (ndim == 2 or min(value.shape) <= 1)
  if not is_flat or value.dtype.kind not in "biuf":
    raise ValueError(f"{where}: expected whole numbers in {ndim} dimension(s), found {describe(value)}")
  if value.size > _MAX_INTEGERS:
    raise ValueError(f"{where}: {value.size:,} numbers; expected at most {_MAX_INTEGERS:,}")
  # Checked in the stored type: as int64, infinite and very large numbers would wrap around.
  is_whole = value.dtype.kind != "f" or np.array_equal(value, np.trunc(value))
  if not is_whole or not np.all((value >= -_LARGEST) & (value <= _LARGEST)):
    raise ValueError(
      f"{where}: expected whole numbers up to {_LARGEST:,} in {ndim} dimension(s), found {describe(value)} "
      "with other numbers"
    )
  numbers = value.astype(np.int64)
  return numbers.reshape(-1) if ndim == 1 else numbers


def describe(value):
  """Says for an error message what a value is."""
  if not isinstance(value, np.ndarray):
    return repr(value)[:60]
  kind = f"a struct with {_listed(value.dtype.names)}" if value.dtype.names else str(value.dtype)
  return f"{kind} of shape {value.shape}"


def _listed(names):
  """Returns names from a file as one line of printable text, shortened."""
  shown = [
    str(name)[:_MAX_NAME].encode("unicode_escape").decode() for name in itertools.islice(names, _MAX_LISTED)
  ]
  return ", ".join(shown) + (f", ... ({len(names)} in all)" if len(names) > _MAX_LISTED else "")
