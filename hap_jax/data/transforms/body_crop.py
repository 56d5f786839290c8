"""Transforms of one person in a whole picture for 3D pose: square region, mirror, scale, rotation, colours.

A record holds the whole picture, the box of the person, [4] float32 (left, top, right, bottom) in pixels of
the picture, and the intrinsics of its camera, [3, 3] float32. The first transform adds `region`, [4] float32:
(centre x, centre y, side, side). `CropSquare` cuts the region out and adds `crop`, [2, 3] float32, the matrix
from pixels of the picture to pixels of the new image.

The pose, the shape and the translation of the body stay as they are. The training step moves them, because it
has the body model. So a mirror sets `is_mirrored`, and a turn sets `rotation` in degrees.

The rules are those of the official code (HAP's downstream_tasks/3d_pose_estimation). It does not normalise
the colours; here the step normalises them as in pre-training.
"""

import dataclasses

import cv2
import numpy as np

from hap_jax.data.sources.base import BadRecordError
from hap_jax.data.transforms import square_crop
from hap_jax.data.transforms.topdown import ScaleRotate


@dataclasses.dataclass(frozen=True)
class PersonSquare:
  """Adds the field `region`: the square around the box, see `square_crop.square_of_box`.

  Attributes:
    is_training: True: a person whose box has no area inside the picture is a bad record.
  """

  is_training: bool = False

  adds = ("region",)

  def __call__(self, record, rng):
    H, W = record["image"].shape[:2]
    left, top, right, bottom = record["box"].tolist()
    square = square_crop.square_box(
      (left, top, right - left, bottom - top), (H, W), training=self.is_training
    )
    if square is None:
      raise BadRecordError(
        f"the box {record['box'].tolist()} has no area inside the picture of {(H, W)} pixels"
      )
    x, y, side, _ = square
    return {**record, "region": np.array([x + side / 2, y + side / 2, side, side], np.float32)}


@dataclasses.dataclass(frozen=True)
class MirrorPicture:
  """Mirrors picture, region and principal point with probability `prob`: x' = W - 1 - x.

  It adds the field is_mirrored [] bool. Random numbers: one decides whether the picture is mirrored.
  """

  prob: float = 0.5

  adds = ("is_mirrored",)

  def __post_init__(self):
    if not 0 <= self.prob <= 1:
      raise ValueError(f"prob={self.prob}: expected a probability, 0 to 1")

  def __call__(self, record, rng):
    if rng.random() >= self.prob:
      return {**record, "is_mirrored": np.bool_(False)}
    image = cv2.flip(record["image"], 1)
    last = image.shape[1] - 1
    region, intrinsics = record["region"].copy(), record["intrinsics"].copy()
    region[0] = last - region[0]
    intrinsics[0, 2] = last - intrinsics[0, 2]
    return {
      **record,
      "image": image,
      "region": region,
      "intrinsics": intrinsics,
      "is_mirrored": np.bool_(True),
    }


@dataclasses.dataclass(frozen=True)
class ColorGain:
  """Multiplies each channel by a random factor from 1 - gain to 1 + gain. Random numbers: three factors."""

  gain: float = 0.2

  def __call__(self, record, rng):
    factors = rng.uniform(1 - self.gain, 1 + self.gain, 3).astype(np.float32)
    image = np.rint(np.minimum(record["image"] * factors, 255)).astype(np.uint8)
    return {**record, "image": image}


@dataclasses.dataclass(frozen=True)
class CropSquare:
  """Cuts the region out of the picture, turned by the field `rotation` if it exists.

  Pixels are interpolated linearly and rounded. Pixels outside the picture are black. The transform adds the
  field `crop`, see the top of this file.

  Attributes:
    size: (S, S) pixels of the result.
  """

  size: tuple[int, int]

  adds = ("crop",)

  def __call__(self, record, rng):
    region = record["region"]
    matrix = square_crop.crop_matrix(region, float(record.get("rotation", 0)), self.size)
    image = cv2.warpAffine(record["image"], matrix, self.size[::-1], flags=cv2.INTER_LINEAR)
    return {**record, "image": image, "crop": matrix.astype(np.float32)}


def make_augmentation(*, image_size, flip_prob, scale, rotation, rotation_prob, color_gain):
  """Makes the transforms of training records.

  Args:
    image_size: (S, S) pixels of the network's input.
    flip_prob: probability of the mirror.
    scale, rotation, rotation_prob: see `topdown.ScaleRotate`.
    color_gain: see `ColorGain`.
  Returns:
    tuple of transforms.
  """
  return (
    PersonSquare(is_training=True),
    MirrorPicture(flip_prob),
    ScaleRotate(scale, rotation, rotation_prob),
    CropSquare(tuple(image_size)),
    ColorGain(color_gain),
  )


def make_view(*, image_size):
  """Makes the transforms of evaluation records: the whole region, without rotation. Returns a tuple."""
  return PersonSquare(), CropSquare(tuple(image_size))
