"""Draws results of 3D pose: the mesh and the joints on the picture, and the mesh from four sides."""

import cv2
import numpy as np

from hap_jax.data.skeletons import SMPL30
from hap_jax.viz import mesh, pose, sheet

_TILE = 288  # pixels, side of a square tile
# Only joints at the end of a bone are drawn. The other joints would cover these joints.
_DRAWN = sorted({joint for bone in SMPL30.bones for joint in bone})
_VIEW = (288, 192)  # pixels (H, W) of one of the four views


def person_sheet(image, region, vertices, faces, intrinsics, joints_xy):
  """Draws a row of tiles: the person, the mesh, the joints, and the mesh from four sides.

  Args:
    image: [H, W, 3] uint8, the whole picture.
    region: [4], (centre x, centre y, side, side) in pixels, the part of the picture that is shown.
    vertices: [V, 3] metres in the camera frame of the picture.
    faces: [F, 3] int.
    intrinsics: [3, 3] pixels of the picture.
    joints_xy: [30, 2] pixels of the picture.
  Returns:
    [h, w, 3] uint8.
  """
  x, y, side, _ = np.asarray(region, np.float64).tolist()
  scale = _TILE / side
  matrix = np.array(((scale, 0, _TILE / 2 - scale * x), (0, scale, _TILE / 2 - scale * y)))
  tile = cv2.warpAffine(image, matrix, (_TILE, _TILE), flags=cv2.INTER_LINEAR)
  moved = np.concatenate([matrix, ((0, 0, 1),)]) @ intrinsics
  points = np.asarray(joints_xy) @ matrix[:, :2].T + matrix[:, 2]
  is_visible = np.isin(np.arange(len(points)), _DRAWN)
  tiles = {
    "picture": tile,
    "mesh": mesh.draw_mesh(tile, vertices, faces, moved, opacity=0.85),
    "joints": pose.draw_sides(tile, points, is_visible, np.zeros(len(points), bool), SMPL30),
    **mesh.four_views(vertices, faces, _VIEW),
  }
  return sheet.draw([list(tiles.values())], heads=[(name, "") for name in tiles])
