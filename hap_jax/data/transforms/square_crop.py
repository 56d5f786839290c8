"""Transforms of one person in a whole picture for 3D pose: square region, mirror, scale, rotation, warp.

They are the transforms of `topdown` with other rules for the region and the matrix. The rules are those of
3DCrowdNet (arXiv 2104.07300) and of HAP's official code. Records have the same fields. The region is
(centre x, centre y, side, side) in pixels of the picture. The last transform adds the field

  crop_matrix [2, 3] float32: moves pixels of the picture, as the source read it, to pixels of the crop

It includes the mirror. So a step can project a body with the camera of the picture, and then move the result
to the crop.
"""

import dataclasses

import cv2
import numpy as np

from hap_jax.data.transforms import topdown

PADDING = 1.25  # side of the region divided by the longer side of the box
JOINT_PADDING = 1.2  # sides of the box around joints divided by those of the tight box


def joint_box(keypoints_xy, keypoints_visible, *, padding=JOINT_PADDING):
  """Returns the box around the visible joints, enlarged about its centre.

  Args:
    keypoints_xy: [K, 2] in pixels.
    keypoints_visible: [K] bool.
    padding: sides of the box divided by those of the tight box.
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
  """Returns the square around the part of a box that lies in the picture, times `padding`.

  Args:
    box: [4] float, (left, top, right, bottom) in pixels.
    picture_size: (H, W).
    padding: side of the region divided by the longer side of the box.
  Returns:
    [4] float32, (centre x, centre y, side, side) in pixels. A side of at most 0 means that nothing of the
    person is in the picture.
  """
  left, top, width, height = _clip(box, picture_size)
  side = padding * max(width, height)
  return np.array([left + width / 2, top + height / 2, side, side], np.float32)


def can_train(box, picture_size):
  """Returns True if a box is good enough for training: it has an area, and a part of it is in the picture.

  The official code also accepts boxes of one pixel, whose region would be empty. They are refused here.
  """
  left, top, right, bottom = np.asarray(box, np.float64).tolist()
  _, _, width, height = _clip(box, picture_size)
  return (right - left) * (bottom - top) > 0 and min(width, height) >= 0 and max(width, height) > 0


def _clip(box, picture_size):
  """Returns (left, top, width, height) of a box inside the picture. A size is negative if it is outside."""
  left, top, right, bottom = np.asarray(box, np.float64).tolist()
  H, W = picture_size
  # Parity: the official code counts pixels, so a box from a to b ends at b - 1.
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


def invert_matrix(matrix):
  """Returns the matrix [2, 3] float64 of the opposite direction: from the network's input to the picture."""
  return cv2.invertAffineTransform(np.asarray(matrix, np.float64))


@dataclasses.dataclass(frozen=True)
class PersonSquare:
  """Adds the field `region`, which is the square around the person.

  Attributes:
    from_joints: True: the square is around the box of the visible joints. If there is no such box, it is
      around the annotated box.
    padding: see `square_region`.
  """

  from_joints: bool = False
  padding: float = PADDING

  adds = ("region",)

  def __call__(self, record, rng):
    boxes = [record["box"]]
    if self.from_joints:
      boxes.insert(0, joint_box(record["keypoints_xy"], record["keypoints_visible"]))
    for box in boxes:
      if box is not None:
        region = square_region(box, record["image"].shape[:2], padding=self.padding)
        if region[2] > 0 and np.isfinite(region).all():
          return {**record, "region": region}
    H, W = record["image"].shape[:2]
    raise ValueError(
      f"box={record['box'].tolist()}: expected (left, top, right, bottom) of more than one pixel in a "
      f"picture of {H} x {W} pixels (height x width)"
    )


@dataclasses.dataclass(frozen=True)
class MirrorBody:
  """Mirrors a person as `topdown.MirrorPerson` does, and adds the field is_mirrored [] bool.

  Attributes:
    flip_pairs, prob: see `topdown.MirrorPerson`.
  """

  flip_pairs: tuple[tuple[int, int], ...]
  prob: float = 0.5

  adds = ("is_mirrored",)

  def __post_init__(self):
    topdown.MirrorPerson(self.flip_pairs, self.prob)  # checks the probability

  def __call__(self, record, rng):
    mirrored = topdown.MirrorPerson(self.flip_pairs, self.prob)(record, rng)
    return {**mirrored, "is_mirrored": np.bool_(mirrored is not record)}


@dataclasses.dataclass(frozen=True)
class WarpSquare:
  """Cuts the region out of the picture, turned by the field `rotation` if it exists, with the size `size`.

  Pixels are interpolated linearly and rounded. Pixels outside the picture are black. Joints become pixels of
  the new image. The transform adds the field `crop_matrix`, see the text at the top of this file.

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


def make_augmentation(*, image_size, skeleton, flip_prob, scale, rotation, rotation_prob):
  """Makes the transforms of training records.

  Args:
    image_size: (H, W) of the network's input.
    skeleton: the `Skeleton` of the joints.
    flip_prob: probability of the mirror.
    scale, rotation, rotation_prob: see `topdown.ScaleRotate`. The official code uses 0.25, 30 and 0.6.
  Returns:
    tuple of transforms.
  """
  return (
    PersonSquare(),
    MirrorBody(skeleton.flip_pairs, flip_prob),
    topdown.ScaleRotate(scale, rotation, rotation_prob),
    WarpSquare(tuple(image_size)),
  )


def make_view(*, image_size, from_joints):
  """Makes the transforms of evaluation records: the whole region, without rotation.

  Args:
    image_size: (H, W) of the network's input.
    from_joints: see `PersonSquare`.
  Returns:
    tuple of transforms.
  """
  return PersonSquare(from_joints=from_joints), WarpSquare(tuple(image_size))
