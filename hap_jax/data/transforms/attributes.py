"""Transforms for pedestrian attributes. Only the resize filter differs from person ReID.

The official training transform (HAP's downstream_tasks/pedestrian_attribute_recognition) is

  ResizeBilinear(size), PadCrop(), HorizontalFlip()

and its evaluation transform is only ResizeBilinear(size). No scored attribute depends on left or right, so a
mirror does not change the labels.
"""

import dataclasses

from PIL import Image

from hap_jax.data.transforms.reid import resize_as_pillow


@dataclasses.dataclass(frozen=True)
class ResizeBilinear:
  """Resizes the whole picture to `size` (H, W) with Pillow's bilinear filter, so the bytes equal Pillow's.

  When the filter shrinks a picture, it averages over all pixels that it covers.
  """

  size: tuple[int, int]

  def __call__(self, record, rng):
    return resize_as_pillow(record, self.size, Image.Resampling.BILINEAR)
