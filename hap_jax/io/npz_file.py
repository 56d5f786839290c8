"""Reads arrays from an .npz file, without pickle. No size in the file is trusted.

For `check` and `read`, the caller knows the shapes, but only the file contains the length of the texts. So
texts must be stored without compression, as NumPy's `savez` stores them. Then they need no more memory than
the size of the file. `read_stored`, `find_stored` and `open_stored` know no shapes, so all their arrays must
be stored in this way. `find_stored` reads no numbers. `read_numbers` also reads compressed arrays. Its caller
gives the largest number of elements.
"""

import io
import math
import mmap
import os
import re
import struct
import zipfile
import zlib
from typing import NamedTuple

import ml_dtypes
import numpy as np

from hap_jax.io import zip_view
from hap_jax.io.plain_data import Unread
from hap_jax.io.regular_file import open_regular

# Most bytes of an array besides its numbers: the headers of the .npy file (at most 10,000) and the zip file.
_MAX_EXTRA_BYTES = 2**14
_MAX_HEADER_BYTES = 10_000
_MAX_NUMBER_BYTES = 8
MAX_TEXT_LENGTH = 4_096  # characters
_CHARACTER_BYTES = 4  # bytes per character in an array of texts
_LOCAL_LENGTHS = 26  # place of the lengths of name and extra field in the local header of a zip file
_HEADER = re.compile(
  rb"\{'descr': '([<>=|](?:[biuf][1248]|[A-Z][0-9a-zA-Z\[\]]{0,8}|[cf][0-9]{1,2}))', "
  rb"'fortran_order': (False|True), 'shape': \(([0-9]{0,18}(?:, ?[0-9]{1,18}){0,15},?)\), ?\} *\n"
)
# {kind of a NumPy type: kind that is compared}. Signed and unsigned integers are treated as the same kind.
_KINDS = {"b": "b", "i": "i", "u": "i", "f": "f", "U": "U"}
# NumPy and zipfile can raise all of these for a damaged file.
_ERRORS = (
  *(OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError),
  *(OverflowError, MemoryError, zipfile.BadZipFile, zlib.error, struct.error),
)


class Column(NamedTuple):
  """The shape and the type of an array that the file must contain.

  Only the kind of the type is compared: bool, integer, float or text.
  """

  shape: tuple[int, ...]
  dtype: np.dtype


def check(path, columns):
  """Checks the headers of all arrays in an .npz file. The numbers are not read.

  Args:
    path: the file.
    columns: {name: Column} of all arrays that the file must contain.
  Raises:
    ValueError: if the file is missing or damaged, is larger than these arrays can be, or has other arrays.
  """
  _for_each(path, columns, _check_array)


def read(path, columns, name):
  """Checks an .npz file as `check` does, and returns the array `name`. Raises the same errors."""
  return _for_each(path, columns, _read_array, only=name)[name]


def read_stored(path, kinds):
  """Reads arrays of any shape from an .npz file.

  Args:
    path: the file.
    kinds: {name: (kind of its type such as "f" for float or "U" for text, number of its dimensions)} of the
      arrays to read. The file may have further arrays.
  Returns:
    {name: array}. Arrays that the file does not have are left out. Texts may contain single surrogates:
    Python uses them in file names that are not UTF-8.
  Raises:
    OSError: if the file is missing or cannot be opened.
    ValueError: if the file is damaged or is no .npz file, or if an array is compressed, or has another kind
      or another number of dimensions. The message does not name the file.
  """

  def read_one(archive, entry, size):
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
      raise ValueError(
        f"{entry.filename} is compressed, or larger than the file; expected an array without compression, as "
        "np.savez writes it"
      )
    kind, num_dimensions = kinds[_name_of(entry)]
    array = _read_sized(archive, entry, kind)
    if array.ndim != num_dimensions:
      raise ValueError(f"{entry.filename} has type {array.dtype} and shape {array.shape}")
    return array

  return _read_known(path, kinds, read_one)


def find_stored(path, name):
  """Finds the numbers of an array that is stored without compression, so that rows can be read one by one.

  Args:
    path: the .npz file.
    name: name of the array.
  Returns:
    (position of the first number in the file in bytes, dtype, shape). The numbers are row by row.
  Raises:
    OSError: if the file is missing or cannot be opened.
    ValueError: if the file is damaged or no .npz file, if it has no such array of numbers, or if the array is
      compressed or stored column by column. The message does not name the file.
  """
  with open_regular(path) as file:
    try:
      with zipfile.ZipFile(file) as archive:
        entry = archive.getinfo(f"{name}.npy")
        array = _read_sized_header(archive, entry, "biuf")
        size = os.fstat(file.fileno()).st_size
      if entry.compress_type != zipfile.ZIP_STORED or array.is_column_first:
        raise ValueError(f"{entry.filename} is compressed or stored column by column")
      # The name and the extra field may have other lengths here than in the list of entries.
      file.seek(entry.header_offset + _LOCAL_LENGTHS)
      lengths = struct.unpack("<HH", file.read(4))
      position = entry.header_offset + _LOCAL_LENGTHS + 4 + sum(lengths) + array.header_bytes
      if position + math.prod(array.shape) * array.dtype.itemsize > size:
        raise ValueError(f"{entry.filename} ends beyond the file")
      return position, array.dtype, array.shape
    except _ERRORS as error:
      text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
      raise ValueError(text) from error


def read_numbers(path, names, max_elements):
  """Reads arrays of numbers, of any shape, from an .npz file. The arrays may be compressed.

  Args:
    path: the file.
    names: names of the arrays to read. The file may have further arrays, also of Python objects.
    max_elements: the largest allowed number of elements of an array.
  Returns:
    {name: array of floats or integers}. Arrays that the file does not have are left out.
  Raises:
    OSError: if the file is missing or cannot be opened.
    ValueError: if the file is damaged or is no .npz file, or if an array is too large or does not contain
      numbers. The message does not name the file.
  """

  def read_one(archive, entry, _):
    _check_method(entry)
    if entry.file_size > max_elements * _MAX_NUMBER_BYTES + _MAX_EXTRA_BYTES:
      raise ValueError(
        f"{entry.filename} has {entry.file_size:,} bytes; expected at most {max_elements:,} numbers"
      )
    return _read_sized(archive, entry, "iuf")

  return _read_known(path, names, read_one)


def open_stored(path):
  """Opens all arrays of an .npz file as views of the file.

  Returns:
    {name: array}. The arrays are read-only. Numbers of the type V2 are bfloat16, as JAX writes them. An array
    of Python objects is an `Unread`.
  Raises:
    OSError: if the file is missing or cannot be opened.
    ValueError: if the file is damaged or no .npz file, or if an array is compressed. The message names the
      file.
  """
  found = zip_view.members(path)
  with open_regular(path) as file:
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  arrays = {}
  for info in found.values():
    raw = zip_view.view(path, data, info)
    try:
      arrays[_name_of(info)] = _view_array(raw, info.filename)
    except _ERRORS as error:
      raise ValueError(f"{path}: {str(error).splitlines()[0][:200]}") from error
  return arrays


def _view_array(raw, name):
  """Returns the array of an .npy file, given its bytes, as a view of them."""
  file = io.BytesIO(raw[: _MAX_HEADER_BYTES + 12].tobytes())
  kind, shape, is_column_first = _read_header(file, name)
  if kind[1] == "O":
    return Unread("numpy.ndarray of Python objects")
  dtype = np.dtype(ml_dtypes.bfloat16) if kind == "|V2" else np.dtype(kind)
  if dtype.kind not in "biufUV" or (dtype.kind == "V" and dtype != ml_dtypes.bfloat16):
    raise ValueError(f"{name} has type {kind} and shape {shape}")
  size, begin = math.prod(shape) * dtype.itemsize, file.tell()
  if len(raw) != begin + size:
    raise ValueError(f"{name} has {len(raw)} bytes, which does not fit its shape {shape}")
  if not size:
    return np.empty(shape, dtype)
  array = np.ndarray(shape, dtype, raw, begin, order="F" if is_column_first else "C")
  array.flags.writeable = False
  if dtype.kind == "U":
    _check_characters(name, array)
  return array


def _read_known(path, names, read_one):
  """Calls read_one(zip file, entry, size of the file) for each array in `names` that the file has.

  Returns:
    {name of the array: result of `read_one`}.
  """
  with open_regular(path) as file:
    try:
      size = os.fstat(file.fileno()).st_size
      with zipfile.ZipFile(file) as archive:
        entries = {_name_of(entry): entry for entry in archive.infolist()}
        return {name: read_one(archive, entries[name], size) for name in names if name in entries}
    except _ERRORS as error:
      text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
      raise ValueError(text) from error


def _name_of(entry):
  return entry.filename.removesuffix(".npy")


class _Header(NamedTuple):
  """The header of an array: its type, shape and order, and the size of the header itself in bytes."""

  dtype: np.dtype
  shape: tuple[int, ...]
  is_column_first: bool
  header_bytes: int


def _read_sized_header(archive, entry, kinds):
  """Returns the _Header of an entry of the zip file, if its type is of these kinds and fits its size."""
  with archive.open(entry) as file:
    dtype, shape, is_column_first = _read_header(file, entry.filename)
    header_bytes = file.tell()
  item = np.dtype(dtype) if dtype[1:2] in _KINDS else None
  if item is None or item.kind not in kinds:
    raise ValueError(f"{entry.filename} has type {dtype} and shape {shape}")
  if entry.file_size != header_bytes + math.prod(shape) * item.itemsize:
    raise ValueError(f"{entry.filename} has {entry.file_size} bytes, which does not fit its shape {shape}")
  return _Header(item, shape, is_column_first, header_bytes)


def _read_sized(archive, entry, kinds):
  """Returns the array of an entry of the zip file, if its type is of these kinds and fits its size."""
  header = _read_sized_header(archive, entry, kinds)
  with archive.open(entry) as file:
    array = np.lib.format.read_array(file, allow_pickle=False)
  if header.dtype.kind == "U":
    _check_characters(entry.filename, array, surrogates=True)
  return array


def _for_each(path, columns, visit, only=None):
  """Calls visit(zip file, entry, column) for each array, or only for the array `only`.

  Returns:
    {name of the array: result of `visit`}.
  """
  try:
    with open_regular(path) as file:
      size = os.fstat(file.fileno()).st_size
      _check_size(size, columns)
      with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        found = sorted(entry.filename for entry in entries)
        if found != sorted(f"{name}.npy" for name in columns):
          raise ValueError(f"expected the arrays {', '.join(sorted(columns))}, found {ascii(found)[:200]}")
        by_name = {entry.filename: entry for entry in entries}
        visited = {}
        for name in columns if only is None else (only,):
          entry, column = by_name[f"{name}.npy"], columns[name]
          if column.dtype.kind == "U":
            _check_stored(entry, size)
          visited[name] = visit(archive, entry, column)
        return visited
  except _ERRORS as error:
    text = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
    raise ValueError(
      f"{path}: not the table of this data set: {text}; copy this file again, or pack the data set again"
    ) from error


def _check_size(size, columns):
  # zipfile reads the list of all entries at once. So a file that is too large is refused before it is opened.
  most = sum(_most_bytes(column) + _MAX_EXTRA_BYTES for column in columns.values()) + _MAX_EXTRA_BYTES
  if size > most:
    raise ValueError(f"the file has {size} bytes, its arrays need at most {most}")


def _most_bytes(column):
  is_text = column.dtype.kind == "U"
  return math.prod(column.shape) * (MAX_TEXT_LENGTH * _CHARACTER_BYTES if is_text else _MAX_NUMBER_BYTES)


def _check_stored(entry, size):
  """Raises ValueError if an array of texts is compressed, or claims to be larger than the whole file."""
  if entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size:
    raise ValueError(
      f"{entry.filename} holds texts, {entry.file_size} bytes stored by method {entry.compress_type} in a "
      f"file of {size} bytes; expected texts that are not compressed (method 0) and not larger than the file"
    )


def _check_method(entry):
  # NumPy writes only these two methods of compression. Some other methods need gigabytes of memory.
  if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
    raise ValueError(
      f"{entry.filename} is compressed by method {entry.compress_type}, which NumPy does not write"
    )


def _check_array(archive, entry, column):
  """Raises ValueError unless an entry of the zip file is the array that `column` describes."""
  _check_method(entry)
  if entry.file_size > _most_bytes(column) + _MAX_EXTRA_BYTES:
    raise ValueError(
      f"{entry.filename} has {entry.file_size} bytes unpacked, more than shape {column.shape} needs"
    )
  with archive.open(entry) as file:
    dtype, shape, _ = _read_header(file, entry.filename)
    header_bytes = file.tell()
  is_text = column.dtype.kind == "U"
  wanted = f"texts of 1 to {MAX_TEXT_LENGTH} characters" if is_text else column.dtype
  length = int(dtype[2:]) if dtype[2:].isdigit() else 0
  if _KINDS.get(dtype[1]) != _KINDS[column.dtype.kind] or not 1 <= length <= (
    MAX_TEXT_LENGTH if is_text else _MAX_NUMBER_BYTES
  ):
    raise ValueError(f"{entry.filename} is of type {dtype}, expected {wanted}")
  if shape[:1] != column.shape[:1]:
    rows = shape[0] if shape else "no"
    raise ValueError(f"{entry.filename} has {rows} rows, the split has {column.shape[0]} records")
  if shape != column.shape:
    raise ValueError(f"{entry.filename} is of shape {shape}, expected {column.shape}")
  # NumPy would ignore bytes after the numbers. A correct file has no such bytes.
  expected = header_bytes + math.prod(shape) * length * (_CHARACTER_BYTES if is_text else 1)
  if entry.file_size != expected:
    raise ValueError(f"{entry.filename} has {entry.file_size} bytes unpacked, expected {expected}")


def _read_header(file, name):
  """Reads the header of an .npy file. Returns (type such as "<i4", shape, whether columns come first).

  NumPy evaluates the header as a Python expression, and some expressions take a long time. So this function
  compares the header with a regular expression instead.
  """
  start = file.read(8)
  length_bytes = {b"\x93NUMPY\x01\x00": 2, b"\x93NUMPY\x02\x00": 4}.get(start)
  if length_bytes is None:
    raise ValueError(f"{name} begins with {start}, which is not an .npy file of version 1.0 or 2.0")
  length = int.from_bytes(file.read(length_bytes), "little")
  text = file.read(min(length, _MAX_HEADER_BYTES))
  match = _HEADER.fullmatch(text)
  if match is None:
    raise ValueError(f"{name} has the header {text[:80]}, expected the header of an array of numbers")
  shape = tuple(int(size) for size in match[3].split(b",") if size.strip())
  return match[1].decode("ascii"), shape, match[2] == b"True"


def _read_array(archive, entry, column):
  _check_array(archive, entry, column)
  with archive.open(entry) as file:
    array = np.lib.format.read_array(file, allow_pickle=False)
  if column.dtype.kind == "U":
    _check_characters(entry.filename, array)
  return array


def _check_characters(name, texts, surrogates=False):
  """Raises ValueError if an array of texts contains numbers that are not characters.

  `surrogates` is True if single surrogates are allowed.
  """
  numbers = np.dtype(np.uint32).newbyteorder(texts.dtype.byteorder)
  codes = np.atleast_1d(texts).view(numbers)
  is_surrogate = False if surrogates else (codes >= 0xD800) & (codes < 0xE000)
  if ((codes > 0x10FFFF) | is_surrogate).any():
    raise ValueError(f"{name} holds numbers that are not characters; expected texts")
