"""Transforms of one person record: random crop, resize, mirror, pixel shuffle.

A transform is called with (record, rng), where `rng` is a np.random.Generator for this record only. It
returns a new record in which image, keypoints_xy and keypoints_visible are changed together. If a record has
no joints, only its image is changed. All other fields keep their values.

The geometry equals HAP's official pre-training transform, for parity. The resize uses pixel edges: a crop of
width w becomes W pixels wide, and x' = (x - left) * W / w. The mirror uses pixel centres: x' = W - 1 - x. A
joint becomes missing if it is outside the original picture or if the moved joint is outside the result.
Inside means 0 <= x < W and 0 <= y < H. The xy of a missing joint is set to 0.
"""

import dataclasses
import math

import cv2
import numpy as np

_TRIES = 10  # number of random windows; if none of them fits, the centred crop is used


def crop_resize(record, crop, size, flip=False):
  """Cuts a window out of a picture, resizes it to `size` with a bicubic filter, and mirrors it if `flip`.

  Only the window is resized. At its border, the filter repeats border pixels. So pixels outside the window
  have no effect.

  Args:
    record: dictionary with "image" [H0, W0, 3] uint8. If it also has joints, they move with the picture.
    crop: (top, left, height, width) in pixels, inside the picture.
    size: (H, W) of the result.
    flip: True to mirror left and right. The rows of left and right joints are not exchanged.

  Returns:
    a new record with the new image [H, W, 3] uint8 and the moved joints.
  """
  top, left, height, width = crop
  H, W = size
  window = record["image"][top : top + height, left : left + width]
  resized = cv2.resize(window, (W, H), interpolation=cv2.INTER_CUBIC)
  if flip:
    resized = cv2.flip(resized, 1)
  return {**record, "image": resized, **moved_joints(record, crop, size, flip)}


def moved_joints(record, crop, size, flip=False):
  """Returns {field: array}, the joints of a record after `crop_resize`, or {} if the record has no joints."""
  if "keypoints_xy" not in record:
    return {}
  joints = record["keypoints_xy"], record["keypoints_visible"]
  xy, visible = move_joints(*joints, record["image"].shape, crop, size, flip)
  return {"keypoints_xy": xy, "keypoints_visible": visible}


def move_joints(keypoints_xy, keypoints_visible, image_size, crop, size, flip=False):
  """Moves joints in the same way as `crop_resize` moves a picture.

  Args:
    keypoints_xy: [K, 2] float32, pixels (x, y) of the picture.
    keypoints_visible: [K] bool.
    image_size: (H0, W0, ...) of the picture.
    crop: see `crop_resize`.
    size: see `crop_resize`.
    flip: see `crop_resize`.
  Returns:
    (keypoints_xy [K, 2] float32, keypoints_visible [K] bool).
  """
  top, left, height, width = crop
  (H0, W0), (H, W) = image_size[:2], size
  # All values are in one array: for only 17 joints, the number of NumPy calls determines the time.
  numbers = np.array((left, top, W / width, H / height, W0, H0, W, H), np.float32)
  inside = (keypoints_xy >= 0) & (keypoints_xy < numbers[4:6])
  xy = (keypoints_xy - numbers[:2]) * numbers[2:4]
  if flip:
    xy[:, 0] = (W - 1) - xy[:, 0]
  # Parity: as in the official code, the joint is tested once, after the crop and the mirror. A joint up to
  # one pixel left of the window is therefore inside if the picture is mirrored.
  inside &= (xy >= 0) & (xy < numbers[6:])
  visible = keypoints_visible & inside[:, 0] & inside[:, 1]
  xy[~visible] = 0
  return xy, visible


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop:
  """Cuts a random window, resizes it to `size`, and mirrors it with probability `flip_prob`.

  The area of the window is drawn from a uniform distribution, its aspect from a log-uniform distribution. A
  window that does not fit into the picture is drawn again. If none of ten windows fits, the largest centred
  window with the nearest allowed aspect is used.

  With flip_prob=0.5 this transform equals the official pre-training transform. With flip_prob=0 and a
  HorizontalFlip after it, the result differs for a joint up to one pixel left of the window. This joint
  becomes missing, but the official transform keeps it if the picture is mirrored.

  Attributes:
    size: (H, W) of the result.
    area: (low, high) of the window's share of the picture's area.
    aspect: (low, high) of the window's width divided by its height.
    flip_prob: probability of the mirror. The rows of left and right joints are not exchanged.
  """

  size: tuple[int, int]
  area: tuple[float, float] = (0.8, 1.0)
  aspect: tuple[float, float] = (0.5 * 3 / 4, 0.5 * 4 / 3)
  flip_prob: float = 0.0

  def __post_init__(self):
    if not 0 < self.area[0] <= self.area[1] <= 1:
      raise ValueError(f"area={self.area}: expected (low, high) with 0 < low <= high <= 1")
    if not 0 < self.aspect[0] <= self.aspect[1]:
      raise ValueError(f"aspect={self.aspect}: expected (low, high), width / height, with 0 < low <= high")

  def __call__(self, record, rng):
    return crop_resize(record, *self.draw(record["image"].shape, rng))

  def draw(self, image_size, rng):
    """Draws the crop and the flip of a picture of `image_size` (H, W, ...).

    Returns:
      (crop (top, left, height, width), size of the result, flip).
    """
    crop = self.draw_crop(*image_size[:2], rng)
    return crop, self.size, self.flip_prob > 0 and rng.random() < self.flip_prob

  def draw_crop(self, H, W, rng):
    """Draws a window of an H x W picture. Returns (top, left, height, width), integers."""
    area_low, area_high = self.area
    log_low, log_high = math.log(self.aspect[0]), math.log(self.aspect[1])
    for _ in range(_TRIES):
      area = H * W * (area_low + (area_high - area_low) * rng.random())
      aspect = math.exp(log_low + (log_high - log_low) * rng.random())
      height, width = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
      if 0 < height <= H and 0 < width <= W:
        # rng.random() < 1, so `top` is at most H - height. This is four times faster than rng.integers.
        return int(rng.random() * (H - height + 1)), int(rng.random() * (W - width + 1)), height, width
    return self._centred_crop(H, W)

  def _centred_crop(self, H, W):
    height, width = H, W
    aspect = W / H
    if aspect < self.aspect[0]:
      height = max(1, round(W / self.aspect[0]))
    elif aspect > self.aspect[1]:
      width = max(1, round(H * self.aspect[1]))
    return (H - height) // 2, (W - width) // 2, height, width


@dataclasses.dataclass(frozen=True)
class ResizeWhole:
  """Resizes the whole picture to `size` (H, W) with the filter of `RandomResizedCrop`, for evaluation."""

  size: tuple[int, int]

  def __call__(self, record, rng):
    H, W = record["image"].shape[:2]
    return crop_resize(record, (0, 0, H, W), self.size)


@dataclasses.dataclass(frozen=True)
class HorizontalFlip:
  """Mirrors left and right with probability `prob`. It uses pixel centres: x' = W - 1 - x.

  If a record has no joints, only its image is mirrored.

  Attributes:
    flip_pairs: pairs (left, right) of joints whose rows are exchanged, from `skeletons.py`. Empty: every
      joint keeps its row. This is correct if joints are only used to find body parts, because left and right
      do not matter then.
    prob: probability of the mirror.
  """

  flip_pairs: tuple[tuple[int, int], ...] = ()
  prob: float = 0.5

  def __call__(self, record, rng):
    if rng.random() >= self.prob:
      return record
    image = cv2.flip(record["image"], 1)
    if "keypoints_xy" not in record:
      return {**record, "image": image}
    H, W = image.shape[:2]
    order = np.arange(len(record["keypoints_xy"]))
    for left, right in self.flip_pairs:
      order[[left, right]] = right, left
    xy = record["keypoints_xy"][order]
    xy[:, 0] = (W - 1) - xy[:, 0]
    visible = record["keypoints_visible"][order] & in_bounds(xy, (H, W))
    xy[~visible] = 0
    return {**record, "image": image, "keypoints_xy": xy, "keypoints_visible": visible}


@dataclasses.dataclass(frozen=True)
class ShufflePixels:
  """Puts the pixels of a picture in random order. The joints do not move.

  It is for control experiments: the picture keeps its colours and loses all structure. The generator of the
  record draws the order. An evaluation has only one epoch, so a record has the same order in every evaluation
  with the same seed.
  """

  def __call__(self, record, rng):
    image = record["image"]
    return {**record, "image": rng.permutation(image.reshape(-1, image.shape[-1])).reshape(image.shape)}


def in_bounds(xy, size):
  """Returns [K] bool, True for joints [K, 2] inside a picture of size (H, W, ...): 0 <= x < W, 0 <= y < H."""
  inside = (xy >= 0) & (xy < (size[1], size[0]))
  return inside[:, 0] & inside[:, 1]
