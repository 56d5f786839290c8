"""Transforms for person re-identification: Pillow's resize, crop with a border, box of random erasing.

They are called in the same way as the transforms of `image.py`. Records may have joints. The official
training transform (HAP's downstream_tasks/person_reid) is

  ResizeBicubic(size), HorizontalFlip(), PadCrop(), DrawErasing()

and its evaluation transform is only ResizeBicubic(size). Joints are moved with pixel edges: a resize from
width w to W changes x to x * W / w. A joint becomes missing if it is outside the picture before or after the
transform.
"""

import dataclasses
import math
from typing import ClassVar

import cv2
import numpy as np
from PIL import Image

from hap_jax.data.transforms.image import in_bounds

_TRIES = 10  # number of random boxes; if none of them fits, nothing is erased, as in the official code


@dataclasses.dataclass(frozen=True)
class ResizeBicubic:
  """Resizes the whole picture to `size` (H, W) with Pillow's bicubic filter, so the bytes equal Pillow's.

  When the filter shrinks a picture, it averages over all pixels that it covers. Pre-training uses OpenCV's
  filter, which does not average.
  """

  size: tuple[int, int]

  def __call__(self, record, rng):
    return resize_as_pillow(record, self.size, Image.Resampling.BICUBIC)


@dataclasses.dataclass(frozen=True)
class PadCrop:
  """Adds a black border of `pad` pixels to the picture and cuts out a random window of the original size.

  The top and the left side of the window are each drawn uniformly from 0, 1, ..., 2 * pad.
  """

  pad: int = 10

  def __post_init__(self):
    if self.pad < 0:
      raise ValueError(f"pad={self.pad}: expected at least 0 pixels (config.data.pad)")

  def __call__(self, record, rng):
    top, left = (int(rng.random() * (2 * self.pad + 1)) for _ in range(2))
    return self.crop(record, top, left)

  def crop(self, record, top, left):
    """Adds the border, and cuts the window at (top, left) out of the larger picture."""
    H, W = record["image"].shape[:2]
    border = cv2.copyMakeBorder(record["image"], *4 * (self.pad,), cv2.BORDER_CONSTANT)
    window = np.ascontiguousarray(border[top : top + H, left : left + W])
    return _moved(record, window, offset=(self.pad - left, self.pad - top))


@dataclasses.dataclass(frozen=True)
class DrawErasing:
  """Draws the box of random erasing with probability `prob`, and adds it as the field `erase_box`.

  `erase_box` is [4] int32, (top, left, height, width) in pixels. It is all zero if nothing is erased. The
  training step fills the box with noise on the device, after the pictures are normalised. Pictures can
  therefore be copied to the device as uint8.

  The area of the box is drawn from a uniform distribution, its height / width from a log-uniform
  distribution. A box that is at least as wide or as high as the picture is drawn again. If none of ten boxes
  fits, nothing is erased. Source: Random Erasing (arXiv 1708.04896) in timm's variant.

  Attributes:
    prob: probability of a box.
    area: (low, high) of the box's share of the picture's area.
    aspect: (low, high) of the box's height divided by its width.
  """

  prob: float = 0.5
  area: tuple[float, float] = (0.02, 1 / 3)
  aspect: tuple[float, float] = (0.3, 1 / 0.3)
  adds: ClassVar[tuple[str, ...]] = ("erase_box",)

  def __post_init__(self):
    if not 0 <= self.prob <= 1:
      raise ValueError(f"prob={self.prob}: expected 0 to 1 (config.data.erase_prob)")
    if not 0 < self.area[0] <= self.area[1] <= 1:
      raise ValueError(f"area={self.area}: expected (low, high) with 0 < low <= high <= 1")
    if not 0 < self.aspect[0] <= self.aspect[1]:
      raise ValueError(f"aspect={self.aspect}: expected (low, high), height / width, with 0 < low <= high")

  def __call__(self, record, rng):
    # The first random number decides whether there is a box. A test checks the order of the random numbers.
    box = self.draw_box(*record["image"].shape[:2], rng) if rng.random() < self.prob else (0, 0, 0, 0)
    return {**record, "erase_box": np.array(box, np.int32)}

  def draw_box(self, H, W, rng):
    """Draws a box (top, left, height, width) of integers in an H x W picture. All are 0 if no box fits."""
    log_low, log_high = math.log(self.aspect[0]), math.log(self.aspect[1])
    for _ in range(_TRIES):
      area = H * W * (self.area[0] + (self.area[1] - self.area[0]) * rng.random())
      aspect = math.exp(log_low + (log_high - log_low) * rng.random())
      height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
      if height < H and width < W:
        return int(rng.random() * (H - height + 1)), int(rng.random() * (W - width + 1)), height, width
    return 0, 0, 0, 0


def resize_as_pillow(record, size, resampling):
  """Resizes a record's picture to `size` (H, W) with a filter of Pillow, and moves the joints, if any."""
  (H, W), (height, width) = size, record["image"].shape[:2]
  image = np.array(Image.fromarray(record["image"]).resize((W, H), resampling))
  return _moved(record, image, scale=(W / width, H / height))


def _moved(record, image, scale=(1, 1), offset=(0, 0)):
  """Returns the record with the new image. If it has joints, they move to xy * scale + offset."""
  if "keypoints_xy" not in record:
    return {**record, "image": image}
  visible = record["keypoints_visible"] & in_bounds(record["keypoints_xy"], record["image"].shape)
  xy = record["keypoints_xy"] * np.array(scale, np.float32) + np.array(offset, np.float32)
  visible = visible & in_bounds(xy, image.shape)
  xy[~visible] = 0
  return {**record, "image": image, "keypoints_xy": xy, "keypoints_visible": visible}
