"""Draws masks over a picture: the patches that are hidden from the encoder, in the colour of their cause."""

import numpy as np

from hap_jax.data.skeletons import COCO17
from hap_jax.viz import canvas
from hap_jax.viz.pose import draw_skeleton

# Names of the values in a mask's `cause`. A patch is visible, or it is hidden for one of three reasons: it is
# on a body part, it is in a block, or it was added to reach the number of hidden patches. Colour-blind people
# can distinguish the colours (palette of Okabe and Ito).
CAUSES = ("visible", "part", "block", "fill")
COLORS = {"part": (213, 94, 0), "block": (0, 114, 178), "fill": (240, 228, 66)}
LEGEND = (
  (COLORS["part"], "hidden: on a body part"),
  (COLORS["block"], "hidden: by a block"),
  (COLORS["fill"], "hidden: to reach the count"),
)

_TINT = 0.68  # opacity of the colour over the grey picture
_LUMA = np.array((0.299, 0.587, 0.114))


def draw_mask(image, cause, grid, keypoints_xy=None, keypoints_visible=None, *, skeleton=COCO17, scale=1):
  """Draws a picture with the hidden patches in colour, the borders of all patches, and the joints if given.

  Args:
    image: [H, W, 3] uint8.
    cause: [L] integers, indices into `CAUSES`, row-major over the grid.
    grid: (Gh, Gw), number of patches. Gh must divide H, and Gw must divide W.
    keypoints_xy: [K, 2] pixels (x, y) of `image`, or None.
    keypoints_visible: [K] bool.
    skeleton: Skeleton of the joints.
    scale: whole number; the picture is enlarged by this factor.
  Returns:
    [H*scale, W*scale, 3] uint8.
  Raises:
    ValueError: if the shapes of grid, image and cause contradict each other, or a cause is unknown.
  """
  cause = np.asarray(cause)
  _check(image, cause, grid)
  Gh, Gw = grid
  picture = canvas.enlarge(np.asarray(image), scale)
  cells = picture.reshape(Gh, picture.shape[0] // Gh, Gw, picture.shape[1] // Gw, 3).astype(np.float32)
  colors = np.array([COLORS.get(name, (0, 0, 0)) for name in CAUSES], np.float32)[cause.reshape(Gh, Gw)]
  grey = (cells @ _LUMA)[..., None]
  tinted = (1 - _TINT) * grey + _TINT * colors[:, None, :, None]
  is_hidden = (cause != CAUSES.index("visible")).reshape(Gh, 1, Gw, 1, 1)
  cells = np.where(is_hidden, tinted, cells)
  # Borders: darken the first row and the first column of each patch, except at the edge of the picture.
  cells[1:, 0] *= 0.6
  cells[:, :, 1:, 0] *= 0.6
  picture = np.round(cells).astype(np.uint8).reshape(picture.shape)
  if keypoints_xy is not None:
    picture = draw_skeleton(picture, keypoints_xy, keypoints_visible, skeleton, scale=scale)
  return picture


def _check(image, cause, grid):
  Gh, Gw = grid
  if np.ndim(image) != 3 or np.shape(image)[2] != 3 or np.shape(image)[0] % Gh or np.shape(image)[1] % Gw:
    raise ValueError(
      f"image {list(np.shape(image))}: expected [H, W, 3] with H and W divisible by the grid {Gh}x{Gw}"
    )
  if cause.shape != (Gh * Gw,):
    raise ValueError(f"cause {list(cause.shape)}: expected [L], one number for each of {Gh}x{Gw} patches")
  if not np.isin(cause, range(len(CAUSES))).all():
    raise ValueError(f"cause holds {np.unique(cause).tolist()}; known are 0 to {len(CAUSES) - 1}: {CAUSES}")
