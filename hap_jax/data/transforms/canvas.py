"""The random crop divided between host and device: here it is drawn and joints are moved, there pixels are.

The draws, the joints and, within a grey level, the pixels are those of `RandomResizedCrop`; the host is left
with decoding. In exchange whole pictures travel to the device: a canvas of 400 x 200 pixels is 2.4 times as
many bytes as 256 x 128.
"""

import dataclasses

import cv2
import numpy as np

from hap_jax.data.transforms.image import RandomResizedCrop, crop_resize, move_joints


@dataclasses.dataclass(frozen=True)
class CropOnDevice:
  """Draws a random crop and leaves it to `pixels.warp.crop_resize_flip`.

  The picture comes into the top left corner of a canvas, all other pixels of which are 0 and never looked at.
  A larger picture is warped here, as without this transform, and the result goes to the corner with a window
  and no flip that copy it exactly; so no picture is refused, and large ones only cost time.

  Adds the fields crop [4] int32, (top, left, height, width), and flip [] bool.

  Attributes:
    crop: what is drawn, and the size of the result. canvas: (H, W) pixels, at least that size.
  """

  crop: RandomResizedCrop
  canvas: tuple[int, int]

  adds = ("crop", "flip")

  def __post_init__(self):
    if any(side < result for side, result in zip(self.canvas, self.crop.size, strict=True)):
      raise ValueError(f"canvas={self.canvas}: expected (H, W) of at least {self.crop.size}, the crop's size")

  def __call__(self, record, rng):
    image, joints = record["image"], (record["keypoints_xy"], record["keypoints_visible"])
    crop, size, flip = self.crop.draw(image.shape, rng)
    if image.shape[0] > self.canvas[0] or image.shape[1] > self.canvas[1]:
      image, xy, visible = crop_resize(image, *joints, crop, size, flip)
      crop, flip = (0, 0, *size), False
    else:
      xy, visible = move_joints(*joints, image.shape, crop, size, flip)
    (H, W), (H0, W0) = self.canvas, image.shape[:2]
    return {
      **record,
      "image": cv2.copyMakeBorder(image, 0, H - H0, 0, W - W0, cv2.BORDER_CONSTANT, value=0),
      "keypoints_xy": xy,
      "keypoints_visible": visible,
      "crop": np.array(crop, np.int32),
      "flip": np.bool_(flip),
    }
