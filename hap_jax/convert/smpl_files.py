"""Makes a body from SMPL's files: `.pkl` as published, or `.npz` with the same names.

No code in the files is run.
"""

import numpy as np

from hap_jax.convert import joint_regressors
from hap_jax.data import body_model
from hap_jax.io import npz_file, regular_file, smpl_pickle

LICENCE = "Max Planck non-commercial research licence (SMPL), no redistribution"
# {name in the file: number of dimensions}
_ARRAYS = {
  "v_template": 2,
  "shapedirs": 3,
  "posedirs": 3,
  "J_regressor": 2,
  "weights": 2,
  "kintree_table": 2,
  "f": 2,
}
_WHOLE = ("kintree_table", "f")
_NO_PARENT = (-1, 2**32 - 1, 2**64 - 1)  # parent of the root: in int32 and int64, in uint32, in uint64
_MAX_ELEMENTS = 2**24
_ZIP_START = b"PK\x03\x04"


def read(files, regressors=None):
  """Reads the bodies of SMPL.

  Args:
    files: {gender: path}, at least "neutral".
    regressors: folder of the regressor files, or None, see `joint_regressors.make`.
  Returns:
    (body_model.BodySet, notes). The notes are lines of text about parts that were left out.
  Raises:
    OSError: if a file cannot be read.
    ValueError: if a file is not a body of SMPL, is damaged, or does not fit the other files. The message
      names the file.
  """
  bodies, notes = {}, []
  for gender, path in files.items():
    bodies[gender], new_notes = _read_body(path)
    notes += new_notes
  _check_together(bodies, files)
  joints, h36m = joint_regressors.make(bodies["neutral"], regressors)
  made = body_model.BodySet(
    name="SMPL", licence=LICENCE, bodies=bodies, joint_regressor=joints, h36m_regressor=h36m
  )
  return made, notes


def _read_body(path):
  """Returns (body_model.Body, notes) of one file."""
  with regular_file.open_regular(path) as file:
    is_zip = file.read(len(_ZIP_START)) == _ZIP_START
  arrays = _read_npz(path) if is_zip else _read_pickle(path)
  for name, dimensions in _ARRAYS.items():
    array = arrays[name]
    if array.ndim != dimensions or (array.dtype.kind == "f") == (name in _WHOLE):
      kind = "whole numbers" if name in _WHOLE else "floats"
      raise ValueError(
        f"{path}: {name} is {array.dtype} of shape {array.shape}; expected {kind} in {dimensions} dimensions"
      )
  num_joints = len(arrays["J_regressor"])
  if num_joints != body_model.NUM_JOINTS:
    raise ValueError(
      f"{path}: the body has {num_joints} joints; expected SMPL with {body_model.NUM_JOINTS} (SMPL-H, "
      "SMPL-X and MANO have other numbers)"
    )
  shapes, notes = arrays["shapedirs"], []
  if shapes.shape[2] > body_model.NUM_SHAPES:
    notes = [f"{path}: used the first {body_model.NUM_SHAPES} of {shapes.shape[2]} shape directions"]
    arrays["shapedirs"] = shapes[..., : body_model.NUM_SHAPES]
  body = body_model.Body(
    **{name: _as_float32(array) for name, array in arrays.items() if name not in _WHOLE},
    parents=_parents(arrays["kintree_table"], path),
    faces=_faces(arrays["f"], path),
  )
  body_model.check_body(body, str(path))
  return body, notes


def _read_pickle(path):
  """Returns {name: array} of a pickle."""
  content = smpl_pickle.load(path)
  _check_names(content if isinstance(content, dict) else (), path)
  arrays = {}
  for name in _ARRAYS:
    try:
      arrays[name] = smpl_pickle.array(content[name])
    except ValueError as error:
      raise ValueError(f"{path}: {name}: {error}") from error
  return arrays


def _read_npz(path):
  """Returns {name: array} of an .npz file."""
  try:
    arrays = npz_file.read_numbers(path, _ARRAYS, _MAX_ELEMENTS)
  except ValueError as error:
    raise ValueError(f"{path}: not an .npz file of SMPL: {error}") from error
  _check_names(arrays, path)
  return arrays


def _check_names(names, path):
  missing = [name for name in _ARRAYS if name not in names]
  if missing:
    raise ValueError(
      f"{path}: no body of SMPL: it has no {', '.join(missing)}; expected a file such as "
      "basicModel_neutral_lbs_10_207_0_v1.0.0.pkl (unpack a .zip archive first)"
    )


def _as_float32(array):
  with np.errstate(
    over="ignore", invalid="ignore"
  ):  # numbers that are not finite are found by the check of the body
    return np.ascontiguousarray(array, np.float32)


def _parents(tree, path):
  """Returns the parents, [24] int32. The rows of SMPL's kintree_table are parents and joints."""
  joints = np.arange(body_model.NUM_JOINTS)
  if tree.shape != (2, len(joints)) or not np.array_equal(tree[1], joints):
    raise ValueError(
      f"{path}: kintree_table of shape {tree.shape}; expected (2, 24): the parents of joints 0 to 23, then "
      "the numbers 0 to 23"
    )
  root, *others = tree[0].tolist()
  if root not in _NO_PARENT or not all(0 <= parent < body_model.NUM_JOINTS for parent in others):
    raise ValueError(
      f"{path}: row 0 of kintree_table is {[root, *others]}; expected -1 or 2^32 - 1, then numbers from 0 "
      "to 23"
    )
  return np.array([-1, *others], np.int32)


def _faces(faces, path):
  if faces.size and not 0 <= faces.min() <= faces.max() < 2**31:
    raise ValueError(f"{path}: f has vertex indices from {faces.min()} to {faces.max()}; expected triangles")
  return np.ascontiguousarray(faces, np.int32)


def _check_together(bodies, files):
  """Raises ValueError if a body has another mesh than the neutral one, or two genders have the same body."""
  neutral = bodies["neutral"]
  seen = ["neutral"]
  for gender in bodies:
    if gender == "neutral":
      continue
    body, path = bodies[gender], files[gender]
    if body.num_vertices != neutral.num_vertices:
      raise ValueError(
        f"{path}: has {body.num_vertices} vertices, and {files['neutral']} has {neutral.num_vertices}; "
        "expected files of the same model"
      )
    for field in ("faces", "parents"):
      if not np.array_equal(getattr(body, field), getattr(neutral, field)):
        raise ValueError(
          f"{path}: has other {field} than {files['neutral']}; expected files of the same model"
        )
    for other in seen:
      if np.array_equal(body.v_template, bodies[other].v_template):
        raise ValueError(
          f"{path} (--{gender}) has the same vertices as {files[other]} (--{other}); expected one file per "
          "gender"
        )
    seen.append(gender)
