"""Transforms of pedestrian attributes: those of person ReID but for the filter of the resize.

The official training transform (HAP's downstream_tasks/pedestrian_attribute_recognition) is

  ResizeBilinear(size), PadCrop(), HorizontalFlip()

and its evaluation ResizeBilinear(size) alone. No attribute that is scored tells left from right, so a mirror
keeps them all.
"""

import dataclasses

from PIL import Image

from hap_jax.data.transforms.reid import resize_as_pillow


@dataclasses.dataclass(frozen=True)
class ResizeBilinear:
  """Resizes the whole picture to `size` (H, W) by Pillow's bilinear filter, to the same bytes.

  It averages over all pixels under the filter when it shrinks a picture.
  """

  size: tuple[int, int]

  def __call__(self, record, rng):
    return resize_as_pillow(record, self.size, Image.Resampling.BILINEAR)
