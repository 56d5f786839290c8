"""Reads and writes .safetensors files. `load` returns read-only views of the memory-mapped file."""

import json
import mmap
import pathlib
import struct

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from hap_jax.io import file_kind

_DTYPES = {
  "F64": np.float64,
  "F32": np.float32,
  "F16": np.float16,
  "BF16": ml_dtypes.bfloat16,
  "I64": np.int64,
  "I32": np.int32,
  "I16": np.int16,
  "I8": np.int8,
  "U8": np.uint8,
  "BOOL": np.bool_,
}


def load(path):
  """Reads a .safetensors file.

  Returns:
    ({name: array}, metadata). The metadata is {str: str}.
  Raises:
    ValueError: if the file is truncated, corrupt or has another format, or if a tensor has a type that is not
      in `_DTYPES`.
  """
  path = pathlib.Path(path)
  file_kind.check(path)
  try:
    # The package safetensors checks that header and file agree. Its arrays are not used, because they are
    # copies, and because NumPy arrays of bfloat16 are not supported.
    with safetensors.safe_open(path, framework="numpy") as file:
      metadata = file.metadata() or {}
  except safetensors.SafetensorError as error:
    raise ValueError(f"{path}: truncated, corrupt or no safetensors file ({error})") from error
  with path.open("rb") as file:
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  (length,) = struct.unpack_from("<Q", data)
  tensors = {}
  for name, entry in json.loads(data[8 : 8 + length]).items():
    if name == "__metadata__":
      continue
    if entry["dtype"] not in _DTYPES:
      raise ValueError(f"{path}: tensor {name} is of type {entry['dtype']}, expected {', '.join(_DTYPES)}")
    start, _ = entry["data_offsets"]
    dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
    array = np.ndarray(shape, dtype, data, 8 + length + start) if 0 not in shape else np.empty(shape, dtype)
    array.flags.writeable = False
    tensors[name] = array
  return tensors, metadata


def save(path, tensors, metadata):
  """Writes a .safetensors file.

  Args:
    path: the file.
    tensors: {name: array}.
    metadata: {str: str}.
  Raises:
    OSError: if the file cannot be written.
  """
  # The package writes the memory of an array without a change, so the arrays have to be contiguous.
  contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}
  try:
    safetensors.numpy.save_file(contiguous, path, {"format": "pt", **metadata})
  except safetensors.SafetensorError as error:
    raise OSError(f"{path} cannot be written ({error})") from error
