"""The random crop, divided between host and device.

The host draws the crop and moves the joints. The device cuts out the crop and resizes it. The crop and the
joints are equal to the results of `RandomResizedCrop`. The pixels differ by at most one grey level.

So the host saves the time to resize pictures. But whole pictures are copied to the device: a canvas of
400 x 200 pixels has 2.4 times as many bytes as a result of 256 x 128.
"""

import dataclasses

import cv2
import numpy as np

from hap_jax.data.transforms.image import RandomResizedCrop, crop_resize, moved_joints


@dataclasses.dataclass(frozen=True)
class CropOnDevice:
  """Draws a random crop, which `pixels.warp.crop_resize_flip` cuts out on the device.

  The picture is put into the top left corner of a canvas. The other pixels of the canvas are 0, and no crop
  contains them. A picture that is larger than the canvas is cropped, resized and mirrored on the host, and
  the result is put into the corner. In this case, the fields `crop` and `flip` are set so that the device
  copies the result without a change. So large pictures are possible, but take more time.

  The transform adds two fields: crop [4] int32, which is (top, left, height, width), and flip [] bool.

  Attributes:
    crop: transform that draws the crop and sets the size of the result.
    canvas: (H, W) in pixels, at least the size of the result.
  """

  crop: RandomResizedCrop
  canvas: tuple[int, int]

  adds = ("crop", "flip")

  def __post_init__(self):
    if any(side < result for side, result in zip(self.canvas, self.crop.size, strict=True)):
      raise ValueError(f"canvas={self.canvas}: expected (H, W) of at least {self.crop.size}, the crop's size")

  def __call__(self, record, rng):
    image = record["image"]
    crop, size, flip = self.crop.draw(image.shape, rng)
    if image.shape[0] > self.canvas[0] or image.shape[1] > self.canvas[1]:
      # Uses the crop and flip drawn above, so a large picture gets the same augmentation as a small one.
      record = crop_resize(record, crop, size, flip)
      image, crop, flip = record["image"], (0, 0, *size), False
    else:
      record = {**record, **moved_joints(record, crop, size, flip)}
    (H, W), (H0, W0) = self.canvas, image.shape[:2]
    return {
      **record,
      "image": cv2.copyMakeBorder(image, 0, H - H0, 0, W - W0, cv2.BORDER_CONSTANT, value=0),
      "crop": np.array(crop, np.int32),
      "flip": np.bool_(flip),
    }


def make_crop(*, image_size, area, aspect, flip_prob, canvas_size=None):
  """Makes the transform that crops training pictures.

  Args:
    image_size: (H, W) in pixels of the crops.
    area: (low, high) of the crop's share of the picture's area.
    aspect: (low, high) of the crop's width divided by its height.
    flip_prob: probability that the picture is mirrored.
    canvas_size: (H, W) in pixels of the canvas, if the crop is done on the device. None: the loader crops.
  """
  crop = RandomResizedCrop(size=image_size, area=area, aspect=aspect, flip_prob=flip_prob)
  return CropOnDevice(crop=crop, canvas=canvas_size) if canvas_size else crop
