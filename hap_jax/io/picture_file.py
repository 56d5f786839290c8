"""Writes picture files: OpenCV encodes the pixels, Python writes the bytes.

OpenCV never gets a file name, because it crashes on a name that is not UTF-8.
"""

import pathlib

import cv2
import numpy as np

from hap_jax.io import unfinished


def write(path, picture, *, quality=95):
  """Writes a picture as a PNG or JPEG file. A reader sees the old file or the new file, never a part.

  Args:
    path: the file to write or replace. Its ending is .png, .jpg or .jpeg.
    picture: [H, W, 3] uint8 RGB.
    quality: 1 to 100, for JPEG only.
  Raises:
    ValueError: for another ending, or a picture that OpenCV cannot encode.
    OSError: if the file cannot be written.
  """
  path = pathlib.Path(path)
  check_ending(path)
  is_png = path.suffix.lower() == ".png"
  replace(path, encode_png(picture) if is_png else encode_jpeg(picture, quality))


def check_ending(path):
  """Raises ValueError if `write` has no format for the ending of `path`."""
  if pathlib.Path(path).suffix.lower() not in (".png", ".jpg", ".jpeg"):
    raise ValueError(f"{path}: expected a name that ends in .png, .jpg or .jpeg")


def replace(path, data):
  """Writes bytes to a temporary file and renames it to `path`."""
  with unfinished.new_file(path) as file:
    file.write(data)


def encode_png(picture):
  """Returns a picture [H, W, 3] uint8 RGB as the bytes of a PNG file. Raises ValueError if OpenCV cannot."""
  return _encode(".png", picture, ())


def encode_jpeg(picture, quality=95):
  """Returns a picture as the bytes of a JPEG file.

  Colours keep their full resolution. Persons are small, so half the resolution would cause most of the error.

  Args:
    picture: [H, W, 3] uint8 RGB.
    quality: 1 to 100.
  Raises:
    ValueError: if OpenCV cannot encode the picture.
  """
  options = (cv2.IMWRITE_JPEG_QUALITY, quality)
  options += (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
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
