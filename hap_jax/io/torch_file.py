"""Reads PyTorch checkpoints into NumPy arrays, without PyTorch and without running code from the file.

Both formats are read: the zip format of PyTorch 1.6 and later, and the legacy format (magic number, pickles,
storages). A storage is the block of memory that holds the elements of one or more tensors.

Arrays are read-only views of the memory-mapped file. So an optimizer state that nobody uses is never read
from the disk. An object of an unknown class, such as a path or a callback, becomes an `Unread`, which has
only the name of the class. So do tensors that are sparse, quantized or without values.
"""

import dataclasses
import math
import mmap
import pathlib
import struct
from typing import Any

import ml_dtypes
import numpy as np

from hap_jax.io import file_kind, zip_view
from hap_jax.io.pickle_machine import Constructor, Unpickler
from hap_jax.io.plain_data import AttributeDict, Unread, UnsafePickleError
from hap_jax.io.restricted_pickle import ADMITTED

_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
# A tensor may repeat the elements of its storage, as after `expand`. In this way a small file could
# describe a tensor that fills the memory. So a tensor that repeats elements may have at most this many.
_MAX_REPEATED_ELEMENTS = 1 << 20

STORAGES = {
  name: np.dtype(dtype)
  for name, dtype in (
    ("FloatStorage", "<f4"),
    ("DoubleStorage", "<f8"),
    ("HalfStorage", "<f2"),
    ("BFloat16Storage", ml_dtypes.bfloat16),
    ("LongStorage", "<i8"),
    ("IntStorage", "<i4"),
    ("ShortStorage", "<i2"),
    ("CharStorage", "i1"),
    ("ByteStorage", "u1"),
    ("BoolStorage", "?"),
    ("ComplexFloatStorage", "<c8"),
    ("ComplexDoubleStorage", "<c16"),
  )
}
# Storages of quantized tensors. Their sizes are needed to find the other storages of a file in the legacy
# format.
_QUANTIZED = {
  name: np.dtype(dtype)
  for name, dtype in (
    *(("QInt8Storage", "i1"), ("QUInt8Storage", "u1"), ("QInt32Storage", "<i4")),
    *(("QUInt4x2Storage", "u1"), ("QUInt2x4Storage", "u1")),
  )
}
_TYPES = {
  name: np.dtype(dtype)
  for name, dtype in (
    *(("float64", "<f8"), ("float32", "<f4"), ("float16", "<f2"), ("bfloat16", ml_dtypes.bfloat16)),
    *(("complex64", "<c8"), ("complex128", "<c16"), ("bool", "?")),
    *(("int64", "<i8"), ("int32", "<i4"), ("int16", "<i2"), ("int8", "i1")),
    *(("uint64", "<u8"), ("uint32", "<u4"), ("uint16", "<u2"), ("uint8", "u1")),
    ("float8_e4m3fn", ml_dtypes.float8_e4m3fn),
    ("float8_e5m2", ml_dtypes.float8_e5m2),
  )
}


@dataclasses.dataclass(frozen=True)
class Opened:
  """The content of a .pth file.

  Attributes:
    content: the saved object, see `load`.
    unread: the names of classes and functions that the file asks for and that were not read.
  """

  content: Any
  unread: tuple[str, ...]


def load(path):
  """Reads a .pth file.

  Returns:
    the saved object, usually nested dicts. Tensors and parameters become read-only NumPy arrays. The type
    bfloat16 becomes ml_dtypes.bfloat16. A torch.Size becomes a tuple. A torch.device and a torch.dtype become
    str, such as "cuda:0" and "torch.float32". A defaultdict, a Counter and an argparse.Namespace become
    dicts. Every object of another class becomes an `Unread`.
  Raises:
    UnsafePickleError: if the pickle is built in a way that no writer uses, or copies its data many times.
    ValueError: if the file is truncated, corrupt or not a PyTorch file, or if a tensor has elements outside
      its storage.
  """
  return open_file(path).content


def open_file(path):
  """Reads a .pth file and returns its `Opened`. It raises the same errors as `load`."""
  path = pathlib.Path(path)
  file_kind.check(path)
  with path.open("rb") as file:
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  return _load_zip(path, data) if data[:4] == b"PK\x03\x04" else _load_legacy(path, data)


@dataclasses.dataclass(frozen=True)
class _Storage:
  """A storage: `numel` elements that one or more tensors use. `raw` is their bytes, a view of the file."""

  raw: np.ndarray
  dtype: np.dtype
  numel: int


_STORAGE_TYPES = (*STORAGES.values(), *_QUANTIZED.values())
# This object stands for every storage while a legacy file is read for the first time.
_NOT_FOUND_YET = _Storage(np.empty(0, np.uint8), np.dtype(np.uint8), 0)


def _load_zip(path, data):
  """Returns the `Opened` of a file in the zip format.

  Raises:
    UnsafePickleError, ValueError: as in `load`.
  """
  members = zip_view.members(path)
  pickles = [name for name in members if name.endswith("/data.pkl")]
  if any(name.endswith("/constants.pkl") for name in members):
    raise ValueError(f"{path}: this is a TorchScript program: save its state_dict() with torch.save")
  if len(pickles) != 1:
    raise ValueError(
      f"{path}: expected a PyTorch checkpoint, found a zip archive with {len(pickles)} data.pkl instead of "
      "1; if other files are packed in it, unpack it"
    )
  folder = pickles[0].removesuffix("data.pkl")
  order = members.get(f"{folder}byteorder")
  if order is not None and zip_view.view(path, data, order).tobytes() != b"little":
    raise ValueError(f"{path}: written on a big-endian machine: save it again on another one")

  def storage_of(key, dtype, numel):
    info = members.get(f"{folder}data/{key}")
    if info is None:
      raise ValueError(f"storage {key!r} is not in the archive")
    raw = zip_view.view(path, data, info)
    if len(raw) != numel * dtype.itemsize:
      raise ValueError(f"storage {key!r} has {len(raw)} bytes, not {numel} elements of {dtype}")
    return _Storage(raw, dtype, numel)

  reader = _reader(path, zip_view.view(path, data, members[pickles[0]]).tobytes(), 0, storage_of)
  return Opened(reader.load(), reader.unread)


def _load_legacy(path, data):
  """Returns the `Opened` of a file in the legacy format.

  Raises:
    UnsafePickleError, ValueError: as in `load`.
  """
  head = Unpickler(data, path, ADMITTED)
  try:
    magic = head.load()
  except UnsafePickleError:
    raise
  except ValueError as error:
    raise ValueError(f"{path}: neither a zip nor a legacy PyTorch file") from error
  if type(magic) is not int or magic != _MAGIC:
    raise ValueError(f"{path}: expected a PyTorch file, found a pickle without the magic number")
  protocol, system = head.load(), head.load()
  if type(protocol) is not int or protocol != _LEGACY_PROTOCOL:
    raise ValueError(
      f"{path}: expected a legacy PyTorch file of protocol {_LEGACY_PROTOCOL}, found another protocol"
    )
  if type(system) is not dict or system.get("little_endian") is not True:
    raise ValueError(f"{path}: written on a big-endian machine: save it again on another one")
  # In the file, the storages come after the pickle that contains their types. So the pickle is read twice.
  # The first time is only to find its end and the storages that it uses.
  wanted = {}

  def record(key, dtype, numel):
    if wanted.setdefault(key, (dtype, numel)) != (dtype, numel):
      raise ValueError(f"storage {key!r} has two types or sizes")
    return _NOT_FOUND_YET

  first = _reader(path, data, head.position, record)
  first.load()
  storages = _legacy_storages(path, data, first.position, wanted)
  reader = _reader(path, data, head.position, lambda key, dtype, numel: storages[key])
  return Opened(reader.load(), reader.unread)


def _legacy_storages(path, data, position, wanted):
  """Returns {key: _Storage} of a legacy file.

  Args:
    path: the file, for messages.
    data: the content of the file.
    position: the position of the pickled list of keys. After this list, the file holds for each key the
      number of elements and then the elements.
    wanted: {key: (dtype, number of elements)} of the storages that the tensors use.
  Raises:
    ValueError: if the storages differ from `wanted`.
  """
  reader = Unpickler(data, path, ADMITTED, position=position)
  keys = reader.load()
  if type(keys) is not list or {*map(type, keys)} - {str} or sorted(keys) != sorted(wanted):
    raise ValueError(f"{path}: truncated or corrupt: its tensors use other storages than the file holds")
  storages = {}
  position = reader.position
  for key in keys:
    dtype, numel = wanted[key]
    size = numel * dtype.itemsize
    if position + 8 + size > len(data):
      raise ValueError(
        f"{path}: truncated: storage {key} needs {size} bytes, but only {len(data) - position} are left"
      )
    (stored,) = struct.unpack_from("<q", data, position)
    if stored != numel:
      raise ValueError(f"{path}: corrupt: storage {key} has {stored} elements, its tensors expect {numel}")
    storages[key] = _Storage(np.frombuffer(data, np.uint8, size, position + 8), dtype, numel)
    position += 8 + size
  return storages


def _reader(path, data, position, storage_of):
  """Returns an Unpickler for a pickle that contains tensors.

  Args:
    path: the file, for messages.
    data: bytes or mmap.
    position: position of the first byte of the pickle.
    storage_of: function (key, dtype, number of elements) -> _Storage.
  """

  def load_persistent(identifier):
    if type(identifier) is tuple and identifier[:1] == ("module",) and type(identifier[1]) is Unread:
      return identifier[1]  # the legacy format stores the source code of a module next to its class
    kind, dtype, key, _, numel, *view = identifier
    if kind != "storage" or type(key) is not str or type(numel) is not int:
      raise ValueError("a persistent id is not a storage")
    if type(dtype) is Unread:
      raise ValueError(f"storage {key!r} is a {dtype.name}, whose size is not known")
    if not isinstance(dtype, np.dtype) or dtype not in _STORAGE_TYPES:
      # The worst case is a dtype of Python objects: NumPy would use bytes of the file as memory addresses.
      raise UnsafePickleError(f"makes a storage of {type(dtype).__name__}, not of a PyTorch number")
    if numel < 0 or any(part is not None for part in view):
      raise ValueError(f"storage {key!r} has a negative size, or is a view as in PyTorch before 0.4")
    return storage_of(key, dtype, numel)

  return Unpickler(
    data, path, _TORCH_ADMITTED, position=position, persistent_load=load_persistent, skips_unknown=True
  )


# The functions that are called for the admitted names. A hostile file may call them with any arguments.


def _rebuild_tensor(storage, offset, size, stride, *_):
  """Returns a tensor as a read-only view of its storage.

  Raises:
    ValueError: if the tensor has elements outside its storage, or repeats them too often.
  """
  if storage is _NOT_FOUND_YET:
    return np.empty(0)
  if type(storage) is not _Storage:
    raise ValueError("a tensor has no storage")
  # The numbers come from the file, so all of them are checked before NumPy builds a view with them.
  if type(size) is not tuple or type(stride) is not tuple or len(size) != len(stride):
    raise ValueError(
      f"a tensor of size {size!r} and stride {stride!r}; expected two tuples of the same length"
    )
  if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
    raise ValueError(
      f"a tensor of size {size!r}, stride {stride!r} and offset {offset!r}; expected whole numbers from 0"
    )
  if 0 in size:
    return np.empty(size, storage.dtype)
  last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
  if last >= storage.numel:
    raise ValueError(
      f"a tensor of size {size} and stride {stride} reaches element {last} of a storage of {storage.numel}"
    )
  if math.prod(size) > max(storage.numel, _MAX_REPEATED_ELEMENTS):
    raise ValueError(f"a tensor of size {size} repeats a storage of {storage.numel} elements")
  itemsize = storage.dtype.itemsize
  strides = tuple(step * itemsize for step in stride)
  return np.ndarray(size, storage.dtype, storage.raw, offset * itemsize, strides)


def _rebuild_typed_tensor(storage, offset, size, stride, requires_grad, hooks, dtype, *_):
  """Returns a tensor over a storage of bytes as a read-only view. PyTorch uses it for its newer types."""
  del requires_grad, hooks
  if storage is _NOT_FOUND_YET:
    return np.empty(0)
  if type(storage) is not _Storage or storage.dtype != np.uint8:
    raise ValueError("a tensor has no storage of bytes")
  # The type is text, because the name of a type stands for its text.
  kind = _TYPES.get(dtype.removeprefix("torch.")) if type(dtype) is str else None
  if kind is None:
    raise ValueError(f"a tensor of the type {dtype!r}")
  return _rebuild_tensor(_Storage(storage.raw, kind, storage.numel // kind.itemsize), offset, size, stride)


def _rebuild_parameter(tensor, *_):
  if type(tensor) is not np.ndarray:
    raise ValueError("a parameter is not a tensor")
  return tensor


def _counter(counts=()):
  if type(counts) is not dict and counts != ():
    raise ValueError(f"a Counter of a {type(counts).__name__}")
  return counts or {}


def _default_dict(factory=None, *_):
  del factory  # it makes missing values, and nothing is missing here
  return {}


def _size(size=()):
  if type(size) is not tuple or not all(type(n) is int for n in size):
    raise ValueError(f"torch.Size of {size!r}")
  return size


def _device(kind, index=None):
  if type(kind) is not str or type(index) not in (int, type(None)):
    raise ValueError(f"torch.device of {kind!r}, {index!r}")
  return kind if index is None else f"{kind}:{index}"


_TORCH_ADMITTED = {
  **ADMITTED,
  **{("torch", name): dtype for name, dtype in {**STORAGES, **_QUANTIZED}.items()},
  ("torch.storage", "UntypedStorage"): np.dtype(np.uint8),
  **{("torch", name): f"torch.{name}" for name in _TYPES},
  ("torch", "Size"): Constructor("torch.Size", _size),
  ("torch", "device"): Constructor("torch.device", _device),
  ("torch._utils", "_rebuild_tensor"): Constructor("torch._utils._rebuild_tensor", _rebuild_tensor),
  ("torch._utils", "_rebuild_tensor_v2"): Constructor("torch._utils._rebuild_tensor_v2", _rebuild_tensor),
  ("torch._utils", "_rebuild_tensor_v3"): Constructor(
    "torch._utils._rebuild_tensor_v3", _rebuild_typed_tensor
  ),
  **{
    ("torch._utils", name): Constructor(f"torch._utils.{name}", _rebuild_parameter)
    for name in ("_rebuild_parameter", "_rebuild_parameter_with_state")
  },
  ("collections", "Counter"): Constructor("collections.Counter", _counter),
  ("collections", "defaultdict"): Constructor("collections.defaultdict", _default_dict),
  ("argparse", "Namespace"): Constructor("argparse.Namespace", lambda: AttributeDict()),
}
