"""The project's own body in the layout of SMPL: the mean bare body of drawn adults, for every gender.

Rest pose, joints and shape directions are the same as for drawn people. So this body can take the skeleton of
every drawn person. Licence: Apache-2.0.
"""

import functools

import numpy as np

from hap_jax.data import body_model, skeletons
from hap_jax.synthetic import bare_body, body
from hap_jax.synthetic.body import JOINTS

NAME = "synthetic"
LICENCE = "Apache-2.0 (made by this project)"
# The shape directions: arguments of `body.build_body`, with their mean and standard deviation over the adults
# of `body.sample_body`, women and men together.
_SHAPES = {
  "stature": (1.69, 0.09),
  "legs": (1.0, 0.025),
  "arms": (1.0, 0.025),
  "trunk": (1.0, 0.02),
  "shoulders": (0.99, 0.06),
  "hips": (1.005, 0.05),
  "waist": (0.95, 0.07),
  "bust": (0.013, 0.013),
  "girth": (1.0, 0.12),
  "head": (1.69 / 1.70, 0.025),
}
SHAPES = tuple(_SHAPES)

# The ring of the skin from which each joint is computed: (part, position of the ring). The joints of the
# right side are mirror images.
_RING_OF = {
  "pelvis": ("trunk", 0.0),
  "spine1": ("trunk", 0.090),
  "spine2": ("trunk", 0.220),
  "spine3": ("trunk", 0.285),
  "neck": ("neck", 0.0),
  "head": ("head", 0.0),
  "left_hip": ("leg", 0.0),
  "left_knee": ("leg", 1.0),
  "left_ankle": ("leg", 2.0),
  "left_foot": ("foot", 0.125),
  "left_collar": ("collar", 0.0),
  "left_shoulder": ("arm", 0.0),
  "left_elbow": ("arm", 1.0),
  "left_wrist": ("arm", 2.0),
  "left_hand": ("hand", 0.085),
  "nose": ("nose", 0.010),
  "left_eye": ("head", 0.045),
  "left_ear": ("ear", 0.025),
}
_FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
_REGRESSED = (*JOINTS, *_FACE, "head_top")
_H36M = skeletons.rows_of_smpl30("h36m17")  # `_REGRESSED` has the order of SMPL30


@functools.cache
def make_body_set():
  """Returns the BodySet of the project's own body. It is made once per process. Do not change its arrays."""
  template, joints, vertex_steps, joint_steps = shape_space()
  rows = _regressor(template, joints, vertex_steps, joint_steps)
  V = len(template)
  neutral = body_model.Body(
    v_template=_float32(template),
    shapedirs=_float32(np.moveaxis(vertex_steps, 0, -1)),
    posedirs=np.zeros((V, 3, body_model.NUM_POSE_FEATURES), np.float32),
    J_regressor=_float32(rows[: len(JOINTS)]),
    weights=_float32(bare_body.weights()),
    parents=np.array(body.PARENTS, np.int32),
    faces=bare_body.faces(template),
  )
  return body_model.BodySet(
    name=NAME,
    licence=LICENCE,
    bodies={"neutral": neutral},
    joint_regressor=_float32(rows),
    h36m_regressor=_float32(rows[list(_H36M)]),
    mirrored=bare_body.mirrored(),
    one_for_all=True,
  )


def make_person(betas):
  """Returns the body.Body of a person.

  Args:
    betas: [10] deviations from the mean adult, in standard deviations, in the order of SHAPES.
  """
  arguments = {
    name: mean + beta * deviation
    for (name, (mean, deviation)), beta in zip(_SHAPES.items(), betas, strict=True)
  }
  # The head grows with the stature. Its own deviation is added.
  arguments["head"] += _SHAPES["head"][0] * (arguments["stature"] / _SHAPES["stature"][0] - 1)
  return body.build_body(**arguments)


def shape_space():
  """Returns the mean body and its change per unit of each shape parameter, all float64 metres.

  Returns:
    (template [V, 3], joints [29, 3], vertex steps [10, V, 3], joint steps [10, 29, 3]). The joints are in
    the order of `_REGRESSED`, without the top of the head.
  """
  steps = []
  for direction in np.eye(len(SHAPES)):
    more, less = (_surface_and_joints(make_person(sign * direction)) for sign in (1, -1))
    steps.append([(high - low) / 2 for high, low in zip(more, less, strict=True)])
  vertex_steps, joint_steps = (np.stack(part) for part in zip(*steps, strict=True))
  return *_surface_and_joints(make_person(np.zeros(len(SHAPES)))), vertex_steps, joint_steps


def _surface_and_joints(person):
  joints, frames = body.place_joints(person, np.tile(np.eye(3), (len(JOINTS), 1, 1)))
  face = body.coco_joints(person, joints, frames)[: len(_FACE)]
  return bare_body.surface(person), np.concatenate([joints, face])


def _regressor(template, joints, vertex_steps, joint_steps):
  """Returns the rows [30, V] that compute the joints from the vertices, exactly for every shape and pose."""
  parts, mirrored = bare_body.parts(), bare_body.mirrored()
  shapes = np.concatenate([template[None], vertex_steps]), np.concatenate([joints[None], joint_steps])
  rows = np.zeros((len(_REGRESSED), len(template)))
  for name, (part, place) in _RING_OF.items():
    ring, joint = parts[part].ring(place), _REGRESSED.index(name)
    rows[joint, ring] = _mean_at(shapes[0][:, ring], shapes[1][:, joint])
    if name.startswith("left_"):
      rows[_REGRESSED.index(name.replace("left_", "right_")), mirrored[ring]] = rows[joint, ring]
    else:
      rows[joint] = (rows[joint] + rows[joint, mirrored]) / 2
  rows[-1, parts["head"].last] = 1
  return rows


def _mean_at(points, target):
  """Returns weights, as equal as possible, such that the weighted mean of points is at a target.

  Args:
    points: [11, N, 3]. [0]: positions of N points in the template. [1:]: their change with each parameter.
    target: [11, 3], position and changes of the target.
  Returns:
    [N] weights. Their sum is 1.
  """
  number = points.shape[1]
  equal = np.full(number, 1 / number)
  conditions = np.concatenate([np.ones((1, number)), points.transpose(0, 2, 1).reshape(-1, number)])
  wanted = np.concatenate([[1.0], target.ravel()])
  # The equations depend on each other, because a ring has few degrees of freedom. Each singular value,
  # divided by the largest one, is above 1e-4 or below 1e-9.
  change = np.linalg.pinv(conditions, rcond=1e-6) @ (wanted - conditions @ equal)
  return equal + change


def _float32(array):
  return np.ascontiguousarray(array, np.float32)
