"""Transforms of one person in a whole picture for 2D pose: region, mirror, half body, scale, rotation, warp.

A record has the whole picture, the joints of one person in pixels of this picture, and the box of the
person, [4] float32 (left, top, right, bottom). The first transform adds the field

  region [4] float32: (centre x, centre y, width, height) in pixels of the picture

This is the part of the picture that the network sees, before the rotation. In the official code, the centre
is `center` and the size is 200 * `scale`. The last transform cuts the region out. The field `region` remains
in pixels of the picture, so that predicted joints can be moved back to the picture.

A joint outside the picture or outside the region remains visible, because a part of its Gaussian may be
inside the heat map.

The training transforms of the official code (HAP's downstream_tasks/2d_pose_estimation) are, in this order,
PersonRegion, MirrorPerson, HalfBody, ScaleRotate and WarpRegion. The docstring of each transform states the
order of its random numbers. The evaluation transforms are PersonRegion and WarpRegion.
"""

import dataclasses
import math

import cv2
import numpy as np

PADDING = 1.25  # width of the region divided by width of the box; the same for the height
CODECS = ("udp", "msra")
_HALF_BODY_PADDING = 1.5
_HALF_BODY_JOINTS = 8  # only people with more visible joints than this may be cut in half
_JITTER = 0.4  # the region is shifted by at most half of this share of the box


def region_of_box(box, aspect, *, padding=PADDING, fit_aspect=True):
  """Returns the smallest region with this aspect around a box, enlarged by `padding`.

  Args:
    box: [4] float, (left, top, right, bottom) in pixels.
    aspect: width of the network's input divided by its height.
    padding: width of the region divided by the width that it has without padding; the same for the height.
    fit_aspect: False: the region has the aspect of the box. This is for MPII, which has square boxes. The
      square is then squeezed to the aspect of the input, as in the official code.
  Returns:
    [4] float32, (centre x, centre y, width, height) in pixels.
  Raises:
    ValueError: if the region is empty or a number is not finite.
  """
  left, top, right, bottom = np.asarray(box, np.float64).tolist()
  width, height = right - left, bottom - top
  if fit_aspect:
    width, height = _grow(width, height, aspect)
  region = np.array([(left + right) / 2, (top + bottom) / 2, padding * width, padding * height], np.float32)
  if not (np.isfinite(region).all() and min(width, height) > 0):
    raise ValueError(
      f"box={[left, top, right, bottom]}: expected (left, top, right, bottom) in pixels with left < right "
      "and top < bottom"
    )
  return region


def _grow(width, height, aspect):
  """Returns the smallest (width, height) with this aspect that contains the given width and height."""
  return max(width, aspect * height), max(height, width / aspect)


def _square(box):
  """Returns the smallest square that contains a box (left, top, right, bottom) and has the same centre."""
  corner, other = np.split(np.asarray(box, np.float64), 2)
  center, half = (corner + other) / 2, (other - corner).max() / 2
  return np.concatenate([center - half, center + half])


def half_body_region(keypoints_xy, keypoints_visible, upper_body, aspect, normal):
  """Returns the region around the upper or the lower half of a person's visible joints.

  Args:
    keypoints_xy: [K, 2] float32 in pixels.
    keypoints_visible: [K] bool.
    upper_body: indices of the joints above the waist.
    aspect: width of the network's input divided by its height.
    normal: random number from N(0, 1), which chooses the half.
  Returns:
    [4] float32, same as in `region_of_box`. None if the chosen half has no two joints at different places.
  """
  is_upper = np.zeros(len(keypoints_xy), bool)
  is_upper[list(upper_body)] = True
  upper, lower = keypoints_xy[keypoints_visible & is_upper], keypoints_xy[keypoints_visible & ~is_upper]
  # Parity: the official code compares a normal number with 0.5, so the upper body has a probability of 0.691.
  prefers_upper = normal < 0.5 and len(upper) > 2
  chosen = upper if prefers_upper or len(lower) <= 2 else lower
  if len(chosen) < 2:
    return None
  (left, top), (right, bottom) = chosen.min(axis=0).tolist(), chosen.max(axis=0).tolist()
  width, height = _grow(right - left, bottom - top, aspect)
  if height == 0:
    return None  # all joints are in one place; the official code would divide by 0
  size = _HALF_BODY_PADDING * width, _HALF_BODY_PADDING * height
  return np.array([*chosen.mean(axis=0).tolist(), *size], np.float32)


def warp_matrix(region, rotation_degrees, size, codec):
  """Returns the matrix that moves pixels of the picture to pixels of the network's input.

  Both codecs use pixel centres. With c the centre of the region, w x h its size, (x, y) relative to c, and
  the angle t:
    udp:   x' = (W - 1) / w * (x cos t - y sin t + w / 2),  y' = (H - 1) / h * (x sin t + y cos t + h / 2)
    msra:  x' = W / w * (x cos t + y sin t) + W / 2,        y' = W / w * (y cos t - x sin t) + H / 2
  "udp" is unbiased data processing (arXiv 1911.07524), "msra" is the older rule (arXiv 1804.06208).

  Args:
    region: [4] float, (centre x, centre y, width w, height h) in pixels of the picture.
    rotation_degrees: t in degrees.
    size: (H, W) of the network's input.
    codec: "udp" or "msra".
  Returns:
    [2, 3] float64.
  """
  x, y, width, height = np.asarray(region, np.float64).tolist()
  H, W = size
  if codec == "udp":
    scale, middle = ((W - 1) / width, (H - 1) / height), ((W - 1) / 2, (H - 1) / 2)
    return affine_matrix((x, y), rotation_degrees, scale, middle)
  # Parity: the older rule turns in the other direction, and its scale depends only on the width of the
  # region.
  return affine_matrix((x, y), -rotation_degrees, (W / width, W / width), (W / 2, H / 2))


def affine_matrix(center, rotation_degrees, scale, middle):
  """Returns the matrix that turns about `center`, scales x and y, and moves `center` to `middle`.

  Args:
    center: (x, y) in pixels of the picture.
    rotation_degrees: t in degrees: (x, y) becomes (x cos t - y sin t, x sin t + y cos t).
    scale: (factor of x, factor of y), after the rotation.
    middle: (x, y) in pixels of the result.
  Returns:
    [2, 3] float64.
  """
  angle = math.radians(rotation_degrees)
  cos, sin = math.cos(angle), math.sin(angle)
  turn = np.array([[scale[0] * cos, -scale[0] * sin], [scale[1] * sin, scale[1] * cos]])
  return np.concatenate([turn, (middle - turn @ center)[:, None]], axis=1)


@dataclasses.dataclass(frozen=True)
class PersonRegion:
  """Adds the field `region`, which is the region around the person's box.

  Random numbers, only if jitter_prob > 0: one decides whether the centre is shifted. For a shift, two more
  numbers are drawn, for x and y, each uniform in +- 0.2 times the side of the box.

  The official code draws the shift of each person once, and uses it in the whole run. This transform draws a
  new shift in each epoch.

  Attributes:
    aspect: see `region_of_box`.
    padding: see `region_of_box`.
    fit_aspect: see `region_of_box`.
    jitter_prob: probability of the shift.
    clip: True: the box is first cut at the border of the picture. A box is not cut if nothing would remain.
    square: True: the region is around the smallest square that contains the box, with the same centre.
  """

  aspect: float
  padding: float = PADDING
  fit_aspect: bool = True
  jitter_prob: float = 0.0
  clip: bool = False
  square: bool = False

  adds = ("region",)

  def __post_init__(self):
    _check_probability("jitter_prob", self.jitter_prob)

  def __call__(self, record, rng):
    box = record["box"]
    if self.clip:
      H, W = record["image"].shape[:2]
      cut = np.clip(box, 0, (W - 1, H - 1, W - 1, H - 1))
      box = cut if (cut[2:] > cut[:2]).all() else box
    if self.square:
      box = _square(box)
    region = region_of_box(box, self.aspect, padding=self.padding, fit_aspect=self.fit_aspect)
    if self.jitter_prob > 0 and rng.random() < self.jitter_prob:
      region[:2] += _JITTER * (rng.random(2) - 0.5) * (box[2:] - box[:2])
    return {**record, "region": region}


@dataclasses.dataclass(frozen=True)
class MirrorPerson:
  """Mirrors picture, joints, box and region with probability `prob`: x' = W - 1 - x.

  Random numbers: one decides whether the picture is mirrored.

  Attributes:
    flip_pairs: pairs (left, right) of joints whose rows are exchanged, from `skeletons.py`.
    prob: probability of the mirror.
  """

  flip_pairs: tuple[tuple[int, int], ...]
  prob: float = 0.5

  def __post_init__(self):
    _check_probability("prob", self.prob)

  def __call__(self, record, rng):
    if rng.random() >= self.prob:
      return record
    image = cv2.flip(record["image"], 1)
    last = image.shape[1] - 1
    left, top, right, bottom = record["box"]
    x, *rest = record["region"]
    return {
      **record,
      "image": image,
      **(self._mirror_joints(record, last) if "keypoints_xy" in record else {}),
      "box": np.array([last - right, top, last - left, bottom], np.float32),
      "region": np.array([last - x, *rest], np.float32),
    }

  def _mirror_joints(self, record, last):
    """Returns the joints of the mirrored picture, whose last column is `last`."""
    order = np.arange(len(record["keypoints_xy"]))
    for left, right in self.flip_pairs:
      order[[left, right]] = right, left
    xy, visible = record["keypoints_xy"][order], record["keypoints_visible"][order]
    xy[:, 0] = last - xy[:, 0]
    xy[~visible] = 0  # Parity: the official code multiplies the joints by their visibility
    return {"keypoints_xy": xy, "keypoints_visible": visible}


@dataclasses.dataclass(frozen=True)
class HalfBody:
  """Changes the region to the upper or the lower half of the person with probability `prob`.

  The region is not changed for people with at most eight visible joints.

  Random numbers, only for people with more joints: a uniform number decides whether the region changes. For a
  change, a normal number chooses the half, see `half_body_region`.

  Attributes:
    upper_body: indices of the joints above the waist, from `skeletons.py`.
    aspect: width of the network's input divided by its height.
    prob: probability of the change.
  """

  upper_body: tuple[int, ...]
  aspect: float
  prob: float = 0.3

  def __post_init__(self):
    _check_probability("prob", self.prob)

  def __call__(self, record, rng):
    joints = record["keypoints_xy"], record["keypoints_visible"]
    if np.count_nonzero(joints[1]) <= _HALF_BODY_JOINTS or rng.random() >= self.prob:
      return record
    region = half_body_region(*joints, self.upper_body, self.aspect, rng.standard_normal())
    return record if region is None else {**record, "region": region}


@dataclasses.dataclass(frozen=True)
class ScaleRotate:
  """Scales the region by a random factor, and adds a random angle as the field `rotation`.

  The field is [] float32, in degrees. The factor is clip(1 + scale * N(0, 1), 1 - scale, 1 + scale). The
  angle is clip(rotation * N(0, 1), -2 * rotation, 2 * rotation) with probability `rotation_prob`, else 0.

  Random numbers: a normal number for the factor, a normal number for the angle, and a uniform number that
  decides whether the angle is used.

  Attributes:
    scale: standard deviation and largest change of the factor.
    rotation: standard deviation of the angle in degrees.
    rotation_prob: probability of an angle.
  """

  scale: float = 0.5
  rotation: float = 40.0
  rotation_prob: float = 0.6

  adds = ("rotation",)

  def __post_init__(self):
    _check_probability("rotation_prob", self.rotation_prob)
    if not 0 <= self.scale < 1:
      raise ValueError(f"scale={self.scale}: expected at least 0 and less than 1")

  def __call__(self, record, rng):
    factor = min(max(1 + self.scale * rng.standard_normal(), 1 - self.scale), 1 + self.scale)
    angle = self.rotation * min(max(rng.standard_normal(), -2), 2)
    is_turned = rng.random() < self.rotation_prob
    region = record["region"] * np.array([1, 1, factor, factor], np.float32)
    return {**record, "region": region, "rotation": np.float32(angle if is_turned else 0)}


@dataclasses.dataclass(frozen=True)
class WarpRegion:
  """Cuts the region out of the picture, turns it by the field `rotation`, if any, and resizes it to `size`.

  Pixels are interpolated linearly and rounded. Pixels outside the picture are black. Joints are converted to
  pixels of the new image, see `warp_matrix`. The transform adds the field is_udp [] bool.

  Attributes:
    size: (H, W) of the result.
    codec: "udp" or "msra".
  """

  size: tuple[int, int]
  codec: str

  adds = ("is_udp",)

  def __post_init__(self):
    if self.codec not in CODECS:
      raise ValueError(f"codec={self.codec!r}: expected one of {CODECS}")

  def __call__(self, record, rng):
    matrix = warp_matrix(record["region"], float(record.get("rotation", 0)), self.size, self.codec)
    return {**warp_record(record, matrix, self.size), "is_udp": np.bool_(self.codec == "udp")}


def warp_record(record, matrix, size):
  """Moves picture and joints of a record.

  Args:
    record: dict with the field `image`, and optionally `keypoints_xy`.
    matrix: [2, 3] float64, moves pixels of the picture to pixels of the result.
    size: (H, W) of the result. Pixels are interpolated linearly and rounded. Pixels outside the picture are
      black.
  Returns:
    new record.
  """
  H, W = size
  result = {**record, "image": cv2.warpAffine(record["image"], matrix, (W, H), flags=cv2.INTER_LINEAR)}
  if "keypoints_xy" in record:
    xy = record["keypoints_xy"] @ matrix[:, :2].T + matrix[:, 2]
    result["keypoints_xy"] = xy.astype(np.float32)
  return result


def make_augmentation(
  *,
  image_size,
  codec,
  skeleton,
  fit_aspect,
  clip,
  jitter_prob,
  flip_prob,
  half_body_prob,
  scale,
  rotation,
  rotation_prob,
):
  """Makes the transforms of training records.

  Args:
    image_size: (H, W) of the network's input.
    codec: "udp" or "msra", see `warp_matrix`.
    skeleton: the `Skeleton` of the joints.
    fit_aspect: see `region_of_box`.
    clip: see `PersonRegion`.
    jitter_prob: see `PersonRegion`.
    flip_prob: probability of the mirror.
    half_body_prob: probability of a half body.
    scale: see `ScaleRotate`.
    rotation: see `ScaleRotate`.
    rotation_prob: see `ScaleRotate`.
  Returns:
    tuple of transforms.
  """
  aspect = image_size[1] / image_size[0]
  return (
    PersonRegion(aspect, fit_aspect=fit_aspect, jitter_prob=jitter_prob, clip=clip),
    MirrorPerson(skeleton.flip_pairs, flip_prob),
    HalfBody(skeleton.upper_body, aspect, half_body_prob),
    ScaleRotate(scale, rotation, rotation_prob),
    WarpRegion(tuple(image_size), codec),
  )


def make_view(*, image_size, codec, fit_aspect, clip, square=False, padding=PADDING):
  """Makes the transforms of evaluation records: the whole region, without rotation.

  Args:
    image_size: see `make_augmentation`.
    codec: see `make_augmentation`.
    fit_aspect: see `make_augmentation`.
    clip: see `make_augmentation`.
    square: see `PersonRegion`.
    padding: see `PersonRegion`.
  Returns:
    tuple of transforms.
  """
  aspect = image_size[1] / image_size[0]
  region = PersonRegion(aspect, padding=padding, fit_aspect=fit_aspect, clip=clip, square=square)
  return region, WarpRegion(tuple(image_size), codec)


def _check_probability(name, value):
  if not 0 <= value <= 1:
    raise ValueError(f"{name}={value}: expected a probability, 0 to 1")
