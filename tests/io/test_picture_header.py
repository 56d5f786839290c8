"""The size of a picture is read from its header by the rules of the decoders, before they allocate memory."""

import io
import struct

import cv2
import numpy as np
import pytest
from PIL import Image

from hap_jax.data.sources import base
from hap_jax.io import picture_header
from tests.data import mutations_pictures

LIMIT = picture_header.MAX_PIXELS


def encoded(kind, size=(4, 3), **options):
  """Returns the bytes of a picture of one colour. `size` is (W, H)."""
  file = io.BytesIO()
  Image.new("RGB", size, (200, 30, 30)).save(file, kind, **options)
  return file.getvalue()


def claiming(kind, width, height):
  """Returns the bytes of a small file whose header has another size."""
  if kind == "JPEG":
    data = encoded("JPEG")
    start = data.index(b"\xff\xc0")  # the segment with the size
    return data[: start + 5] + struct.pack(">HH", height, width) + data[start + 9 :]
  if kind == "PNG":
    data = encoded("PNG")
    content = struct.pack(">II", width, height) + data[24:29]
    return data[:8] + mutations_pictures.png_chunk(b"IHDR", content) + data[33:]
  if kind == "BMP":
    data = encoded("BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]
  if kind == "WebP, lossy":
    data = encoded("WEBP")
    return data[:26] + struct.pack("<HH", width, height) + data[30:]
  data = encoded("WEBP", lossless=True)
  return data[:21] + struct.pack("<I", (width - 1) | (height - 1) << 14) + data[25:]


def test_the_size_equals_the_size_of_the_decoded_picture_for_every_kind_of_file():
  for name, data in mutations_pictures.seeds().items():
    assert picture_header.read_header(data)[:2] == base.decode_image(data, name).shape[:2], name


def test_the_size_of_a_picture_with_metadata_is_found(samples):
  for path in sorted(samples.glob("pose2d/*/*.jpg")):
    with Image.open(path) as image:
      assert picture_header.read_header(path.read_bytes())[:2] == image.size[::-1]


@pytest.mark.parametrize(
  ("kind", "width", "height"),
  [
    ("JPEG", 60_000, 60_000),
    ("JPEG", 30_000, 30_000),
    ("JPEG", 65_535, LIMIT // 65_535 + 1),
    ("PNG", 30_000, 30_000),
    ("PNG", 2**31 - 1, 2**31 - 1),
    ("BMP", 30_000, 30_000),
    ("BMP", 30_000, -30_000),
    ("BMP", 1, -(2**31)),
    ("WebP, lossy", 16_383, 16_383),
    ("WebP, lossless", 16_384, 16_384),
  ],
)
def test_a_picture_above_the_limit_is_a_bad_record(kind, width, height):
  data = claiming(kind, width, height)
  message = rf"^big: {len(data)} bytes.*says {width:,} x {abs(height):,} "
  with pytest.raises(base.BadRecordError, match=message):
    base.decode_image(data, "big")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("size", [(0, 3), (4, 0), (0, 0)])
def test_a_picture_without_pixels_is_a_bad_record(kind, size):
  with pytest.raises(base.BadRecordError, match=rf"says {size[0]} x {size[1]} pixels"):
    base.decode_image(claiming(kind, *size), "none")


def test_a_picture_at_the_limit_is_accepted():
  width = 13_370  # close to the square root of the limit
  assert picture_header.read_header(claiming("PNG", width, LIMIT // width))[:2] == (LIMIT // width, width)


@pytest.mark.parametrize(
  ("data", "name"),
  [
    (encoded("GIF"), "GIF"),
    (encoded("TIFF"), "TIFF"),
    (encoded("PPM"), "PNM"),
    (encoded("JPEG2000"), "JPEG 2000"),
    (encoded("AVIF"), "AVIF"),
    (b"#?RADIANCE\n", "Radiance HDR"),
    (b"<!DOCTYPE html>", "HTML"),
    (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    (b"nothing that is known", "an unknown format that begins with b'nothing '"),
    (b"RIFF\0\0\0\0WAVEfmt ", "an unknown format"),
    (b"", "an empty file"),
  ],
)
def test_an_error_names_another_format(data, name):
  with pytest.raises(base.BadRecordError, match=f"expected JPEG, PNG, BMP or WebP, found {name}"):
    base.decode_image(data, "a.jpg")


def progressive(scans, size=(16, 16)):
  """Returns the bytes of a progressive JPEG file that repeats its last scan."""
  data = encoded("JPEG", size, progressive=True)
  start = data.rindex(b"\xff\xda")
  return data[:-2] + data[start:-2] * scans + b"\xff\xd9"


def test_a_jpeg_with_hundreds_of_scans_is_a_bad_record():
  assert base.decode_image(progressive(100), "slow").shape == (16, 16, 3)
  with pytest.raises(base.BadRecordError, match=r"has 610 JPEG scans of 16 x 16"):
    base.decode_image(progressive(600), "slow")


def test_bytes_behind_the_end_of_a_jpeg_are_not_counted_as_scans():
  data = progressive(1) + b"\xff\xda\0\x08" * 1000
  assert picture_header.read_header(data) == (16, 16, 11)
  comment = b"\xff\xfe\0\x04\xff\xd9"  # an end marker inside a segment does not end the picture
  start = data.rindex(b"\xff\xda", 0, data.index(b"\xff\xd9"))
  with pytest.raises(base.BadRecordError, match="has 610 JPEG scans"):
    base.decode_image(data[:start] + comment + progressive(600)[start:], "slow")


def test_a_large_jpeg_with_several_scans_is_a_bad_record():
  data = progressive(10)
  start = data.index(b"\xff\xc2")
  data = data[: start + 5] + struct.pack(">HH", 13_000, 13_000) + data[start + 9 :]
  with pytest.raises(base.BadRecordError, match=r"has 20 JPEG scans of 13,000 x 13,000"):
    base.decode_image(data, "slow")


def test_bytes_between_segments_are_skipped_as_in_libjpeg():
  data = encoded("JPEG")
  start = data.index(b"\xff\xdb")  # the first segment behind the header of the file
  for between in (b"\0\1\2", b"\xff\xff\xff", b"\xff\0\xff\x01\xff\xd3", b"\xff\0ab\xff"):
    changed = data[:start] + between + data[start:]
    assert picture_header.read_header(changed) == (3, 4, 1)
    assert base.decode_image(changed, "odd").shape == (3, 4, 3)


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (b"\xff\xd8" + b"\xff\xfe\0\2" * 140_000, "more than 131,072 segments"),
    (b"\xff\xd8" + b"\0" * 1000, "truncated inside its JPEG header"),
    (b"\xff\xd8\xff\xd9", "header is broken|truncated"),
    (b"\xff\xd8\xff\xfe\0\1", "header is broken"),
    (b"\xff\xd8\xff\xda\0\x08", "no size before the first scan"),
    (encoded("JPEG").replace(b"\xff\xc4", encoded("JPEG")[158:177] + b"\xff\xc4", 1), "two sizes"),
    (b"\x89PNG\r\n\x1a\n" + 8 * b"\0", "begin with IHDR"),
    (b"BM" + bytes(12) + b"\x05\0\0\0" + bytes(20), "BMP header has 5 bytes"),
    (b"RIFF\0\0\0\0WEBPALPH" + bytes(20), "begins with the chunk"),
  ],
)
def test_a_broken_header_is_a_bad_record(data, message):
  with pytest.raises(base.BadRecordError, match=message):
    base.decode_image(data, "broken")


def test_png_chunks_without_pixels_are_not_decoded():
  data = encoded("PNG")
  text, profile, frame = (
    mutations_pictures.png_chunk(kind, b"k\0\0" + bytes(50)) for kind in (b"zTXt", b"iCCP", b"fdAT")
  )
  full = data[:33] + profile + text * 3 + data[33:-12] + frame + text + data[-12:] + b"more"
  assert picture_header.only_pixels(full) == data
  np.testing.assert_array_equal(base.decode_image(full, "full"), base.decode_image(data, "plain"))
  jpeg = encoded("JPEG")
  assert picture_header.only_pixels(jpeg) is jpeg


def test_a_png_chunk_that_claims_gigabytes_is_a_bad_record():
  data = encoded("PNG")
  start = data.index(b"IDAT") - 4
  message = "chunk b'IDAT' has 4,127,195,136 bytes and ends beyond the file"
  with pytest.raises(base.BadRecordError, match=message):
    base.decode_image(data[:start] + b"\xf6\0\0\0" + data[start + 4 :], "large")
  # Each chunk is small, so only their number shows the attack.
  many = data[:33] + mutations_pictures.png_chunk(b"tEXt", b"") * 140_000 + data[33:]
  with pytest.raises(base.BadRecordError, match="more than 131,072 PNG chunks"):
    base.decode_image(many, "many")


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_picture_of_an_animation_is_decoded(kind):
  rng = np.random.default_rng(0)
  frames = [Image.fromarray(rng.integers(0, 256, (8, 6, 3), dtype=np.uint8)) for _ in range(300)]
  file = io.BytesIO()
  frames[0].save(file, kind, save_all=True, append_images=frames[1:], lossless=True)
  np.testing.assert_array_equal(base.decode_image(file.getvalue(), "moving"), np.asarray(frames[0]))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_a_png_file_without_the_other_chunks_has_the_same_pixels(mode):
  grey = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(12, 16))
  # 257 maps 255 to 65535, the largest value of 16 bits.
  image = Image.fromarray(np.asarray(grey, np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
  file = io.BytesIO()
  image.save(file, "PNG", dpi=(72, 72), icc_profile=b"x" * 200, transparency=3 if mode == "P" else None)
  flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
  wanted = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), flags)
  np.testing.assert_array_equal(base.decode_image(file.getvalue(), mode), wanted)
