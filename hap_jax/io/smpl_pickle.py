"""Reads the pickles of SMPL bodies. It never imports, calls or executes code that a file names.

In these files some arrays are objects of chumpy, a package that cannot be installed on a current Python. The
joint regressor is a sparse matrix of SciPy. The reader keeps the state of such an object as a `Record`, which
is plain data. `array` computes the array that a record represents. No other reader of pickles accepts these
objects.
"""

import functools
import math

import numpy as np

from hap_jax.io import regular_file
from hap_jax.io.pickle_machine import Constructor, Unpickler
from hap_jax.io.plain_data import AttributeDict, UnsafePickleError
from hap_jax.io.restricted_pickle import ADMITTED

# The largest known file has 300 shape directions and the old text format of pickles. It has about 250 MB.
_MAX_FILE_BYTES = 2**30
# Most elements of an array. The shape directions of that file have 6,201,000 elements.
_MAX_ELEMENTS = 2**24
_MAX_DIMENSIONS = 8
_MAX_LEVELS = 8  # most levels of chumpy objects inside each other. Real files have two levels


class Record(AttributeDict):
  """The state of an object of chumpy or SciPy, as a dict.

  Attributes:
    kind: "Ch", "Select" or "CSC".
  """

  def __init__(self, kind):
    super().__init__()
    self.kind = kind


def load(path):
  """Reads a pickle of plain data, arrays, chumpy objects and sparse matrices.

  Args:
    path: the file.
  Returns:
    the object. A chumpy object or a sparse matrix is a `Record`. The other values are as in
    `restricted_pickle.load`.
  Raises:
    OSError: if the file is missing or cannot be read.
    UnsafePickleError: if the pickle contains anything else. The message names the function or class that the
      pickle refers to.
    ValueError: if the pickle is truncated or corrupt, or the file is larger than 1 GiB or is no regular file.
  """
  data = regular_file.read_bytes(path, max_bytes=_MAX_FILE_BYTES)
  return Unpickler(data, path, ADMITTED | _OBJECTS).load()


def array(value):
  """Returns the array that a value of such a pickle represents.

  Args:
    value: an array, or a `Record`.
  Returns:
    an array of numbers. If `value` is an array, the result is the same object.
  Raises:
    ValueError: if `value` is something else, if its parts do not fit together, or if the array would have
      more than 2**24 elements. The message does not name the file.
  """
  selections = []
  for _ in range(_MAX_LEVELS):
    kind = value.kind if type(value) is Record else None
    if kind == "Select":
      selections.append(value)
    elif kind != "Ch":
      break
    value = value.get("x" if kind == "Ch" else "a")
  else:
    raise ValueError(f"more than {_MAX_LEVELS} chumpy objects inside each other")
  result = _dense(value) if kind == "CSC" else _numbers(value, "iuf", "an array of numbers")
  for selection in reversed(selections):
    result = _selected(result, selection)
  return result


def _selected(values, record):
  """Returns the elements of `values` that a Select lists by their indices, in the shape of the Select."""
  places = _numbers(record.get("idxs"), "iu", "idxs of a chumpy Select as whole numbers")
  if places.size and not 0 <= places.min() <= places.max() < values.size:
    raise ValueError(
      f"idxs of a chumpy Select reach from {places.min()} to {places.max()}; expected 0 to {values.size - 1}"
    )
  shape = _shape(record.get("preferred_shape", places.shape), "preferred_shape of a chumpy Select")
  if math.prod(shape) != places.size:
    raise ValueError(f"preferred_shape {shape} of a chumpy Select does not fit its {places.size} idxs")
  return values.ravel()[places.ravel().astype(np.int64)].reshape(shape)


def _dense(record):
  """Returns the array of a sparse matrix in compressed columns (CSC), float64."""
  shape = _shape(record.get("_shape", record.get("shape")), "shape of a sparse matrix")
  if len(shape) != 2:
    raise ValueError(f"a sparse matrix of shape {shape}; expected two dimensions")
  values = _numbers(record.get("data"), "iuf", "data of a sparse matrix as numbers")
  rows, starts = (
    _numbers(record.get(name), "iu", f"{name} of a sparse matrix as whole numbers")
    for name in ("indices", "indptr")
  )
  if not values.ndim == rows.ndim == starts.ndim == 1 or len(starts) != shape[1] + 1:
    raise ValueError(f"the arrays of a sparse matrix do not fit its shape {shape}")
  # The range is checked first, because the differences of huge numbers overflow.
  if starts.min() < 0 or starts.max() > min(len(values), len(rows)):
    raise ValueError("indptr of a sparse matrix points outside of its data")
  counts = np.diff(starts.astype(np.int64))
  if starts[0] != 0 or (counts < 0).any():
    raise ValueError("indptr of a sparse matrix does not begin at 0 or does not increase")
  used = int(starts[-1])
  rows = rows[:used]
  if used and not 0 <= rows.min() <= rows.max() < shape[0]:
    raise ValueError(f"indices of a sparse matrix reach outside of its {shape[0]} rows")
  dense = np.zeros(shape)
  # Entries with the same place are added, as in SciPy.
  columns = np.repeat(np.arange(shape[1]), counts)
  with np.errstate(over="ignore", invalid="ignore"):  # a later check finds numbers that are not finite
    np.add.at(dense, (rows.astype(np.int64), columns), values[:used].astype(np.float64))
  return dense


def _numbers(value, kinds, text):
  """Returns `value` if it is an array of these kinds of numbers and not too large. Otherwise: ValueError."""
  if type(value) is not np.ndarray or value.dtype.kind not in kinds:
    found = f"an array of {value.dtype}" if type(value) is np.ndarray else f"a {type(value).__name__}"
    raise ValueError(f"expected {text}, found {found}")
  if value.size > _MAX_ELEMENTS:
    raise ValueError(f"an array of shape {value.shape}; expected at most {_MAX_ELEMENTS:,} elements")
  return value


def _shape(value, text):
  """Returns a shape from the file as a tuple of int."""
  if type(value) not in (tuple, list) or len(value) > _MAX_DIMENSIONS:
    raise ValueError(f"{text}: expected a tuple of at most {_MAX_DIMENSIONS} numbers")
  if not all(isinstance(n, int | np.integer) and type(n) is not bool and 0 <= n < 2**31 for n in value):
    raise ValueError(f"{text}: expected whole numbers from 0")
  shape = tuple(int(n) for n in value)
  if math.prod(shape) > _MAX_ELEMENTS:
    raise ValueError(f"{text}: {shape} has more than {_MAX_ELEMENTS:,} elements")
  return shape


def _reconstruct(subtype, base, state):
  # In protocols 0 and 1, a pickle makes an object with a call of copyreg._reconstructor. This function
  # replaces that call.
  if not any(subtype is known for known in _RECORDS.values()) or base is not _OBJECT or state is not None:
    raise UnsafePickleError("makes an object of another class than chumpy's arrays and SciPy's sparse matrix")
  return subtype.construct()


_OBJECT = Constructor("builtins.object", None)
_RECORDS = {
  (module, name): Constructor(f"{module}.{name}", functools.partial(Record, kind))
  for kind, modules, names in (
    ("Ch", ("chumpy.ch",), ("Ch",)),
    ("Select", ("chumpy.reordering",), ("Select",)),
    # The old and the new name of SciPy's module.
    ("CSC", ("scipy.sparse.csc", "scipy.sparse._csc"), ("csc_matrix", "csc_array")),
  )
  for module in modules
  for name in names
}
_OBJECTS = {
  **_RECORDS,
  **{(module, "object"): _OBJECT for module in ("builtins", "__builtin__")},
  **{
    (module, "_reconstructor"): Constructor(f"{module}._reconstructor", _reconstruct)
    for module in ("copyreg", "copy_reg")
  },
}
