"""Draws triangle meshes without a graphics library. Near triangles are drawn over far triangles."""

import cv2
import numpy as np

SKIN = (196, 214, 232)  # RGB
_LIGHT = np.array((-0.35, -0.55, -0.75))  # direction to the light in the camera frame
_AMBIENT = 0.35
_SHIFT = 3  # OpenCV takes coordinates in units of 1/2^3 pixel
_NEAREST = 0.05  # metres; a triangle that is nearer to the camera is not drawn
_VIEWS = (("front", 0.0), ("left", 90.0), ("back", 180.0), ("right", 270.0))
_MOST = 1e5  # pixels; OpenCV's fixed-point coordinates overflow at 2^31


def draw_mesh(image, vertices, faces, intrinsics, *, color=SKIN, opacity=1.0):
  """Draws a mesh over a picture.

  Args:
    image: [H, W, 3] uint8.
    vertices: [V, 3] metres in the camera frame: x right, y down, z forward.
    faces: [F, 3] int. In the picture, the corners of a face that is turned to the camera run
      counter-clockwise, as in SMPL.
    intrinsics: [3, 3] pixels. Pixel centres are at whole numbers.
    color: (r, g, b) of the surface.
    opacity: 0 to 1.
  Returns:
    [H, W, 3] uint8, a new picture.
  """
  picture = np.ascontiguousarray(image).copy()
  vertices, faces = np.asarray(vertices, np.float64), np.asarray(faces)
  corners = vertices[faces]  # [F, 3, 3]
  normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
  middle = corners.mean(axis=1)
  # A face is visible if its normal points to the camera, which is at the origin.
  is_drawn = ((normal * middle).sum(axis=1) < 0) & (corners[..., 2].min(axis=1) > _NEAREST)
  order = np.flatnonzero(is_drawn)
  order = order[np.argsort(-middle[order, 2], kind="stable")]
  if not len(order):
    return picture
  points = vertices[:, :2] / np.maximum(vertices[:, 2:], _NEAREST)
  points = points * (intrinsics[0, 0], intrinsics[1, 1]) + (intrinsics[0, 2], intrinsics[1, 2])
  points = np.rint(np.clip(points, -_MOST, _MOST) * 2**_SHIFT).astype(np.int32)
  colors = _shade(normal[order], color)
  layer = picture.copy()
  for triangle, shade in zip(points[faces[order]], colors, strict=True):
    cv2.fillConvexPoly(layer, triangle, shade, cv2.LINE_8, _SHIFT)
  return cv2.addWeighted(layer, opacity, picture, 1 - opacity, 0)


def _shade(normal, color):
  """Returns a list with one (r, g, b) per face, from the normals of the faces, [F, 3]."""
  length = np.linalg.norm(normal, axis=1, keepdims=True)
  light = _LIGHT / np.linalg.norm(_LIGHT)
  cosine = (normal / np.maximum(length, 1e-12)) @ light
  brightness = _AMBIENT + (1 - _AMBIENT) * np.maximum(cosine, 0)
  return [tuple(row) for row in np.rint(brightness[:, None] * color).astype(int).tolist()]


def four_views(vertices, faces, size):
  """Draws a mesh from four sides, turned around its vertical axis, without perspective.

  Args:
    vertices: [V, 3] metres in the camera frame.
    faces: as in `draw_mesh`.
    size: (H, W) pixels of one view.
  Returns:
    {name of the view: [H, W, 3] uint8}. "front" shows the mesh as the camera sees it.
  """
  H, W = size
  vertices = np.asarray(vertices, np.float64)
  low, high = vertices.min(axis=0), vertices.max(axis=0)
  centred = vertices - (low + high) / 2
  radius = np.linalg.norm(centred[:, [0, 2]], axis=1).max()
  height = np.abs(centred[:, 1]).max()
  # A camera far away gives a picture with almost no perspective.
  distance = 100 * max(radius, height)
  scale = 0.46 * min(W / max(radius, 1e-6), H / max(height, 1e-6))
  focal = scale * distance
  intrinsics = np.array(((focal, 0, (W - 1) / 2), (0, focal, (H - 1) / 2), (0, 0, 1)))
  views = {}
  for name, degrees in _VIEWS:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array(((cos, 0, sin), (0, 1, 0), (-sin, 0, cos)))
    turned = centred @ turn.T + (0, 0, distance)
    views[name] = draw_mesh(np.full((H, W, 3), 255, np.uint8), turned, faces, intrinsics)
  return views
