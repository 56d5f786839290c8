"""Transforms of person re-identification: resize as Pillow does, crop with a border, a box to be erased.

Called as those of `image.py` are; records may have joints or not. The official training transform (HAP's
downstream_tasks/person_reid) is

  ResizeBicubic(size), HorizontalFlip(), PadCrop(), DrawErasing()

and its evaluation ResizeBicubic(size) alone. Joints are moved by the rule of pixel edges: a resize from width
w to W takes x to x * W / w. A joint is missing when it lies outside the picture before or after.
"""

import dataclasses
import math
from typing import ClassVar

import cv2
import numpy as np
from PIL import Image

from hap_jax.data.transforms.image import in_bounds

_TRIES = 10  # draws of a box before nothing is erased (official)


@dataclasses.dataclass(frozen=True)
class ResizeBicubic:
  """Resizes the whole picture to `size` (H, W) by Pillow's bicubic filter, to the same bytes.

  It averages over all pixels under the filter when it shrinks a picture, which OpenCV's, the one of
  pre-training, does not.
  """

  size: tuple[int, int]

  def __call__(self, record, rng):
    return resize_as_pillow(record, self.size, Image.Resampling.BICUBIC)


@dataclasses.dataclass(frozen=True)
class PadCrop:
  """Puts a black border of `pad` pixels around the picture and cuts a window of its old size out at random.

  Both offsets are uniform on 0 ... 2 * pad.
  """

  pad: int = 10

  def __post_init__(self):
    if self.pad < 0:
      raise ValueError(f"pad={self.pad}: expected at least 0 pixels (config.data.pad)")

  def __call__(self, record, rng):
    top, left = (int(rng.random() * (2 * self.pad + 1)) for _ in range(2))
    return self.crop(record, top, left)

  def crop(self, record, top, left):
    """Cuts the window at (top, left) of the picture with its border."""
    H, W = record["image"].shape[:2]
    border = cv2.copyMakeBorder(record["image"], *4 * (self.pad,), cv2.BORDER_CONSTANT)
    window = np.ascontiguousarray(border[top : top + H, left : left + W])
    return _moved(record, window, offset=(self.pad - left, self.pad - top))


@dataclasses.dataclass(frozen=True)
class DrawErasing:
  """Draws the box of random erasing, with probability `prob`, into the new field `erase_box`.

  `erase_box` is [4] int32, (top, left, height, width) in pixels, all zero where nothing is to be erased. The
  step fills it with noise on the device, after normalisation, so pictures travel as uint8. The box's area is
  uniform and its height / width log-uniform; one as wide or as high as the picture is drawn again, ten times
  in all, then nothing is erased. Source: Random Erasing (arXiv 1708.04896) in timm's variant.

  Attributes:
    prob: probability of a box.
    area: range of the box's share of the picture.
    aspect: range of its height / width.
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
    box = self.draw_box(*record["image"].shape[:2], rng) if rng.random() < self.prob else (0, 0, 0, 0)
    return {**record, "erase_box": np.array(box, np.int32)}

  def draw_box(self, H, W, rng):
    """Draws a box in an H x W picture: (top, left, height, width), integers, all zero if none fits."""
    log_low, log_high = math.log(self.aspect[0]), math.log(self.aspect[1])
    for _ in range(_TRIES):
      area = H * W * (self.area[0] + (self.area[1] - self.area[0]) * rng.random())
      aspect = math.exp(log_low + (log_high - log_low) * rng.random())
      height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
      if height < H and width < W:
        return int(rng.random() * (H - height + 1)), int(rng.random() * (W - width + 1)), height, width
    return 0, 0, 0, 0


def resize_as_pillow(record, size, resampling):
  """Resizes a record's picture to `size` (H, W) by a filter of Pillow's, its joints with it."""
  (H, W), (height, width) = size, record["image"].shape[:2]
  image = np.array(Image.fromarray(record["image"]).resize((W, H), resampling))
  return _moved(record, image, scale=(W / width, H / height))


def _moved(record, image, scale=(1, 1), offset=(0, 0)):
  """Returns the record with another image; its joints, if it has some, go to xy * scale + offset."""
  if "keypoints_xy" not in record:
    return {**record, "image": image}
  visible = record["keypoints_visible"] & in_bounds(record["keypoints_xy"], record["image"].shape)
  xy = record["keypoints_xy"] * np.array(scale, np.float32) + np.array(offset, np.float32)
  visible = visible & in_bounds(xy, image.shape)
  xy[~visible] = 0
  return {**record, "image": image, "keypoints_xy": xy, "keypoints_visible": visible}
