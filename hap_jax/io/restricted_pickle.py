"""Reads pickles of plain data and NumPy arrays. It never imports, calls or executes what a file names.

Some data sets contain poses and file lists as pickles, and these files may come from anyone. `load` and
`load_npy` read lists, tuples, dicts, sets, strings, bytes, numbers, None, and ranges of at most a million
numbers. They also read arrays, scalars and dtypes of NumPy 1 and 2. Everything else is refused. The code in
this file builds the arrays and checks all sizes first. NumPy's own `__setstate__` is never used.
"""

import collections
import functools
import io
import math
import re
import tokenize

import numpy as np

from hap_jax.io import regular_file
from hap_jax.io.pickle_machine import Constructor, Pending, Unpickler
from hap_jax.io.plain_data import AttributeDict, UnsafePickleError, hashable

__all__ = ["ADMITTED", "UnsafePickleError", "load", "load_npy"]

# Largest length of a range. A range takes a few bytes in a file, but a caller may convert it to an array.
MAX_RANGE = 1_000_000
_MAX_DIMENSIONS = 64  # NumPy's own limit
_DTYPE = re.compile(r"\?|b1|[iu][1248]|f(?:2|4|8|12|16)|c(?:8|16|24|32)|[SU]\d{1,9}|O[48]?")


def load(file_or_path):
  """Reads one pickle.

  Args:
    file_or_path: path, or an open binary file, which is read from its position to its end.
  Returns:
    the object. Arrays are writable. A byte string of Python 2 becomes str if it is ASCII, otherwise bytes. An
    xrange of Python 2 becomes a range.
  Raises:
    UnsafePickleError: if the pickle contains anything besides the data listed at the top of this file. The
      message names the file and what the pickle asks for.
    ValueError: if the pickle is truncated or corrupt, or the path is not a regular file.
  """
  if hasattr(file_or_path, "read"):
    data, name = file_or_path.read(), getattr(file_or_path, "name", "pickle")
  else:
    data, name = regular_file.read_bytes(file_or_path), file_or_path
  return Unpickler(data, name, ADMITTED).load()


def load_npy(data, name):
  """Reads an .npy file. An array of Python objects is stored as a pickle, and is read by the rules of `load`.

  Args:
    data: bytes of the file.
    name: name of the file, for error messages.
  Returns:
    the array. It is writable.
  Raises:
    UnsafePickleError: as in `load`.
    ValueError: as in `load`, or if the file is not an .npy file.
  """
  file = io.BytesIO(data)
  read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
  try:
    shape, is_fortran, dtype = read_header[np.lib.format.read_magic(file)](file)
  except (  # NumPy evaluates the header as a Python expression, so a damaged header can raise any of these
    ValueError,
    KeyError,
    TypeError,
    SyntaxError,
    tokenize.TokenError,
    RecursionError,
    MemoryError,
  ) as error:
    raise ValueError(f"{name}: not a readable .npy file ({error})") from error
  if dtype.kind == "O":
    array = Unpickler(data, name, ADMITTED, position=file.tell()).load()
    if type(array) is not np.ndarray or array.dtype.kind != "O" or array.shape != shape:
      raise ValueError(
        f"{name}: expected an object array of shape {shape}, as in the header, but the content is different"
      )
    return array
  if dtype.hasobject:
    raise UnsafePickleError(f"{name}: refused: dtype {dtype} mixes Python objects into records")
  size = math.prod(shape) * dtype.itemsize
  try:
    return _array(data[file.tell() : file.tell() + size], dtype, shape, "F" if is_fortran else "C")
  except (ValueError, TypeError) as error:
    raise ValueError(f"{name}: truncated or corrupt: {error}") from error


def _array(raw, dtype, shape, order):
  """Returns a new array from bytes. Checks every size before NumPy gets it.

  Args:
    raw: the content, as bytes or bytearray. It is str if it was a byte string of Python 2 in ASCII.
    dtype: a dtype without Python objects.
    shape: the shape from the file, which is not checked yet.
    order: "C" or "F".
  Raises:
    ValueError: if shape, dtype and number of bytes do not fit together.
  """
  size = _num_elements(shape) * dtype.itemsize
  if type(raw) is str:
    raw = raw.encode("ascii")  # a byte string of Python 2
  if type(raw) not in (bytes, bytearray):
    raise ValueError(f"the content of an array is a {type(raw).__name__}, not bytes")
  if len(raw) != size:
    raise ValueError(f"array {shape} of {dtype} needs {size} bytes, got {len(raw)}")
  # NumPy does not check the characters of texts. If a character is outside Unicode, reading it fails later.
  if dtype.kind == "U" and size:
    points = np.frombuffer(raw, np.dtype(np.uint32).newbyteorder(dtype.byteorder))
    if points.max() > 0x10FFFF:
      raise ValueError("an array of strings has characters outside Unicode")
  # An empty buffer is an error in NumPy, even for an empty array. The copy makes the array writable.
  return np.ndarray(shape, dtype, buffer=raw or b"\0", order=order).copy(order="K")


def _num_elements(shape):
  """Returns the number of elements of an array of this shape, after checking the shape.

  Without the check, the product of a shape of a million numbers would take minutes.

  Raises:
    ValueError: if the shape is not a tuple of at most 64 whole numbers, each 0 or more.
  """
  if type(shape) is not tuple or len(shape) > _MAX_DIMENSIONS:
    raise ValueError(f"an array whose shape is not a tuple of at most {_MAX_DIMENSIONS} numbers")
  if not all(type(n) is int and 0 <= n < 2**63 for n in shape):
    raise ValueError(f"an array of shape {shape!r}; expected whole numbers from 0")
  return math.prod(shape)


def _object_array(content, shape, order):
  if type(content) is not list or _num_elements(shape) != len(content):
    raise ValueError(f"an object array of shape {shape!r} and its content differ in size")
  array = np.empty(len(content), object)
  for i, item in enumerate(content):
    array[i] = item
  return array.reshape(shape, order=order)


# The functions that are called for the admitted names. A hostile file may call them with any arguments.


def _reconstruct(subtype, *_):
  if subtype is not _NDARRAY:
    raise UnsafePickleError("makes an array of another class than numpy.ndarray")
  return Pending(_build_array)


def _build_array(state):
  shape, dtype, is_fortran, content = state[-4:]  # some versions of NumPy write a version number before these
  order = "F" if is_fortran else "C"
  if _checked_dtype(dtype).kind == "O":
    return _object_array(content, shape, order)
  return _array(content, dtype, shape, order)


def _from_buffer(raw, dtype, shape, order, axis_order=None):
  if _checked_dtype(dtype).kind == "O":
    raise ValueError("an object array cannot come from bytes")
  if axis_order is not None and order == "K":
    return _array(raw, dtype, shape, "C").transpose(axis_order)
  return _array(raw, dtype, shape, "F" if order == "F" else "C")


def _scalar(dtype, raw):
  if _checked_dtype(dtype).kind == "O":
    raise ValueError("an object cannot be a NumPy scalar")
  return _array(raw, dtype, (), "C")[()]


def _checked_dtype(dtype):
  if not isinstance(dtype, np.dtype):
    raise ValueError(f"expected a dtype, got {type(dtype).__name__}")
  return dtype


def _dtype(code, *_):
  code = code.decode("ascii") if type(code) is bytes else code
  if type(code) is not str or not _DTYPE.fullmatch(code):
    raise UnsafePickleError(f"makes a dtype {code!r}, which is not a number, string or object")
  return Pending(functools.partial(_build_dtype, code))


def _build_dtype(code, state):
  # With fields or a sub-array, a dtype could describe memory outside its array, so both are refused.
  byte_order, fields = state[1], state[2:5]
  byte_order = byte_order.decode("ascii") if type(byte_order) is bytes else byte_order
  if byte_order not in ("<", ">", "|", "=") or any(field is not None for field in fields):
    raise UnsafePickleError(f"gives the dtype {code!r} fields or the byte order {byte_order!r}")
  return np.dtype(code).newbyteorder(byte_order)


def _ordered_dict(pairs=()):
  # A pickle of Python 2 passes the items as the argument. A pickle of Python 3 sets the items afterwards.
  if type(pairs) not in (list, tuple) or not all(
    type(pair) in (list, tuple) and len(pair) == 2 for pair in pairs
  ):
    raise ValueError("the items of an OrderedDict are not pairs")
  hashable([key for key, _ in pairs])
  return collections.OrderedDict(pairs)


def _encode(text, encoding):
  if type(text) is not str or encoding not in ("latin1", "latin-1"):
    raise UnsafePickleError(f"calls _codecs.encode with the encoding {encoding!r}")
  return text.encode("latin-1")


def _bytearray(content=b"", encoding="latin-1"):
  if type(content) is str:
    content = _encode(content, encoding)
  if type(content) not in (bytes, bytearray):
    raise ValueError("a bytearray of something else than bytes")  # bytearray(n) allocates n zero bytes
  return bytearray(content)


def _range(*bounds):
  """Returns the range for the arguments of a range of Python 3 or an xrange of Python 2.

  Raises:
    UnsafePickleError: if the range is longer than `MAX_RANGE`.
    ValueError: if the bounds are not one to three whole numbers below 2**62.
  """
  if not 1 <= len(bounds) <= 3 or not all(type(bound) is int and abs(bound) < 2**62 for bound in bounds):
    raise ValueError("a range whose bounds are not one to three whole numbers below 2**62")
  made = range(*bounds)
  if len(made) > MAX_RANGE:
    raise UnsafePickleError(f"makes a range of {len(made):,} numbers; at most {MAX_RANGE:,} are read")
  return made


def _set(kind):
  def construct(items=()):
    if type(items) not in (list, tuple):
      raise ValueError(f"a {kind.__name__} of a {type(items).__name__}")
    return kind(hashable(items))

  return construct


def _admit(modules, name, construct):
  return {(module, name): Constructor(f"{module}.{name}", construct) for module in modules}


_NDARRAY = Constructor("numpy.ndarray", None)
_BUILTINS = ("builtins", "__builtin__")  # the module's names in Python 3 and Python 2
# {(module, name in a pickle): Constructor}. Every other name is refused.
ADMITTED = {
  ("numpy", "ndarray"): _NDARRAY,
  **_admit(["numpy"], "dtype", _dtype),
  **_admit(["numpy.core.multiarray", "numpy._core.multiarray"], "_reconstruct", _reconstruct),
  **_admit(["numpy.core.multiarray", "numpy._core.multiarray"], "scalar", _scalar),
  **_admit(["numpy.core.numeric", "numpy._core.numeric"], "_frombuffer", _from_buffer),
  **_admit(["collections"], "OrderedDict", _ordered_dict),
  **_admit(["_codecs"], "encode", _encode),
  # An EasyDict is a dict whose items are also attributes. Its pickle holds both, and they are equal.
  **_admit(["easydict"], "EasyDict", lambda: AttributeDict()),
  **_admit(["builtins"], "range", _range),
  **_admit(["__builtin__"], "xrange", _range),  # the name in Python 2, which protocols 0 to 2 use
  **_admit(_BUILTINS, "set", _set(set)),
  **_admit(_BUILTINS, "frozenset", _set(frozenset)),
  **_admit(_BUILTINS, "bytearray", _bytearray),
  **_admit(_BUILTINS, "bytes", lambda: b""),
  **_admit(_BUILTINS, "complex", lambda real, imag: complex(float(real), float(imag))),
}
