"""Makes damaged and hostile picture files from small valid ones."""

import functools
import io
import struct
import zlib

import numpy as np
from PIL import Image

_SIZES = (0, 1, 3, 300, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1)
_BYTES = (b"\0", b"\xff", b"\x7f", b"\x80", b"\xff\xda", bytes(4), 4 * b"\xff", b"\x7f\xff\xff\xff")


def cases(count, seed):
  """Yields `count` picture files. The same seed gives the same files.

  Args:
    count: number of files.
    seed: seed of the damage.
  Yields:
    (name, bytes). The name contains the original file and the kinds of damage.
  """
  files = seeds()
  names = sorted(files)
  for number in range(count):
    rng = np.random.default_rng((seed, number))
    name = names[number % len(names)]
    data, steps = files[name], []
    for _ in range(int(rng.choice((1, 1, 1, 2, 3)))):
      change = _CHANGES[rng.integers(len(_CHANGES))]
      data = change(data, rng)
      steps.append(change.__name__.strip("_"))
    yield f"{number} {name}: {', '.join(steps)}", data


@functools.cache
def seeds():
  """Returns {name: bytes} of valid files, in all formats and kinds that the project reads."""
  y, x = np.mgrid[:40, :24]
  waves = np.stack([127 + 100 * np.sin(x / a + y / b) for a, b in ((9, 31), (17, 5), (40, 13))], axis=-1)
  noise = np.random.default_rng(0).normal(0, 9, waves.shape)
  image = Image.fromarray((waves + noise).clip(0, 255).astype(np.uint8))
  other = image.transpose(Image.Transpose.ROTATE_180)
  exif = Image.Exif()
  exif[0x0112] = 6
  frames = {"save_all": True, "append_images": [other, image], "duration": 40}
  made = {
    "jpeg": _save(image, "JPEG"),
    "jpeg progressive": _save(image, "JPEG", progressive=True, subsampling=0),
    "jpeg grey": _save(image.convert("L"), "JPEG"),
    "jpeg cmyk": _save(image.convert("CMYK"), "JPEG"),
    "jpeg restarts": _save(image, "JPEG", restart_marker_blocks=1, exif=exif),
    "png": _save(image, "PNG"),
    "png palette": _save(image.quantize(16), "PNG", transparency=3),
    "png alpha": _save(image.convert("RGBA"), "PNG"),
    "png 16 bits": _save(Image.fromarray(np.asarray(image.convert("L"), np.uint16) * 257), "PNG"),
    "png bits": _save(image.convert("1"), "PNG"),
    "png animation": _save(image, "PNG", **frames),
    "png interlaced": _interlaced(),
    "bmp": _save(image, "BMP"),
    "bmp palette": _save(image.quantize(16), "BMP"),
    "bmp runs": _bmp_runs(),
    "webp": _save(image, "WEBP"),
    "webp lossless": _save(image, "WEBP", lossless=True),
    "webp alpha": _save(image.convert("RGBA"), "WEBP", exif=exif),
    "webp animation": _save(image, "WEBP", **frames),
  }
  return made


def _save(image, kind, **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def png_chunk(kind, content):
  """Returns the bytes of a PNG chunk with its length and checksum."""
  return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _interlaced():
  """Returns a PNG file of 8 x 8 grey pixels in the order of Adam7."""
  passes = ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4))  # (width, height) of all passes before the last
  rows = b"".join(height * (b"\0" + bytes(width)) for width, height in passes)
  rows += 4 * (b"\0" + bytes(range(8)))
  header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)
  parts = (png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b""))
  return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _bmp_runs():
  """Returns a run-length encoded BMP file of 8 x 4 pixels."""
  body = 4 * b"\x08\x01\0\0" + b"\0\1"
  head = struct.pack("<IiiHHIIiiII", 40, 8, 4, 1, 8, 1, len(body), 0, 0, 256, 0)
  palette = bytes(range(256)) * 4
  start = 14 + len(head) + len(palette)
  return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + palette + body


def _parts(data):
  """Cuts a file into its segments or chunks. The last part is the rest that cannot be parsed."""
  if data.startswith(b"\x89PNG"):
    position, head, trailer = 8, lambda at: int.from_bytes(data[at : at + 4], "big"), 12
  elif data.startswith(b"RIFF"):
    position, head, trailer = 12, lambda at: (int.from_bytes(data[at + 4 : at + 8], "little") + 1) & ~1, 8
  elif data.startswith(b"\xff\xd8"):
    position, head, trailer = 2, lambda at: int.from_bytes(data[at + 2 : at + 4], "big"), 2
  else:
    return [data[:14], data[14:54], data[54:]]
  ends = [0, position]
  while position + 8 <= len(data) and len(ends) < 60:
    position += head(position) + trailer
    if position > len(data) or (data[:2] == b"\xff\xd8" and data[position : position + 1] != b"\xff"):
      break
    ends.append(position)
  return [data[a:b] for a, b in zip(ends, [*ends[1:], len(data)], strict=True)]


def _flip_bytes(data, rng):
  data = bytearray(data)
  for place in rng.integers(0, max(len(data), 1), rng.integers(1, 12)) if data else ():
    data[place] = rng.integers(256)
  return bytes(data)


def _flip_header(data, rng):
  return _flip_bytes(data[:64], rng) + data[64:]


def _cut(data, rng):
  return data[: rng.integers(0, len(data) + 1)]


def _insert(data, rng):
  place = rng.integers(0, len(data) + 1)
  piece = _BYTES[rng.integers(len(_BYTES))] if rng.random() < 0.5 else rng.bytes(int(rng.integers(1, 40)))
  return data[:place] + piece + data[place:]


def _remove(data, rng):
  start = int(rng.integers(0, len(data) + 1))
  return data[:start] + data[start + int(rng.integers(1, 40)) :]


def _repeat_part(data, rng):
  parts = _parts(data)
  k = int(rng.integers(len(parts)))
  return b"".join((*parts[:k], parts[k] * int(rng.choice((2, 3, 50))), *parts[k + 1 :]))


def _drop_part(data, rng):
  parts = _parts(data)
  del parts[int(rng.integers(len(parts)))]
  return b"".join(parts)


def _swap_parts(data, rng):
  parts = _parts(data)
  a, b = rng.integers(0, len(parts), 2)
  parts[a], parts[b] = parts[b], parts[a]
  return b"".join(parts)


def _splice(data, rng):
  """Inserts a part of another file, often of another format."""
  files = seeds()
  other = _parts(files[sorted(files)[rng.integers(len(files))]])
  parts = _parts(data)
  parts.insert(int(rng.integers(len(parts) + 1)), other[int(rng.integers(len(other)))])
  return b"".join(parts)


def _damage_chunk(data, rng):
  """Damages the content of one PNG chunk and repairs its checksum. In other formats it damages any bytes."""
  parts = _parts(data)
  places = [k for k, part in enumerate(parts) if k and len(part) > 12]
  if not data.startswith(b"\x89PNG") or not places:
    return _flip_bytes(data, rng)
  k = places[int(rng.integers(len(places)))]
  parts[k] = png_chunk(parts[k][4:8], _flip_bytes(parts[k][8:-4], rng))
  return b"".join(parts)


def _change_size(data, rng):
  """Writes another width and height into the header."""
  width, height = (int(_SIZES[k]) for k in rng.integers(len(_SIZES), size=2))
  if data.startswith(b"\x89PNG"):
    content = struct.pack(">II", width, height) + data[24:29]
    return data[:8] + png_chunk(b"IHDR", content) + data[33:]
  if data.startswith(b"BM"):
    return data[:18] + struct.pack("<II", width, height) + data[26:]
  if data[12:16] == b"VP8X":
    sides = b"".join((side & 0xFFFFFF).to_bytes(3, "little") for side in (width, height))
    return data[:24] + sides + data[30:]
  if data[12:16] == b"VP8L":
    return data[:21] + struct.pack("<I", (width & 0x3FFF) | (height & 0x3FFF) << 14) + data[25:]
  if data[12:16] == b"VP8 ":
    return data[:26] + struct.pack("<HH", width & 0x3FFF, height & 0x3FFF) + data[30:]
  for marker in (b"\xff\xc0", b"\xff\xc2"):
    start = data.find(marker)
    if start >= 0:
      sides = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
      return data[: start + 5] + sides + data[start + 9 :]
  return _flip_header(data, rng)


_CHANGES = (
  _flip_bytes,
  _flip_header,
  _cut,
  _insert,
  _remove,
  _repeat_part,
  _drop_part,
  _swap_parts,
  _splice,
  _damage_chunk,
  _change_size,
)
