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
  Returns:
    the bytes of the file.
  Raises:
    ValueError: for another ending, or a picture that OpenCV cannot encode.
    OSError: if the file cannot be written.
  """
  path = pathlib.Path(path)
  check_ending(path)
  is_png = path.suffix.lower() == ".png"
  data = _encode(".png", picture, ()) if is_png else encode_jpeg(picture, quality)
  unfinished.write(path, data)
  return data


def check_ending(path):
  """Raises ValueError if `write` has no format for the ending of `path`."""
  if pathlib.Path(path).suffix.lower() not in (".png", ".jpg", ".jpeg"):
    raise ValueError(f"{path}: expected a name that ends in .png, .jpg or .jpeg")


def encode_jpeg(picture, quality=95, *, half_colors=False):
  """Encodes [H, W, 3] uint8 RGB as the bytes of a JPEG file.

  Args:
    picture: [H, W, 3] uint8 RGB.
    quality: 1 to 100.
    half_colors: whether colours have half the resolution, as in most files. By default they keep all of it:
      persons are small, and halving it is most of the error at this quality.
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
