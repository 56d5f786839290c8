"""Writes PyTorch files byte by byte, for tests where PyTorch is not installed."""

import dataclasses
import io
import pickle
import struct
import zipfile

import numpy as np

_STORAGE_NAMES = {"float32": "FloatStorage", "float64": "DoubleStorage", "int64": "LongStorage"}
_MAGIC = 0x1950A86A20F9469CFC6C


@dataclasses.dataclass
class Tensor:
  """A view of a 1-D array that other views may share. Stride and offset count elements, as in PyTorch."""

  storage: np.ndarray
  offset: int
  size: tuple
  stride: tuple


@dataclasses.dataclass
class Raw:
  """Opcodes that push one value. They are written without a change."""

  opcodes: bytes


def contiguous(array):
  """Returns the Tensor of a whole array."""
  stride = tuple(step // array.itemsize for step in np.asarray(array, order="C").strides)
  return Tensor(array.ravel(), 0, array.shape, stride)


def zip_file(value, folder="archive"):
  """Returns the bytes of a zip-format file of nested dicts, arrays, Tensors, Raw and plain data."""
  storages = []
  body = _program(value, storages)
  file = io.BytesIO()
  with zipfile.ZipFile(file, "w") as archive:
    archive.writestr(f"{folder}/data.pkl", body)
    archive.writestr(f"{folder}/byteorder", "little")
    for i, storage in enumerate(storages):
      archive.writestr(f"{folder}/data/{i}", storage.tobytes())
    archive.writestr(f"{folder}/version", "3\n")
  return file.getvalue()


def legacy_file(value):
  """Returns the bytes of a file in the format of PyTorch before 1.6. For the argument, see `zip_file`."""
  storages = []
  body = _program(value, storages)
  system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
  parts = [pickle.dumps(part, 2) for part in (_MAGIC, 1001, system)]
  parts += [body, pickle.dumps([str(i) for i in range(len(storages))], 2)]
  parts += [struct.pack("<q", storage.size) + storage.tobytes() for storage in storages]
  return b"".join(parts)


def _program(value, storages):
  return b"\x80\x02" + _opcodes(value, storages) + b"."


def _opcodes(value, storages):
  if isinstance(value, Raw):
    return value.opcodes
  if isinstance(value, np.ndarray):
    value = contiguous(value)
  if isinstance(value, Tensor):
    return _tensor(value, storages)
  if isinstance(value, dict):
    items = (_opcodes(part, storages) for item in value.items() for part in item)
    return b"}(" + b"".join(items) + b"u"
  return pickle.dumps(value, 2)[2:-1]  # without the opcodes PROTO and STOP


def _tensor(tensor, storages):
  # Two tensors over one array share a storage, which is found by identity.
  found = [i for i, storage in enumerate(storages) if storage is tensor.storage]
  if not found:
    storages.append(tensor.storage)
  key = str(found[0] if found else len(storages) - 1)
  kind = _STORAGE_NAMES[tensor.storage.dtype.name]
  plain = lambda value: pickle.dumps(value, 2)[2:-1]  # noqa: E731
  return b"".join(
    [
      b"ctorch._utils\n_rebuild_tensor_v2\n(",
      b"(" + plain("storage") + f"ctorch\n{kind}\n".encode() + plain(key) + plain("cpu"),
      plain(tensor.storage.size) + b"tQ",
      plain(tensor.offset) + plain(tensor.size) + plain(tensor.stride),
      b"\x89ccollections\nOrderedDict\n)RtR",
    ]
  )
