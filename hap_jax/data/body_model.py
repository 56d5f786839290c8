"""Body models in the layout of SMPL: arrays, checks, and reading and writing of a folder of .npz files.

A folder has one file `smpl_<gender>.npz` per gender, one file `regressors.npz`, and `body.json`. The arrays
have the same names as in SMPL's own files. No file contains a pickle. Lengths are in metres.

Source of the layout: SMPL (Loper et al., SIGGRAPH Asia 2015).
"""

import dataclasses
import functools
import hashlib
import json
import pathlib

import numpy as np

from hap_jax.data import json_entries
from hap_jax.io import npz_file, unfinished

GENDERS = ("neutral", "male", "female")
NUM_JOINTS = 24
NUM_SHAPES = 10  # shape directions
NUM_POSE_FEATURES = 9 * (NUM_JOINTS - 1)
NUM_REGRESSED = 30  # rows of `joint_regressor`, see `skeletons.SMPL30`
NUM_H36M = 17  # rows of `h36m_regressor`
DESCRIPTION_FILE = "body.json"
REGRESSORS_FILE = "regressors.npz"
# Paths of the two regressors that SMPL's own files do not have, relative to `hap body --regressors`.
H36M_FILE = "J_regressor_h36m_correct.npy"
_FORMAT = 1
_SUM_TOLERANCE = 1e-3  # SMPL's rows are rounded; sums of its H36M rows differ from 1 by up to 4e-4
_DIGEST_STEP = 1e-6  # on another CPU, the last bits of a drawn body may differ
_NO_PARENT = 2**32 - 1  # parent of the root in SMPL's files
# {name in the file: (kind of the type, number of dimensions)}
_BODY_ARRAYS = {
  "v_template": ("f", 2),
  "shapedirs": ("f", 3),
  "posedirs": ("f", 3),
  "J_regressor": ("f", 2),
  "weights": ("f", 2),
  "kintree_table": ("u", 2),
  "f": ("u", 2),
}
_REGRESSORS = {"joints_30": ("f", 2), "h36m": ("f", 2), "mirrored": ("i", 1)}
_WHERE_TO_GET = (
  "SMPL comes from https://smpl.is.tue.mpg.de and https://smplify.is.tue.mpg.de (registration; licence for "
  "non-commercial research). Convert its files with `hap body --neutral=FILE --male=FILE --female=FILE "
  "--regressors=DIR --out=DIR`, or write the project's own free body with `hap body --synthetic --out=DIR`, "
  "and set config.body to the new folder"
)


# Facts about the published SMPL: the number of vertices, and the parent of each joint.
SMPL_VERTICES = 6_890
SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)


@dataclasses.dataclass(frozen=True, eq=False)
class Body:
  """The arrays of the body model of one gender, in C order. V is the number of vertices.

  Attributes:
    v_template: [V, 3] float32, vertices of the mean shape without pose, in metres.
    shapedirs: [V, 3, 10] float32, shift of the vertices per unit of each shape parameter.
    posedirs: [V, 3, 207] float32, shift of the vertices per entry of (R - I), joints 1 to 23, row-major.
    J_regressor: [24, V] float32, computes joints from the vertices without pose.
    weights: [V, 24] float32, share of each joint in the motion of a vertex.
    parents: [24] int32, parent of each joint; -1 for the root.
    faces: [F, 3] int32, vertices of each triangle.
  """

  v_template: np.ndarray
  shapedirs: np.ndarray
  posedirs: np.ndarray
  J_regressor: np.ndarray
  weights: np.ndarray
  parents: np.ndarray
  faces: np.ndarray

  @property
  def num_vertices(self):
    return len(self.v_template)


@dataclasses.dataclass(frozen=True, eq=False)
class BodySet:
  """The body models of all genders, with the regressors that they share.

  Attributes:
    name: name of the model, such as "SMPL" or "synthetic".
    licence: licence of the model, one line.
    bodies: {gender: Body}, at least "neutral".
    joint_regressor: [30, V] float32, computes the joints of `skeletons.SMPL30` from the posed vertices.
    h36m_regressor: [17, V] float32, computes the joints of Human3.6M from the posed vertices. Only the
      evaluation on 3DPW needs it. None: unknown.
    mirrored: [V] int32, index of the mirror image of each vertex. None: unknown.
    one_for_all: True: the neutral body is used for people of every gender.
  """

  name: str
  licence: str
  bodies: dict[str, Body]
  joint_regressor: np.ndarray
  h36m_regressor: np.ndarray | None = None
  mirrored: np.ndarray | None = None
  one_for_all: bool = False

  def of(self, gender):
    """Returns the body of a gender. Raises ValueError if the set does not have it."""
    if gender not in GENDERS:
      raise ValueError(f"gender={gender!r}: expected one of {', '.join(GENDERS)}")
    if gender in self.bodies:
      return self.bodies[gender]
    if self.one_for_all:
      return self.bodies["neutral"]
    raise ValueError(
      f"the body {self.name} has no {gender} model, only {', '.join(self.bodies)}: write the folder again "
      f"with `hap body --{gender}=FILE`"
    )

  @functools.cached_property
  def digest(self):
    """The digest of the neutral body, see `digest_of`. Training uses this body."""
    return self.digest_of("neutral")

  def digest_of(self, gender):
    """Returns 16 hex digits that identify the arrays of a body and `joint_regressor`, all rounded to 1e-6."""
    digest, body = hashlib.sha256(), self.bodies[gender]
    for field in dataclasses.fields(Body):
      _add_array(digest, f"{gender}/{field.name}", getattr(body, field.name))
    _add_array(digest, "joint_regressor", self.joint_regressor)
    return digest.hexdigest()[:16]


def placeholder(genders):
  """Returns a BodySet with the shapes of the published SMPL. All numbers are 0, and it needs no memory.

  Args:
    genders: the genders of its bodies, such as ("neutral",).
  """

  def zeros(*shape):
    return np.broadcast_to(np.float32(0), shape)

  V, J = SMPL_VERTICES, NUM_JOINTS
  body = Body(
    v_template=zeros(V, 3),
    shapedirs=zeros(V, 3, NUM_SHAPES),
    posedirs=zeros(V, 3, NUM_POSE_FEATURES),
    J_regressor=zeros(J, V),
    weights=zeros(V, J),
    parents=np.array(SMPL_PARENTS, np.int32),
    faces=np.zeros((0, 3), np.int32),
  )
  return BodySet(
    name="not read",
    licence="not read",
    bodies=dict.fromkeys(genders, body),
    joint_regressor=zeros(NUM_REGRESSED, V),
    h36m_regressor=zeros(NUM_H36M, V),
  )


def _add_array(digest, name, array):
  is_float = array.dtype.kind == "f"
  whole = np.rint(array.astype(np.float64) / _DIGEST_STEP) if is_float else array
  digest.update(f"{name} {array.shape}\n".encode())
  digest.update(np.ascontiguousarray(whole, "<i8"))


def check_body(body, name):
  """Checks that the arrays of a body fit together.

  Args:
    body: Body.
    name: file or gender, for the message.
  Raises:
    ValueError: if an array has a wrong shape or type, or values that are impossible for a body.
  """
  V = body.num_vertices
  if V == 0:
    raise ValueError(f"{name}: v_template has no vertices")
  shapes = {
    "v_template": (V, 3),
    "shapedirs": (V, 3, NUM_SHAPES),
    "posedirs": (V, 3, NUM_POSE_FEATURES),
    "J_regressor": (NUM_JOINTS, V),
    "weights": (V, NUM_JOINTS),
    "parents": (NUM_JOINTS,),
    "faces": (len(body.faces), 3),
  }
  for field, shape in shapes.items():
    _check_array(
      getattr(body, field), shape, "i" if field in ("parents", "faces") else "f", f"{name}: {field}"
    )
  _check_sums(body.J_regressor, f"{name}: J_regressor")
  _check_sums(body.weights, f"{name}: weights")
  parents = body.parents.tolist()
  if parents[0] != -1 or not all(0 <= parent < joint for joint, parent in enumerate(parents) if joint):
    raise ValueError(
      f"{name}: parents={parents}: expected -1 for joint 0, and a lower joint for every other joint"
    )
  if len(body.faces) and not 0 <= body.faces.min() <= body.faces.max() < V:
    raise ValueError(
      f"{name}: the faces use vertices {body.faces.min()} to {body.faces.max()}, the body has 0 to {V - 1}"
    )


def check_body_set(body_set, name):
  """Checks all arrays of a body set.

  Args:
    body_set: BodySet.
    name: file or folder, for the message.
  Raises:
    ValueError: if a body is wrong (see `check_body`), if the bodies have different numbers of vertices, or if
      a regressor or `mirrored` does not fit the bodies.
  """
  if "neutral" not in body_set.bodies or not set(body_set.bodies) <= set(GENDERS):
    raise ValueError(f'{name}: has the genders {list(body_set.bodies)}; expected "neutral", "male", "female"')
  V = body_set.bodies["neutral"].num_vertices
  for gender, body in body_set.bodies.items():
    check_body(body, f"{name}: {gender} body")
    if body.num_vertices != V:
      raise ValueError(f"{name}: the {gender} body has {body.num_vertices} vertices, the neutral body {V}")
  _check_regressor(body_set.joint_regressor, NUM_REGRESSED, V, f"{name}: regressor of {NUM_REGRESSED} joints")
  if body_set.h36m_regressor is not None:
    _check_regressor(body_set.h36m_regressor, NUM_H36M, V, f"{name}: regressor of the {NUM_H36M} H36M joints")
  if body_set.mirrored is not None:
    _check_array(body_set.mirrored, (V,), "i", f"{name}: mirrored")
    ids = body_set.mirrored
    if not (ids.min() >= 0 and ids.max() < V and np.array_equal(ids[ids], np.arange(V))):
      raise ValueError(f"{name}: mirrored is not a table of vertex pairs")


def _check_regressor(array, rows, V, where):
  _check_array(array, (rows, V), "f", where)
  _check_sums(array, where)


def _check_array(array, shape, kind, where):
  if array.shape != shape:
    raise ValueError(
      f"{where} has the shape {array.shape}, expected {shape} (the number of vertices is the number of rows "
      "of v_template)"
    )
  if array.dtype != (np.float32 if kind == "f" else np.int32):
    raise ValueError(f"{where} has the type {array.dtype}, expected {'float32' if kind == 'f' else 'int32'}")
  if not np.isfinite(array).all():
    raise ValueError(f"{where} has numbers that are not finite")


def _check_sums(array, where):
  sums = array.sum(axis=1, dtype=np.float64)
  row = int(np.abs(sums - 1).argmax())
  if abs(sums[row] - 1) > _SUM_TOLERANCE:
    raise ValueError(f"{where}: row {row} has the sum {sums[row]:.6f}, expected 1 for every row")


def write_body_set(folder, body_set):
  """Writes a body set to a new folder. `read_body_set` reads it.

  Args:
    folder: the folder. It must not exist, and its parent folder must exist.
    body_set: BodySet.
  Raises:
    ValueError: if the folder exists, if its parent folder is missing, or if the arrays do not fit together.
    OSError: if a file cannot be written.
  """
  folder = pathlib.Path(folder)
  unfinished.check_new(folder)
  check_body_set(body_set, body_set.name)
  files = {gender: _file_of(gender) for gender in GENDERS if gender in body_set.bodies}
  description = {
    "format": _FORMAT,
    "name": body_set.name,
    "licence": body_set.licence,
    "one_for_all": body_set.one_for_all,
    "files": files,
    "digests": {gender: body_set.digest_of(gender) for gender in files},
  }
  with unfinished.new_folder(folder) as part:
    for gender, file in files.items():
      np.savez(part / file, **_to_smpl_arrays(body_set.bodies[gender]))
    regressors = {
      "joints_30": body_set.joint_regressor,
      "h36m": body_set.h36m_regressor,
      "mirrored": body_set.mirrored,
    }
    np.savez(
      part / REGRESSORS_FILE, **{name: array for name, array in regressors.items() if array is not None}
    )
    (part / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def read_body_set(folder, *, need_h36m=False, key="config.body"):
  """Reads a body folder that `hap body` has written.

  Args:
    folder: the folder.
    need_h36m: True: a folder without the regressor of the Human3.6M joints is an error.
    key: configuration key or option that names the folder, for messages.
  Returns:
    BodySet.
  Raises:
    ValueError: if the folder or a file is missing or damaged, or if the arrays do not fit together.
  """
  folder = pathlib.Path(folder)
  path = folder / DESCRIPTION_FILE
  if not path.is_file():
    missing = "no such folder" if not folder.is_dir() else f"no file {DESCRIPTION_FILE} in this folder"
    raise ValueError(
      f"{folder}: {missing}; expected a body that `hap body` has written. {_where_to_get(key)}"
    )
  facts = _read_description(path)
  regressors = _read_arrays(folder / REGRESSORS_FILE, _REGRESSORS, optional=("h36m", "mirrored"))
  body_set = BodySet(
    name=facts["name"],
    licence=facts["licence"],
    bodies={gender: _read_body(folder / _file_of(gender)) for gender in GENDERS if gender in facts["files"]},
    joint_regressor=_as_float32(regressors["joints_30"]),
    h36m_regressor=_as_float32(regressors.get("h36m")),
    mirrored=None if "mirrored" not in regressors else np.ascontiguousarray(regressors["mirrored"], np.int32),
    one_for_all=facts["one_for_all"],
  )
  check_body_set(body_set, str(folder))
  for gender, digest in facts["digests"].items():
    if body_set.digest_of(gender) != digest:
      raise ValueError(
        f"{folder}: the arrays of the {gender} body have the digest {body_set.digest_of(gender)}, but "
        f"{DESCRIPTION_FILE} says {digest}: copy the folder again, or write it again with `hap body`"
      )
  if need_h36m:
    require_h36m(body_set, folder)
  return body_set


def require_h36m(body_set, name):
  """Raises ValueError if a body set has no regressor of the Human3.6M joints. `name` is its folder."""
  if body_set.h36m_regressor is None:
    raise ValueError(
      f"{name}: it has no regressor of the Human3.6M joints, which the evaluation on 3DPW needs: write the "
      f"folder again with `hap body --regressors=DIR`, where DIR has the file {H36M_FILE} "
      "(17 rows; from the data of 3DCrowdNet or Pose2Mesh, for non-commercial research)"
    )


def missing(key, source):
  """Returns the error message for a data source that needs a body model if `key` is empty.

  Args:
    key: configuration key or option, such as "config.body".
    source: name of the data source.
  """
  return f"{key} is empty, but {source} has no body of its own. {_where_to_get(key)}"


def _where_to_get(key):
  return _WHERE_TO_GET.replace("config.body", key)


def _file_of(gender):
  return f"smpl_{gender}.npz"


def _to_smpl_arrays(body):
  """Returns the arrays of a body under the names of SMPL's files."""
  parents = body.parents.astype(np.int64)  # SMPL writes the missing parent as a number beyond int32
  parents[parents < 0] = _NO_PARENT
  return {
    "v_template": body.v_template,
    "shapedirs": body.shapedirs,
    "posedirs": body.posedirs,
    "J_regressor": body.J_regressor,
    "weights": body.weights,
    "kintree_table": np.stack([parents, np.arange(NUM_JOINTS)]).astype(np.uint32),
    "f": body.faces.astype(np.uint32),
  }


def _read_body(path):
  arrays = _read_arrays(path, _BODY_ARRAYS)
  tree = arrays["kintree_table"]
  if tree.shape != (2, NUM_JOINTS) or not np.array_equal(tree[1], np.arange(NUM_JOINTS)):
    raise ValueError(f"{path}: kintree_table {tree.shape}: expected the parents of joints 0 to 23 in row 0")
  # An index that does not fit into int32 becomes -1. The check of the body then raises an error, because only
  # the parent of the root may be -1.
  parents, faces = (np.where(ids > 2**31 - 1, -1, ids.astype(np.int64)) for ids in (tree[0], arrays["f"]))
  return Body(
    **{name: _as_float32(arrays[name]) for name, (kind, _) in _BODY_ARRAYS.items() if kind == "f"},
    parents=np.ascontiguousarray(parents, np.int32),
    faces=np.ascontiguousarray(faces, np.int32),
  )


def _as_float32(array):
  return None if array is None else np.ascontiguousarray(array, np.float32)


def _read_arrays(path, kinds, optional=()):
  """Returns the arrays of an .npz file. Arrays named in `optional` may be missing."""
  if not path.is_file():
    raise ValueError(
      f"{path}: no such file, but {DESCRIPTION_FILE} needs it; write the folder again with `hap body`"
    )
  try:
    arrays = npz_file.read_stored(path, kinds)
  except (OSError, ValueError) as error:
    raise ValueError(f"{path}: not a file of `hap body`: {error}; write the folder again") from error
  missing = [name for name in kinds if name not in arrays and name not in optional]
  if missing:
    raise ValueError(f"{path}: has no array {', '.join(missing)}; write the folder again with `hap body`")
  return arrays


def _read_description(path):
  """Returns the checked content of body.json."""
  entry = json_entries.read(path, "config.body", "the description of a body that `hap body` has written")
  json_entries.check_object(entry, path, "a body of `hap body`")
  version = json_entries.integer(entry, "format", path)
  if version != _FORMAT:
    raise ValueError(f"{path}: format {version}, this version of hap_jax reads format {_FORMAT}")
  name, licence = (json_entries.text(entry, key, path) for key in ("name", "licence"))
  for key, value in (("name", name), ("licence", licence)):
    if not value.isprintable() or not 0 < len(value) <= 500:
      raise ValueError(f"{path} has {json_entries.show(value)} under {key}, expected one line of text")
  files = json_entries.get(entry, "files", path)
  expected = {gender: _file_of(gender) for gender in GENDERS}
  if not isinstance(files, dict) or "neutral" not in files or not files.items() <= expected.items():
    raise ValueError(f"{path} has {json_entries.show(files)} under files, expected some of {expected}")
  one_for_all = json_entries.flag(json_entries.get(entry, "one_for_all", path), path, "one_for_all")
  digests = json_entries.get(entry, "digests", path)
  if not isinstance(digests, dict) or digests.keys() != files.keys():
    raise ValueError(
      f"{path} has {json_entries.show(digests)} under digests, expected one of each of {list(files)}"
    )
  return {"name": name, "licence": licence, "digests": digests, "files": files, "one_for_all": one_for_all}
