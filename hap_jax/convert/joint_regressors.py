"""Reads and makes the regressors that compute joints from the posed vertices of SMPL.

Training and prediction use 30 joints. The first 24 rows are the joint regressor of the neutral body. The
other six rows select one vertex each: nose, eyes, ears and the top of the head. The evaluation on 3DPW also
needs the 17 joints of Human3.6M, which come from a file.
"""

import pathlib

import numpy as np

from hap_jax.data import body_model
from hap_jax.io import regular_file, restricted_pickle

EXTRA_FILE = "J_regressor_extra.npy"
JOINTS_30_FILE = "joints_30.npy"
# A file that is often confused with the right one. Its rows are in another order.
_WRONG_H36M_FILE = "J_regressor_h36m.npy"
_SMPL_VERTICES = 6890
_FACE_VERTICES = (331, 2802, 6262, 3489, 3990)  # nose, left eye, right eye, left ear, right ear
_HEAD_TOP_VERTEX = 411
_EXTRA_ROWS = 9
_HEAD_TOP_ROW = 3  # the only row of the extra regressor that is used
# Joints of SMPL at rows 1 to 6 of the H36M regressor: right hip, knee, ankle, then left hip, knee, ankle.
_LEGS = [2, 5, 8, 1, 4, 7]
_SWAPPED_LEGS = [1, 4, 7, 2, 5, 8]
_SUM_TOLERANCE = 1e-3
_MAX_FILE_BYTES = 2**28


def make(neutral, folder=None):
  """Returns the two regressors of a body.

  Args:
    neutral: the neutral `body_model.Body`.
    folder: folder of the regressor files. None: no folder; the body must then have SMPL's 6,890 vertices.
  Returns:
    (regressor of the 30 joints [30, V] float32, regressor of the 17 H36M joints [17, V] float32 or None).
  Raises:
    OSError: if a file cannot be read.
    ValueError: if a file is missing, is a different file of the same name, or has another number of vertices.
  """
  V = neutral.num_vertices
  folder = None if folder is None else pathlib.Path(folder)
  if folder is not None and not folder.is_dir():
    raise ValueError(f"--regressors={folder}: no such folder; expected the folder of {body_model.H36M_FILE}")
  if V == _SMPL_VERTICES:
    if folder is not None:
      _check_extra(folder / EXTRA_FILE, V)
    joints = _with_picked_vertices(neutral)
  else:
    joints = _joints_of_another_mesh(folder, V)
  return joints, None if folder is None else _read_h36m(folder, neutral)


def _with_picked_vertices(neutral):
  picked = np.zeros((len(_FACE_VERTICES) + 1, neutral.num_vertices), np.float32)
  picked[np.arange(len(picked)), [*_FACE_VERTICES, _HEAD_TOP_VERTEX]] = 1
  return np.concatenate([neutral.J_regressor, picked])


def _joints_of_another_mesh(folder, V):
  path = None if folder is None else folder / JOINTS_30_FILE
  if path is None or not path.is_file():
    where = "--regressors=DIR is required" if path is None else f"{path} is missing"
    raise ValueError(
      f"the body has {V} vertices, but the vertices of nose, eyes, ears and head top are known only for "
      f"SMPL's {_SMPL_VERTICES}: {where}; expected a folder with {JOINTS_30_FILE} [30, {V}] and "
      f"{body_model.H36M_FILE} [17, {V}]"
    )
  return _read_regressor(path, body_model.NUM_REGRESSED, V)


def _check_extra(path, V):
  """Raises ValueError if the file of extra joints exists but is not the file of 3DCrowdNet.

  Row 3 must select the vertex at the top of the head. This vertex is already known, so the file may be
  missing. But a wrong file shows that the folder is not the right one.
  """
  if not path.exists():
    return
  row = _read_regressor(path, _EXTRA_ROWS, V)[_HEAD_TOP_ROW]
  if np.count_nonzero(row) != 1 or row[_HEAD_TOP_VERTEX] != 1:
    raise ValueError(
      f"{path}: row {_HEAD_TOP_ROW} does not select vertex {_HEAD_TOP_VERTEX}, the top of the head; expected "
      "the file of 3DCrowdNet"
    )


def _read_h36m(folder, neutral):
  """Returns the regressor of the H36M joints [17, V] float32."""
  # 3DCrowdNet stores this file in its folder Human36M, and the file of extra joints in the folder above.
  places = [folder / body_model.H36M_FILE, folder / "Human36M" / body_model.H36M_FILE]
  path = next((place for place in places if place.exists()), None)
  if path is None:
    wrong = [place.with_name(_WRONG_H36M_FILE) for place in places]
    found = [
      f"; {place} has another order of rows and cannot replace it" for place in wrong if place.exists()
    ]
    raise ValueError(
      f"{places[0]}: no such file; expected the regressor of the 17 H36M joints{''.join(found[:1])}"
    )
  regressor = _read_regressor(path, body_model.NUM_H36M, neutral.num_vertices)
  legs = regressor[1:7] @ neutral.v_template
  joints = neutral.J_regressor @ neutral.v_template
  right, swapped = (np.linalg.norm(legs - joints[order], axis=1).sum() for order in (_LEGS, _SWAPPED_LEGS))
  if swapped < right:
    raise ValueError(
      f"{path}: rows 1 to 3 are joints of the left leg; expected the right leg, as in the file of "
      f"3DCrowdNet (a renamed {_WRONG_H36M_FILE} has another order of rows)"
    )
  return regressor


def _read_regressor(path, num_rows, V):
  """Returns the regressor of an .npy file, [num_rows, V] float32 in C order."""
  array = restricted_pickle.load_npy(regular_file.read_bytes(path, max_bytes=_MAX_FILE_BYTES), path)
  if array.shape == (14, V) and num_rows == _EXTRA_ROWS:
    raise ValueError(
      f"{path}: has 14 rows, so it is a different file of the same name, whose row 3 is an ear; expected the "
      f"file with {num_rows} rows"
    )
  if array.shape != (num_rows, V) or array.dtype.kind not in "fiu":
    raise ValueError(
      f"{path}: holds {array.dtype} of shape {array.shape}; expected numbers of shape ({num_rows}, {V}): one "
      "row per joint and one column per vertex of the body"
    )
  with np.errstate(over="ignore", invalid="ignore"):
    array = np.ascontiguousarray(array, np.float32)  # some of these files are in Fortran order
    is_one = np.abs(array.sum(axis=1, dtype=np.float64) - 1) <= _SUM_TOLERANCE  # False for NaN, too
  if not (np.isfinite(array).all() and is_one.all()):
    raise ValueError(f"{path}: has a row whose sum is not 1; expected a regressor of joints")
  return array
