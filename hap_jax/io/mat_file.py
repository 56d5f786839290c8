"""Reads .mat files of MATLAB, versions 5 to 7.2: numbers, cells of strings and structs. Executes nothing."""

import itertools
import os

import numpy as np

from hap_jax.io import mat_level5, regular_file

# Largest number of elements of an array that is converted to int64 (128 MiB). The largest array of the data
# sets has 3,825,820 elements (RAP).
_MAX_INTEGERS = 2**24
_LARGEST = 2**53  # a float64 can represent all whole numbers up to this number exactly
_MAX_LISTED, _MAX_NAME = 60, 60  # most names in an error message, and most characters per name


def load(path):
  """Reads the variables of a .mat file.

  Args:
    path: the file.
  Returns:
    {name: array}, equal to the arrays of `scipy.io.loadmat`. Cells are object arrays. Structs are arrays with
    named fields. `mat_level5` limits the time and the memory.
  Raises:
    ValueError: if the file is missing or damaged, or has another format or version. Also if a variable
      contains a sparse array, an object or a function.
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
  """Returns {name: value} for some of the names in `values`.

  Args:
    values: {name: value}.
    names: the names to return.
    where: name of the file and of the variable, for messages.
  Raises:
    ValueError: if a name is missing. The message lists the names that exist.
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
    ValueError: if the value is not a 1x1 struct.
  """
  while isinstance(value, np.ndarray) and value.dtype == object and value.size == 1:
    value = value.reshape(-1)[0]  # the struct may be in a cell
  names = value.dtype.names if isinstance(value, np.ndarray) else None
  if not names or value.size != 1:
    raise ValueError(f"{where}: expected one struct, found {describe(value)}")
  record = value.reshape(-1)[0]
  return {name: record[name] for name in names}


def strings(cell, where):
  """Returns the strings of a cell that has one row or one column, in order.

  Raises:
    ValueError: if the value is not a cell, or an element is not a string or is empty.
  """
  if not isinstance(cell, np.ndarray) or cell.dtype != object:
    raise ValueError(f"{where}: expected a cell of strings, found {describe(cell)}")
  found = []
  for number, item in enumerate(cell.reshape(-1), start=1):
    # A string is an array of one element. Some files put it into one more cell.
    while isinstance(item, np.ndarray) and item.size == 1:
      item = item.reshape(-1)[0]
    if not isinstance(item, str) or not item.strip():
      raise ValueError(f"{where}: element {number} of {cell.size} is not a text but {describe(item)}")
    found.append(str(item).strip())
  return found


def integers(value, where, ndim):
  """Converts an array of whole numbers to int64.

  A file may contain an unsigned type. In such a type, 0 - 1 would be a large positive number.

  Args:
    value: the array.
    where: name of the file and of the variable, for messages.
    ndim: number of dimensions of the result. 1: `value` must be a row or a column, and is flattened. 2: it
      keeps its shape.
  Raises:
    ValueError: if the array has another number of dimensions, is too large, or contains a number that is not
      whole or is beyond 2^53.
  """
  is_flat = isinstance(value, np.ndarray) and value.ndim == 2 and (ndim == 2 or min(value.shape) <= 1)
  if not is_flat or value.dtype.kind not in "biuf":
    raise ValueError(f"{where}: expected whole numbers in {ndim} dimension(s), found {describe(value)}")
  if value.size > _MAX_INTEGERS:
    raise ValueError(f"{where}: {value.size:,} numbers; expected at most {_MAX_INTEGERS:,}")
  # The numbers are checked before they are converted, because an infinite or very large number would become
  # a wrong int64.
  is_whole = value.dtype.kind != "f" or np.array_equal(value, np.trunc(value))
  if not is_whole or not np.all((value >= -_LARGEST) & (value <= _LARGEST)):
    raise ValueError(
      f"{where}: expected whole numbers up to {_LARGEST:,} in {ndim} dimension(s), found {describe(value)} "
      "with other numbers"
    )
  numbers = value.astype(np.int64)
  return numbers.reshape(-1) if ndim == 1 else numbers


def describe(value):
  """Returns type and shape of an array, or the value itself, as text for an error message."""
  if not isinstance(value, np.ndarray):
    return repr(value)[:60]
  kind = f"a struct with {_listed(value.dtype.names)}" if value.dtype.names else str(value.dtype)
  return f"{kind} of shape {value.shape}"


def _listed(names):
  """Returns names from a file as one short line of printable text."""
  shown = [
    str(name)[:_MAX_NAME].encode("unicode_escape").decode() for name in itertools.islice(names, _MAX_LISTED)
  ]
  return ", ".join(shown) + (f", ... ({len(names)} in all)" if len(names) > _MAX_LISTED else "")
