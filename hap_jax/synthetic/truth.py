"""Computes which joints are occluded, by the body itself or by another object."""

import numpy as np

from hap_jax.synthetic import raster
from hap_jax.synthetic.anatomy import PART_INDEX

# A joint is inside the body, so the surface of its own part is always in front of it. A joint is hidden if
# another part or another object is in front of it. It is also hidden if the surface of its own part is in
# front of it by more than these values (metres, for an adult, one per COCO joint).
_LIMB_DEPTH = np.array(
  (*(0.05,) * 5, *(0.13,) * 2, *(0.09,) * 2, *(0.08,) * 2, *(0.18,) * 2, *(0.12,) * 2, *(0.11,) * 2)
)


def _own_parts():
  """Returns [17, number of parts] bool: the parts whose surface belongs to each COCO joint."""
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


def occluded_joints(mesh, view, depth, joint_points, joint_depth, thickness):
  """Returns which joints are hidden from the camera.

  Args:
    mesh: Mesh of all people and objects in front of the background.
    view: View of the mesh.
    depth: [V] metres, depth of the vertices.
    joint_points: [17, 2] pixels of the View's picture.
    joint_depth: [17] metres, depth of the joints.
    thickness: thickness of the person. 1: an average adult.
  Returns:
    [17] bool. A joint outside the picture is not hidden.
  """
  row, surface = raster.look_up(view, joint_points, depth)
  own = _OWN[np.arange(len(row)), mesh.part[view.quad[row]]]
  return (row > 0) & (surface < joint_depth - np.where(own, _LIMB_DEPTH * thickness, 0.0))
