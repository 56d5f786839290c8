"""Reads the format and the size of a picture file from its header, before a decoder allocates memory.

Four formats are read: JPEG, PNG, BMP and WebP. A header is read with the same rules as in the decoders that
this project uses: libjpeg, libpng, OpenCV's BMP reader and libwebp. So this module finds the size for which
the decoder will allocate memory.
"""

import re
import struct

MAX_PIXELS = 178_956_970  # Pillow's limit: it treats larger pictures as decompression bombs
# A JPEG file can contain many scans. A decoder goes through all pixels for each scan, but a scan may take
# only a few bytes of the file. Usual files have at most 10 scans.
MAX_SCANS = 500  # the limit of libjpeg-turbo against hostile files
MAX_SCANNED_PIXELS = 12 * MAX_PIXELS  # number of pixels times number of scans

_JPEG, _PNG, _BMP, _WEBP = b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"BM", b"RIFF"
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the three are no frames: two tables, one extension
_SEGMENT = struct.Struct(">BBH")  # 0xFF, marker, length
_NO_SEGMENT = frozenset((0x00, 0x01, 0xFF, *range(0xD0, 0xD8)))  # stuffed byte, TEM, fill byte, RST0 to RST7
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
# Largest number of segments of a JPEG file, or of chunks of a PNG file. It limits the time that a hostile
# file can take.
_MAX_PARTS = 2**17
_CHUNK = struct.Struct(">I4s")  # length, type
_ANCILLARY = 0x20  # bit in the first letter of a chunk's type. If it is 0, a decoder must know this type
_SEQUENTIAL = frozenset((0xC0, 0xC1, 0xC9))

# (offset, bytes at the offset, name) of formats that are not read. They are used only in error messages.
_OTHERS = (
  (0, b"GIF8", "GIF"),
  (0, b"II*\0", "TIFF"),
  (0, b"MM\0*", "TIFF"),
  (0, b"II+\0", "TIFF"),
  (0, b"MM\0+", "TIFF"),
  (4, b"ftypavi", "AVIF"),
  (4, b"ftyp", "HEIF or MP4"),
  (0, b"\0\0\0\x0cjP  ", "JPEG 2000"),
  (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
  (0, b"\0\0\0\x0cJXL ", "JPEG XL"),
  (0, b"\xff\x0a", "JPEG XL"),
  (0, b"#?RADIANCE", "Radiance HDR"),
  (0, b"#?RGBE", "Radiance HDR"),
  (0, b"\x76\x2f\x31\x01", "OpenEXR"),
  (0, b"\x59\xa6\x6a\x95", "Sun raster"),
  *((0, b"P" + bytes((kind,)), "PNM, PAM or PFM") for kind in b"1234567Ff"),
  (0, b"%PDF", "PDF"),
  (0, b"PK\x03\x04", "ZIP"),
  (0, b"\x93NUMPY", "NumPy array"),
  (0, b"version https://git-lfs", "Git LFS pointer"),
  (0, b"<", "HTML or XML"),
)


def read_header(data):
  """Reads the size of a picture, and checks that it can be decoded within the limits of this module.

  Args:
    data: bytes of a JPEG, PNG, BMP or WebP file.
  Returns:
    (H, W, scans). H and W are in pixels, each at least 1, and H * W is at most MAX_PIXELS. `scans` is the
    number of times that a decoder processes all pixels. It is 1, except for a JPEG file with several scans.
  Raises:
    ValueError: if the file has another format, its header is incomplete, or a side is 0. Also if the picture
      has more than MAX_PIXELS pixels, or a JPEG file has more than MAX_SCANS scans or more than
      MAX_SCANNED_PIXELS pixels in all scans.
  """
  scans_start = None
  try:
    if data.startswith(_JPEG):
      kind, (height, width, scans_start) = "JPEG", _jpeg_size(data)
    elif data.startswith(_PNG):
      kind, (height, width) = "PNG", _png_size(data)
    elif data.startswith(_BMP):
      kind, (height, width) = "BMP", _bmp_size(data)
    elif data.startswith(_WEBP) and data[8:12] == b"WEBP":
      kind, (height, width) = "WebP", _webp_size(data)
    else:
      raise ValueError(f"expected JPEG, PNG, BMP or WebP, found {_name_format(data)}")
  except (IndexError, struct.error) as error:
    raise ValueError("truncated inside its header") from error
  if not 0 < height * width <= MAX_PIXELS:
    raise ValueError(
      f"its {kind} header says {width:,} x {height:,} pixels (W x H); expected sides of at least 1 and at "
      f"most {MAX_PIXELS:,} pixels in the picture"
    )
  if scans_start is None:
    return height, width, 1
  scans = _count_scans(data, scans_start)
  if scans > MAX_SCANS or scans * height * width > MAX_SCANNED_PIXELS:
    raise ValueError(
      f"it has {scans:,} JPEG scans of {width:,} x {height:,} pixels (W x H); expected at most "
      f"{MAX_SCANS} scans, with at most {MAX_SCANNED_PIXELS:,} pixels in all scans: encode the picture again"
    )
  return height, width, scans


def only_pixels(data):
  """Returns the bytes of a PNG file without the chunks that do not change a pixel.

  Files of other formats are returned unchanged. In a hostile file, the removed chunks may cost much memory or
  time. OpenCV allocates as much memory as a chunk claims to need. libpng decompresses each compressed text to
  up to 8 MB: 100 texts in a file of 770 kB take 27 seconds. An animation takes the memory of several
  pictures. Of an animation, only the default image is kept. In most files, this is the first image.

  Raises:
    ValueError: if a chunk ends after the end of the file, or if there are more than _MAX_PARTS chunks.
  """
  if not data.startswith(_PNG):
    return data
  kept, position = [_PNG], len(_PNG)
  for _ in range(_MAX_PARTS):
    if position + _CHUNK.size > len(data):
      break
    length, kind = _CHUNK.unpack_from(data, position)
    end = position + _CHUNK.size + length + 4  # a checksum follows
    if end > len(data):
      raise ValueError(f"truncated: its PNG chunk {kind!r} has {length:,} bytes and ends beyond the file")
    # The flag says that a decoder may ignore the transparency chunk tRNS. But this chunk changes pixels, so
    # it is kept.
    if kind[0] & _ANCILLARY == 0 or kind == b"tRNS":
      kept.append(data[position:end])
    if kind == b"IEND":
      break
    position = end
  else:
    raise ValueError(f"it has more than {_MAX_PARTS:,} PNG chunks")
  return b"".join(kept)


def _jpeg_size(data):
  """Reads the segments of a JPEG header as libjpeg does.

  Returns:
    (H, W, position of the first scan), or (H, W, None) if the file can have only one scan.
  """
  size, position = None, 2
  for _ in range(_MAX_PARTS):
    start, marker, length = _SEGMENT.unpack_from(data, position)
    if start != 0xFF or marker in _NO_SEGMENT:
      position = _find_segment(data, position)
      continue
    if marker == _SOS:
      break
    if marker in _SOF:
      if size is not None:
        raise ValueError("its JPEG header has two sizes")
      size = struct.unpack_from(">HHB", data, position + 5)
      is_sequential = marker in _SEQUENTIAL
    if length < 2 or marker in (_SOI, _EOI):
      raise ValueError("its JPEG header is broken")
    position += 2 + length
  else:
    raise ValueError(f"its JPEG header has more than {_MAX_PARTS:,} segments")
  if size is None:
    raise ValueError("its JPEG header has no size before the first scan")
  height, width, components = size
  if components not in (1, 3, 4):
    raise ValueError(f"its JPEG header says {components} colour components; expected 1, 3 or 4")
  # A sequential scan with all colour components contains all pixels, so no other scan can follow.
  is_one_scan = is_sequential and data[position + 4] == components
  return height, width, None if is_one_scan else position


def _count_scans(data, position):
  """Returns the number of scans between a position and the end marker, where libjpeg stops decoding."""
  scans = 0
  for _ in range(_MAX_PARTS):
    match = _MARKER.search(data, position)
    if match is None or match.start() + _SEGMENT.size > len(data):
      return scans
    _, marker, length = _SEGMENT.unpack_from(data, match.start())
    if marker == _EOI:
      return scans
    scans += marker == _SOS
    position = match.start() + 2 + length
  raise ValueError(f"it has more than {_MAX_PARTS:,} JPEG segments")


def _find_segment(data, position):
  """Returns the position of the next segment. As in libjpeg, other bytes before it are skipped."""
  match = _MARKER.search(data, position)
  if match is None:
    raise ValueError("truncated inside its JPEG header")
  return match.start()


def _png_size(data):
  if data[8:16] != b"\0\0\0\x0dIHDR":
    raise ValueError("its PNG header does not begin with IHDR")
  width, height = struct.unpack_from(">II", data, 16)
  return height, width


def _bmp_size(data):
  (size,) = struct.unpack_from("<I", data, 14)
  if size == 12:
    width, height = struct.unpack_from("<HH", data, 18)
  elif size >= 36:
    width, height = struct.unpack_from("<ii", data, 18)
  else:
    raise ValueError(f"its BMP header has {size} bytes; expected 12, or 36 and more")
  return abs(height), width  # a negative height means that rows run from top to bottom


def _webp_size(data):
  kind = data[12:16]
  if kind == b"VP8X":
    width, height = (1 + int.from_bytes(data[start : start + 3], "little") for start in (24, 27))
    data[29]  # the last byte of the header: raises IndexError if it is missing, which the slices do not
  elif kind == b"VP8L":
    (bits,) = struct.unpack_from("<I", data, 21)
    width, height = 1 + (bits & 0x3FFF), 1 + ((bits >> 14) & 0x3FFF)
  elif kind == b"VP8 ":
    width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
  else:
    raise ValueError(f"its WebP header begins with the chunk {kind!r}; expected VP8, VP8L or VP8X")
  return height, width


def _name_format(data):
  """Returns the name of a format that is not read, as text for an error message."""
  if not data:
    return "an empty file"
  names = (name for offset, start, name in _OTHERS if data[offset:].startswith(start))
  return next(names, f"an unknown format that begins with {bytes(data[:8])!r}")
