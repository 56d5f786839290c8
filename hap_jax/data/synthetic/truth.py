"""Ground truth that needs the surfaces: which joints are hidden, by the body itself or by something else."""

import numpy as np

from hap_jax.data.synthetic.anatomy import PART_INDEX
from hap_jax.data.synthetic.raster import quad_gradients

# A joint lies inside the body. It counts as hidden only when what the camera sees at its place is another part
# of the body or another thing in front of it, or the same part by more than this depth (metres, adult).
_LIMB_DEPTH = np.array((*(0.05,) * 5, *(0.13,) * 2, *(0.09,) * 2, *(0.08,) * 2, *(0.18,) * 2, *(0.12,) * 2, *(0.11,) * 2))


def _own_parts():
  """[17, parts] bool: the parts whose surface belongs to each COCO joint."""
  own = np.zeros((17, len(PART_INDEX)), bool)
  own[:5, PART_INDEX["head"]] = True
  for offset, side in enumerate(("left", "right")):
    named = {
      5: (f"{side}_upper_arm", "torso"),
      7: (f"{side}_upper_arm", f"{side}_lower_arm"),
      9: (f"{side}_lower_arm", f"{side}_hand"),
      11: (f"{side}_upper_leg", "torso"),
      13: (f"{side}_upper_leg", f"{side}_lower_leg", "torso"),
      15: (f"{side}_lower_leg", f"{side}_foot", "torso"),
    }
    for joint, parts in named.items():
      own[joint + offset, [PART_INDEX[part] for part in parts]] = True
  return own


_OWN = _own_parts()


def occluded_joints(mesh, quads, points, depth, keypoints_xy, keypoint_depth, scale):
  """Tells which joints are hidden from the camera.

  Args:
    mesh: Mesh of everything in front of the background. quads: [K] those that the camera can see. points: [V, 2] pixels. depth: [V] metres.
    keypoints_xy: [17, 2] pixels. keypoint_depth: [17] metres. scale: size of the person (1 for an adult).
  Returns:
    [17] bool; for joints outside the picture too, as far as anything is there.
  """
  surface, part = nearest_surface(mesh, quads, points, depth, keypoints_xy)
  own = _OWN[np.arange(len(part)), part]
  return surface < keypoint_depth - np.where(own, _LIMB_DEPTH * scale, 0.0)


def nearest_surface(mesh, quads, points, depth, pixels):
  """Finds what a ray through each of some pixels meets first.

  Args:
    mesh, quads, points, depth: as in `occluded_joints`. pixels: [K, 2] (x, y).
  Returns:
    (depth [K] metres, inf where the ray meets nothing; part [K] int, 0 where nothing).
  """
  corners = mesh.corners[:, quads]
  x, y = points[:, 0][corners], points[:, 1][corners]
  column, row = pixels[:, :1], pixels[:, 1:]
  near = (x.min(axis=0) <= column) & (column <= x.max(axis=0)) & (y.min(axis=0) <= row) & (row <= y.max(axis=0))
  query, quad = np.nonzero(near)
  x, y, z = x[:, quad], y[:, quad], depth[corners[:, quad]]
  dx, dy = pixels[query, 0] - x, pixels[query, 1] - y
  after = [1, 2, 3, 0]
  edge_x, edge_y = x[after] - x, y[after] - y
  side = edge_x * dy - edge_y * dx
  inside = (side >= 0).all(axis=0) | (side <= 0).all(axis=0)
  slope_x, slope_y = quad_gradients(x, y, z)
  at = z.mean(axis=0) + slope_x * (pixels[query, 0] - x.mean(axis=0)) + slope_y * (pixels[query, 1] - y.mean(axis=0))
  query, quad, at = query[inside], quad[inside], at[inside]
  order = np.lexsort((at, query))
  query, quad, at = query[order], quad[order], at[order]
  first = np.flatnonzero(np.diff(query, prepend=-1))
  nearest, part = np.full(len(pixels), np.inf), np.zeros(len(pixels), int)
  nearest[query[first]] = at[first]
  part[query[first]] = mesh.part[quads[quad[first]]]
  return nearest, part
