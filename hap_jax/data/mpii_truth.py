"""Reads mpii_gt_val.mat, the correct joints of MPII's validation split (2D human pose, CVPR 2014)."""

import numpy as np

from hap_jax.data.pose_truth import MpiiTruth
from hap_jax.io import mat_file

# Joints in the order of the file: the joints of `skeletons.MPII16` with shorter names.
JOINTS = (
  *("rank", "rkne", "rhip", "lhip", "lkne", "lank", "pelv", "thor", "neck", "head"),
  *("rwri", "relb", "rsho", "lsho", "lelb", "lwri"),
)
_VARIABLES = ("dataset_joints", "jnt_missing", "pos_gt_src", "headboxes_src")


def read_mpii_truth(path):
  """Reads the correct joints of N people.

  Args:
    path: the file mpii_gt_val.mat. Its people are in the order of the entries of mpii_val.json.
  Returns:
    MpiiTruth.
  Raises:
    ValueError: if the file is missing or damaged, or if a variable is missing or has another shape, type or
      value than expected.
  """
  return truth_of(mat_file.load(path), path)


def truth_of(variables, where):
  """Converts the variables of mpii_gt_val.mat.

  Args:
    variables: {name: array} with
      dataset_joints: cell with the names of the joints.
      jnt_missing: [16, N], 1 for a joint that is not annotated.
      pos_gt_src: [16, 2, N], joints (x, y) in pixels, counted from 1.
      headboxes_src: [2, 2, N] (corner, coordinate, person), in pixels.
    where: name of the file, for error messages.
  Returns:
    MpiiTruth.
  Raises:
    ValueError: if a variable is missing or has another shape, type or value than expected.
  """
  found = mat_file.pick(variables, _VARIABLES, where)
  names = tuple(mat_file.strings(found["dataset_joints"], f"{where}: dataset_joints"))
  if names != JOINTS:
    raise ValueError(
      f"{where}: dataset_joints is {', '.join(names)[:200]}; expected the joints of MPII in the order "
      f"{', '.join(JOINTS)}"
    )
  missing = mat_file.integers(found["jnt_missing"], f"{where}: jnt_missing", 2)
  K, N = len(JOINTS), missing.shape[1]
  if missing.shape != (K, N) or not N or not np.isin(missing, (0, 1)).all():
    raise ValueError(
      f"{where}: jnt_missing is {mat_file.describe(found['jnt_missing'])}; expected 0 or 1 for each of {K} "
      "joints (rows) and each person (columns)"
    )
  is_missing = missing.T == 1
  xy = _array(found["pos_gt_src"], (K, 2, N), f"{where}: pos_gt_src").transpose(2, 0, 1)
  head_box = _array(found["headboxes_src"], (2, 2, N), f"{where}: headboxes_src").transpose(2, 0, 1)
  _check_people(np.isfinite(xy[..., 0] + xy[..., 1]) | is_missing, f"{where}: pos_gt_src is not finite")
  # A NaN fails this comparison, too.
  size = np.linalg.norm(head_box[:, 1] - head_box[:, 0], axis=1)
  _check_people((size > 0) & (size < np.inf), f"{where}: headboxes_src has no size above 0")
  return MpiiTruth(xy, is_missing, head_box)


def _array(value, shape, where):
  """Returns a variable as a float64 array of the given shape. MATLAB drops a last axis of length 1."""
  allowed = (shape, shape[:2]) if shape[2] == 1 else (shape,)
  if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf" or value.shape not in allowed:
    raise ValueError(f"{where}: expected numbers of shape {shape}, found {mat_file.describe(value)}")
  return value.reshape(shape).astype(np.float64)


def _check_people(is_good, problem):
  """Raises ValueError if an element of `is_good` [N, ...] is False. The message lists the first people."""
  bad = np.flatnonzero(~is_good.reshape(len(is_good), -1).all(axis=1))
  if len(bad):
    listed = ", ".join(map(str, (bad[:5] + 1).tolist())) + (", ..." if len(bad) > 5 else "")
    raise ValueError(f"{problem} for {len(bad):,} of {len(is_good):,} people (columns {listed})")
