"""Both decoders of pictures give the bits of OpenCV, and broken pictures are bad records."""

import io

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from hap_jax.data.sources import base
from hap_jax.io import picture_file

OPENCV = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION


@pytest.fixture(scope="module")
def picture():
  """Returns a picture with smooth parts, edges and noise. Its sides are not multiples of a JPEG block."""
  y, x = np.mgrid[:93, :61]
  waves = [127 + 100 * np.sin(x / a + y / b) for a, b in ((9, 31), (17, 5), (40, 13))]
  image = np.stack(waves, axis=-1)
  image[20:50, 10:40] = (250, 10, 40)
  noise = np.random.default_rng(0).normal(0, 6, image.shape)
  return Image.fromarray((image + noise).clip(0, 255).astype(np.uint8))


def jpeg(picture, **options):
  file = io.BytesIO()
  picture.save(file, "JPEG", **options)
  return file.getvalue()


def rotated(picture):
  exif = Image.Exif()
  exif[0x0112] = 6  # the header asks for a rotation by 90 degrees
  return jpeg(picture, exif=exif)


VARIANTS = {
  **{
    f"{sampling} q{quality}{' progressive' * progressive}": (
      lambda picture, s=sampling, q=quality, p=progressive: jpeg(
        picture, subsampling=s, quality=q, progressive=p
      )
    )
    for sampling in ("4:4:4", "4:2:2", "4:2:0")
    for quality, progressive in ((30, False), (95, False), (80, True))
  },
  "grey": lambda picture: jpeg(picture.convert("L")),
  "cmyk": lambda picture: jpeg(picture.convert("CMYK")),
  "rgb": lambda picture: jpeg(picture, keep_rgb=True),
  "rotation in the header": rotated,
  "bytes after the end": lambda picture: jpeg(picture) + b"more",
}


@pytest.mark.parametrize("name", VARIANTS)
def test_simplejpeg_and_opencv_give_the_same_bits(picture, name):
  data = VARIANTS[name](picture)
  wanted = cv2.imdecode(np.frombuffer(data, np.uint8), OPENCV)
  assert wanted.shape == (93, 61, 3)  # not rotated
  np.testing.assert_array_equal(simplejpeg.decode_jpeg(data, "RGB"), wanted)
  image = base.decode_image(data, name)
  np.testing.assert_array_equal(image, wanted)
  assert image.flags.writeable


def test_real_pictures_have_the_same_bits(samples):
  paths = sorted(samples.glob("pose2d/*/*.jpg"))
  assert len(paths) >= 10
  for path in paths:
    wanted = cv2.imread(str(path), OPENCV)
    np.testing.assert_array_equal(simplejpeg.decode_jpeg(path.read_bytes(), "RGB"), wanted)
    np.testing.assert_array_equal(base.read_image(path), wanted)


@pytest.mark.parametrize("ending", ["png", "bmp", "webp"])
def test_other_formats_are_read(picture, tmp_path, ending):
  picture.save(tmp_path / f"a.{ending}", lossless=True)
  np.testing.assert_array_equal(base.read_image(tmp_path / f"a.{ending}"), np.asarray(picture))


@pytest.mark.parametrize("left", [0, 1, 2, 100, 0.5, 0.99, -2, -1])
def test_truncated_jpeg_is_a_bad_record(picture, tmp_path, left):
  data = jpeg(picture)
  data = data[: int(left * len(data)) if isinstance(left, float) else left]
  (tmp_path / "a.jpg").write_bytes(data)
  with pytest.raises(base.BadRecordError, match=rf"a\.jpg: {len(data)} bytes"):
    base.read_image(tmp_path / "a.jpg")


def test_a_jpeg_with_damage_inside_decodes_as_in_opencv(picture):
  data = bytearray(jpeg(picture))
  data[len(data) // 2 : len(data) // 2 + 2] = b"\xff\xd9"  # a marker for the end of the picture
  with pytest.raises(ValueError, match="Corrupt"):
    simplejpeg.decode_jpeg(bytes(data), "RGB")
  image = base.decode_image(bytes(data), "damaged")
  np.testing.assert_array_equal(image, cv2.imdecode(np.frombuffer(data, np.uint8), OPENCV))


def test_missing_file_is_a_bad_record(tmp_path):
  with pytest.raises(base.BadRecordError, match=r"no\.jpg: cannot be read: No such file"):
    base.read_image(tmp_path / "no.jpg")


def test_encoded_jpeg_keeps_the_resolution_of_colours(picture):
  image = np.asarray(picture)
  data = picture_file.encode_jpeg(image)
  assert simplejpeg.decode_jpeg_header(data)[3] == "444"
  difference, halved = (
    np.abs(base.decode_image(encoded, "a").astype(int) - image).mean()
    for encoded in (data, jpeg(picture, quality=95, subsampling="4:2:0"))
  )
  assert difference < 0.8 * halved
