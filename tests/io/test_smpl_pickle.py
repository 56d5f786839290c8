"""The reader of SMPL's pickles: chumpy and sparse matrices give their exact arrays, and no code is run."""

import os
import pickle
import sys
import types

import numpy as np
import pytest
import scipy.sparse

from hap_jax.io import restricted_pickle, smpl_pickle
from hap_jax.io.restricted_pickle import UnsafePickleError
from tests.io.samples import Call
from tests.smpl_files import CLASSES, ch, csc, instance, pickled, select, select_of

VALUES = np.arange(24.0).reshape(4, 3, 2)
SPARSE = np.array([[0, 1.5, 0, 0], [2, 0, 0, -1], [0, 0, 0, 3]])


@pytest.fixture
def read(tmp_path):
  """Returns a function that reads a pickle from its bytes."""

  def read_bytes(data):
    (tmp_path / "body.pkl").write_bytes(data)
    return smpl_pickle.load(tmp_path / "body.pkl")

  return read_bytes


@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_chumpy_arrays_and_sparse_matrices_of_python_2_give_their_arrays(read, protocol):
  key = (slice(None), slice(1, 3), 1)
  content = {
    "plain": VALUES,
    "ch": ch(VALUES),
    "select": select_of(VALUES, key),
    "twice": select(select_of(VALUES, key), np.array([7, 0]), preferred_shape=(2,)),
    "fortran": select_of(np.asfortranarray(VALUES), key),
    "csc": csc(SPARSE),
    "name": "J\xfcrgen",
  }
  got = read(pickled(content, protocol))
  wanted = VALUES[key]
  expected = {"plain": VALUES, "ch": VALUES, "select": wanted, "twice": wanted.ravel()[[7, 0]]}
  for name, array in {**expected, "fortran": wanted, "csc": SPARSE}.items():
    found = smpl_pickle.array(got[name])
    np.testing.assert_array_equal(found, array)
    assert found.shape == array.shape
  assert got["name"] == b"J\xfcrgen"


def test_the_test_files_are_real_pickles(monkeypatch):
  # Python's own reader makes the same objects, so the test files are not only what the reader expects.
  for module in ("chumpy", "chumpy.ch", "chumpy.reordering", "scipy.sparse.csc"):
    monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
  for (module, name), kind in CLASSES.items():
    if module != "scipy.sparse._csc":
      monkeypatch.setattr(sys.modules[module], name, kind, raising=False)
  for protocol in (0, 2):
    got = pickle.loads(
      pickled({"a": select_of(VALUES, 1), "b": "\xfc", "c": csc(SPARSE)}, protocol), encoding="latin1"
    )
    np.testing.assert_array_equal(got["a"].a.x, VALUES)
    assert got["a"].preferred_shape == (3, 2)
    assert got["b"] == "\xfc"
    np.testing.assert_array_equal(got["c"].data, scipy.sparse.csc_matrix(SPARSE).data)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", [scipy.sparse.csc_matrix, scipy.sparse.csc_array])
def test_sparse_matrices_of_the_current_scipy_are_read(read, kind, protocol):
  matrix = kind((np.array([1.0, 2, 4]), ([2, 2, 0], [1, 1, 3])), shape=(3, 4))
  matrix.data = np.append(matrix.data, 9.0)  # spare space at the end of the arrays is not used
  np.testing.assert_array_equal(smpl_pickle.array(read(pickle.dumps(matrix, protocol))), matrix.toarray())


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_empty_sparse_matrices_and_repeated_entries_are_read(read, shape):
  assert smpl_pickle.array(read(pickled(csc(np.zeros(shape))))).shape == shape
  twice = csc(SPARSE, indices=np.array([1, 1, 1, 1]), indptr=np.array([0, 4, 4, 4, 4]))
  twice.data = np.array([1.0, 2, 3, 4])
  np.testing.assert_array_equal(smpl_pickle.array(read(pickled(twice)))[1], [10, 0, 0, 0])


@pytest.mark.parametrize("protocol", [0, 2])
def test_the_default_reader_refuses_these_objects(tmp_path, protocol):
  for value in (ch(VALUES), select_of(VALUES, 1), csc(SPARSE)):
    (tmp_path / "list.pkl").write_bytes(pickled([value], protocol))
    with pytest.raises(UnsafePickleError, match=r"asks for (chumpy|scipy|copy_reg)"):
      restricted_pickle.load(tmp_path / "list.pkl")


def test_a_select_without_a_shape_and_without_its_cache_is_flat(read):
  # chumpy may store a huge sparse matrix of derivatives. It is never made dense.
  cache = csc(SPARSE, _shape=(2**31 - 1, 2**31 - 1))
  got = read(pickled(select(ch(VALUES), np.array([[1, 2], [3, 4]]), _dr_cached=cache)))
  np.testing.assert_array_equal(smpl_pickle.array(got), [[1, 2], [3, 4]])


@pytest.mark.parametrize("protocol", [0, 2])
def test_other_classes_and_calls_are_refused_and_not_run(read, tmp_path, protocol):
  proof = tmp_path / "ran"
  program = pickle.dumps(Call(os.system, f"echo > {proof}"), protocol)
  for data in (program, pickled({"v_template": Call(os.system, f"echo > {proof}")}, protocol)):
    with pytest.raises(UnsafePickleError, match=r"body\.pkl: refused.*asks for \w+\.system"):
      read(data)
  assert not proof.exists()
  pickle.loads(program)  # Python's own reader runs it, so the attack is real
  assert proof.exists()
  with pytest.raises(UnsafePickleError, match=r"asks for chumpy\.reordering\.Reshape"):
    read(pickled(instance("chumpy.reordering", "Reshape", a=VALUES), protocol))


@pytest.mark.parametrize(
  ("data", "match"),
  [
    (b"cchumpy.ch\nCh\n.", r"leaves chumpy\.ch\.Ch in the data"),
    (b"c__builtin__\nobject\n.", r"leaves builtins\.object in the data"),
    (b"c__builtin__\nobject\n)R.", r"calls builtins\.object"),
    (b"cchumpy.ch\nCh\n(K\x01tR.", "corrupt"),
    (b"cchumpy.ch\nCh\n)\x81]b.", "state of a Record"),
    (b"cchumpy.ch\nCh\n)\x81K\x01K\x02s.", "sets items of a Record"),
    (b"ccopy_reg\n_reconstructor\n(cnumpy\nndarray\nc__builtin__\nobject\nNtR.", "another class"),
    (b"ccopy_reg\n_reconstructor\n(c__builtin__\nobject\nc__builtin__\nobject\nNtR.", "another class"),
    (b"ccopy_reg\n_reconstructor\n(cchumpy.ch\nCh\ncchumpy.ch\nCh\nNtR.", "another class"),
    (b"ccopy_reg\n_reconstructor\n(cchumpy.ch\nCh\nc__builtin__\nobject\nK\x01tR.", "another class"),
    (b"ccopy_reg\n__newobj__\n(cchumpy.ch\nCh\ntR.", r"asks for copy_reg\.__newobj__"),
    (b"cchumpy.ch\nos.system\n.", r"asks for chumpy\.ch\.os\.system"),
  ],
)
def test_objects_are_made_only_in_the_way_that_pickle_makes_them(read, data, match):
  with pytest.raises(ValueError, match=match):
    read(data)


def endless():
  """Returns a chumpy object that contains itself."""
  loop = ch(None)
  loop.x = loop
  return loop


ENTRIES = {"data": np.ones(2), "indices": np.arange(2), "indptr": np.array([0, 1, 1, 1, 2])}
WRONG = [
  (ch("text"), "expected an array of numbers, found a str"),
  (ch(np.array(["a"])), "found an array of <U1"),
  (ch(np.array([{}], object)), "found an array of object"),
  (ch(np.zeros(3, bool)), "found an array of bool"),
  (instance("chumpy.ch", "Ch"), "found a NoneType"),
  (endless(), "more than 8 chumpy objects inside each other"),
  (select(VALUES, np.array([0, 24])), r"reach from 0 to 24; expected 0 to 23"),
  (select(VALUES, np.array([-1])), r"reach from -1 to -1; expected"),
  (select(VALUES, np.array([2**63], np.uint64)), "expected 0 to 23"),
  (select(np.zeros(0), np.array([0])), "expected 0 to -1"),
  (select(VALUES, np.array([0.0])), "idxs of a chumpy Select as whole numbers, found an array of float64"),
  (select(VALUES, [0]), "whole numbers, found a list"),
  (select(VALUES, np.arange(6), preferred_shape=(4, 2)), "does not fit its 6 idxs"),
  (select(VALUES, np.arange(6), preferred_shape=(-1, 2)), "expected whole numbers from 0"),
  (select(VALUES, np.arange(6), preferred_shape=(True, 6)), "expected whole numbers from 0"),
  (select(VALUES, np.arange(6), preferred_shape=6), "expected a tuple of at most 8 numbers"),
  (select(VALUES, np.arange(6), preferred_shape=(1,) * 9), "expected a tuple of at most 8 numbers"),
  (select(VALUES, np.arange(6), preferred_shape=(2**30, 2**30)), "more than 16,777,216 elements"),
  (csc(SPARSE, _shape=(2**20, 2**20)), "more than 16,777,216 elements"),
  (csc(SPARSE, _shape=(2**70, 1)), "expected whole numbers from 0"),
  (csc(SPARSE, _shape=None), "expected a tuple"),
  (csc(SPARSE, _shape=(3,)), "expected two dimensions"),
  (csc(SPARSE, _shape=(3, 5)), "do not fit its shape"),
  (csc(SPARSE, **ENTRIES, _shape=(1, 4)), "outside of its 1 rows"),
  (csc(SPARSE, **{**ENTRIES, "indices": np.array([0, -1])}), "outside of its 3 rows"),
  (csc(SPARSE, **{**ENTRIES, "indptr": np.array([0, 2, 1, 1, 2])}), "does not increase"),
  (csc(SPARSE, **{**ENTRIES, "indptr": np.array([1, 1, 1, 1, 2])}), "does not begin at 0"),
  (csc(SPARSE, **{**ENTRIES, "indptr": np.array([0, 1, 1, 1, 3])}), "points outside of its data"),
  (csc(SPARSE, **{**ENTRIES, "indptr": np.array([0, 2**63 - 1, -2, 1, 2])}), "points outside of its data"),
  (csc(SPARSE, **{**ENTRIES, "indptr": np.zeros((5, 1), int)}), "do not fit its shape"),
  (csc(SPARSE, **{**ENTRIES, "data": np.ones(2, complex)}), "data of a sparse matrix as numbers"),
  (csc(SPARSE, **{**ENTRIES, "indices": np.ones(2)}), "indices of a sparse matrix as whole numbers"),
]


@pytest.mark.parametrize(("value", "match"), WRONG)
def test_parts_that_do_not_fit_together_are_an_error(read, value, match):
  got = read(pickled(value))
  with pytest.raises(ValueError, match=match):
    smpl_pickle.array(got)


def test_objects_that_repeat_one_large_state_are_refused(read):
  state = pickled({f"key{i}": i for i in range(2000)})[:-1]
  program = state + b"r\xff\xff\xff\x0f0]" + b"cchumpy.ch\nCh\n)\x81j\xff\xff\xff\x0fba" * 2000 + b"."
  with pytest.raises(UnsafePickleError, match="copies its data"):
    read(program)
