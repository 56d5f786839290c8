"""The reader of .mat files equals scipy's reader on valid files, and other files are an error."""

import io
import pathlib
import re
import struct
import zlib

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hap_jax.io import mat_array, mat_file
from tests.io import mutations_mat

SAMPLES = (
  *("attributes/pa100k/annotation.mat", "attributes/peta/PETA.mat", "attributes/rap/RAP_annotation.mat"),
  *(f"reid/market1501/{name}.mat" for name in ("queryCam", "queryID", "testCam", "testID")),
  "pose2d/mpii/mpii_gt_val.mat",
)
NUMBERS = [
  np.dtype(code) for code in ("i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "c8", "c16", "?")
]
STRUCTS = np.array([(1, "a"), (np.zeros((0, 0)), {"x": [1, 2]})], [("first", object), ("second_one", object)])
VALUES = {
  **{f"numbers_{dtype.name}": np.arange(6).reshape(2, 3).astype(dtype) for dtype in NUMBERS},
  **{f"one_{dtype.name}": np.ones((1, 1), dtype) for dtype in NUMBERS},
  **{f"empty_{dtype.name}": np.zeros((0, 3), dtype) for dtype in NUMBERS},
  "big_endian": np.arange(5, dtype=">i4"),
  "scalar": 3.5,
  "four_dimensions": np.arange(120, dtype=np.int16).reshape(2, 3, 4, 5),
  "infinite": np.array([np.inf, -np.inf, np.nan]),
  "text": "Bag-on-the-left",
  "short": "ab",
  "unicode": "体型微胖 é \U0001f600",
  "no_text": "",
  "spaces": "   ",
  "rows": np.array(["abc", "de", "f"]),
  "planes": np.array([["abc", "de"], ["f", "ghij"]]),
  "cell": mutations_mat.cell(["Female", "性别", ""]),
  "nested": mutations_mat.cell(
    [mutations_mat.cell([1, "a"]), np.arange(3), {"a": mutations_mat.cell(["b"])}]
  ),
  "no_cells": np.empty((0, 0), object),
  "no_fields": {},
  "struct": {"label": np.eye(3), "inner": {"deep": {"deeper": True}}, "names": mutations_mat.cell(["a"])},
  "structs": STRUCTS,
  "struct_column": STRUCTS[:, None],
  "no_structs": STRUCTS[:0],
}
ARRAYS = st.one_of(
  hnp.arrays(st.sampled_from(NUMBERS), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)),
  st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8),
)


def nest(values):
  """Returns a strategy of cells and structs of the given values."""
  names = st.text("abcXYZ", min_size=1, max_size=12)  # scipy writes only names that MATLAB allows
  return st.lists(values, max_size=4).map(mutations_mat.cell) | st.dictionaries(names, values, max_size=3)


def load(data, tmp_path):
  path = tmp_path / "annotation.mat"
  path.write_bytes(data)
  return mat_file.load(str(path))


def assert_equal(got, want, place=""):
  """Checks that two trees of arrays have equal types, shapes and values."""
  assert type(got) is type(want), place
  if not isinstance(want, np.ndarray):
    assert got == want, place
    return
  assert (got.dtype, got.shape, got.flags.writeable) == (want.dtype, want.shape, want.flags.writeable), place
  if want.dtype.names:
    for name in want.dtype.names:
      assert_equal(got[name], want[name], f"{place}.{name}")
  elif want.dtype == object:
    for i, (one, other) in enumerate(zip(got.flat, want.flat, strict=True)):
      assert_equal(one, other, f"{place}{{{i}}}")
  else:
    np.testing.assert_array_equal(got, want, place)


def assert_equals_scipy(data, tmp_path):
  """Checks that this reader and scipy's reader return the same variables."""
  want = {k: v for k, v in scipy.io.loadmat(io.BytesIO(data)).items() if not k.startswith("__")}
  got = load(data, tmp_path)
  assert list(got) == list(want)
  for name in want:
    assert_equal(got[name], want[name], name)


@pytest.mark.parametrize("name", SAMPLES)
def test_files_of_the_data_sets_are_read_as_by_scipy(name, samples, tmp_path):
  assert_equals_scipy((samples / name).read_bytes(), tmp_path)


def test_files_of_matlab_6_and_7_are_read_as_by_scipy(tmp_path):
  folder = pathlib.Path(scipy.io.__file__).parent / "matlab" / "tests" / "data"
  paths = [
    path
    for path in sorted(folder.glob("test*_GLNX86.mat")) + sorted(folder.glob("test*_SOL2.mat"))
    if not re.match(r"test(hdf5|vec_4|func|object|sparse)|.*_4\.2c", path.name)
  ]
  if not paths:
    pytest.skip("scipy was installed without its test data")
  for path in paths:
    assert_equals_scipy(path.read_bytes(), tmp_path)


@pytest.mark.parametrize("compress", [False, True])
def test_files_that_scipy_writes_are_read_as_by_scipy(compress, tmp_path):
  data = mutations_mat.save(VALUES, compress=compress)
  assert set(load(data, tmp_path)) == set(VALUES)
  assert_equals_scipy(data, tmp_path)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(value=st.recursive(ARRAYS, nest, max_leaves=12), compress=st.booleans())
def test_any_tree_of_arrays_is_read_as_by_scipy(value, compress, tmp_path_factory):
  assert_equals_scipy(mutations_mat.save({"v": value}, compress=compress), tmp_path_factory.getbasetemp())


def element(kind, content, order="<"):
  """Returns the bytes of an element with its tag and padding."""
  if len(content) <= 4 and kind != 14:
    return struct.pack(f"{order}I", len(content) << 16 | kind) + content.ljust(4, b"\0")
  return struct.pack(f"{order}II", kind, len(content)) + content + bytes(-len(content) % 8)


def array(kind, dims, *parts, name=b"", flags=0, order="<"):
  """Returns the bytes of an array of class `kind`."""
  head = element(6, struct.pack(f"{order}II", kind | flags << 8, 0), order)
  shape = element(5, struct.pack(f"{order}{len(dims)}i", *dims), order)
  return element(14, head + shape + element(1, name, order) + b"".join(parts), order)


def file_of(*variables, order="<"):
  """Returns the bytes of a file with these variables."""
  ending = b"\x00\x01IM" if order == "<" else b"\x01\x00MI"
  return b"MATLAB 5.0 MAT-file".ljust(124) + ending + b"".join(variables)


def compressed(*content):
  """Returns the bytes of a compressed element."""
  return struct.pack("<II", 15, len(zlib.compress(b"".join(content)))) + zlib.compress(b"".join(content))


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(order, tmp_path):
  suffix = "le" if order == "<" else "be"
  letters = "añ年"
  texts = [
    array(4, (1, 3), element(kind, letters.encode(codec), order), name=b"", order=order)
    for kind, codec in ((16, "utf-8"), (17, f"utf-16-{suffix}"), (18, f"utf-32-{suffix}"))
  ]
  # MATLAB also stores ASCII text as uint8.
  texts.append(array(4, (1, 3), element(2, b"abc", order), order=order))
  fields = element(5, struct.pack(f"{order}i", 4), order) + element(1, b"one\0two\0", order)
  numbers = [
    array(6, (2, 2), element(kind, struct.pack(f"{order}4{code}", 1, 2, 3, 4), order), order=order)
    for kind, code in (
      (1, "b"),
      (2, "B"),
      (3, "h"),
      (4, "H"),
      (5, "i"),
      (6, "I"),
      (7, "f"),
      (9, "d"),
      (12, "q"),
    )
  ]
  data = file_of(
    array(1, (2, 2), *texts, name=b"texts", order=order),
    array(2, (1, 1), fields, numbers[0], numbers[3], name=b"struct", order=order),
    array(1, (9, 1), *numbers, name=b"numbers", order=order),
    array(9, (1, 2), element(2, b"\1\0", order), name=b"logical", flags=2, order=order),
    order=order,
  )
  assert_equals_scipy(data, tmp_path)
  assert load(data, tmp_path)["texts"][1, 0].tolist() == [letters]


def test_doubles_that_are_stored_as_bytes_keep_the_stored_type(tmp_path):
  data = file_of(array(6, (1, 3), element(2, b"\1\2\3"), name=b"numbers"))
  assert_equals_scipy(data, tmp_path)
  assert load(data, tmp_path)["numbers"].dtype == np.uint8


@pytest.mark.parametrize("order", ["<", ">"])
def test_uint16_characters_are_read_as_utf_16(order, tmp_path):
  content = "性别".encode("utf-16-le" if order == "<" else "utf-16-be")
  data = file_of(array(4, (1, 2), element(4, content, order), name=b"t", order=order), order=order)
  assert load(data, tmp_path)["t"].tolist() == ["性别"]


def test_read_numbers_are_writable(tmp_path):
  numbers = load(mutations_mat.save({"a": np.arange(4.0)}), tmp_path)["a"]
  numbers += 1
  assert numbers.tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
  ("variable", "match"),
  [
    ({"s": scipy.sparse.eye_array(3).tocsc()}, "the variable s is a sparse array; expected numbers"),
    ({"a": {"b": scipy.sparse.eye_array(3).tocsc()}}, r"the variable a\.b is a sparse array"),
    ({"o": scipy.io.matlab.MatlabObject(STRUCTS, "inline")}, "the variable o is an object"),
  ],
)
def test_an_error_names_the_variable_with_an_unsupported_array(variable, match, tmp_path):
  with pytest.raises(ValueError, match=rf"annotation\.mat: {match}.* remove it from the file"):
    load(mutations_mat.save(variable), tmp_path)


def test_an_error_names_the_variable_with_a_function_or_an_opaque_object(tmp_path):
  with pytest.raises(ValueError, match="the variable f is a function"):
    load(file_of(array(16, (1, 1), name=b"f")), tmp_path)
  # An opaque object has no dimensions, unlike all other arrays.
  opaque = element(14, element(6, struct.pack("<II", 17, 0)) + element(1, b"table1") + element(1, b"MCOS"))
  with pytest.raises(ValueError, match="the variable table1 is an object"):
    load(file_of(opaque), tmp_path)


def test_other_levels_and_formats_are_an_error(tmp_path):
  # scipy writes level 4. A version 7.3 file is made from its header.
  level4 = io.BytesIO()
  scipy.io.savemat(level4, {"a": np.eye(2)}, format="4")
  with pytest.raises(
    ValueError, match=r"annotation\.mat: a \.mat file of level 4; expected version 5 to 7\.2"
  ):
    load(level4.getvalue(), tmp_path)
  with pytest.raises(ValueError, match=r"annotation\.mat: a \.mat file of version 7\.3 \(HDF5\); expected"):
    load(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(512), tmp_path)
  for data in (b"", b"MATLAB 5.0", b"\x89HDF\r\n\x1a\n" + b"x" * 200, b"# Octave 9".ljust(300), bytes(10)):
    with pytest.raises(ValueError, match=r"annotation\.mat: no readable \.mat file"):
      load(data, tmp_path)


def nested_cells(depth):
  content = array(6, (1, 1), element(2, b"\1"))
  for _ in range(depth):
    content = array(1, (1, 1), content, name=b"deep")
  return content


def cells_of(count):
  return array(1, (count, 1), bytes([14, 0, 0, 0, 0, 0, 0, 0]) * count, name=b"cells")


def struct_of(dims, width, names, *values):
  return array(2, dims, element(5, struct.pack("<i", width)), element(1, names), *values, name=b"s")


# {name: (variables of a small file that claims a large size, text of the error)}
ZEROS = array(9, (2**20, 1), element(2, bytes(2**20)), name=b"z")
BOMBS = {
  "numbers without bytes": (
    array(9, (2**31 - 1, 2), element(2, b""), name=b"z"),
    "needs 4,294,967,294 bytes",
  ),
  "blank text": (array(4, (2**29, 1), element(16, b""), name=b"z"), "more than 524,288 cell elements"),
  "cells without bytes": (array(1, (2**31 - 1, 2**31 - 1), name=b"z"), "announces 4,611,686,014,132,420,609"),
  "structs without fields": (struct_of((2**28, 1), 1, b""), "more than 524,288 cell elements"),
  "structs without bytes": (struct_of((2**28, 1), 2, b"a\0b\0"), "announces 536,870,912 arrays"),
  "fields of no width": (struct_of((1, 1), 0, b"a\0b\0"), "field names of 0 bytes each"),
  "fields of negative width": (struct_of((1, 1), -1, b"a\0b\0"), "field names of -1 bytes each"),
  "wide text without rows": (array(4, (0, 2**31 - 1), element(16, b""), name=b"z"), "variable z: "),
  "empty beyond NumPy": (array(9, (0, *[2**31 - 1] * 20), element(2, b""), name=b"z"), "variable z: "),
  "negative dimension": (
    array(9, (-1, 1), element(2, b"\1"), name=b"z"),
    r"\(-1, 1\); expected none below 0",
  ),
  "33 dimensions": (array(9, (1,) * 33, element(2, b"\1"), name=b"z"), "expected 2 to 32 int32"),
  "1,000 levels of cells": (nested_cells(1000), "nested deeper than 32"),
  "empty cells": (cells_of(2**19 + 1), "more than 524,288 cell elements"),
  "field names": (
    struct_of((0, 0), 3, b"".join(b"%03x" % (i % 4096) for i in range(2**19 + 1))),
    "field names",
  ),
  "names that repeat": (struct_of((0, 0), 2, b"a\0a\0"), "the same one twice"),
  "5,000 variables": (
    b"".join(array(9, (1, 1), element(2, b"\1"), name=b"v%d" % i) for i in range(5000)),
    "more than 4,096 variables",
  ),
  "a variable of no bytes": (element(14, b""), "0 bytes are left where an element was expected"),
  "a compressed variable of no bytes": (compressed(), "a compressed variable of 0 bytes"),
  "compressed twice": (compressed(compressed(ZEROS)), "a compressed element of type 15"),
  "stream longer than announced": (compressed(ZEROS, bytes(2**26)), "more than the 1,048,632 bytes"),
  "announced beyond the limit": (compressed(struct.pack("<II", 14, 2**29 + 1)), "need more than 512 MiB"),
  "variables beyond the limit together": (
    compressed(ZEROS) + compressed(struct.pack("<II", 14, 2**29 - 2**20)),
    "need more than 512 MiB",
  ),
  "complex numbers beyond the limit": (
    compressed(array(9, (2**25, 1), *[element(2, bytes(2**25))] * 2, name=b"z", flags=8)),
    "need more than 512 MiB",
  ),
  "text beyond the limit": (
    compressed(array(4, (2**26, 1), element(16, bytes(2**26)), name=b"z")),
    "need more than 512 MiB",
  ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_claims_more_than_it_contains_is_an_error(name, tmp_path):
  variables, match = BOMBS[name]
  with pytest.raises(ValueError, match=rf"annotation\.mat: no readable \.mat file .*{match}"):
    load(file_of(variables), tmp_path)


def test_the_limit_of_all_variables_is_512_mib():
  assert mat_array.MAX_BYTES == 512 * 2**20


def test_a_file_cut_inside_a_variable_is_an_error(tmp_path):
  data = mutations_mat.save({"a": mutations_mat.cell(["x", 1]), "b": {"c": 2.5}}, compress=True)
  # A file that ends behind its header or behind a variable is valid.
  ends = {128, 128 + 8 + struct.unpack_from("<I", data, 132)[0], len(data)}
  for end in range(len(data)):
    if end in ends:
      load(data[:end], tmp_path)
      continue
    with pytest.raises(ValueError, match=r"annotation\.mat: no readable \.mat file"):
      load(data[:end], tmp_path)


def test_a_repeated_variable_is_an_error(tmp_path):
  one = mutations_mat.save({"a": 1})
  with pytest.raises(ValueError, match="the variable 'a' is there twice"):
    load(one + one[128:], tmp_path)


def test_an_error_has_one_line_even_if_a_name_has_line_breaks(tmp_path):
  with pytest.raises(ValueError, match=r"variable a\\nb: an array of shape") as error:
    load(file_of(array(9, (2, 1), element(2, b"\1"), name=b"a\nb")), tmp_path)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 0.5, 1e300, 2.0**60])
def test_a_number_that_int64_cannot_represent_exactly_is_an_error(value):
  with pytest.raises(ValueError, match=r"rows: expected whole numbers up to 9,007,199,254,740,992"):
    mat_file.integers(np.array([[1.0, value]]), "rows", 1)


def test_numbers_of_all_types_keep_their_value_as_int64():
  for dtype in (np.uint8, np.uint16, np.int16, np.float32, bool):
    assert mat_file.integers(np.array([[0], [1]], dtype), "rows", 1).tolist() == [0, 1]
  with pytest.raises(ValueError, match="expected whole numbers up to"):
    mat_file.integers(np.array([[2**63]], np.uint64), "rows", 1)


def test_the_same_seed_gives_the_same_damaged_files():
  assert list(mutations_mat.cases(20, seed=3)) == list(mutations_mat.cases(20, seed=3))
