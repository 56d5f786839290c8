"""Draws a person's joints and bones onto a picture."""

import cv2
import numpy as np

_LIGHT = (255, 255, 255)
_DARK = (0, 0, 0)
# Colours of the person's own left and right side and of the middle of the body. Colour-blind people can
# distinguish them (blue and orange of Okabe and Ito's palette, and yellow).
SIDE_COLORS = {"left": (0, 114, 178), "right": (230, 120, 0), "middle": (240, 228, 66)}
_SHIFT = 4  # OpenCV takes coordinates in units of 1/2^4 pixel


def draw_skeleton(image, keypoints_xy, keypoints_visible, skeleton, *, scale=1):
  """Draws bones as thin light lines with a dark edge, and joints as dots.

  Missing joints are not drawn. A bone with a missing joint is not drawn either.

  Args:
    image: [H, W, 3] uint8.
    keypoints_xy: [K, 2], pixels (x, y) of the picture before it was enlarged by `scale`. Pixel centres are at
      whole numbers.
    keypoints_visible: [K] bool.
    skeleton: a `Skeleton`.
    scale: whole number by which the picture was enlarged.
  Returns:
    [H, W, 3] uint8, a new picture.
  """
  picture = np.ascontiguousarray(image).copy()
  is_visible = np.asarray(keypoints_visible, bool)
  points = _to_fixed(keypoints_xy, is_visible, scale)
  bones = [(points[a], points[b]) for a, b in skeleton.bones if is_visible[a] and is_visible[b]]
  joints = [point for point, is_seen in zip(points, is_visible, strict=True) if is_seen]
  for color, thickness, radius in ((_DARK, 3, 2.75), (_LIGHT, 1, 1.75)):
    for start, end in bones:
      cv2.line(picture, start, end, color, thickness, cv2.LINE_AA, _SHIFT)
    for joint in joints:
      cv2.circle(picture, joint, int(radius * 2**_SHIFT), color, cv2.FILLED, cv2.LINE_AA, _SHIFT)
  return picture


def draw_sides(image, keypoints_xy, keypoints_visible, keypoints_occluded, skeleton, *, scale=1):
  """Draws bones and joints in the colours of the person's left and right side.

  A hidden joint has a white centre. A bone with a hidden joint is thinner.

  Args:
    image, keypoints_xy, keypoints_visible, skeleton, scale: same as in `draw_skeleton`.
    keypoints_occluded: [K] bool, True for a joint that is inside the picture but hidden.
  Returns:
    [H, W, 3] uint8, a new picture.
  """
  picture = np.ascontiguousarray(image).copy()
  is_visible, is_hidden = np.asarray(keypoints_visible, bool), np.asarray(keypoints_occluded, bool)
  points = _to_fixed(keypoints_xy, is_visible, scale)
  sides = [joint.partition("_")[0] for joint in skeleton.joints]
  for a, b in skeleton.bones:
    if is_visible[a] and is_visible[b]:
      color = SIDE_COLORS.get(sides[a] if sides[a] == sides[b] else "middle", SIDE_COLORS["middle"])
      thickness = 1 if is_hidden[a] or is_hidden[b] else 2
      cv2.line(picture, points[a], points[b], _DARK, thickness + 2, cv2.LINE_AA, _SHIFT)
      cv2.line(picture, points[a], points[b], color, thickness, cv2.LINE_AA, _SHIFT)
  for joint in np.flatnonzero(is_visible):
    color = SIDE_COLORS.get(sides[joint], SIDE_COLORS["middle"])
    for radius, fill in ((4.5, _DARK), (3.5, color), *([(2.0, _LIGHT)] if is_hidden[joint] else [])):
      cv2.circle(picture, points[joint], int(radius * 2**_SHIFT), fill, cv2.FILLED, cv2.LINE_AA, _SHIFT)
  return picture


def _to_fixed(keypoints_xy, is_visible, scale):
  """Converts joints [K, 2] to OpenCV's fixed-point coordinates in a picture enlarged by `scale`."""
  # Pixel edges are scaled, so the centre of a pixel becomes the centre of its enlarged square.
  points = (np.asarray(keypoints_xy, np.float64) + 0.5) * scale - 0.5
  points = np.where(is_visible[:, None], points, 0)  # the coordinates of a missing joint have no meaning
  return [tuple(int(z) for z in point) for point in np.round(points * 2**_SHIFT)]
