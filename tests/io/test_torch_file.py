"""The reader of PyTorch files: it returns the saved data and never runs code. Wrong files are errors."""

import argparse
import collections
import datetime
import decimal
import enum
import functools
import io
import itertools
import os
import pathlib
import pickle
import re
import struct
import sys
import types
import zipfile

import numpy as np
import pytest

from hap_jax.io import torch_file
from hap_jax.io.restricted_pickle import UnsafePickleError
from tests.io import torch_bytes

FORMATS = ("zip", "legacy")


@pytest.fixture
def write(tmp_path):
  """Returns a function that writes model.pth without PyTorch and returns its path."""

  def write_file(value, form="zip"):
    path = tmp_path / "model.pth"
    path.write_bytes({"zip": torch_bytes.zip_file, "legacy": torch_bytes.legacy_file}[form](value))
    return path

  return write_file


@pytest.fixture
def save(tmp_path):
  """Returns a function that writes model.pth with PyTorch and returns its path."""
  torch = pytest.importorskip("torch")

  def save_file(value, form="zip"):
    path = tmp_path / "model.pth"
    torch.save(value, path, _use_new_zipfile_serialization=form == "zip")
    return path

  return save_file


def assert_same(got, want):
  """Checks that the read value equals the saved value bit for bit."""
  torch = pytest.importorskip("torch")
  if isinstance(want, torch.Tensor):
    want = want.detach()
    assert got.shape == tuple(want.shape)
    assert str(got.dtype) == str(want.dtype).removeprefix("torch.")
    if want.dtype == torch.bfloat16:  # PyTorch cannot turn bfloat16 into a NumPy array
      want, got = want.view(torch.int16), got.view(np.int16)
    np.testing.assert_array_equal(got, want.numpy())
  elif isinstance(want, dict):
    assert list(got) == list(want)
    for key in want:
      assert_same(got[key], want[key])
  elif isinstance(want, (list, tuple)):
    assert type(got) is (list if isinstance(want, list) else tuple)
    assert len(got) == len(want)
    for left, right in zip(got, want, strict=True):
      assert_same(left, right)
  else:
    assert got == want


# Files from `torch_bytes`, which need no PyTorch

OBJECT_STATE = b"(K\x03X\x01\x00\x00\x00|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?t"


def storage_of(dtype):
  """Returns the opcodes of a tensor over the storage "0". They claim that it has one element of a dtype."""
  storage = b"(X\x07\x00\x00\x00storage" + dtype + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ"
  return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00K\x01\x85K\x01\x85\x89NtR"


@pytest.mark.parametrize("form", FORMATS)
def test_tensors_and_plain_data_are_read(write, form):
  weight = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
  step = np.array([7], np.int64)
  got = torch_file.load(write({"model": {"weight": weight}, "epoch": 3, "step": step, "lr": 0.5}, form))
  assert list(got) == ["model", "epoch", "step", "lr"]
  assert got["model"]["weight"].dtype == np.float32
  np.testing.assert_array_equal(got["model"]["weight"], weight)
  np.testing.assert_array_equal(got["step"], step)
  assert (got["epoch"], got["lr"]) == (3, 0.5)


@pytest.mark.parametrize("form", FORMATS)
def test_views_of_a_shared_storage_are_read(write, form):
  storage = np.arange(24, dtype=np.float32)
  # Offsets and strides count elements. A stride of 0 repeats an element, as `expand` does.
  views = {
    "transposed": torch_bytes.Tensor(storage, 0, (6, 4), (1, 6)),
    "every_second": torch_bytes.Tensor(storage, 3, (2, 3), (12, 2)),
    "scalar": torch_bytes.Tensor(storage, 23, (), ()),
    "expanded": torch_bytes.Tensor(storage, 5, (3, 2), (0, 1)),
    "empty": torch_bytes.Tensor(storage, 0, (0, 3), (3, 1)),
  }
  got = torch_file.load(write(views, form))
  np.testing.assert_array_equal(got["transposed"], storage.reshape(4, 6).T)
  np.testing.assert_array_equal(got["every_second"], [[3, 5, 7], [15, 17, 19]])
  assert got["scalar"] == 23
  assert got["scalar"].shape == ()
  np.testing.assert_array_equal(got["expanded"], [[5, 6]] * 3)
  assert got["empty"].shape == (0, 3)


def test_arrays_are_read_only_views_of_the_file(write):
  got = torch_file.load(write({"weight": np.ones((2, 2), np.float32)}))["weight"]
  assert not got.flags.writeable
  assert not got.flags.owndata


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
  ("offset", "size", "stride", "match"),
  [
    (0, (13,), (1,), "reaches element 12 of a storage of 12"),
    (1, (12,), (1,), "reaches element 12"),
    (0, (2, 2), (11, 1), "reaches element 12"),
    (0, (2,), (2**62,), "reaches element"),
    (12, (), (), "reaches element 12"),
    (-1, (2,), (1,), "offset -1"),
    (5, (2,), (-1,), r"stride \(-1,\)"),
    (0, (-1,), (1,), r"size \(-1,\)"),
    (0, (2, 2), (1,), r"size \(2, 2\) and stride \(1,\)"),
    (0, (2**40,), (0,), "repeats a storage"),
    (0, [2], (1,), "size"),
    (0.0, (2,), (1,), "offset 0.0"),
  ],
)
def test_a_tensor_that_reaches_outside_its_storage_is_an_error(write, form, offset, size, stride, match):
  tensor = torch_bytes.Tensor(np.arange(12, dtype=np.float32), offset, size, stride)
  with pytest.raises(ValueError, match=rf"model\.pth.*{match}"):
    torch_file.load(write({"weight": tensor}, form))


@pytest.mark.parametrize("form", FORMATS)
def test_a_shell_command_in_a_pytorch_file_is_not_read_and_does_not_run(write, tmp_path, form):
  proof = tmp_path / "ran"
  command = f"echo > {proof}".encode()
  payload = b"cos\nsystem\n(X" + struct.pack("<I", len(command)) + command + b"tR"
  path = write({"weight": np.ones(2, np.float32), "extra": torch_bytes.Raw(payload)}, form)
  opened = torch_file.open_file(path)
  np.testing.assert_array_equal(opened.content["weight"], np.ones(2))
  assert repr(opened.content["extra"]) == "Unread('os.system')"
  assert opened.unread == ("os.system",)
  assert not proof.exists()
  pickle.loads(b"\x80\x02" + payload + b".")  # Python's own reader runs it, so the attack is real
  assert proof.exists()


def test_a_hostile_pickle_without_a_container_is_refused(tmp_path):
  class Command:
    def __reduce__(self):
      return os.system, ("true",)

  path = tmp_path / "model.pth"
  for protocol in range(6):
    path.write_bytes(pickle.dumps(Command(), protocol))
    with pytest.raises(UnsafePickleError, match=r"asks for \w+\.system"):
      torch_file.load(path)


@pytest.mark.parametrize(
  ("opcodes", "match"),
  [
    (b"ctorch\nFloatStorage\n)R", "calls "),
    (b"cos\nsystem\n]R", "calls os.system"),
    (b"(ios\nsystem\n", r"object of os\.system"),
    (b"\x82\xf0", "extension code"),
    (b"cargparse\nNamespace\n)\x81]b", "state of a AttributeDict"),
    (
      b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x00tQ",
      "leaves _Storage",
    ),
    (storage_of(b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8\x89\x88tR" + OBJECT_STATE + b"b"), "storage of "),
    (storage_of(b"X\x01\x00\x00\x00f"), "storage of str"),
  ],
)
def test_names_and_opcodes_that_tensors_do_not_need_are_refused(write, opcodes, match):
  value = {"weight": np.ones(0, np.float32), "extra": torch_bytes.Raw(opcodes)}
  with pytest.raises(UnsafePickleError, match=match):
    torch_file.load(write(value))


@pytest.mark.parametrize(
  ("opcodes", "match"),
  [
    (b"K\x01Q", "truncated or corrupt"),
    (b"(X\x06\x00\x00\x00moduleNX\x01\x00\x00\x000NK\x00tQ", "not a storage"),
    (b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x009NK\x00tQ", "storage '9'"),
    (b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000NK\x09tQ", "has 8 bytes, not 9"),
    (b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00)K\x01tR", "has no storage"),
    (b"ctorch._utils\n_rebuild_tensor_v2\n(]K\x00))tR", "has no storage"),
    (b"ctorch._utils\n_rebuild_parameter\n(]\x88NtR", "not a tensor"),
    (b"cargparse\nNamespace\n]))\x85\x86a\x85R", "truncated or corrupt"),
    (b"ctorch\nSize\n(K\x01tR", "torch.Size of 1"),
    (b"ctorch\ndevice\n(K\x01tR", "torch.device of 1"),
  ],
)
def test_malformed_tensors_are_an_error(write, opcodes, match):
  value = {"weight": np.ones(2, np.float32), "extra": torch_bytes.Raw(opcodes)}
  with pytest.raises(ValueError, match=match):
    torch_file.load(write(value))


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_cut_at_any_place_is_an_error_with_its_name(write, form):
  path = write({"weight": np.ones((2, 3), np.float32), "bias": np.ones(3, np.float32)}, form)
  data = path.read_bytes()
  for end in range(0, len(data), 3):
    path.write_bytes(data[:end])
    with pytest.raises(ValueError, match=r"model\.pth"):
      torch_file.load(path)


def test_a_damaged_pytorch_file_gives_data_or_a_value_error(write):
  rng = np.random.default_rng(0)
  # Three random bytes at a time: enough to reach lengths, names and opcodes.
  for form in FORMATS:
    path = write({"weight": np.ones((2, 3), np.float32), "epoch": 3}, form)
    good = path.read_bytes()
    for _ in range(300):
      data = bytearray(good)
      for place in rng.integers(len(data), size=3):
        data[place] = rng.integers(256)
      path.write_bytes(data)
      try:
        torch_file.load(path)
      except ValueError as error:
        assert "model.pth" in str(error)  # noqa: PT017


def test_files_of_other_kinds_are_an_error(tmp_path):
  path = tmp_path / "model.pth"
  for content, match in (
    (bytes(99), "neither a zip nor a legacy"),
    (pickle.dumps({"weight": 1}), "without the magic number"),
  ):
    path.write_bytes(content)
    with pytest.raises(ValueError, match=match):
      torch_file.load(path)
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("readme.txt", "no weights")
  with pytest.raises(ValueError, match=r"0 data\.pkl"):
    torch_file.load(path)


def test_a_compressed_archive_is_an_error(write, tmp_path):
  # The same members, but compressed. PyTorch never compresses them.
  source = zipfile.ZipFile(io.BytesIO(write({"weight": np.ones(4, np.float32)}).read_bytes()))
  path = tmp_path / "packed.pth"
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    for name in source.namelist():
      archive.writestr(name, source.read(name))
  with pytest.raises(ValueError, match=r"packed\.pth.*compressed"):
    torch_file.load(path)


# Objects of other classes


PACKAGES = {"omegaconf", "yacs", "mmengine", "lightning"}


def module_of_classes(monkeypatch, name, **classes):
  """Adds a module with classes until the end of the test, in place of a package that is not installed."""
  module = types.ModuleType(name)
  for kind, base in classes.items():
    setattr(module, kind, type(kind, base if isinstance(base, tuple) else (base,), {"__module__": name}))
  *parents, _ = itertools.accumulate(name.split("."), "{}.{}".format)
  for part in parents:
    monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
  monkeypatch.setitem(sys.modules, name, module)
  return module


class Color(enum.Enum):
  RED = 1


def with_state(kind, *arguments, **state):
  made = kind(*arguments)
  made.__dict__.update(state)
  return made


OBJECTS = {
  "path": (pathlib.PurePosixPath("runs/a"), "pathlib"),
  "deque": (collections.deque([1, 2], maxlen=3), "collections.deque"),
  "time": (datetime.datetime(2023, 10, 31, 12), "datetime.datetime"),
  "enum": (Color.RED, "Color"),
  "simple": (types.SimpleNamespace(lr=0.1, inner=[1]), "types.SimpleNamespace"),
  "function": (os.path.join, "posixpath.join"),
  "partial": (functools.partial(int, base=2), "functools.partial"),
  "class": (argparse.ArgumentParser, "argparse.ArgumentParser"),
  "pattern": (re.compile("a"), "re._compile"),
  "random": (np.random.RandomState(0), "numpy.random"),
  "decimal": (decimal.Decimal("1.5"), "decimal.Decimal"),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_next_to_the_weights_has_only_its_name(save, form, name):
  torch = pytest.importorskip("torch")
  value, words = OBJECTS[name]
  args = argparse.Namespace(first=value, lr=0.5)
  content = {"model": {"w": torch.ones(2)}, "extra": value, "args": args, "list": [value, 3]}
  opened = torch_file.open_file(save(content, form))
  got = opened.content
  assert any(words in found for found in opened.unread)
  assert [type(item).__name__ for item in (got["extra"], got["args"]["first"], got["list"][0])] == [
    "Unread"
  ] * 3
  assert (got["args"]["lr"], got["list"][1]) == (0.5, 3)
  np.testing.assert_array_equal(got["model"]["w"], np.ones(2))


@pytest.mark.parametrize("form", FORMATS)
def test_containers_of_packages_that_are_not_installed_have_only_their_names(save, form, monkeypatch):
  torch = pytest.importorskip("torch")
  omegaconf = module_of_classes(monkeypatch, "omegaconf.dictconfig", DictConfig=object)
  yacs = module_of_classes(monkeypatch, "yacs.config", CfgNode=dict)
  history = module_of_classes(monkeypatch, "mmengine.logging.history_buffer", HistoryBuffer=object)
  callbacks = module_of_classes(monkeypatch, "lightning.pytorch.callbacks", EarlyStopping=object)
  node = with_state(yacs.CfgNode, {"lr": 0.1}, frozen=True)
  config = with_state(omegaconf.DictConfig, _content={"lr": 0.1}, _parent=None)
  config._content["self"] = config  # a config of omegaconf contains itself
  buffers = collections.OrderedDict(loss=with_state(history.HistoryBuffer, values=np.ones(3)))
  content = {
    "state_dict": {"w": torch.ones(2)},
    "cfg": config,
    "node": node,
    "meta": {"log": buffers, "epoch": 3},
    "callbacks": {callbacks.EarlyStopping: {"best": 1.0}},
  }
  path = save(content, form)
  for name in [name for name in sys.modules if name.partition(".")[0] in PACKAGES]:
    monkeypatch.delitem(sys.modules, name)
  opened = torch_file.open_file(path)
  assert {name.rpartition(".")[2] for name in opened.unread} >= {
    "DictConfig",
    "CfgNode",
    "HistoryBuffer",
    "EarlyStopping",
  }
  assert repr(opened.content["cfg"]) == "Unread('omegaconf.dictconfig.DictConfig')"
  assert opened.content["meta"]["epoch"] == 3
  np.testing.assert_array_equal(opened.content["state_dict"]["w"], np.ones(2))
  assert not PACKAGES & sys.modules.keys()


@pytest.mark.parametrize("form", FORMATS)
def test_a_defaultdict_and_a_counter_are_dicts(save, form):
  torch = pytest.importorskip("torch")
  groups = collections.defaultdict(list, a=[1], w=torch.ones(2))
  nested = collections.defaultdict(make_inner, {1: collections.Counter("aab")})
  got = torch_file.load(save({"groups": groups, "nested": nested, "none": collections.Counter()}, form))
  assert type(got["groups"]) is dict
  assert got["groups"]["a"] == [1]
  np.testing.assert_array_equal(got["groups"]["w"], np.ones(2))
  assert got["nested"] == {1: {"a": 2, "b": 1}}
  assert got["none"] == {}


def make_inner():
  return collections.defaultdict(int)


def test_parameters_with_attributes_and_tensors_of_new_types_are_read(save):
  torch = pytest.importorskip("torch")
  parameter = torch.nn.Parameter(torch.arange(3.0))
  parameter.is_expert = True
  numbers = torch.arange(12).reshape(3, 4)
  content = {
    "parameter": parameter,
    "uint16": numbers.to(torch.uint16),
    "view": numbers.to(torch.uint16).t()[1:],
    "float8": numbers.to(torch.float8_e4m3fn),
  }
  got = torch_file.load(save(content))
  np.testing.assert_array_equal(got["parameter"], np.arange(3.0))
  np.testing.assert_array_equal(got["uint16"], np.arange(12).reshape(3, 4))
  np.testing.assert_array_equal(got["view"], np.arange(12).reshape(3, 4).T[1:])
  np.testing.assert_array_equal(got["float8"].astype(np.float32), np.arange(12).reshape(3, 4))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMATS)
def test_sparse_meta_and_quantized_tensors_have_only_their_names(save, form):
  torch = pytest.importorskip("torch")
  content = {
    "sparse": torch.eye(2).to_sparse(),
    "csr": torch.eye(2).to_sparse_csr(),
    "meta": torch.ones(2, device="meta"),
    "quantized": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
    "dense": torch.ones(2),
  }
  got = torch_file.load(save(content, form))
  names = {key: repr(value) for key, value in got.items() if key != "dense"}
  assert names == {
    "sparse": "Unread('torch._utils._rebuild_sparse_tensor')",
    "csr": "Unread('torch._utils._rebuild_sparse_tensor')",
    "meta": "Unread('torch._utils._rebuild_meta_tensor_no_storage')",
    "quantized": "Unread('torch._utils._rebuild_qtensor')",
  }
  np.testing.assert_array_equal(got["dense"], np.ones(2))


def test_names_that_are_not_read_take_little_memory(write):
  # Two short texts make a name, so 200 texts make 40,000 names.
  texts, places = b"", [bytes([i]) for i in range(200)]
  for i, place in enumerate(places):
    texts += pickle.dumps("a" * 5000 + str(i), 2)[2:-1] + b"q" + place + b"0"
  names = b"".join(b"h" + one + b"h" + other + b"\x930" for one in places for other in places)
  with pytest.raises(UnsafePickleError, match="asks for more than 10,000 names"):
    torch_file.load(write({"weight": np.ones(2, np.float32), "extra": torch_bytes.Raw(texts + names + b"N")}))


@pytest.mark.parametrize(
  "opcodes",
  [
    b"ctorch._utils\n_rebuild_tensor_v3\n(NK\x00))\x89Nctorch\nfloat32\ntR",
    b"ctorch._utils\n_rebuild_tensor_v3\n(NK\x00))tR",
    b"ccollections\nCounter\n(]tR",
    b"ccollections\nCounter\n(K\x05tR",
  ],
)
def test_malformed_objects_of_known_names_are_an_error(write, opcodes):
  with pytest.raises(ValueError, match="truncated or corrupt"):
    torch_file.load(write({"weight": np.ones(2, np.float32), "extra": torch_bytes.Raw(opcodes)}))


# Files that PyTorch wrote


@pytest.mark.parametrize("form", FORMATS)
def test_tensors_of_every_type_equal_the_saved_tensors(save, form):
  torch = pytest.importorskip("torch")
  names = ["float64", "float32", "float16", "bfloat16", "complex64", "complex128"]
  names += ["int64", "int32", "int16", "int8", "uint8", "bool"]
  generator = torch.Generator().manual_seed(0)
  numbers = torch.randn(3, 5, generator=generator) * 3
  tensors = {name: numbers.abs().to(getattr(torch, name)) for name in names}
  assert_same(torch_file.load(save(tensors, form)), tensors)


@pytest.mark.parametrize("form", FORMATS)
def test_views_equal_the_saved_views(save, form):
  torch = pytest.importorskip("torch")
  base = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
  tensors = {
    "base": base,
    "transposed": base.t(),
    "strided": base[1:5:2, 2:7:3],
    "permuted": base.view(2, 3, 8).permute(2, 0, 1),
    "tail": base.flatten()[40:],
    "expanded": base[:, :1].expand(6, 4),
    "diagonal": base.diagonal(),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 3),
    "bfloat16": base.bfloat16().t()[3:],
  }
  got = torch_file.load(save(tensors, form))
  assert_same(got, tensors)
  assert np.shares_memory(got["base"], got["transposed"])  # views of one storage stay views


@pytest.mark.parametrize("form", FORMATS)
def test_a_whole_training_checkpoint_equals_the_saved_checkpoint(save, form):
  torch = pytest.importorskip("torch")
  torch.manual_seed(0)
  model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
  moments = {"step": torch.tensor(7.0), "exp_avg": torch.randn(3, 4), "exp_avg_sq": torch.rand(3, 4)}
  group = {"lr": 1e-3, "betas": (0.9, 0.95), "eps": 1e-8, "amsgrad": False, "foreach": None, "params": [0, 1]}
  args = {"lr": 1e-3, "names": ["a"], "nothing": None}
  content = {
    "epoch": 3,
    "arch": "vit_base_patch16",
    "model": model.state_dict(),
    "parameter": model[0].weight,
    "optimizer": {"state": {0: moments}, "param_groups": [group]},
    "scaler": {"scale": 65536.0, "growth_factor": 2.0, "_growth_tracker": 3},
    "size": torch.Size([2, 3]),
    "array": np.arange(3.0),
    "best": np.float64(1.5),
  }
  saved = {
    **content,
    "args": argparse.Namespace(**args, device=torch.device("cuda", 1)),
    "type": torch.float32,
  }
  got = torch_file.load(save(saved, form))
  assert got.pop("args") == {**args, "device": "cuda:1"}
  assert got.pop("type") == "torch.float32"
  np.testing.assert_array_equal(got.pop("array"), content.pop("array"))
  assert_same(got, content)


@pytest.mark.parametrize("form", FORMATS)
def test_a_pickled_module_has_only_the_name_of_its_class(save, form):
  torch = pytest.importorskip("torch")
  found = torch_file.load(save({"model": torch.nn.Linear(2, 2), "weight": torch.ones(2)}, form))
  assert repr(found["model"]) == "Unread('torch.nn.modules.linear.Linear')"
  np.testing.assert_array_equal(found["weight"], np.ones(2))
