"""Draws a panel that shows masked pre-training: pictures, masks and predictions of the model."""

import dataclasses

import numpy as np

from hap_jax.data.skeletons import COCO17
from hap_jax.pixels.normalize import IMAGENET_MEAN, IMAGENET_STD, normalize
from hap_jax.viz import canvas, sheet
from hap_jax.viz.masks import CAUSES, LEGEND, draw_mask
from hap_jax.viz.pose import draw_skeleton

RANGE = 2.5  # in units of the target space; -RANGE is drawn black, RANGE white
VARIANCE_EPSILON = 1e-6  # added to the variance of each patch (same as in HAP and MAE)

_WIDTH = 1400  # pixels. Pictures are enlarged by a whole number, so that the panel is about this wide
_MAX_CELL_HEIGHT = 320
_GAP, _GROUP_GAP = 4, 18
_TEXT = 17


@dataclasses.dataclass(frozen=True)
class Reconstruction:
  """The prediction as three kinds of pictures, each [N, views, H, W, 3] uint8.

  Attributes:
    target_space: the prediction itself. 0 is mid-grey, -RANGE is black, RANGE is white.
    denormalized: the prediction as colours. If patches were standardised, this is undone with the true mean
      and standard deviation of each patch.
    pasted: `denormalized` in the hidden patches, the original picture in the visible patches.
  """

  target_space: np.ndarray
  denormalized: np.ndarray
  pasted: np.ndarray


def reconstruct(images, cause, pred, *, grid, patch, target_space, mean=IMAGENET_MEAN, std=IMAGENET_STD):
  """Converts predicted patches to pictures.

  Args:
    images: [N, H, W, 3] uint8.
    cause: [N, views, L] integers, indices into `masks.CAUSES`. 0: visible.
    pred: [N, views, L, P*P*3]. The order inside a patch is rows, then columns, then channels.
    grid: (Gh, Gw).
    patch: side P in pixels.
    target_space: "normalized" or "pixels". "normalized": the targets are normalised pixels, and each patch is
      standardised: (x - mean) / sqrt(var + 1e-6), with its own mean and unbiased variance. "pixels": the
      targets are normalised pixels.
    mean: three numbers, the mean of pixels in [0, 1] with which the pixels are normalised.
    std: three numbers, the standard deviation of pixels in [0, 1] with which the pixels are normalised.
  Returns:
    A `Reconstruction`.
  Raises:
    ValueError: if shapes contradict each other, or the target space is unknown.
  """
  images, cause, pred = np.asarray(images), np.asarray(cause), np.asarray(pred, np.float32)
  _check(images, cause, pred, grid, patch, target_space)
  colors = pred
  if target_space == "normalized":
    patches = _cut(normalize(images, mean, std), grid, patch)[:, None]
    # The loss standardises with the unbiased variance, so ddof is 1.
    patch_std = np.sqrt(patches.var(axis=-1, ddof=1, keepdims=True) + VARIANCE_EPSILON)
    colors = pred * patch_std + patches.mean(axis=-1, keepdims=True)
  denormalized = _join(colors, grid, patch) * np.asarray(std, np.float32) + np.asarray(mean, np.float32)
  denormalized = _to_uint8(denormalized * 255)
  is_visible = np.broadcast_to((cause == CAUSES.index("visible"))[..., None], pred.shape)
  return Reconstruction(
    target_space=_to_uint8((_join(pred, grid, patch) / RANGE + 1) * 127.5),
    denormalized=denormalized,
    pasted=np.where(_join(is_visible, grid, patch), images[:, None], denormalized),
  )


def panel(
  *,
  images,
  cause,
  pred,
  grid,
  patch,
  keypoints_xy=None,
  keypoints_visible=None,
  skeleton=COCO17,
  target_space="normalized",
  mean=IMAGENET_MEAN,
  std=IMAGENET_STD,
  title="",
):
  """Draws one row per example: the picture, then for each view the mask and three pictures of the prediction.

  Args:
    images: see `reconstruct`.
    cause: see `reconstruct`.
    pred: see `reconstruct`.
    grid: see `reconstruct`.
    patch: see `reconstruct`.
    keypoints_xy: [N, K, 2] pixels (x, y) of the images, or None.
    keypoints_visible: [N, K] bool.
    skeleton: Skeleton of the joints.
    target_space: see `reconstruct`.
    mean: see `reconstruct`.
    std: see `reconstruct`.
    title: line at the top, such as step and losses. "": no title.
  Returns:
    [h, w, 3] uint8, about 1,400 pixels wide for two views, with column heads and a legend.
  Raises:
    ValueError: same as in `reconstruct`.
  """
  images, cause = np.asarray(images), np.asarray(cause)
  readings = reconstruct(
    images, cause, pred, grid=grid, patch=patch, target_space=target_space, mean=mean, std=std
  )
  N, H, W, _ = images.shape
  num_views = cause.shape[1]
  scale = _choose_scale(H, W, num_views)
  rows = []
  for n in range(N):
    joints = (None, None) if keypoints_xy is None else (keypoints_xy[n], keypoints_visible[n])
    picture = canvas.enlarge(images[n], scale)
    if keypoints_xy is not None:
      picture = draw_skeleton(picture, *joints, skeleton, scale=scale)
    row = [picture]
    for v in range(num_views):
      mask = draw_mask(images[n], cause[n, v], grid, *joints, skeleton=skeleton, scale=scale)
      shown = (readings.target_space[n, v], readings.denormalized[n, v], readings.pasted[n, v])
      row += [mask, *(canvas.enlarge(reading, scale) for reading in shown)]
    rows.append(row)
  image_head = ("image", "" if keypoints_xy is None else "with joints")
  return sheet.draw(
    rows,
    gaps=[_GROUP_GAP, _GAP, _GAP, _GAP] * num_views,
    row_gap=_GAP,
    title=title,
    heads=[image_head, *_heads(target_space) * num_views],
    groups=[(f"view {v + 1}", 4 * v + 1, 4 * v + 4) for v in range(num_views)],
    # The legend leaves out causes that do not occur, such as parts in a recipe without parts.
    legends=[[entry for k, entry in enumerate(LEGEND, start=1) if (cause == k).any()]],
    note=_explain(target_space),
    size=_TEXT,
  )


def _choose_scale(height, width, num_views):
  columns = 1 + 4 * num_views
  return max(1, min(_WIDTH // (columns * width), _MAX_CELL_HEIGHT // height))


def _heads(target_space):
  """Returns (name, note) of each of the four columns of a view."""
  statistics = "true patch stats" if target_space == "normalized" else "pixel stats"
  return (
    ("mask", "by cause"),
    ("target space", f"grey is 0, ±{RANGE:g}"),
    ("de-normalised", statistics),
    ("pasted", "over visible"),
  )


def _explain(target_space):
  unit, back = {
    "normalized": ("standard deviations of its patch", "every patch's true mean and deviation"),
    "pixels": ("units of normalised pixels", "the mean and deviation of all pixels"),
  }[target_space]
  return (
    f"target space: the prediction itself; grey is 0, black and white are -{RANGE:g} and {RANGE:g} {unit}. "
    f"de-normalised: the same in colours again, with {back}. "
    "pasted: the prediction in the hidden patches, the picture in the visible ones. "
    "Only hidden patches are trained; a prediction elsewhere means nothing."
  )


def _cut(images, grid, patch):
  """Cuts [..., H, W, 3] into [..., L, P*P*3], like the model's `patchify`, but without JAX."""
  Gh, Gw = grid
  x = images.reshape(*images.shape[:-3], Gh, patch, Gw, patch, 3)
  return np.swapaxes(x, -4, -3).reshape(*images.shape[:-3], Gh * Gw, patch * patch * 3)


def _join(patches, grid, patch):
  """Joins patches [..., L, P*P*3] to pictures [..., H, W, 3]. It is the inverse of `_cut`."""
  Gh, Gw = grid
  x = patches.reshape(*patches.shape[:-2], Gh, Gw, patch, patch, 3)
  return np.swapaxes(x, -4, -3).reshape(*patches.shape[:-2], Gh * patch, Gw * patch, 3)


def _to_uint8(x):
  return np.round(np.clip(x, 0, 255)).astype(np.uint8)


def _check(images, cause, pred, grid, patch, target_space):
  if target_space not in ("normalized", "pixels"):
    raise ValueError(f'target_space={target_space!r}; expected "normalized" or "pixels"')
  N, num_views, L = cause.shape if cause.ndim == 3 else (0, 0, 0)
  Gh, Gw = grid
  expected = ([N, Gh * patch, Gw * patch, 3], [N, num_views, Gh * Gw], [N, num_views, L, patch * patch * 3])
  arrived = [list(array.shape) for array in (images, cause, pred)]
  if images.dtype != np.uint8 or not N or arrived != list(expected):
    raise ValueError(
      f"images {images.dtype} {arrived[0]}, cause {arrived[1]} and pred {arrived[2]} do not fit together: "
      "expected uint8 [N, H, W, 3], [N, views, L] and [N, views, L, P*P*3], "
      f"for grid={Gh}x{Gw} and patch={patch} with L={Gh * Gw}, H={Gh * patch} and W={Gw * patch}"
    )
