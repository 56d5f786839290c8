"""Reads level-5 MAT files within fixed limits of memory, time and nesting.

A file has a header of 128 bytes, followed by elements. An element has a tag (type and number of bytes) and a
content. The content is padded to a multiple of eight bytes. A content of up to four bytes is in the tag
itself. A variable is an element that contains an array. An array has flags, dimensions and a name, followed
by numbers, characters, or further arrays (cells and structs). A variable may be compressed. Source:
MathWorks, "MAT-File Format".

Numbers keep the type that they have in the file. For logical values this is uint8. Each row of characters is
one string. So the values equal the values of `scipy.io.loadmat`, with one exception: text stored as uint16 is
read as UTF-16, as MATLAB writes it, but scipy drops the upper bytes. scipy's reader is not used, because it
crashes on damaged files and allocates as much memory as a file claims to need.
"""

import os
import struct
import zlib

from hap_jax.io.mat_array import MATRIX, MAX_BYTES, Budget, Parser, UnsupportedError

_COMPRESSED = 15
_HEADER = 128
_MAX_VARIABLES = 4096
_CHUNK = 2**20  # number of bytes that are decompressed in one step
_HOW_TO_SAVE = "expected version 5 to 7.2, as in published data sets: save it in MATLAB with save(..., '-v7')"


def read(file):
  """Returns the variables of a level-5 MAT file.

  Args:
    file: binary file that can seek.
  Returns:
    {name: array}. The arrays are writable. Cells are object arrays. Structs are arrays with one object field
    per member. MATLAB stores the workspaces of functions in a variable without a name, which is left out.
  Raises:
    UnsupportedError: if the file has level 4 or version 7.3. Also if a variable contains a sparse array, an
      object or a function. The message then contains the name of the variable.
    ValueError: if the file is damaged, has another format, or exceeds the limits of this module.
  """
  end = file.seek(0, os.SEEK_END)
  if end > MAX_BYTES:
    raise ValueError(f"it has {end:,} bytes; at most {MAX_BYTES // 2**20} MiB are read")
  file.seek(0)
  order = _byte_order(file.read(_HEADER))
  budget, variables, position = Budget(), {}, _HEADER
  while position < end:
    if len(variables) == _MAX_VARIABLES:
      raise ValueError(f"it has more than {_MAX_VARIABLES:,} variables")
    file.seek(position)
    content, position = _read_variable(file, end - position, order, budget), file.tell()
    name, value = Parser(content, order, budget).parse()
    if name in variables:
      raise ValueError(f"the variable {name!a} is there twice")
    variables[name] = value
  variables.pop("", None)
  return variables


def _byte_order(header):
  """Returns the byte order of a file, "<" or ">", from the 128 bytes at its start."""
  # A level-4 file starts with a number that has a zero byte. A level-5 file starts with text.
  if header[:4].count(0) and len(header) >= 20:
    raise UnsupportedError(f"a .mat file of level 4; {_HOW_TO_SAVE}")
  if len(header) < _HEADER:
    raise ValueError(f"a header of {len(header)} bytes; expected {_HEADER}")
  order = {b"IM": "<", b"MI": ">"}.get(header[126:])
  version = struct.unpack_from(f"{order}H", header, 124)[0] >> 8 if order else None
  if version == 2:
    raise UnsupportedError(f"a .mat file of version 7.3 (HDF5); {_HOW_TO_SAVE}")
  if version != 1:
    raise ValueError(f"the header ends with {header[124:]!r}; expected b'\\x00\\x01IM' or b'\\x01\\x00MI'")
  return order


def _read_variable(file, num_left, order, budget):
  """Returns the bytes of the variable at the file's position, decompressed. Moves the position to its end.

  Args:
    file: the open file.
    num_left: the number of bytes from the position to the end of the file.
    order: the byte order, "<" or ">".
    budget: the Budget of the file.
  """
  tag = file.read(8)
  if len(tag) < 8:
    raise ValueError(f"it ends in the tag of a variable, with {len(tag)} of 8 bytes")
  kind, size = struct.unpack(f"{order}II", tag)
  if kind not in (MATRIX, _COMPRESSED):
    raise ValueError(
      f"an element of type {kind}; expected a variable ({MATRIX}, or {_COMPRESSED} if compressed)"
    )
  if size > num_left - 8:
    raise ValueError(f"a variable needs {size:,} bytes, but only {num_left - 8:,} bytes of the file are left")
  if kind == _COMPRESSED:
    end = file.tell() + size
    content = _inflate(file, size, order, budget)
    file.seek(end)  # skips the padding after the compressed data
    return content
  budget.take_bytes(size)
  content = bytearray(8 + size)
  content[:8] = tag
  if file.readinto(memoryview(content)[8:]) != size:
    raise ValueError("it became shorter while it was read")
  return content


def _inflate(file, size, order, budget):
  """Decompresses an element of `size` bytes. Returns the variable in it as a bytearray, including its tag.

  The memory grows only with the bytes that are really decompressed. No memory is allocated for the size that
  the tag claims.
  """
  inflater, content, pending, expected = zlib.decompressobj(), bytearray(), b"", None
  while not inflater.eof:
    try:
      piece = inflater.decompress(pending, _CHUNK)
    except zlib.error as error:
      raise ValueError(f"a compressed variable is damaged: {error}") from error
    content += piece
    if expected is None and len(content) >= 8:
      kind, count = struct.unpack_from(f"{order}II", content)
      if kind != MATRIX:
        raise ValueError(f"a compressed element of type {kind}; expected a variable ({MATRIX})")
      budget.take_bytes(count)
      expected = 8 + count
    if expected is not None and len(content) > expected:
      raise ValueError(f"a compressed variable of more than the {expected:,} bytes that it announces")
    # If a piece has the full length, zlib may have more output for the same input. So new input is only read
    # after a shorter piece.
    pending = inflater.unconsumed_tail
    if not pending and len(piece) < _CHUNK and not inflater.eof:
      pending = file.read(min(size, _CHUNK // 16))
      size -= len(pending)
      if not pending:
        raise ValueError("a compressed variable ends early")
  if len(content) != expected:
    raise ValueError(f"a compressed variable of {len(content):,} bytes; expected {expected or '8 or more'}")
  return content
