"""Writes PyTorch checkpoints (zip format) without PyTorch. `torch.load(weights_only=True)` reads them."""

import struct
import zipfile

import numpy as np

from hap_jax.io.torch_file import STORAGES

_NAMES = {dtype: name for name, dtype in STORAGES.items()}
# All members of the zip file have this date, so that the same weights always give the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def save(path, content):
  """Writes a .pth file.

  Args:
    path: the file.
    content: nested dicts with text keys, lists and tuples of arrays (tensors), text, numbers, booleans and
      None.
  Raises:
    TypeError: if the content contains anything else.
    OSError: if the file cannot be written.
  """
  tensors = []
  # The pickle uses protocol 2, because `weights_only` supports it. "." is the opcode that ends a pickle.
  program = b"\x80\x02" + b"".join(_opcodes(content, tensors)) + b"."
  with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
    archive.writestr(_member("data.pkl"), program)
    archive.writestr(_member("byteorder"), "little")
    for key, tensor in enumerate(tensors):
      with archive.open(
        _member(f"data/{key}", tensor.nbytes), "w", force_zip64=tensor.nbytes >= 1 << 31
      ) as file:
        file.write(np.asarray(tensor, order="C").reshape(-1).view(np.uint8).data)
    archive.writestr(_member("version"), "3\n")


def _member(name, size=0):
  info = zipfile.ZipInfo(f"archive/{name}", _DATE)
  info.file_size = size
  return info


def _opcodes(value, tensors):
  """Yields the opcodes of protocol 2 that put a value on the stack. Appends its tensors to `tensors`."""
  if isinstance(value, np.ndarray):
    yield from _tensor(value, tensors)
  elif value is None or type(value) is bool:
    yield {None: b"N", True: b"\x88", False: b"\x89"}[value]
  elif isinstance(value, int):
    size = value.bit_length() // 8 + 1
    yield b"\x8a" + bytes([size]) + value.to_bytes(size, "little", signed=True)
  elif isinstance(value, float):
    yield b"G" + struct.pack(">d", value)
  elif isinstance(value, str):
    text = value.encode()
    yield b"X" + struct.pack("<I", len(text)) + text
  elif isinstance(value, (tuple, list)):
    yield b"(" if isinstance(value, tuple) else b"]("
    for item in value:
      yield from _opcodes(item, tensors)
    yield b"t" if isinstance(value, tuple) else b"e"
  elif isinstance(value, dict):
    yield b"}("
    for key, item in value.items():
      yield from _opcodes(key, tensors)
      yield from _opcodes(item, tensors)
    yield b"u"
  else:
    raise TypeError(f"a {type(value).__name__} has no place in a checkpoint")


def _tensor(array, tensors):
  """Yields the opcodes that put a tensor on the stack. Its elements are in the member data/<key>."""
  name, key = _NAMES[array.dtype], str(len(tensors))
  tensors.append(array)
  stride, strides = 1, []
  for side in reversed(array.shape):
    strides.insert(0, stride)
    stride *= side
  yield b"ctorch._utils\n_rebuild_tensor_v2\n(("
  for part in ("storage", f"ctorch\n{name}\n".encode(), key, "cpu", array.size):
    yield from [part] if isinstance(part, bytes) else _opcodes(part, tensors)
  yield b"tQ"
  for part in (0, array.shape, tuple(strides), False):
    yield from _opcodes(part, tensors)
  yield b"ccollections\nOrderedDict\n)RtR"  # the empty OrderedDict means that the tensor has no hooks
