"""Reads MATLAB's .mat files up to version 7.2: numbers, cells of strings and structs, nothing executed."""

import os

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError


def load(path):
  """Reads the variables of a .mat file.

  Args:
    path: of the file.
  Returns:
    {name: array}; cells are object arrays, structs are arrays with named fields.
  Raises:
    ValueError: if there is no such file, or it is no whole .mat file of a version that can be read.
  """
  if not os.path.isfile(path):
    raise ValueError(f"{path}: no such file; expected a .mat file of annotations")
  try:
    variables = scipy.io.loadmat(path)
  except NotImplementedError as error:
    raise ValueError(
      f"{path}: a .mat file of version 7.3 (HDF5); expected version 5 to 7.2, as the data sets ship them: "
      "in MATLAB, save(..., '-v7')"
    ) from error
  # scipy parses hostile bytes with whatever NumPy and zlib raise on them.
  except (
    MatReadError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OSError,
    OverflowError,
    MemoryError,
  ) as error:
    raise ValueError(f"{path}: no readable .mat file (truncated or another format): {error}") from error
  return {name: value for name, value in variables.items() if not name.startswith("__")}


def pick(values, names, where):
  """Returns {name: value} of these names.

  Raises:
    ValueError: if one is missing, with those that are there.
  """
  missing = [name for name in names if name not in values]
  if missing:
    raise ValueError(
      f"{where}: no {', '.join(missing)}; expected {', '.join(names)}, found {', '.join(values) or 'nothing'}"
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
  if not is_flat or value.dtype.kind not in "biuf" or not np.all(np.mod(value, 1) == 0):
    raise ValueError(f"{where}: expected whole numbers in {ndim} dimension(s), found {describe(value)}")
  numbers = value.astype(np.int64)
  return numbers.reshape(-1) if ndim == 1 else numbers


def describe(value):
  """Says for an error message what a value is."""
  if not isinstance(value, np.ndarray):
    return repr(value)[:60]
  kind = f"a struct with {', '.join(value.dtype.names)}" if value.dtype.names else str(value.dtype)
  return f"{kind} of shape {value.shape}"
