"""Draws the joints and bones of people onto a picture."""

import cv2
import numpy as np

_LIGHT = (255, 255, 255)
_DARK = (0, 0, 0)
# Colours of the person's own left and right side and of the middle of the body. Colour-blind people can
# distinguish them (blue and orange of Okabe and Ito's palette, and yellow).
SIDE_COLORS = {"left": (0, 114, 178), "right": (230, 120, 0), "middle": (240, 228, 66)}
_SHIFT = 4  # OpenCV takes coordinates in units of 1/2^4 pixel
_FARTHEST = 2**15  # pixels from the picture; OpenCV cannot draw lines to points that are farther away
# Limits in pixels of the longer side of a drawn picture. Lines and dots have a fixed size, so they would
# cover a smaller picture and be invisible in a larger one.
_LONGER_SIDE = (960, 1920)


def draw_skeleton(image, keypoints_xy, keypoints_visible, skeleton, *, scale=1):
  """Draws bones as thin light lines with a dark edge, and joints as dots.

  Missing joints are not drawn. A bone with a missing joint is not drawn either.

  Args:
    image: [H, W, 3] uint8.
    keypoints_xy: [K, 2], pixels (x, y) of the picture before its enlargement. Pixel centres are at whole
      numbers.
    keypoints_visible: [K] bool.
    skeleton: a `Skeleton`.
    scale: whole number, the factor by which the picture was enlarged.
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
    image: [H, W, 3] uint8.
    keypoints_xy: [K, 2], pixels (x, y) of the picture before its enlargement.
    keypoints_visible: [K] bool, True for the joints to draw.
    keypoints_occluded: [K] bool, True for a joint that is inside the picture but hidden.
    skeleton: a `Skeleton`. The names of its joints begin with "left_" or "right_", or have no side.
    scale: factor by which the picture was enlarged. Below 1: the picture was reduced.
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


def draw_people(image, boxes, keypoints_xy, is_drawn, skeleton):
  """Draws the boxes and joints of all people in a picture. The last person is on top.

  The picture is scaled so that its longer side has 960 to 1920 pixels.

  Args:
    image: [H, W, 3] uint8.
    boxes: [N, 4], (left, top, right, bottom) in pixels of `image`.
    keypoints_xy: [N, K, 2], pixels (x, y) of `image`.
    is_drawn: [N, K] bool, True for the joints to draw.
    skeleton: a `Skeleton`.
  Returns:
    [h, w, 3] uint8.
  """
  longer = max(image.shape[:2])
  scale = min(max(longer, _LONGER_SIDE[0]), _LONGER_SIDE[1]) / longer
  size = [max(1, round(side * scale)) for side in image.shape[1::-1]]
  kernel = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
  picture = cv2.resize(np.ascontiguousarray(image), size, interpolation=kernel)
  for box in np.asarray(boxes, np.float64):
    corners = np.clip(np.round(box * scale), -_FARTHEST, _FARTHEST).astype(int).tolist()
    for color, thickness in ((_DARK, 3), (_LIGHT, 1)):
      cv2.rectangle(picture, corners[:2], corners[2:], color, thickness)
  nothing = np.zeros(len(skeleton.joints), bool)
  for xy, is_seen in zip(keypoints_xy, is_drawn, strict=True):
    picture = draw_sides(picture, xy, is_seen, nothing, skeleton, scale=scale)
  return picture


def _to_fixed(keypoints_xy, is_visible, scale):
  """Converts joints [K, 2] to OpenCV's fixed-point coordinates in a picture enlarged by `scale`."""
  # The scaling keeps pixel edges, so the centre of a pixel becomes the centre of its enlarged square.
  points = (np.asarray(keypoints_xy, np.float64) + 0.5) * scale - 0.5
  points = np.where(is_visible[:, None], points, 0)  # the coordinates of a missing joint have no meaning
  points = np.clip(points, -_FARTHEST, _FARTHEST)
  return [tuple(int(z) for z in point) for point in np.round(points * 2**_SHIFT)]
