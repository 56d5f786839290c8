"""Errors of 3D joints and meshes in millimetres: MPJPE, PA-MPJPE and MPVPE, as on 3DPW.

This is the protocol of 3DCrowdNet (arXiv 2104.07300) and of HAP's official code. All arithmetic is float64.
"""

import numpy as np

from hap_jax.data import skeletons

PROTOCOL = (
  "protocol of 3DPW, in mm: 14 joints of the Human3.6M regressor relative to its pelvis, PA after a "
  "similarity alignment, vertices relative to the pelvis of the body; means over people"
)
_MM = 1000  # millimetres per metre
_PELVIS = skeletons.JOINT_ORDERS["h36m17"].index("pelvis")


def procrustes(source, target):
  """Returns the similarity transforms that fit points to other points by least squares, without reflection.

  With centred points s and t, M = sum s t^T, its singular values P diag(d) Q^T and
  D = diag(1, 1, sign det(Q P^T)):

    R = Q D P^T,  scale = trace(diag(d) D) / sum |s|^2,  translation = mean t - scale R mean s

  Args:
    source: [N, J, 3], the points to move.
    target: [N, J, 3], the points to fit.
  Returns:
    (scale [N], rotation [N, 3, 3], translation [N, 3]) float64: y = scale R x + translation for columns x. If
    all points of a source are equal, its scale is 0.
  Raises:
    ValueError: if the shapes differ or a number is not finite.
  """
  source, target = _check(source, target)
  source_mean, target_mean = source.mean(axis=1), target.mean(axis=1)
  source, target = source - source_mean[:, None], target - target_mean[:, None]
  p, d, qt = np.linalg.svd(np.einsum("nji,njk->nik", source, target))
  signs = np.ones_like(d)
  signs[:, 2] = np.where(np.linalg.det(p @ qt) < 0, -1, 1)
  rotation = np.einsum("nki,nk,njk->nij", qt, signs, p)
  spread = np.square(source).sum(axis=(1, 2))
  scale = (d * signs).sum(axis=1) / np.where(spread > 0, spread, 1)
  translation = target_mean - scale[:, None] * np.einsum("nij,nj->ni", rotation, source_mean)
  return scale, rotation, translation


def align(source, target):
  """Returns the points `source` [N, J, 3] after the transform of `procrustes`, [N, J, 3] float64."""
  scale, rotation, translation = procrustes(source, target)
  turned = np.einsum("nij,nkj->nki", rotation, np.asarray(source, np.float64))
  return scale[:, None, None] * turned + translation[:, None]


def eval_joints(h36m_joints):
  """Returns the 14 joints that are compared, relative to the pelvis: [N, 17, 3] to [N, 14, 3] float64."""
  joints = np.asarray(h36m_joints, np.float64)
  return joints[:, list(skeletons.EVAL_JOINTS)] - joints[:, _PELVIS, None]


def mpjpe(predicted, target):
  """Returns the mean distance of the joints of each person.

  Args:
    predicted, target: [N, J, 3] in metres, relative to the same point.
  Returns:
    [N] float64 in mm.
  """
  return _distance_mm(predicted, target).mean(axis=1)


def pa_mpjpe(predicted, target):
  """Returns the `mpjpe` of each person after `align`, [N] float64 in mm."""
  return mpjpe(align(predicted, target), target)


def mpvpe(predicted, target, predicted_pelvis, target_pelvis):
  """Returns the mean distance of the vertices of each person, relative to the pelvis.

  Args:
    predicted, target: [N, V, 3], vertices in metres.
    predicted_pelvis, target_pelvis: [N, 3], row 0 of the 30 regressed joints of each mesh.
  Returns:
    [N] float64 in mm.
  """
  meshes = (predicted, predicted_pelvis), (target, target_pelvis)
  return mpjpe(*(np.asarray(mesh, np.float64) - np.asarray(pelvis)[:, None] for mesh, pelvis in meshes))


def score(predicted_h36m, target_h36m, vertex_error_mm=None):
  """Returns the mean errors over people, see `PROTOCOL`.

  Args:
    predicted_h36m, target_h36m: [N, 17, 3], joints of the H36M regressor in metres.
    vertex_error_mm: [N], the errors from `mpvpe`. None: they are unknown.
  Returns:
    {"MPJPE", "PA-MPJPE", "MPVPE"} in mm. MPVPE is absent if `vertex_error_mm` is None.
  Raises:
    ValueError: if there are no people, the shapes differ or a number is not finite.
  """
  predicted, target = eval_joints(predicted_h36m), eval_joints(target_h36m)
  if not len(predicted):
    raise ValueError("no people to score")
  scores = {
    "MPJPE": float(mpjpe(predicted, target).mean()),
    "PA-MPJPE": float(pa_mpjpe(predicted, target).mean()),
  }
  if vertex_error_mm is None:
    return scores
  vertex_error_mm = np.asarray(vertex_error_mm, np.float64)
  if vertex_error_mm.shape != (len(predicted),):
    raise ValueError(
      f"vertex_error_mm {vertex_error_mm.shape}: expected one number for each of {len(predicted)} people"
    )
  _check_finite(np.isfinite(vertex_error_mm))
  return {**scores, "MPVPE": float(vertex_error_mm.mean())}


def score_joints(predicted_h36m, target_h36m):
  """Returns the mean error over people of each of the 14 joints.

  Args:
    predicted_h36m, target_h36m: as in `score`.
  Returns:
    {"MPJPE", "PA-MPJPE"}: {name of the joint: mm}. The mean over the joints is the score.
  """
  predicted, target = eval_joints(predicted_h36m), eval_joints(target_h36m)
  errors = {"MPJPE": predicted, "PA-MPJPE": align(predicted, target)}
  return {
    name: dict(zip(skeletons.EVAL_NAMES, _distance_mm(found, target).mean(axis=0).tolist(), strict=True))
    for name, found in errors.items()
  }


def _distance_mm(predicted, target):
  """Returns [N, J] distances in mm."""
  predicted, target = _check(predicted, target)
  return _MM * np.linalg.norm(predicted - target, axis=-1)


def _check(predicted, target):
  """Returns both arrays as float64. Raises ValueError if shapes differ or a number is not finite."""
  predicted, target = np.asarray(predicted, np.float64), np.asarray(target, np.float64)
  if predicted.shape != target.shape or predicted.ndim != 3 or predicted.shape[-1] != 3:
    raise ValueError(f"points {predicted.shape} and {target.shape}: expected the same shape [N, J, 3]")
  _check_finite(np.isfinite(predicted).all(axis=(1, 2)) & np.isfinite(target).all(axis=(1, 2)))
  return predicted, target


def _check_finite(is_finite):
  """Raises ValueError unless all rows of [N] bool are True."""
  if not is_finite.all():
    raise ValueError(
      f"row {int(is_finite.argmin())} of {len(is_finite)} people has a number that is not finite: check the "
      "weights, the body and the annotations"
    )
