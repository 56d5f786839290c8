"""Makes damaged .mat files from small annotation files. The same seed gives the same files."""

import io
import struct
import zlib

import numpy as np
import scipy.io

_COUNTS = (0, 1, 2, 4, 7, 8, 255, 2**16 - 1, 2**16, 2**20, 2**28, 2**31 - 1, 2**31, 2**32 - 8, 2**32 - 1)
_CODES = (*range(20), 0x209, 0x806, 0x40001, 0x50002)  # types, classes, flags and tags of small elements
_HEADER = 128
_TIME = b"MATLAB 5.0 MAT-file, written for a test"


def cell(texts):
  """Returns a column cell [N, 1] of strings."""
  array = np.empty((len(texts), 1), object)
  array[:, 0] = texts
  return array


def save(variables, *, compress=False):
  """Returns the bytes that scipy writes, with a fixed text in place of the time in the header."""
  file = io.BytesIO()
  scipy.io.savemat(file, variables, do_compression=compress)
  return _TIME.ljust(116) + file.getvalue()[116:]


def base_files():
  """Returns annotation files in the layouts of PA-100K and RAP, and a file with all kinds of arrays.

  Each file is returned twice, plain and compressed.
  """
  labels = np.arange(24).reshape(6, 4) % 2
  draws = np.empty((5, 1), object)
  for i in range(5):
    draws[i, 0] = {
      "train_index": np.array([[1, 2, 3 + i]], np.uint16),
      "test_index": np.array([[9]], np.uint16),
    }
  pa100k = {
    "attributes": cell(["Female", "AgeOver60", "Hat", "年龄16"]),
    "train_images_name": cell([f"{i:06d}.jpg" for i in range(6)]),
    "train_label": labels.astype(np.uint8),
  }
  rap = {
    "RAP_annotation": {
      "partion": draws,
      "label": labels.astype(np.int32),
      "attribute_chinese": cell(["性别", "体型微胖"]),
      "imagesname": cell([f"CAM01_frame{i}_line1.png" for i in range(6)]),
      "position": np.linspace(0, 1, 16).reshape(4, 4),
      "identity": np.array([[5, 5, -1, 7, 7, 8]], np.int16).T,
    }
  }
  kinds = {
    "complex": np.array([[1 + 2j, 3]]),
    "logical": np.array([[True, False]]),
    "empty": np.zeros((0, 3)),
    "deep": {"a": {"b": {"c": cell(["x", "yz"])}}, "none": {}},
    "rows": np.array(["abc", "de "]),
  }
  return [save(variables, compress=c) for variables in (pa100k, rap, kinds) for c in (False, True)]


def elements(data):
  """Returns [(type, content)] of the top-level elements of an undamaged little-endian file."""
  found, position = [], _HEADER
  while position < len(data):
    kind, size = struct.unpack_from("<II", data, position)
    found.append((kind, data[position + 8 : position + 8 + size]))
    position += 8 + size
  return found


def join(header, parts):
  """Returns the bytes of a file from a header and [(type, content)]."""
  return header + b"".join(struct.pack("<II", kind, len(content)) + content for kind, content in parts)


def cases(count, seed):
  """Yields the bytes of `count` damaged files.

  The damage is flipped, cut, doubled or moved bytes, or another count or type. In half of the files the
  damage is inside a compressed variable, and its compressed stream is valid.
  """
  rng = np.random.default_rng(seed)
  files = base_files()
  for number in range(count):
    data = files[number % len(files)]
    parts = elements(data)
    # A plain file, or sometimes a compressed one, is damaged in its bytes. Its header is rarely damaged,
    # because a wrong header ends the reading at once.
    if parts[0][0] != 15 or rng.random() < 0.1:
      yield bytes(_damage(bytearray(data), rng, first=int(rng.choice([0, _HEADER], p=[0.1, 0.9]))))
      continue
    chosen = int(rng.integers(len(parts)))
    content = bytes(_damage(bytearray(zlib.decompress(parts[chosen][1])), rng, first=0))
    if rng.random() < 0.02:  # compressed twice, which the format forbids
      content = struct.pack("<II", 15, len(content)) + zlib.compress(content)
    parts[chosen] = 15, zlib.compress(content)
    yield join(data[:_HEADER], parts)


def _damage(data, rng, first):
  """Damages the bytes from the position `first` on, one to three times, in place. Returns all bytes."""
  for _ in range(rng.integers(1, 4)):
    if len(data) <= first + 8:
      break
    start, stop = sorted(rng.integers(first, len(data), 2).tolist())
    word = first + int(rng.integers((len(data) - first) // 4)) * 4
    kind = rng.integers(7)
    # 0 and 1 change a byte, 2 to 4 change a 32-bit number, 5 deletes bytes, 6 copies or moves bytes.
    if kind == 0:
      data[start] ^= 1 << int(rng.integers(8))
    elif kind == 1:
      data[start] = int(rng.integers(256))
    elif kind == 2:
      struct.pack_into("<I", data, word, int(rng.choice(_COUNTS)))
    elif kind == 3:
      struct.pack_into("<I", data, word, int(rng.choice(_CODES)))
    elif kind == 4:
      value = struct.unpack_from("<I", data, word)[0] + int(rng.integers(-9, 10))
      struct.pack_into("<I", data, word, value % 2**32)
    elif kind == 5:
      del data[start : stop if rng.random() < 0.5 else None]
    else:
      chunk = data[start:stop]
      where = int(rng.integers(first, len(data)))
      data[where : where + (len(chunk) if rng.random() < 0.5 else 0)] = chunk
  return data
