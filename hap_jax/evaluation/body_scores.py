"""Measures and scores 3D pose and shape by the rules of 3DPW, in millimetres, together with two baselines."""

import jax.numpy as jnp
import numpy as np

from hap_jax.data import body_model
from hap_jax.metrics import keypoints3d
from hap_jax.models import smpl


def constants_of(bodies, true_bodies):
  """Returns the arrays that `measure` needs.

  Args:
    bodies: the `BodySet` of the network.
    true_bodies: the `BodySet` of the ground truth.
  Raises:
    ValueError: if the regressor of the Human3.6M joints is missing in one of the two sets.
  """
  for body_set in (bodies, true_bodies):
    body_model.require_h36m(body_set, f"the body {body_set.name}")
  genders = [gender for gender in body_model.GENDERS if gender in true_bodies.bodies]
  return {
    "body": smpl.body_arrays(bodies, "neutral"),
    "regressor": bodies.h36m_regressor,
    "true_bodies": {gender: smpl.body_arrays(true_bodies, gender) for gender in genders},
    "true_regressor": true_bodies.h36m_regressor,
  }


def measure(constants, rotations, betas, batch):
  """Poses B predicted people and the true people, on the device. The meshes are not returned.

  Args:
    constants: from `constants_of`.
    rotations: [B, 24, 3, 3] float32, predicted.
    betas: [B, 10] float32, predicted.
    batch: smpl_pose [B, 72], smpl_betas [B, 10] and, if the bodies of the truth have a gender, gender [B].
  Returns:
    {"predicted": [B, 17, 3] float32, the Human3.6M joints of the predicted people in metres,
     "true": [B, 17, 3] float32, the Human3.6M joints of the true people in metres,
     "vertex_error": [B] float32, the mean distance of the vertices in millimetres. Both meshes are placed
       relative to the pelvis of the body model. Missing if the meshes have different numbers of vertices.}
  """
  body, true_bodies = constants["body"], constants["true_bodies"]
  origin = jnp.zeros((len(betas), 3))
  mesh, _ = smpl.pose_body(body, rotations, betas, origin)
  true_mesh = _pose_true(true_bodies, batch, origin)
  result = {
    "predicted": _regress(constants["regressor"], mesh),
    "true": _regress(constants["true_regressor"], true_mesh),
  }
  if mesh.shape == true_mesh.shape:
    # Parity: the pelvis of both meshes comes from the neutral regressor, whatever the gender.
    place = mesh - smpl.regress_joints(body, mesh)[:, :1]
    true_place = true_mesh - smpl.regress_joints(true_bodies["neutral"], true_mesh)[:, :1]
    result["vertex_error"] = 1000 * jnp.linalg.norm(place - true_place, axis=-1).mean(axis=-1)
  return result


def _regress(regressor, vertices):
  """Returns the joints [B, 17, 3] of vertices [B, V, 3]."""
  return jnp.einsum("jv,bvc->bjc", regressor, vertices, precision="highest")


def _pose_true(bodies, batch, origin):
  """Returns the vertices of the true people, [B, V, 3]. Each person has the body of their gender."""
  pose = batch["smpl_pose"], batch["smpl_betas"], origin
  mesh = smpl.pose_body(bodies["neutral"], *pose)[0]
  # All bodies of the set are posed and one is chosen, so that the program has one shape for every batch.
  for number, gender in enumerate(body_model.GENDERS):
    if gender in bodies and gender != "neutral":
      is_chosen = batch["gender"] == number
      mesh = jnp.where(is_chosen[:, None, None], smpl.pose_body(bodies[gender], *pose)[0], mesh)
  return mesh


def make_score(split):
  """Returns the score function: {split: rows of `measure`} -> {metric: float}.

  MPJPE, PA-MPJPE and MPVPE are means over people. MPVPE exists only if both meshes have the same vertices.
  "MPJPE_<joint>" and "PA-MPJPE_<joint>" are the means of each of the 14 joints.
  The two baselines use no pictures. They are computed from the true joints of the same people:
    MPJPE_mean_joints   the MPJPE of the mean joints of all people, in the camera frame
    PA-MPJPE_one_pose   the PA-MPJPE of a single pose for all people: the mean of their aligned joints

  Args:
    split: name of the split.
  """

  def score(splits):
    rows = splits[split]
    scores = keypoints3d.score(rows["predicted"], rows["true"], rows.get("vertex_error"))
    true = keypoints3d.eval_joints(rows["true"])
    mean, one = (np.broadcast_to(joints, true.shape) for joints in (true.mean(axis=0), one_pose(true)))
    scores["MPJPE_mean_joints"] = float(keypoints3d.mpjpe(mean, true).mean())
    scores["PA-MPJPE_one_pose"] = float(keypoints3d.pa_mpjpe(one, true).mean())
    by_joint = keypoints3d.score_joints(rows["predicted"], rows["true"])
    return scores | {
      f"{name}_{joint}": value for name, joints in by_joint.items() for joint, value in joints.items()
    }

  return score


def notes(bodies, true_bodies):
  """Returns the lines to print with the scores: the protocol, and the reason if there is no MPVPE."""
  own, true = (body_set.of("neutral").num_vertices for body_set in (bodies, true_bodies))
  if own == true:
    return (keypoints3d.PROTOCOL,)
  reason = f"the body of the network ({bodies.name}) has {own:,} vertices, the body of the truth has {true:,}"
  return keypoints3d.PROTOCOL, f"there is no MPVPE: {reason}"


def one_pose(joints, rounds=10):
  """Returns the mean of aligned joints, [J, 3] float64. Each round aligns all people to the last mean.

  Source: generalised Procrustes analysis (Gower, 1975). The scale of the mean has no effect on PA-MPJPE.

  Args:
    joints: [N, J, 3] float64.
    rounds: number of rounds.
  """
  mean = joints[0]
  for _ in range(rounds):
    aligned = keypoints3d.align(joints, np.broadcast_to(mean, joints.shape))
    mean = aligned.mean(axis=0)
  return mean
