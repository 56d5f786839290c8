"""Pictures are turned as Pillow turns them, and a damaged EXIF header turns nothing."""

import io
import random
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from hap_jax.data.sources import base
from hap_jax.io import picture_orientation

ORIENTATIONS = range(1, 9)
FORMATS = {"JPEG": {"quality": 95}, "PNG": {}, "WEBP": {"lossless": True}}


def picture():
  """Returns a picture of random pixels whose sides differ, so every turn changes it."""
  return Image.fromarray(np.random.default_rng(0).integers(0, 256, (13, 6, 3), np.uint8))


def encoded(kind, orientation=None):
  """Returns the bytes of a file. `orientation` None: without an EXIF header."""
  exif = Image.Exif()
  if orientation is not None:
    exif[0x010F] = "a maker"  # a text, which is stored apart from the list of tags
    exif[0x0112] = orientation
  file = io.BytesIO()
  picture().save(file, kind, **FORMATS[kind], **({"exif": exif} if orientation is not None else {}))
  return file.getvalue()


def tiff(order=">", *, tag=0x0112, kind=3, count=1, entries=1, first=8):
  """Returns an EXIF header in the format of a TIFF file, with one tag whose value is 6."""
  value = struct.pack(f"{order}HH" if kind == 3 else f"{order}I", *((6, 0) if kind == 3 else (6,)))
  start = {">": b"MM\0*", "<": b"II*\0"}[order] + struct.pack(f"{order}I", first)
  return start + struct.pack(f"{order}HHHI", entries, tag, kind, count) + value


def with_segment(block):
  """Returns a JPEG file with this EXIF header."""
  data, content = encoded("JPEG"), b"Exif\0\0" + block
  return data[:2] + b"\xff\xe1" + struct.pack(">H", len(content) + 2) + content + data[2:]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_equals_pillow(kind, orientation):
  data = encoded(kind, orientation)
  assert picture_orientation.read_orientation(data) == orientation
  stored = Image.open(io.BytesIO(data))
  assert stored.getexif()[0x0112] == orientation
  wanted = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
  upright = base.decode_image(data, kind, "apply")
  assert upright.shape == ((6, 13, 3) if orientation > 4 else (13, 6, 3))
  np.testing.assert_array_equal(upright, wanted)
  assert upright.flags.c_contiguous
  assert upright.flags.writeable


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_ignore_returns_the_stored_pixels(kind, orientation):
  plain = base.decode_image(encoded(kind), kind)
  for image in (
    base.decode_image(encoded(kind, orientation), kind, "ignore"),
    base.decode_image(encoded(kind, orientation), kind),
    base.decode_image(encoded(kind), kind, "apply"),
  ):
    np.testing.assert_array_equal(image, plain)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
def test_both_byte_orders_and_both_types_of_numbers_are_read(order, kind):
  assert picture_orientation.read_orientation(with_segment(tiff(order, kind=kind))) == 6


def test_the_header_is_found_behind_other_segments_and_fill_bytes():
  data = with_segment(tiff())
  comment = b"\xff\xfe\0\x06text"
  xmp = b"\xff\xe1\0\x0ahttp://a"  # XMP is in a segment of the same kind
  assert picture_orientation.read_orientation(data[:2] + comment + xmp + b"\xff\xff" + data[2:]) == 6


def test_a_prefix_in_a_webp_file_is_skipped():
  block = b"Exif\0\0" + tiff()
  data = encoded("WEBP", 1)
  start = data.index(b"EXIF")
  data = data[:start] + b"EXIF" + struct.pack("<I", len(block)) + block
  assert picture_orientation.read_orientation(data) == 6


DAMAGED = {
  "empty": b"",
  "short": tiff()[:9],
  "cut inside the number": tiff()[:-4],
  "no TIFF": b"XX\0*" + tiff()[4:],
  "another tag": tiff(tag=0x0113),
  "a list": tiff(count=2),
  "a text": tiff()[:12] + b"\0\x02" + tiff()[14:],
  "number 0": tiff()[:-4] + b"\0\0\0\0",
  "number 9": tiff()[:-4] + b"\0\x09\0\0",
  "list of tags beyond the end": tiff(first=2**31),
  "more tags than bytes": tiff(tag=0x0113, entries=2**16 - 1),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_header_turns_nothing(name):
  data = with_segment(DAMAGED[name])
  assert picture_orientation.read_orientation(data) == 1
  np.testing.assert_array_equal(base.decode_image(data, name, "apply"), base.decode_image(data, name))


def test_files_without_an_exif_header_are_upright():
  bmp = io.BytesIO()
  picture().save(bmp, "BMP")
  for data in (b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"text", bmp.getvalue()):
    assert picture_orientation.read_orientation(data) == 1


def test_the_search_for_a_header_is_bounded():
  data = with_segment(tiff())
  for segments, wanted in ((100, 6), (5_000, 1)):
    many = data[:2] + b"\xff\xe2\0\x02" * segments + data[2:]
    assert picture_orientation.read_orientation(many) == wanted


@pytest.mark.parametrize("kind", FORMATS)
def test_random_damage_raises_no_error(kind):
  data, rng = encoded(kind, 6), random.Random(0)
  found = set()
  for _ in range(3_000):
    damaged = bytearray(data[: rng.randrange(len(data)) if rng.random() < 0.2 else None])
    for _ in range(min(len(damaged), rng.randint(1, 4))):
      damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    found.add(picture_orientation.read_orientation(bytes(damaged)))
  assert {1, 6} <= found <= set(ORIENTATIONS)
