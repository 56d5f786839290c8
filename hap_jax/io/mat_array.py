"""Parses one variable of a level-5 MAT file. `mat_level5` describes the format.

Every size in the file is compared with the number of remaining bytes before memory is allocated.
"""

import dataclasses
import math
import struct
import typing

import numpy as np

# Most bytes of all variables of a file, including the extra memory for text and complex numbers.
MAX_BYTES = 512 * 2**20
# Most cell elements, struct fields and field names of a file. PA-100K has 100,026 cell elements.
MAX_VALUES = 2**19
_MAX_NESTING = 32
_MAX_DIMENSIONS = 32
_MAX_NAME = 255  # bytes of a name. MATLAB allows 63
_CHARACTER_COST = 12  # bytes of memory per character: a string, its array, a copy of the array in row order
_SMALLEST_ARRAY = 8  # bytes in the file

# Types of elements, by their numbers in the format
_INT8, _UINT8, _UINT16, _INT32, _UINT32 = 1, 2, 4, 5, 6
MATRIX = 14
_UTF8, _UTF16, _UTF32 = 16, 17, 18
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_BYTE_TEXTS = {_INT8: "ascii", _UINT8: "ascii", _UTF8: "utf-8"}
_WORD_TEXTS = {_UINT16: "utf-16", _UTF16: "utf-16", _UTF32: "utf-32"}

# Classes of arrays, by their numbers in the format
_CELL, _STRUCT, _CHAR, _OPAQUE = 1, 2, 4, 17
_NUMERIC = range(6, 16)
_REFUSED = {3: "an object", 5: "a sparse array", 16: "a function", 17: "an object", 18: "an object"}


class UnsupportedError(ValueError):
  """Raised if the file is correct, but contains a kind of value that this module does not read."""


@dataclasses.dataclass
class Budget:
  """The numbers of bytes and of values that the rest of a file may still use."""

  num_bytes: int = MAX_BYTES
  num_values: int = MAX_VALUES

  def take_bytes(self, count):
    """Subtracts bytes from the budget. Raises ValueError if too few are left."""
    self.num_bytes -= count
    if self.num_bytes < 0:
      raise ValueError(f"its variables need more than {MAX_BYTES // 2**20} MiB")

  def take_values(self, count):
    """Subtracts values from the budget. Raises ValueError if too few are left."""
    self.num_values -= count
    if self.num_values < 0:
      raise ValueError(f"it has more than {MAX_VALUES:,} cell elements, struct fields and field names")


class _Header(typing.NamedTuple):
  """The facts about an array that precede its content in the file.

  Attributes:
    kind: number of the class of the array.
    is_complex: True if the array has an imaginary part.
    dims: the dimensions.
    size: the product of the dimensions.
    name: the name of the variable. It is empty for an array inside a cell or a struct.
  """

  kind: int
  is_complex: bool
  dims: tuple[int, ...]
  size: int
  name: bytes


class Parser:
  """Parses one variable. Each method reads bytes at `position`, and moves `position` to their end."""

  def __init__(self, content, order, budget):
    """Prepares the parser.

    Args:
      content: bytearray of a variable, including its tag.
      order: the byte order, "<" or ">".
      budget: the Budget of the file.
    """
    self.content = content
    self.position = 0
    self.budget = budget
    self.tag = struct.Struct(f"{order}II")
    self.order = order
    self.numbers = {kind: np.dtype(code).newbyteorder(order) for kind, code in _NUMBERS.items()}
    self.codecs = _BYTE_TEXTS | {
      kind: f"{codec}-{'le' if order == '<' else 'be'}" for kind, codec in _WORD_TEXTS.items()
    }
    self.trail = []  # path to the current array: name of the variable, then field names and cell indices

  def parse(self):
    """Returns (name, array) of the variable.

    Raises:
      UnsupportedError: if the variable contains a kind of array that this module does not read.
      ValueError: if the variable is damaged, or needs more than the budget.
    """
    self.budget.take_values(1)
    try:
      name, value = self._array(len(self.content), top=True)
      return name.decode("latin-1"), value
    except UnsupportedError as error:
      raise UnsupportedError(
        f"the variable {self._place()} {error}; expected numbers, logical values, text, cells and "
        "structs: remove it from the file"
      ) from error
    except (ValueError, TypeError, MemoryError) as error:  # NumPy raises the last two for extreme dimensions
      raise ValueError(f"variable {self._place() or '(no name)'}: {error}") from error

  def _place(self):
    """Returns the place of the current array in MATLAB's notation, such as a.b{3}."""
    parts = (f"{{{part + 1}}}" if type(part) is int else part for part in self.trail)
    # Line breaks in a name are escaped, so that an error message has only one line.
    return "".join(parts).encode("unicode_escape").decode()

  def _element(self, end):
    """Reads a tag. Returns (type, start of the content, end of the content)."""
    start = self.position + 8
    if start > end:
      raise ValueError(f"{end - self.position} bytes are left where an element was expected")
    kind, size = self.tag.unpack_from(self.content, self.position)
    if kind > 0xFFFF:  # a small element: size, type and content are all in these eight bytes
      kind, size = kind & 0xFFFF, kind >> 16
      if size > 4:
        raise ValueError(f"a small element of {size} bytes; expected at most 4")
      self.position = start
      return kind, start - 4, start - 4 + size
    stop = start + size
    if stop > end:
      raise ValueError(f"an element of {size:,} bytes, but {end - start:,} bytes are left")
    after = stop + -size % 8
    self.position = after if after < end else end  # some programs do not pad the last element
    return kind, start, stop

  def _array(self, end, top=False):
    """Reads an array. Returns the array if `top` is False, (name, array) if `top` is True.

    Args:
      end: the position where the enclosing array ends.
      top: True for the variable itself, False for an array in a cell or a struct.
    """
    kind, start, stop = self._element(end)
    if kind != MATRIX:
      raise ValueError(f"an element of type {kind}; expected type {MATRIX}, an array")
    if start == stop and not top:
      return np.zeros((1, 0))  # a cell element or struct field that was never set
    if len(self.trail) > _MAX_NESTING:
      raise ValueError(f"cells and structs are nested deeper than {_MAX_NESTING}")
    # `after` is the position behind this element and its padding. The content comes before it.
    after, self.position = self.position, start
    header = self._header(stop)
    if top:
      self.trail.append(header.name.decode("latin-1"))
    if header.kind in _REFUSED:
      raise UnsupportedError(f"is {_REFUSED[header.kind]}")
    if header.kind == _CELL:
      value = self._cells(header, stop)
    elif header.kind == _STRUCT:
      value = self._records(header, stop)
    elif header.kind == _CHAR:
      value = self._text(header, stop)
    elif header.kind in _NUMERIC:
      value = self._numbers(header, stop)
    else:
      raise ValueError(f"an array of class {header.kind}; expected 1 to 18")
    if self.position != stop:
      raise ValueError(f"{stop - self.position:,} bytes are left over at its end")
    self.position = after
    return (header.name, value) if top else value

  def _header(self, end):
    kind, start, stop = self._element(end)
    if kind != _UINT32 or stop - start != 8:
      raise ValueError(f"array flags of type {kind} and {stop - start} bytes; expected {_UINT32} and 8")
    flags, _ = self.tag.unpack_from(self.content, start)
    array_kind = flags & 0xFF
    # An opaque array has no dimensions. Its name is read, because the error message contains it.
    dims = () if array_kind == _OPAQUE else self._dimensions(end)
    return _Header(array_kind, bool(flags & 0x800), dims, math.prod(dims), self._name(end, _MAX_NAME))

  def _dimensions(self, end):
    kind, start, stop = self._element(end)
    number, remainder = divmod(stop - start, 4)
    if kind not in (_INT32, _UINT32) or remainder or not 2 <= number <= _MAX_DIMENSIONS:
      raise ValueError(
        f"dimensions of type {kind} and {stop - start} bytes; expected 2 to {_MAX_DIMENSIONS} int32"
      )
    dims = struct.unpack_from(f"{self.order}{number}i", self.content, start)
    if min(dims) < 0:
      raise ValueError(f"dimensions {dims}; expected none below 0")
    return dims

  def _name(self, end, limit):
    """Returns the bytes of a name, or of all field names of a struct."""
    kind, start, stop = self._element(end)
    if kind not in (_INT8, _UTF8) or stop - start > limit:
      raise ValueError(
        f"a name of type {kind} and {stop - start} bytes; expected {_INT8} and at most {limit}"
      )
    return bytes(self.content[start:stop])

  def _check_room(self, count, end):
    # An array takes at least the eight bytes of a tag, so the remaining bytes limit the number of arrays.
    if count * _SMALLEST_ARRAY > end - self.position:
      raise ValueError(f"it announces {count:,} arrays, but only {end - self.position:,} bytes are left")

  def _cells(self, header, end):
    count, trail = header.size, self.trail
    self._check_room(count, end)
    self.budget.take_values(count)
    cells = np.empty(count, object)
    for i in range(count):
      trail.append(i)
      cells[i] = self._array(end)
      trail.pop()
    return cells.reshape(header.dims, order="F")

  def _records(self, header, end):
    names = self._field_names(end)
    count = header.size
    self._check_room(count * len(names), end)
    self.budget.take_values(count * max(1, len(names)))
    if not names:
      return np.empty(count, object).reshape(header.dims, order="F")
    records = np.empty(count, [(name, object) for name in names])
    # records[name] makes a view, which is slow. So each view is made once per field, not once per record.
    columns = [(f".{name}", records[name]) for name in names]
    for i in range(count):
      for name, column in columns:
        self.trail.append(name)
        column[i] = self._array(end)
        self.trail.pop()
    return records.reshape(header.dims, order="F")

  def _field_names(self, end):
    kind, start, stop = self._element(end)
    # All names are in one block of bytes. Each name is padded with zeros to the same width.
    width = struct.unpack_from(f"{self.order}i", self.content, start)[0] if stop - start == 4 else 0
    if kind not in (_INT32, _UINT32) or not 0 < width <= _MAX_NAME:
      raise ValueError(f"field names of {width} bytes each; expected 1 to {_MAX_NAME}, as one int32")
    raw = self._name(end, MAX_BYTES)
    if len(raw) % width:
      raise ValueError(f"field names of {width} bytes each in {len(raw):,} bytes")
    self.budget.take_values(len(raw) // width)
    names = [raw[i : i + width].partition(b"\0")[0].decode() for i in range(0, len(raw), width)]
    if not all(names) or len(set(names)) < len(names):
      raise ValueError("a struct has an empty field name, or the same one twice")
    return names

  def _numbers(self, header, end):
    value = self._part(header, end)
    if not header.is_complex:
      return value
    imaginary = self._part(header, end)
    dtype = np.dtype(np.complex64 if value.itemsize == 4 else np.complex128)
    self.budget.take_bytes(header.size * dtype.itemsize)
    value = value.astype(dtype)
    value.imag = imaginary
    return value

  def _part(self, header, end):
    """Returns the real or the imaginary part of an array of numbers, as a view of `content`."""
    kind, start, stop = self._element(end)
    dtype = self.numbers.get(kind)
    if dtype is None:
      raise ValueError(f"numbers of type {kind}; expected one of {', '.join(map(str, _NUMBERS))}")
    needed = header.size * dtype.itemsize
    if needed != stop - start:
      raise ValueError(
        f"an array of shape {header.dims} and type {dtype} needs {needed:,} bytes, found {stop - start:,}"
      )
    return np.ndarray(header.dims, dtype, self.content, start, order="F")

  def _text(self, header, end):
    """Reads an array of characters. Each row becomes one string, so the last dimension disappears."""
    kind, start, stop = self._element(end)
    if start == stop:
      self.budget.take_values(header.size)
      text = " " * header.size  # some programs do not write the bytes of blank text
    else:
      if kind not in self.codecs:
        raise ValueError(f"characters of type {kind}; expected one of {', '.join(map(str, self.codecs))}")
      self.budget.take_bytes(_CHARACTER_COST * (stop - start))
      text = str(memoryview(self.content)[start:stop], self.codecs[kind], "replace")
    if len(text) != header.size:
      raise ValueError(f"text of shape {header.dims} needs {header.size:,} characters, found {len(text):,}")
    width = header.dims[-1]
    if text and header.dims == (1, width):  # one row of text is the common case
      return np.array([text], "U")
    characters = np.ndarray(header.dims, "U1", np.array(text, "U"), order="F")
    if not width:  # NumPy has no type for strings of length 0, so the view below is not possible
      return characters.reshape(*header.dims[:-2], 0)
    return np.ascontiguousarray(characters).view(f"U{width}").reshape(header.dims[:-1])
