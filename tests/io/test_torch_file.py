"""The reader of PyTorch files: it returns the saved data and never runs code. Wrong files are errors."""

import argparse
import io
import os
import pickle
import struct
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
def test_a_shell_command_in_a_pytorch_file_is_refused_and_does_not_run(write, tmp_path, form):
  proof = tmp_path / "ran"
  command = f"echo > {proof}".encode()
  payload = b"cos\nsystem\n(X" + struct.pack("<I", len(command)) + command + b"tR"
  path = write({"weight": np.ones(2, np.float32), "extra": torch_bytes.Raw(payload)}, form)
  with pytest.raises(UnsafePickleError, match=r"model\.pth.*asks for os\.system"):
    torch_file.load(path)
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
    (b"ctorch.storage\n_load_from_bytes\n(C\x00tR", r"asks for torch\.storage\._load_from_bytes"),
    (b"ctorch\nload\n(X\x01\x00\x00\x00atR", r"asks for torch\.load"),
    (b"ctorch\nFloatStorage\n)R", "calls "),
    (b"ctorch\nSize\n.", r"leaves torch\.Size"),
    (b"cargparse\nArgumentParser\n)\x81", r"argparse\.ArgumentParser"),
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
    (b"", "is empty"),
    (b"<!DOCTYPE html>", "neither a zip nor a legacy"),
    (b"version https://git-lfs.github.com/spec/v1\n", "neither a zip nor a legacy"),
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
def test_a_pickled_module_is_an_error_that_names_its_class(save, form):
  torch = pytest.importorskip("torch")
  with pytest.raises(UnsafePickleError, match=r"torch\.nn\.modules\.linear\.Linear"):
    torch_file.load(save(torch.nn.Linear(2, 2), form))
