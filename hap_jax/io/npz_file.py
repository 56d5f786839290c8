"""Reads arrays of known shapes from an .npz file, without pickle. No size in the file is trusted."""

import math
import os
import struct
import zipfile
import zlib
from typing import NamedTuple

import numpy as np

from hap_jax.io.regular_file import open_regular

_MAX_EXTRA_BYTES = 2**14  # for one array, besides its numbers: the headers of .npy (10,000 at most) and zip
_MAX_NUMBER_BYTES = 8
_KINDS = {"b": "b", "i": "i", "u": "i", "f": "f"}  # signed and unsigned integers may stand for each other
# NumPy and zipfile raise all of these on damaged files.
_ERRORS = (
  *(OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError),
  *(SyntaxError, OverflowError, MemoryError, zipfile.BadZipFile, zlib.error, struct.error),
)


class Column(NamedTuple):
  """An expected array: its shape, and a type of which only the kind counts (boolean, integer or float)."""

  shape: tuple[int, ...]
  dtype: np.dtype


def check(path, columns):
  """Checks the headers of all arrays in an .npz file; reads no numbers.

  Args:
    path: of the file.
    columns: {name: Column} of all arrays that the file must hold.

  Raises:
    ValueError: if the file is missing or damaged, is larger than these arrays can be, or holds other arrays.
  """
  _for_each(path, columns, _check_array)


def read(path, columns):
  """Reads an .npz file after the checks of `check` (same arguments and errors); returns {name: array}."""
  return _for_each(path, columns, _read_array)


def _for_each(path, columns, visit):
  """Returns {name: visit(zip file, entry, column)} of all arrays."""
  try:
    with open_regular(path) as file:
      _check_size(os.fstat(file.fileno()).st_size, columns)
      with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        found = sorted(entry.filename for entry in entries)
        if found != sorted(f"{name}.npy" for name in columns):
          raise ValueError(f"expected the arrays {', '.join(sorted(columns))}, found {ascii(found)[:200]}")
        by_name = {entry.filename: entry for entry in entries}
        return {name: visit(archive, by_name[f"{name}.npy"], column) for name, column in columns.items()}
  except _ERRORS as error:
    text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    raise ValueError(
      f"{path}: not the table of this data set: {text}; copy this file again, or pack the data set again"
    ) from error


def _check_size(size, columns):
  most = sum(_most_bytes(column) + _MAX_EXTRA_BYTES for column in columns.values()) + _MAX_EXTRA_BYTES
  if size > most:
    raise ValueError(f"the file has {size} bytes, its arrays need at most {most}")


def _most_bytes(column):
  return math.prod(column.shape) * _MAX_NUMBER_BYTES


def _check_array(archive, entry, column):
  """Raises ValueError unless an entry of the zip file is the array that `column` describes."""
  # Other compressions are not NumPy's, and some take gigabytes of memory to open.
  if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise ValueError(
      f"{entry.filename} is compressed by method {entry.compress_type}, which NumPy does not write"
    )
  if entry.file_size > _most_bytes(column) + _MAX_EXTRA_BYTES:
    raise ValueError(
      f"{entry.filename} has {entry.file_size} bytes unpacked, more than shape {column.shape} needs"
    )
  with archive.open(entry) as file:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
      shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
      shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
      raise ValueError(f"{entry.filename} is of version {version}, expected 1.0 or 2.0")
    header_bytes = file.tell()
  if _KINDS.get(dtype.kind) != _KINDS[column.dtype.kind] or dtype.itemsize > _MAX_NUMBER_BYTES:
    raise ValueError(f"{entry.filename} is of type {ascii(str(dtype))[1:41]}, expected {column.dtype}")
  if shape[:1] != column.shape[:1]:
    rows = ascii(shape[0])[:20] if shape else "no"
    raise ValueError(f"{entry.filename} has {rows} rows, the split has {column.shape[0]} records")
  if shape != column.shape:
    raise ValueError(f"{entry.filename} is of shape {ascii(shape)[:100]}, expected {column.shape}")
  expected = header_bytes + math.prod(shape) * dtype.itemsize
  if entry.file_size != expected:
    raise ValueError(f"{entry.filename} has {entry.file_size} bytes unpacked, expected {expected}")


def _read_array(archive, entry, column):
  _check_array(archive, entry, column)
  with archive.open(entry) as file:
    return np.lib.format.read_array(file, allow_pickle=False)
