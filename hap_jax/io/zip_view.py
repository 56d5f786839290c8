"""Views the members of a zip file in memory, without a copy."""

import struct
import zipfile

import numpy as np


def members(path):
  """Returns {name: zipfile.ZipInfo} of the members of a zip file.

  Raises:
    ValueError: if the file is truncated, corrupt or no zip file.
  """
  try:
    with zipfile.ZipFile(path) as archive:
      return {info.filename: info for info in archive.infolist()}
  except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError, struct.error) as error:
    raise ValueError(f"{path}: truncated or corrupt zip archive ({error})") from error


def view(path, data, info):
  """Returns the n bytes of a member of the archive, [n] uint8. The array is a view of the file.

  The checksum is not checked. PyTorch can write files without checksums, and a check would read every tensor.

  Args:
    path: the file, for messages.
    data: the file as mmap.
    info: the zipfile.ZipInfo of the member.
  Raises:
    ValueError: if the member is compressed, encrypted or incomplete.
  """
  if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
    raise ValueError(
      f"{path}: {info.filename} is compressed or encrypted; expected it as torch.save and np.savez write it: "
      "save the file again"
    )
  # The zipfile module would copy the member. The content begins after the local header, whose length is not
  # in `info`.
  start = info.header_offset
  if start < 0 or data[start : start + 4] != b"PK\x03\x04" or start + 30 > len(data):
    raise ValueError(f"{path}: truncated or corrupt zip archive (no header of {info.filename})")
  start += 30 + sum(struct.unpack_from("<HH", data, start + 26))  # name and extra field of the local header
  if start + info.file_size > len(data):
    raise ValueError(f"{path}: truncated or corrupt zip archive ({info.filename} ends beyond the file)")
  return np.frombuffer(data, np.uint8, info.file_size, start)
