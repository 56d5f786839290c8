"""Writes files in the formats of SMPL: pickles of Python 2 with chumpy and SciPy objects, and regressors.

The classes in this file stand for the classes of chumpy and SciPy. Only their names get into a pickle.
"""

import io
import pickle
import struct
import typing

import numpy as np
import scipy.sparse

from tests import bodies

# Rows of the 30 joints at the place of each of the 17 joints of Human3.6M.
H36M_ROWS = [0, 2, 5, 8, 1, 4, 7, 3, 12, 24, 29, 16, 18, 20, 17, 19, 21]
CLASSES = {
  (module, name): type(name, (), {"__module__": module})
  for module, name in (
    ("chumpy.ch", "Ch"),
    ("chumpy.reordering", "Select"),
    ("chumpy.reordering", "Reshape"),
    ("scipy.sparse.csc", "csc_matrix"),
    ("scipy.sparse._csc", "csc_matrix"),
    ("scipy.sparse._csc", "csc_array"),
  )
}


def instance(module, name, **state):
  """Makes an object of one of the classes with this state."""
  made = CLASSES[module, name]()
  vars(made).update(state)
  return made


def chumpy_state():
  """Returns the attributes that every object of chumpy has in a pickle."""
  return {"_dirty_vars": {"x"}, "_itr": None, "_depends_on_deps": {"J": {"deps": ["a"], "value": None}}}


def ch(x):
  return instance("chumpy.ch", "Ch", x=x, **chumpy_state())


def select(a, idxs, **state):
  return instance("chumpy.reordering", "Select", a=a, idxs=idxs, **state, **chumpy_state())


def select_of(array, key):
  """Makes the object that chumpy makes for Ch(array)[key]."""
  places = np.arange(array.size).reshape(array.shape)[key]
  return select(ch(array), places.ravel(), preferred_shape=places.shape)


def csc(array, module="scipy.sparse.csc", name="csc_matrix", **changes):
  """Makes the sparse matrix of an array, as SciPy writes it. `changes` replaces attributes."""
  state = vars(scipy.sparse.csc_matrix(array))
  return instance(module, name, **{**state, **changes})


class Python2Pickler(pickle._Pickler):
  """Writes strings and bytes as Python 2 does, and the module names of NumPy 1."""

  dispatch: typing.ClassVar = dict(pickle._Pickler.dispatch)

  def save_string(self, value):
    data = value.encode("latin-1") if isinstance(value, str) else value
    if self.proto == 0:
      self.write(b"S" + repr(data)[1:].encode() + b"\n")
    else:
      self.write(b"T" + struct.pack("<i", len(data)) + data)
    self.memoize(value)

  dispatch[str] = dispatch[bytes] = save_string

  def save_global(self, obj, name=None):
    module = getattr(obj, "__module__", "")
    if (module, getattr(obj, "__name__", "")) in CLASSES:
      self.write(f"c{module}\n{obj.__name__}\n".encode())
      self.memoize(obj)
    else:
      super().save_global(obj, name)


def pickled(value, protocol=2):
  """Returns the pickle of a value, as Python 2 writes it in protocol 0 or 2."""
  file = io.BytesIO()
  Python2Pickler(file, protocol).dump(value)
  return file.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


def arrays_of(body, num_shapes=10, seed=0):
  """Returns the arrays of a body under SMPL's names. Shape directions after the tenth are random."""
  more = np.random.default_rng(seed).normal(0, 0.01, (body.num_vertices, 3, num_shapes - 10))
  arrays = {name: getattr(body, name) for name in ("v_template", "posedirs", "J_regressor", "weights")}
  arrays["shapedirs"] = np.concatenate([body.shapedirs, more], 2)
  tree = np.stack([body.parents, np.arange(24)]).astype(np.uint32)  # the parent -1 becomes 2^32 - 1
  return {
    **{name: array.astype(np.float64) for name, array in arrays.items()},
    "kintree_table": tree,
    "f": body.faces.astype(np.uint32),
  }


def as_published(arrays):
  """Returns the content of a pickle with these arrays. It has the kinds of objects of SMPL's own files."""
  shapes = arrays["shapedirs"]
  everything = np.concatenate([shapes, shapes[..., :2]], 2)
  return {
    **arrays,
    "v_template": ch(arrays["v_template"]),
    "shapedirs": select_of(everything, (slice(None), slice(None), slice(0, shapes.shape[2]))),
    "J_regressor": csc(arrays["J_regressor"]),
    "weights": ch(np.asfortranarray(arrays["weights"])),
    "J": ch(np.zeros((24, 3))),
    "J_regressor_prior": csc(arrays["J_regressor"]),
    "bs_type": "lrotmin",
    "bs_style": "lbs",
    "pose_training_info": {"gender": "neutral", "author": "J\xfcrgen"},
    "vert_sym_idxs": np.arange(len(shapes))[::-1].copy(),
  }


def write_regressors(folder, body_set):
  """Writes the regressor files for a body of any number of vertices."""
  folder.mkdir()
  np.save(folder / "joints_30.npy", body_set.joint_regressor)
  np.save(folder / "J_regressor_h36m_correct.npy", np.asfortranarray(body_set.joint_regressor[H36M_ROWS]))
  return folder


def random_files(folder, num_vertices=12, genders=("neutral",)):
  """Writes a pickle per gender and the regressors.

  Returns:
    (BodySet of the same arrays, {gender: path}, folder of the regressors).
  """
  made = bodies.random_set(num_vertices, genders=genders)
  faces = made.of("neutral").faces
  paths = {}
  for gender in genders:
    arrays = {**arrays_of(made.of(gender)), "f": faces.astype(np.uint32)}
    paths[gender] = folder / f"{gender}.pkl"
    paths[gender].write_bytes(pickled(as_published(arrays)))
  return made, paths, write_regressors(folder / "regressors", made)
