"""The reader of pickles: plain data is read, and no file can run code or fill the memory."""

import collections
import copyreg
import io
import os
import pathlib
import pickle
import struct
import sys
import types

import numpy as np
import pytest

from hap_jax.io import restricted_pickle
from hap_jax.io.plain_data import as_array
from hap_jax.io.restricted_pickle import UnsafePickleError
from tests.io.samples import ARRAYS, Call, assert_same_array

PLAIN = [
  *(None, True, False, 0, -5, 2**70, -(2**70), 1.5, 3 + 4j, "é\n'\"", b"\x00\xff", bytearray(b"ab"), ()),
  {1, 2},
  frozenset([(1, "a")]),
  {"a": [1, (2, 3, 4, 5)], 2: {}},
  collections.OrderedDict(b=1, a=2),
]
SCALARS = [np.float32(1.5), np.float64(2.5), np.int8(-3), np.bool_(True), np.str_("añ")]


def read(data):
  return restricted_pickle.load(io.BytesIO(data))


def plain(value):
  """Returns the opcodes of plain data, without the opcodes PROTO and STOP."""
  return pickle.dumps(value, 3)[2:-1]


def refuses(data, match):
  """Checks that a pickle is refused with this text."""
  with pytest.raises(UnsafePickleError, match=match):
    read(data)


def old_numpy(data):
  """Returns a pickle with the module names of NumPy 1."""
  return data.replace(b"numpy._core", b"numpy.core")


@pytest.mark.parametrize("protocol", range(6))
def test_plain_data_survives_in_every_protocol(protocol):
  got = read(pickle.dumps(PLAIN, protocol))
  assert got == PLAIN
  assert [type(value) for value in got] == [type(value) for value in PLAIN]


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_scalars_and_dtypes_survive_in_every_protocol(protocol):
  for want in ARRAYS:
    got = read(pickle.dumps(want, protocol))
    assert_same_array(got, want)
    assert got.flags.writeable
  for want in SCALARS:
    got = read(pickle.dumps(want, protocol))
    assert type(got) is type(want)
    assert got == want
  assert read(pickle.dumps(np.dtype(">f4"), protocol)) == np.dtype(">f4")


def test_object_arrays_of_admitted_values_are_read():
  want = np.array([[{"keypoints": np.ones((17, 3))}, "a"], [None, [np.float32(2)]]], object)
  got = read(pickle.dumps(want))
  assert got.shape == (2, 2)
  assert_same_array(got[0, 0]["keypoints"], np.ones((17, 3)))
  assert got[0, 1] == "a"
  assert got[1, 1] == [2]


def test_pickles_of_numpy_1_are_read():
  want = [np.arange(3.0), np.float32(2), np.array([{"a": 1}], object)]
  data = old_numpy(pickle.dumps(want, 2))
  assert b"numpy.core.multiarray" in data
  got = read(data)
  assert_same_array(got[0], want[0])
  assert got[1] == 2
  assert got[2][0] == {"a": 1}


def test_ascii_byte_strings_of_python_2_are_read_as_text():
  assert read(b"S'part/a.jpg'\n.") == "part/a.jpg"
  assert read(b"U\x02ab.") == "ab"
  assert read(b"U\x02\xff\x00.") == b"\xff\x00"


def test_shared_and_recursive_containers_keep_their_identity():
  inner = [1]
  got = read(pickle.dumps([inner, inner]))
  assert got[0] is got[1]
  # A list that contains itself is plain data, which only the memo can represent.
  loop = []
  loop.append(loop)
  got = read(pickle.dumps(loop))
  assert got[0] is got


def test_attributes_on_an_ordered_dict_are_dropped():
  tagged = collections.OrderedDict(a=1)  # a state dict of PyTorch has such an attribute
  tagged._metadata = {"version": 1}
  got = read(pickle.dumps(tagged, 2))
  assert got == {"a": 1}
  assert not hasattr(got, "_metadata")


@pytest.mark.parametrize("protocol", range(6))
def test_a_shell_command_is_refused_and_does_not_run(tmp_path, protocol):
  proof = tmp_path / "ran"
  path = tmp_path / "list.pkl"
  path.write_bytes(pickle.dumps(["a", Call(os.system, f"echo > {proof}")], protocol))
  with pytest.raises(UnsafePickleError, match=rf"list\.pkl.*{os.system.__module__}\.system"):
    restricted_pickle.load(path)
  assert not proof.exists()
  pickle.loads(path.read_bytes())  # Python's own reader runs it, so the attack is real
  assert proof.exists()


@pytest.mark.parametrize(
  ("function", "arguments"),
  [
    (eval, ("1",)),
    (getattr, ({}, "keys")),
    (__import__, ("os",)),
    (pathlib.PurePosixPath, ("a",)),
    (collections.Counter, ()),
    (np.load, ("a",)),
    (np.memmap, ("a",)),
    (np.frombuffer, (b"a",)),
  ],
)
def test_any_other_name_is_refused(function, arguments):
  for protocol in range(6):
    refuses(pickle.dumps(Call(function, *arguments), protocol), f"asks for .*{function.__name__}")


def test_a_name_with_a_dot_does_not_reach_into_a_class():
  refuses(b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.", r"numpy\.dtype\.__init__")


@pytest.mark.parametrize(
  ("data", "match"),
  [
    (b"(ios\nsystem\n.", r"object of os\.system"),
    (b"(cnumpy\nndarray\no.", "makes an object"),
    (b"cnumpy\nndarray\n)}\x92.", "makes an object"),
    (b"Pposition\n.", "persistent id"),
    (b"K\x01Q.", "persistent id"),
    (b"\x97.", "outside the file"),
    (b"]2.", "duplicates"),
    (b"cnumpy\nndarray\n)R.", r"calls numpy\.ndarray"),
    (b"])R.", "calls list"),
    (b"cnumpy\nndarray\n.", r"leaves numpy\.ndarray in the data"),
    (b"](cnumpy\ndtype\ne.", r"leaves numpy\.dtype in the data"),
    (b"}}b.", "state of a dict"),
    (b"]}b.", "state of a list"),
    (b"cnumpy\nndarray\n}b.", "state of a Constructor"),
    (b")K\x01a.", "appends to a tuple"),
    (b"]K\x01K\x02s.", "sets items of a list"),
    (b"](K\x01\x90.", "adds items to a list"),
    (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00hextR.", "encoding 'hex'"),
  ],
)
def test_opcodes_that_plain_data_does_not_need_are_refused(data, match):
  refuses(data, match)


def test_registered_extension_codes_are_refused():
  copyreg.add_extension("os", "system", 240)
  try:
    refuses(b"\x82\xf0.", "extension code")
  finally:
    copyreg.remove_extension("os", "system", 240)


def array_program(dtype=b"X\x02\x00\x00\x00f4", dtype_state=None, subtype=b"cnumpy\nndarray\n", state=None):
  """Returns the pickle of an array of three float32. Each argument replaces a part of it."""
  dtype_state = dtype_state or (3, "<", None, None, None, -1, -1, 0)
  reconstruct = b"cnumpy._core.multiarray\n_reconstruct\n(" + subtype + b"K\x00\x85C\x01btR"
  made_dtype = b"cnumpy\ndtype\n(" + dtype + b"\x89\x88tR" + plain(dtype_state) + b"b"
  content = b"C\x0c" + bytes(12) if state is None else plain(state)
  return b"\x80\x04" + reconstruct + b"(K\x01K\x03\x85" + made_dtype + b"\x89" + content + b"tb."


def test_the_array_program_without_changes_is_read():
  assert_same_array(read(array_program()), np.zeros(3, np.float32))


@pytest.mark.parametrize(
  ("program", "match"),
  [
    (array_program(subtype=b"cnumpy\ndtype\n"), "another class"),
    (array_program(subtype=b"X\x01\x00\x00\x00a"), "another class"),
    (array_program(subtype=b"cnumpy\nmatrix\n"), r"numpy\.matrix"),
    (array_program(dtype=b"X\x02\x00\x00\x00V8"), "'V8'"),
    (array_program(dtype=b"X\x05\x00\x00\x00f4,O8"), "'f4,O8'"),
    (array_program(dtype=b"]"), "makes a dtype"),
    (array_program(dtype_state=(3, "<", None, ("a",), {"a": 1}, 8, 1, 16)), "fields"),
    (array_program(dtype_state=(3, "<", ("f4", (9,)), None, None, 8, 1, 16)), "fields"),
    (array_program(dtype_state=(3, "s", None, None, None, -1, -1, 0)), "byte order 's'"),
  ],
)
def test_arrays_of_other_kinds_are_refused(program, match):
  refuses(program, match)


@pytest.mark.parametrize(
  ("program", "match"),
  [
    (array_program(state=b"short"), "needs 12 bytes, got 5"),
    (array_program(state=bytes(13)), "needs 12 bytes, got 13"),
    (array_program(state=[1.0, 2.0, 3.0]), "is a list, not bytes"),
    (array_program(dtype=b"X\x02\x00\x00\x00O8"), "differ in size"),
    (array_program(dtype=b"X\x02\x00\x00\x00O8", state=[1, 2]), "differ in size"),
    (array_program(dtype=b"X\x02\x00\x00\x00U1", state=b"\xff" * 12), "outside Unicode"),
    (array_program().replace(b"K\x03\x85", b"J\xff\xff\xff\xff\x85"), r"shape \(-1,\)"),
    (array_program().replace(b"K\x03\x85", b"\x88\x85"), r"shape \(True,\)"),
    (array_program().replace(b"K\x03\x85", b"\x8a\x08" + bytes(7) + b"\x10\x85"), "needs 46116"),
  ],
)
def test_an_array_with_wrong_sizes_is_an_error(program, match):
  with pytest.raises(ValueError, match=match):
    read(program)


def test_an_array_that_contains_itself_is_an_error():
  loop = np.empty(1, object)
  loop[0] = loop
  with pytest.raises(ValueError, match="contains itself"):
    read(pickle.dumps(loop))


def test_deep_nesting_does_not_crash():
  # Lists and tuples may be deep. Keys may not, because hashing them recurses.
  lists = read(b"]" * 50_000 + b"a" * 49_999 + b".")
  assert len(lists) == 1
  tuples = b")" + b"\x85" * 30_000
  assert len(read(tuples + b".")) == 1
  refuses(b"}" + tuples + b"K\x01s.", "key of type tuple")
  refuses(b"}" + plain(tuple(range(17))) + b"K\x01s.", "key of type tuple")
  refuses(b"\x8f(" + tuples + b"\x90.", "key of type tuple")
  refuses(b"(" + tuples + b"\x91.", "key of type tuple")
  refuses(b"cbuiltins\nset\n]" + tuples + b"a\x85R.", "key of type tuple")
  refuses(b"ccollections\nOrderedDict\n]" + tuples + b"K\x01\x86a\x85R.", "key of type tuple")
  with pytest.raises(ValueError, match="corrupt"):
    read(b"cnumpy._core.multiarray\nscalar\n(" + tuples + b"C\x01btR.")


def test_deeply_nested_object_arrays_are_refused():
  array = np.array(None, object)
  for _ in range(20):
    outer = np.empty(1, object)
    outer[0] = array
    array = outer
  refuses(pickle.dumps(array), "nests object arrays deeper than 8")


def test_a_claimed_size_allocates_no_memory():
  for opcode in (b"\x8e", b"\x8d", b"\x96", b"\x95"):
    with pytest.raises(ValueError, match="bytes are announced"):
      read(opcode + struct.pack("<Q", 2**62))
  with pytest.raises(ValueError, match="corrupt"):
    read(b"cbuiltins\nbytearray\n\x8a\x07" + bytes(6) + b"\x10\x85R.")
  assert read(b"]r\xff\xff\xff\x7f.") == []  # entry 2**31 - 1 of the memo


@pytest.mark.parametrize(
  "repeat",
  [
    "cbuiltins\nbytearray\n<bytes>\x85R",
    "c_codecs\nencode\n(<text>X\x06\x00\x00\x00latin1tR",
    "cbuiltins\nfrozenset\n<list>\x85R",
    "ccollections\nOrderedDict\n<pairs>\x85R",
    "cnumpy._core.numeric\n_frombuffer\n(<bytes><dtype><shape>X\x01\x00\x00\x00CtR",
  ],
)
def test_data_that_is_copied_many_times_is_refused(repeat):
  dtype = b"cnumpy\ndtype\n(X\x02\x00\x00\x00u1\x89\x88tR" + plain((3, "|", None, None, None, 0, 0, 0)) + b"b"
  things = {
    "<bytes>": plain(bytes(5000)),
    "<text>": plain("a" * 5000),
    "<list>": plain(list(range(5000))),
    "<pairs>": plain([[i, i] for i in range(5000)]),
    "<shape>": plain((5000,)),
    "<dtype>": dtype,
  }
  program, repeat = b"\x80\x04", repeat.encode("latin-1")
  for place, (name, opcodes) in enumerate(things.items(), 100_000):
    index = struct.pack("<I", place)
    program += opcodes + b"r" + index + b"0"  # stored in the memo and removed from the stack
    repeat = repeat.replace(name.encode(), b"j" + index)
  assert len(read(program + b"]" + (repeat + b"a") * 2 + b".")) == 2
  refuses(program + b"]" + (repeat + b"a") * (20 * len(program) // 5000) + b".", "copies its data")


def test_a_pickle_cut_at_any_byte_is_an_error_with_the_file_name(tmp_path):
  data = pickle.dumps([PLAIN, ARRAYS[0], SCALARS[0], np.array([{}], object)], 4)  # one value of each kind
  path = tmp_path / "cut.pkl"
  for end in range(len(data)):
    path.write_bytes(data[:end])
    with pytest.raises(ValueError, match=r"cut\.pkl"):
      restricted_pickle.load(path)


def test_damaged_bytes_give_data_or_a_value_error():
  good = [pickle.dumps([PLAIN, ARRAYS, SCALARS, np.array([{}], object)], protocol) for protocol in (0, 2, 5)]
  rng = np.random.default_rng(0)
  refused = 0
  for trial in range(3000):
    data = bytearray(good[trial % len(good)])
    for place in rng.integers(len(data), size=rng.integers(1, 4)):
      data[place] = rng.integers(256)
    try:
      read(bytes(data))
    except ValueError:
      refused += 1
  assert refused > 1000


def test_an_open_file_is_read_from_its_position():
  file = io.BytesIO(b"head" + pickle.dumps([1]))
  file.seek(4)
  assert restricted_pickle.load(file) == [1]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_easydict_is_read_as_a_dict_and_its_class_is_not_imported(protocol, monkeypatch):
  # The package need not be installed: a module of this name is enough to write the pickle.
  module = types.ModuleType("easydict")
  module.EasyDict = type("EasyDict", (dict,), {"__module__": "easydict", "__setattr__": set_item_too})
  value = module.EasyDict()
  value.names, value.inner = ["Hat"], module.EasyDict()
  value.inner.rows = np.arange(3)
  monkeypatch.setitem(sys.modules, "easydict", module)
  data = pickle.dumps(value, protocol)
  monkeypatch.delitem(sys.modules, "easydict")
  got = read(data)
  assert isinstance(got, dict)
  assert got["names"] == ["Hat"]
  np.testing.assert_array_equal(got["inner"]["rows"], np.arange(3))
  assert "easydict" not in sys.modules


def set_item_too(self, name, value):
  """Sets an attribute and the item of the same name, as EasyDict does."""
  dict.__setattr__(self, name, value)
  self[name] = value


def test_an_easydict_with_arguments_or_another_state_than_a_dict_is_an_error():
  with pytest.raises(ValueError, match="truncated or corrupt"):
    read(b"ceasydict\nEasyDict\n(]t\x81.")
  refuses(b"ceasydict\nEasyDict\n)\x81]b.", "state of a AttributeDict")


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [range(0), range(5), range(79, 105), range(10, -3, -4), range(1_000_000)])
def test_a_range_is_read_in_every_protocol(protocol, value):
  data = pickle.dumps({"extra": value}, protocol)
  assert (b"xrange" in data) == (protocol < 3)
  got = read(data)
  assert got == {"extra": value}
  assert type(got["extra"]) is range


def test_an_xrange_of_python_2_is_read_as_a_range():
  # Python 2 wrote these bytes, in protocols 0 and 2.
  written = b"(dp0\nS'extra'\np1\nc__builtin__\nxrange\np2\n(I79\nI105\nI1\ntp3\nRp4\ns."
  assert read(written) == {"extra": range(79, 105)}
  assert read(b"\x80\x02c__builtin__\nxrange\nq\x00K\x00K\x07K\x02\x87q\x01Rq\x02.") == range(0, 7, 2)


@pytest.mark.parametrize("protocol", range(6))
def test_a_range_of_more_than_a_million_numbers_is_refused(protocol):
  refuses(pickle.dumps(range(1_000_001), protocol), "makes a range of 1,000,001 numbers; at most 1,000,000")
  refuses(pickle.dumps([range(-(2**61), 2**61)], protocol), "at most 1,000,000")


@pytest.mark.parametrize(
  "bounds",
  [(), (1, 2, 3, 4), (0, 5, 0), (0.0, 5), ("5",), (True, 5), (None,), (range(3),), (0, 2**62), (-(2**80), 5)],
)
def test_a_range_with_wrong_bounds_is_an_error(bounds):
  with pytest.raises(ValueError, match=r"pickle"):
    read(b"\x80\x03cbuiltins\nrange\n" + plain(bounds) + b"R.")


def test_a_range_under_the_name_of_another_python_version_is_refused():
  refuses(b"cbuiltins\nxrange\n(I5\ntR.", r"asks for builtins\.xrange")
  refuses(b"c__builtin__\nrange\n(I5\ntR.", r"asks for __builtin__\.range")
  refuses(b"cbuiltins\nrange\n.", r"leaves builtins\.range in the data")


def test_a_range_as_a_key_or_as_a_shape_is_an_error():
  refuses(b"}" + plain(range(3)) + b"K\x01s.", "key of type range")
  objects = array_program(dtype=b"X\x02\x00\x00\x00O8", state=[1, 2, 3])
  for program in (array_program(), objects):
    for shape in (range(1, 999_999), (2**31,) * 65):
      with pytest.raises(ValueError, match="shape is not a tuple of at most 64 numbers"):
        read(program.replace(b"K\x03\x85", plain(shape)))


def test_lists_that_repeat_one_list_or_range_do_not_become_a_huge_array():
  for row in (list(range(5000)), range(1_000_000), [range(1_000_000)], np.zeros(5000), bytearray(5000)):
    with pytest.raises(ValueError, match="the nested lists have more than 16,777,216 elements"):
      as_array([row] * 5000)
  loop = []
  loop.append(loop)
  with pytest.raises(ValueError, match="nested deeper than 32"):
    as_array(loop)
  np.testing.assert_array_equal(as_array([range(3), [4, 5, 6]]), [[0, 1, 2], [4, 5, 6]])
