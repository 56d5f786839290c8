"""The stack machine of the pickle format, for plain data and a short list of admitted names.

A pickle is a program for a small stack machine. Python's own unpickler runs it with the real classes. To
allow only some names there is not enough. A hostile file could still call NumPy's functions in C that set the
state of an object, for example with a dtype that points outside its array. It could assign attributes, fill
huge memo tables, or nest keys so deeply that hashing them crashes the process.

The machine in this file imports nothing. A name that a pickle may use is called an admitted name. It stands
for a `Constructor` or a harmless value of this project, never for the real class. Every other name is
refused, or it stands for an `Unread`, which has no content. Every length is compared with the length of the
file. Work and memory are at most a constant times the length of the file.
"""

import codecs
import collections
import dataclasses
import pickle  # only for the names of the opcodes
import struct
from collections.abc import Callable

import numpy as np

from hap_jax.io.plain_data import AttributeDict, Unread, UnsafePickleError, checked, hashable

_DICTS = (dict, collections.OrderedDict, AttributeDict)
_CORRUPT = (ValueError, TypeError, LookupError, ArithmeticError, EOFError, RecursionError, struct.error)
# NumPy frees nested object arrays by recursion in C. Thousands of levels would overflow the stack.
_MAX_ARRAY_NESTING = 8
# A file can use a value again with only two bytes, and a call can then copy the value. So the copied bytes
# are limited to this multiple of the file's length. Real files need less than nine times their length:
# protocol 2 copies the bytes of an array once before the array is built, and an object array of None takes
# eight times its bytes in the file.
_MAX_COPIED_SHARE = 16
# Limits of the names that are not admitted: their number, and the characters that are kept of each. Two short
# texts of a file make a name, so without limits a small file could make many long names.
_MAX_UNREAD = 10_000
_MAX_NAME = 200


@dataclasses.dataclass(frozen=True)
class Constructor:
  """The object that an admitted name stands for.

  Attributes:
    name: the full name, for messages.
    construct: the function that runs when the pickle calls the object of this name. The function checks the
      arguments that it gets. None: the pickle must not call the object.
  """

  name: str
  construct: Callable | None


class Pending:
  """An object that the pickle has created but not yet filled.

  The opcode BUILD calls `build` with the state from the file. The result of `build` becomes `value`.
  """

  def __init__(self, build):
    self.build = build
    self.value = None


class Unpickler:
  """The stack machine for the pickles in one buffer. After `load`, `position` is the end of the pickle."""

  def __init__(self, data, name, admitted, *, position=0, persistent_load=None, skips_unknown=False):
    """Prepares the machine.

    Args:
      data: bytes or mmap.
      name: the name of the file, for messages.
      admitted: {(module, name): Constructor, or a harmless value that the name stands for}.
      position: position of the first byte of the pickle.
      persistent_load: function of a persistent id (plain data) that returns an object. None: persistent ids
        are refused.
      skips_unknown: True: a name that is not admitted, and every object that the pickle makes with it,
        becomes an `Unread`. False: such a name is refused.
    """
    self.data = data
    self.name = name
    self.position = position
    self._admitted = admitted
    self._persistent_load = persistent_load
    self._skips_unknown = skips_unknown
    self._size = len(data)
    self._unread = {}  # {(module, name): Unread}

  @property
  def unread(self):
    """Returns the names that the pickle asked for and that were not read, as a tuple."""
    return tuple(item.name for item in self._unread.values())

  def load(self):
    """Returns the object of the pickle at `position`.

    Raises:
      UnsafePickleError: if the pickle asks for anything besides data and the admitted names.
      ValueError: if the pickle is truncated or corrupt.
    """
    self.stack, self._marks, self.memo, self._nesting = [], [], {}, {}
    self._budget = _MAX_COPIED_SHARE * self._size + 4096
    start = self.position
    try:
      return checked(self._run(), also=(Constructor,) if self._skips_unknown else ())
    except UnsafePickleError as error:
      raise UnsafePickleError(
        f"{self.name}: refused: the pickle {error}. Only plain data and arrays are read; nothing was executed"
      ) from None
    except _CORRUPT as error:
      raise ValueError(
        f"{self.name}: truncated or corrupt pickle (from byte {start}, stopped at {self.position}): {error}"
      ) from error

  def _run(self):
    data, size = self.data, self._size
    while self.position < size:
      opcode = data[self.position]
      self.position += 1
      if opcode == _STOP:
        return self.stack.pop()
      handler = _HANDLERS.get(opcode)
      if handler is None:
        if opcode in _REFUSED:
          raise UnsafePickleError(_REFUSED[opcode])
        raise ValueError(f"there is no opcode {opcode:#04x}")
      handler(self)
    raise EOFError("the file ends early")

  # Bytes

  def take(self, count):
    start, end = self.position, self.position + count
    if count < 0 or end > self._size:
      raise EOFError(f"{count} bytes are announced, {self._size - start} are left")
    self.position = end
    return self.data[start:end]

  def number(self, layout):
    value = layout.unpack_from(self.data, self.position)[0]
    self.position += layout.size
    return value

  def line(self):
    end = self.data.find(b"\n", self.position)
    if end < 0:
      raise EOFError("the file ends early")
    line = self.take(end - self.position)
    self.position += 1
    return line

  # Containers

  def push(self, value):
    self.stack.append(value)

  def mark(self):
    self._marks.append(self.stack)
    self.stack = []

  def pop_mark(self):
    items = self.stack
    self.stack = self._marks.pop()
    return items

  def pop(self):
    return self.stack.pop() if self.stack else self.pop_mark()

  def pop_items(self, count):
    if len(self.stack) < count:
      raise ValueError("the stack is empty")
    items = self.stack[-count:]
    del self.stack[-count:]
    return items

  def extend(self, items):
    target = self.stack[-1]
    if type(target) is Unread:
      return
    if type(target) is not list:
      raise UnsafePickleError(f"appends to a {type(target).__name__}")
    target.extend(items)

  def set_items(self, items):
    target = self.stack[-1]
    if type(target) is Unread:
      return
    if type(target) not in _DICTS:
      raise UnsafePickleError(f"sets items of a {type(target).__name__}")
    target.update(_pairs(items))

  def add_items(self, items):
    target = self.stack[-1]
    if type(target) is Unread:
      return
    if type(target) is not set:
      raise UnsafePickleError(f"adds items to a {type(target).__name__}")
    target.update(hashable(items))

  def get(self, index):
    value = self.memo[index]
    # The memo contains a Pending, if the pickle stored the object before it was filled.
    if type(value) is Pending:
      if value.value is None:
        raise ValueError("an array contains itself")
      value = value.value
    self.stack.append(value)

  # Names and objects

  def push_global(self, module, name):
    is_text = type(module) is str and type(name) is str
    if is_text and (module, name) in self._admitted:
      self.stack.append(self._admitted[module, name])
    elif is_text and self._skips_unknown:
      self.stack.append(self._unread_of(module, name))
    else:
      raise UnsafePickleError(f"asks for {module}.{name}")

  def _unread_of(self, module, name):
    """Returns the `Unread` of a name. All objects of one name are the same `Unread`, to save memory."""
    if (module, name) not in self._unread:
      if len(self._unread) >= _MAX_UNREAD:
        raise UnsafePickleError(f"asks for more than {_MAX_UNREAD:,} names")
      text = f"{module:.{_MAX_NAME}}.{name:.{_MAX_NAME}}" if module else name
      self._unread[module, name] = Unread(text)
    return self._unread[module, name]

  def call(self):
    function, arguments = self.pop_items(2)
    if type(function) is Unread and type(arguments) is tuple:
      self.stack.append(function)
      return
    if type(function) is not Constructor or function.construct is None or type(arguments) is not tuple:
      raise UnsafePickleError(f"calls {getattr(function, 'name', type(function).__name__)}")
    try:
      made = self._paid(function.construct(*arguments))
    except _CORRUPT:
      if not _has_unread(arguments):
        raise
      made = self._unread_of("", function.name)  # the object depends on something that was not read
    self.stack.append(made)

  def build(self):
    target, state = self.pop_items(2)
    if type(target) is Unread:
      self.stack.append(target)
      return
    if type(target) is Pending and target.value is None:
      try:
        target.value = self._paid(target.build(state))
      except _CORRUPT:
        if not _has_unread(state):
          raise
        target.value = self._unread_of("", "numpy.ndarray")
      self._check_nesting(target.value)
      target = target.value
    elif isinstance(target, AttributeDict) and type(state) is dict:
      target.update(state)
      self._paid(target)
    elif type(target) is not collections.OrderedDict or type(state) is not dict:
      # Attributes of an OrderedDict are dropped. PyTorch gives a state dict the attribute `_metadata`.
      raise UnsafePickleError(f"sets the state of a {type(target).__name__}")
    self.stack.append(target)

  def _paid(self, value):
    """Subtracts the size of a new value from the budget, and returns the value.

    The size of a view of the file is not subtracted, because it needs no memory. Such views are read-only.

    Raises:
      UnsafePickleError: if the budget is used up.
    """
    if type(value) is np.ndarray:
      self._budget -= value.nbytes if value.flags.writeable else 0
    elif isinstance(value, set | frozenset | bytes | bytearray | AttributeDict | collections.OrderedDict):
      self._budget -= len(value)
    if self._budget < 0:
      raise UnsafePickleError(f"copies its data to more than {_MAX_COPIED_SHARE} times the size of the file")
    return value

  def _check_nesting(self, array):
    if type(array) is not np.ndarray or array.dtype != object:
      return
    children = (child for child in array.flat if type(child) is np.ndarray)
    depth = 1 + max((self._nesting.get(id(child), (0,))[0] for child in children), default=0)
    if depth > _MAX_ARRAY_NESTING:
      raise UnsafePickleError(f"nests object arrays deeper than {_MAX_ARRAY_NESTING}")
    self._nesting[id(array)] = depth, array  # the array stays alive, so that no other object gets its id

  def load_persistent(self, identifier):
    if self._persistent_load is None:
      raise UnsafePickleError("uses a persistent id")
    self.stack.append(self._persistent_load(identifier))


def _has_unread(arguments):
  return isinstance(arguments, tuple | list) and any(type(item) is Unread for item in arguments)


def _pairs(items):
  if len(items) % 2:
    raise ValueError("a dict has a key without a value")
  return zip(hashable(items[::2]), items[1::2], strict=True)


# Opcodes

_UINT8, _UINT16, _UINT32, _UINT64 = (struct.Struct(f"<{code}") for code in "BHIQ")
_INT32, _FLOAT64 = struct.Struct("<i"), struct.Struct(">d")


def _content(layout, convert):
  """Returns the handler of an opcode that is followed by a length n and n bytes."""
  # Lists of millions of strings are common, so this handler appends directly and calls no `push`.
  return lambda m: m.stack.append(convert(m.take(m.number(layout))))


def _number(layout):
  return lambda m: m.push(m.number(layout))


def _constant(value):
  return lambda m: m.push(value)


def _put(m, index):
  m.memo[index] = m.stack[-1]


def _protocol(m):
  version = m.number(_UINT8)
  if version > pickle.HIGHEST_PROTOCOL:
    raise ValueError(f"pickle protocol {version}")


def _frame(m):
  size = m.number(_UINT64)
  m.take(size)  # raises EOFError if the frame is incomplete
  m.position -= size


def _bool_or_int(line):
  return line == b"01" if line in (b"00", b"01") else int(line)


def _quoted_string(m):
  line = m.line().strip()
  if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
    raise ValueError("a string without quotes")
  m.push(_byte_string(codecs.escape_decode(line[1:-1])[0]))


def _global_of_lines(m):
  module = m.line().decode()
  m.push_global(module, m.line().decode())


def _instance_of_lines(m):
  module = m.line().decode()
  raise UnsafePickleError(f"makes an object of {module}.{m.line().decode()}")


def _text(content):
  return str(content, "utf-8", "surrogatepass")


def _byte_string(content):
  # Python 2 used one type for bytes and text. ASCII bytes were most likely meant as text.
  return content.decode("ascii") if content.isascii() else content


def _long(content):
  return int.from_bytes(content, "little", signed=True)


_STOP = pickle.STOP[0]
# {opcode: handler}, where a handler is a function of the Unpickler.
_HANDLERS = {
  opcode[0]: handler
  for opcode, handler in (
    (pickle.PROTO, _protocol),
    (pickle.FRAME, _frame),
    (pickle.MARK, Unpickler.mark),
    (pickle.POP, Unpickler.pop),
    (pickle.POP_MARK, Unpickler.pop_mark),
    (pickle.MEMOIZE, lambda m: _put(m, len(m.memo))),
    (pickle.BINPUT, lambda m: _put(m, m.number(_UINT8))),
    (pickle.LONG_BINPUT, lambda m: _put(m, m.number(_UINT32))),
    (pickle.PUT, lambda m: _put(m, int(m.line()))),
    (pickle.BINGET, lambda m: m.get(m.number(_UINT8))),
    (pickle.LONG_BINGET, lambda m: m.get(m.number(_UINT32))),
    (pickle.GET, lambda m: m.get(int(m.line()))),
    (pickle.NONE, _constant(None)),
    (pickle.NEWTRUE, _constant(True)),
    (pickle.NEWFALSE, _constant(False)),
    (pickle.INT, lambda m: m.push(_bool_or_int(m.line()))),
    (pickle.BININT, _number(_INT32)),
    (pickle.BININT1, _number(_UINT8)),
    (pickle.BININT2, _number(_UINT16)),
    (pickle.LONG, lambda m: m.push(int(m.line().rstrip(b"L")))),
    (pickle.LONG1, _content(_UINT8, _long)),
    (pickle.LONG4, _content(_INT32, _long)),
    (pickle.FLOAT, lambda m: m.push(float(m.line()))),
    (pickle.BINFLOAT, _number(_FLOAT64)),
    (pickle.STRING, _quoted_string),
    (pickle.BINSTRING, _content(_INT32, _byte_string)),
    (pickle.SHORT_BINSTRING, _content(_UINT8, _byte_string)),
    (pickle.UNICODE, lambda m: m.push(str(m.line(), "raw-unicode-escape"))),
    (pickle.BINUNICODE, _content(_UINT32, _text)),
    (pickle.SHORT_BINUNICODE, _content(_UINT8, _text)),
    (pickle.BINUNICODE8, _content(_UINT64, _text)),
    (pickle.BINBYTES, _content(_UINT32, bytes)),
    (pickle.SHORT_BINBYTES, _content(_UINT8, bytes)),
    (pickle.BINBYTES8, _content(_UINT64, bytes)),
    (pickle.BYTEARRAY8, _content(_UINT64, bytearray)),
    (pickle.EMPTY_LIST, lambda m: m.push([])),
    (pickle.EMPTY_DICT, lambda m: m.push({})),
    (pickle.EMPTY_SET, lambda m: m.push(set())),
    (pickle.EMPTY_TUPLE, _constant(())),
    (pickle.TUPLE1, lambda m: m.push(tuple(m.pop_items(1)))),
    (pickle.TUPLE2, lambda m: m.push(tuple(m.pop_items(2)))),
    (pickle.TUPLE3, lambda m: m.push(tuple(m.pop_items(3)))),
    (pickle.TUPLE, lambda m: m.push(tuple(m.pop_mark()))),
    (pickle.LIST, lambda m: m.push(m.pop_mark())),
    (pickle.FROZENSET, lambda m: m.push(frozenset(hashable(m.pop_mark())))),
    (pickle.DICT, lambda m: m.push(dict(_pairs(m.pop_mark())))),
    (pickle.APPEND, lambda m: m.extend(m.pop_items(1))),
    (pickle.APPENDS, lambda m: m.extend(m.pop_mark())),
    (pickle.SETITEM, lambda m: m.set_items(m.pop_items(2))),
    (pickle.SETITEMS, lambda m: m.set_items(m.pop_mark())),
    (pickle.ADDITEMS, lambda m: m.add_items(m.pop_mark())),
    (pickle.GLOBAL, _global_of_lines),
    (pickle.STACK_GLOBAL, lambda m: m.push_global(*m.pop_items(2))),
    (pickle.REDUCE, Unpickler.call),
    (pickle.NEWOBJ, Unpickler.call),
    (pickle.BUILD, Unpickler.build),
    (pickle.PERSID, lambda m: m.load_persistent(m.line().decode("ascii"))),
    (pickle.BINPERSID, lambda m: m.load_persistent(m.stack.pop())),
    (pickle.INST, _instance_of_lines),
  )
}
# {opcode: text for the error message}. The pickle format has these opcodes, but plain data never needs them.
_REFUSED = {
  opcode[0]: text
  for text, opcodes in (
    ("makes an object of a class", (pickle.OBJ, pickle.NEWOBJ_EX)),
    ("uses an extension code", (pickle.EXT1, pickle.EXT2, pickle.EXT4)),
    ("uses a buffer outside the file", (pickle.NEXT_BUFFER, pickle.READONLY_BUFFER)),
    ("duplicates a value on the stack, which no writer does", (pickle.DUP,)),
  )
  for opcode in opcodes
}
