"""Writes picture files. OpenCV encodes the pixels, and Python writes the bytes.

OpenCV gets no file name, because it crashes if the name is not UTF-8.
"""

import pathlib

import cv2
import numpy as np

from hap_jax.io import unfinished


def write(path, picture, *, quality=95):
  """Writes a picture as a PNG or JPEG file.

  Another program sees the old file or the new file, but never a part of the new file.

  Args:
    path: the file to write or replace. Its ending is .png, .jpg or .jpeg.
    picture: [H, W, 3] uint8 RGB.
    quality: 1 to 100, for JPEG only.
  Returns:
    the bytes of the file.
  Raises:
    ValueError: if the file has another ending, or if OpenCV cannot encode the picture.
    OSError: if the file cannot be written.
  """
  path = pathlib.Path(path)
  check_ending(path)
  is_png = path.suffix.lower() == ".png"
  data = _encode(".png", picture, ()) if is_png else encode_jpeg(picture, quality)
  unfinished.write(path, data)
  return data


def check_ending(path):
  """Raises ValueError if the ending of `path` is not .png, .jpg or .jpeg, which `write` supports."""
  if pathlib.Path(path).suffix.lower() not in (".png", ".jpg", ".jpeg"):
    raise ValueError(f"{path}: expected a name that ends in .png, .jpg or .jpeg")


def encode_jpeg(picture, quality=95, *, half_colors=False):
  """Returns the bytes of a JPEG file.

  Args:
    picture: [H, W, 3] uint8 RGB.
    quality: 1 to 100.
    half_colors: True: the colours are stored at half the resolution, as in most JPEG files. False: they are
      stored at the full resolution. This is the default, because pictures of persons are small. With
      quality=95, half the resolution causes most of the error.
  Raises:
    ValueError: if OpenCV cannot encode the picture.
  """
  sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420 if half_colors else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
  options = (cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling)
  return _encode(".jpg", picture, options)


def _encode(ending, picture, options):
  try:
    # OpenCV expects the channels in the order blue, green, red.
    bgr = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2BGR)
    is_coded, data = cv2.imencode(ending, bgr, options)
  except cv2.error as error:
    raise ValueError(f"a picture of shape {picture.shape} cannot be encoded as {ending}: {error}") from error
  if not is_coded:
    raise ValueError(f"a picture of shape {picture.shape} cannot be encoded as {ending}")
  return data.tobytes()
