"""Draws a sheet of posed people: each picture with its joints, and with a mask of pre-training."""

import jax
import numpy as np

from hap_jax.data.skeletons import COCO17
from hap_jax.data.transforms.image import ResizeWhole
from hap_jax.masking import sampler as masking
from hap_jax.viz import masks, sheet
from hap_jax.viz.pose import draw_sides

_SIZE, _PATCH = (256, 128), 16  # the size of HAP's pictures, and the side of its patches
PEOPLE = 24  # the largest number of people on a sheet
_COLUMNS = 6  # people per row
_GAP, _GROUP_GAP = 4, 22


def draw(images, keypoints):
  """Draws the sheet.

  Args:
    images: n pictures [H, W, 3] uint8 of any size.
    keypoints: [n, 17, 3] float32, x and y in pixels of the pictures, and a score. Joints outside of their
      pictures are missing.
  Returns:
    [h, w, 3] uint8.
  """
  records = [_resize(image, joints) for image, joints in zip(images, keypoints, strict=True)]
  grid = (_SIZE[0] // _PATCH, _SIZE[1] // _PATCH)
  pairs = []
  for record, cause in zip(records, _draw_masks(records, grid), strict=True):
    joints = record["keypoints_xy"], record["keypoints_visible"]
    with_joints = draw_sides(record["image"], *joints, np.zeros(len(COCO17.joints), bool), COCO17)
    pairs.append((with_joints, masks.draw_mask(record["image"], cause, grid, *joints)))
  rows = [pairs[start : start + _COLUMNS] for start in range(0, len(pairs), _COLUMNS)]
  columns = min(_COLUMNS, len(pairs))
  return sheet.draw(
    [[tile for pair in row for tile in pair] for row in rows],
    gaps=([_GAP, _GROUP_GAP] * columns)[:-1],
    title=f"{len(images)} people with their joints, and masks of pre-training",
    legends=[masks.LEGEND],
    note="Blue is the person's own left side, orange the right side. Joints outside the picture are missing.",
  )


def _draw_masks(records, grid):
  """Returns the cause of each patch, [n, L] as in `masking.Mask`, in masks of n records."""
  recipe = masking.MaskRecipe(grid, _PATCH)
  sample = jax.jit(lambda batch: masking.sample_masks_by_index(batch, 0, 1, recipe).cause[:, 0])
  # The rows are filled up, so every sheet runs the same program.
  rows = np.minimum(np.arange(max(len(records), PEOPLE)), len(records) - 1)
  joints = {
    name: np.stack([records[row][name] for row in rows]) for name in ("keypoints_xy", "keypoints_visible")
  }
  return np.asarray(sample({**joints, "index": np.arange(len(rows), dtype=np.int32)}))[: len(records)]


def _resize(image, joints):
  """Returns the person record of a picture, resized to the size of HAP's pictures."""
  xy, (H, W) = joints[:, :2], image.shape[:2]
  inside = (xy >= 0).all(axis=1) & (xy < (W, H)).all(axis=1)
  record = {"image": image, "keypoints_xy": xy, "keypoints_visible": inside}
  return ResizeWhole(size=_SIZE)(record, None)
