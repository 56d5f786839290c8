"""A person's joints and bones, drawn onto a picture."""

import cv2
import numpy as np

_LIGHT = (255, 255, 255)
_DARK = (0, 0, 0)
_SHIFT = 4  # OpenCV takes points in 1/2^4 pixel


def draw_skeleton(image, keypoints_xy, keypoints_visible, skeleton, *, scale=1):
  """Draws bones as thin light lines with a dark edge, and joints as dots.

  A bone with a missing end, and a missing joint, are left out.

  Args:
    image: [H, W, 3] uint8. keypoints_xy: [K, 2], pixels (x, y) of the picture before it was enlarged by
      `scale`, pixel centres at whole numbers. keypoints_visible: [K] bool. skeleton: a `Skeleton`.
  Returns:
    [H, W, 3] uint8, a new picture.
  """
  picture = np.ascontiguousarray(image).copy()
  # Pixel centres stay pixel centres when the picture is enlarged.
  points = (np.asarray(keypoints_xy, np.float64) + 0.5) * scale - 0.5
  is_visible = np.asarray(keypoints_visible, bool)
  points = np.where(is_visible[:, None], points, 0)  # the coordinates of a missing joint mean nothing
  points = [tuple(int(z) for z in point) for point in np.round(points * 2**_SHIFT)]
  bones = [(points[a], points[b]) for a, b in skeleton.bones if is_visible[a] and is_visible[b]]
  joints = [point for point, is_seen in zip(points, is_visible, strict=True) if is_seen]
  for color, thickness, radius in ((_DARK, 3, 2.75), (_LIGHT, 1, 1.75)):
    for start, end in bones:
      cv2.line(picture, start, end, color, thickness, cv2.LINE_AA, _SHIFT)
    for joint in joints:
      cv2.circle(picture, joint, int(radius * 2**_SHIFT), color, cv2.FILLED, cv2.LINE_AA, _SHIFT)
  return picture
