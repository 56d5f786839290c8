"""Transforms of one person in a whole picture for 3D pose: square region, mirror, scale, rotation, warp.

They correspond to the transforms of `topdown`, but compute the region and the matrix as 3DCrowdNet (arXiv
2104.07300) and HAP's official code do. A record has the same fields, but joints are optional. The region is
(centre x, centre y, side, side) in pixels of the picture. `WarpSquare` adds the field

  crop_matrix [2, 3] float32: moves pixels of the picture, as the source read it, to pixels of the crop

The matrix includes the mirror. So a step can project a body with the camera of the picture, and then move the
result to the crop. Parameters of a body model are not changed here, because only the step has the body model.
"""

import dataclasses

import numpy as np

from hap_jax.data.sources.base import BadRecordError
from hap_jax.data.transforms import topdown

PADDING = 1.25  # side of the region divided by the longer side of the box
JOINT_PADDING = 1.2  # sides of the box around joints divided by the sides of the tight box


def joint_box(keypoints_xy, keypoints_visible, *, padding=JOINT_PADDING):
  """Returns the box around the visible joints, enlarged about its centre.

  Args:
    keypoints_xy: [K, 2] in pixels.
    keypoints_visible: [K] bool.
    padding: sides of the box divided by the sides of the tight box.
  Returns:
    [4] float32, (left, top, right, bottom). None if no joint is visible.
  """
  xy = np.asarray(keypoints_xy, np.float64)[np.asarray(keypoints_visible, bool)]
  if not len(xy):
    return None
  low, high = xy.min(axis=0), xy.max(axis=0)
  center, half = (low + high) / 2, padding * (high - low) / 2
  return np.concatenate([center - half, center + half]).astype(np.float32)


def square_region(box, picture_size, *, padding=PADDING):
  """Returns the square around the part of a box inside the picture, enlarged by `padding`.

  Args:
    box: [4] float, (left, top, right, bottom) in pixels.
    picture_size: (H, W).
    padding: side of the region divided by the longer side of the box.
  Returns:
    [4] float32, (centre x, centre y, side, side) in pixels. A side of at most 0 means that at most one pixel
    of the box is inside the picture.
  """
  left, top, width, height = _clip(box, picture_size)
  side = padding * max(width, height)
  return np.array([left + width / 2, top + height / 2, side, side], np.float32)


def find_problem(box, picture_size):
  """Returns the reason why a box has no `square_region`, as text. None: it has a region."""
  return None if square_region(box, picture_size)[2] > 0 else "with a box of at most one pixel in the picture"


def can_train(box, picture_size):
  """Returns True if a box has an area and is at least partly inside the picture.

  The official code also accepts boxes of one pixel. This function refuses them, because their region would
  be empty.
  """
  left, top, right, bottom = np.asarray(box, np.float64).tolist()
  _, _, width, height = _clip(box, picture_size)
  return (right - left) * (bottom - top) > 0 and min(width, height) >= 0 and max(width, height) > 0


def _clip(box, picture_size):
  """Returns (left, top, width, height) of the part of a box inside the picture.

  The width or the height is negative if the box is outside the picture.
  """
  left, top, right, bottom = np.asarray(box, np.float64).tolist()
  H, W = picture_size
  # Parity: the official code counts pixels, so the last pixel of a box from a to b is b - 1.
  width, height = max(right - left - 1, 0), max(bottom - top - 1, 0)
  left, top = max(left, 0), max(top, 0)
  return left, top, min(W - 1, left + width) - left, min(H - 1, top + height) - top


def square_matrix(region, rotation_degrees, size):
  """Returns the matrix that moves pixels of the picture to pixels of the network's input.

  With c the centre of the region, w x h its size, (x, y) relative to c, and the angle t:

    x' = W / w * (x cos t + y sin t) + W / 2,  y' = H / h * (y cos t - x sin t) + H / 2

  For a square region and a square input, this is the rule "msra" of `topdown.warp_matrix`.

  Args:
    region: [4] float, (centre x, centre y, w, h) in pixels of the picture.
    rotation_degrees: t in degrees.
    size: (H, W) of the network's input.
  Returns:
    [2, 3] float64.
  """
  x, y, width, height = np.asarray(region, np.float64).tolist()
  H, W = size
  return topdown.affine_matrix((x, y), -rotation_degrees, (W / width, H / height), (W / 2, H / 2))


@dataclasses.dataclass(frozen=True)
class PersonSquare:
  """Adds the field `region`, which is the square around the person's box, see `square_region`.

  Attributes:
    is_training: True: a person with a box that `can_train` refuses is a bad record.
  """

  is_training: bool = False

  adds = ("region",)

  def __call__(self, record, rng):
    box, (H, W) = record["box"], record["image"].shape[:2]
    region = square_region(box, (H, W))
    is_good = region[2] > 0 and np.isfinite(region).all()
    if not is_good or (self.is_training and not can_train(box, (H, W))):
      raise BadRecordError(
        f"box={box.tolist()}: expected (left, top, right, bottom) of more than one pixel in a picture of "
        f"{H} x {W} pixels (height x width)"
      )
    return {**record, "region": region}


@dataclasses.dataclass(frozen=True)
class MirrorBody:
  """Mirrors a person as `topdown.MirrorPerson` does, and adds the field is_mirrored [] bool.

  Attributes:
    flip_pairs: see `topdown.MirrorPerson`.
    prob: see `topdown.MirrorPerson`.
  """

  flip_pairs: tuple[tuple[int, int], ...] = ()
  prob: float = 0.5

  adds = ("is_mirrored",)

  def __post_init__(self):
    topdown.MirrorPerson(self.flip_pairs, self.prob)  # checks the probability

  def __call__(self, record, rng):
    mirrored = topdown.MirrorPerson(self.flip_pairs, self.prob)(record, rng)
    return {**mirrored, "is_mirrored": np.bool_(mirrored is not record)}


@dataclasses.dataclass(frozen=True)
class WarpSquare:
  """Cuts the region out of the picture, turns it by the field `rotation`, if any, and resizes it to `size`.

  Pixels are interpolated linearly and rounded. Pixels outside the picture are black. Joints are converted to
  pixels of the new image. The transform adds the field `crop_matrix`, see the top of this file.

  Attributes:
    size: (H, W) of the result.
  """

  size: tuple[int, int]

  adds = ("crop_matrix",)

  def __call__(self, record, rng):
    matrix = square_matrix(record["region"], float(record.get("rotation", 0)), self.size)
    result = topdown.warp_record(record, matrix, self.size)
    if record.get("is_mirrored", False):
      last = record["image"].shape[1] - 1
      matrix = np.stack([-matrix[:, 0], matrix[:, 1], matrix[:, 2] + last * matrix[:, 0]], axis=1)
    return {**result, "crop_matrix": matrix.astype(np.float32)}


@dataclasses.dataclass(frozen=True)
class ColorGain:
  """Multiplies each channel by a random factor from 1 - gain to 1 + gain. Draws three random numbers."""

  gain: float = 0.2

  def __call__(self, record, rng):
    factors = rng.uniform(1 - self.gain, 1 + self.gain, 3).astype(np.float32)
    image = np.rint(np.minimum(record["image"] * factors, 255)).astype(np.uint8)
    return {**record, "image": image}


def make_augmentation(*, image_size, flip_pairs, flip_prob, scale, rotation, rotation_prob, color_gain):
  """Makes the transforms of training records.

  Args:
    image_size: (H, W) of the network's input.
    flip_pairs: pairs (left, right) of joints. (): the records have no joints.
    flip_prob: probability of the mirror.
    scale: see `topdown.ScaleRotate`. The official code uses 0.25.
    rotation: see `topdown.ScaleRotate`. The official code uses 30.
    rotation_prob: see `topdown.ScaleRotate`. The official code uses 0.6.
    color_gain: see `ColorGain`.
  Returns:
    tuple of transforms.
  """
  return (
    PersonSquare(is_training=True),
    MirrorBody(flip_pairs, flip_prob),
    topdown.ScaleRotate(scale, rotation, rotation_prob),
    WarpSquare(tuple(image_size)),
    ColorGain(color_gain),
  )


def make_view(*, image_size):
  """Makes the transforms of evaluation records: the whole region, without rotation. Returns a tuple."""
  return PersonSquare(), WarpSquare(tuple(image_size))
