"""Computes scores of 3D pose and shape by the rules of 3DPW, in millimetres, and two baselines."""

import numpy as np

from hap_jax.metrics import keypoints3d


def make_score(split):
  """Returns the score function: {split: rows of `tasks.pose3d.make_predict`} -> {metric: float}.

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
  """Returns lines about the scores. They depend on the body of the network and on the body of the truth."""
  own, true = (body_set.of("neutral").num_vertices for body_set in (bodies, true_bodies))
  if own == true:
    return (keypoints3d.PROTOCOL,)
  reason = f"the body of the network ({bodies.name}) has {own:,} vertices, the body of the truth has {true:,}"
  return keypoints3d.PROTOCOL, f"there is no MPVPE: {reason}"


def one_pose(joints, rounds=10):
  """Returns the mean of aligned joints, [J, 3]. A round aligns all people to the mean of the previous round.

  Source: generalised Procrustes analysis (Gower, 1975). The size of the mean has no effect on PA-MPJPE.

  Args:
    joints: [N, J, 3] float64.
    rounds: number of rounds.
  """
  mean = joints[0]
  for _ in range(rounds):
    aligned = keypoints3d.align(joints, np.broadcast_to(mean, joints.shape))
    mean = aligned.mean(axis=0)
  return mean
