"""Normalises uint8 RGB pixels for the encoder. The jitted step calls it, so it runs on the device."""

import numpy as np

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalize(image, mean=IMAGENET_MEAN, std=IMAGENET_STD):
  """Returns (image / 255 - mean) / std.

  Args:
    image: [..., 3] uint8, RGB.
    mean, std: three numbers each, one per channel, for pixels scaled to [0, 1].
  Returns:
    [..., 3] float32.
  """
  return (image.astype(np.float32) / 255 - np.asarray(mean, np.float32)) / np.asarray(std, np.float32)
