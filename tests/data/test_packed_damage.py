"""Damaged tables, shards and records of a packed data set give one clear error and need little memory."""

import os
import pathlib
import pickle
import shutil
import tracemalloc
import zipfile

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from hap_jax.data.sources import tfds
from hap_jax.data.sources.base import BadRecordError

ROOT = pathlib.Path(__file__).parents[2]
NUM_TRAIN = 8
SHARD = "hap_synthetic-train.array_record-00000-of-00001"
TABLE = "table_train.npz"


@pytest.fixture
def folder(packed_people, tmp_path):
  """Returns a copy of the data set, which a test may change."""
  return shutil.copytree(packed_people, tmp_path / "people")


def open_split(folder, split="train"):
  return tfds.open_source(root=str(folder), split=split, seed=0)


def assert_table_refused(folder, words):
  """Asserts that opening raises one line that names the table, and that it needs little memory."""
  tracemalloc.start()
  try:
    with pytest.raises(ValueError, match=words) as caught:
      open_split(folder)
    assert tracemalloc.get_traced_memory()[1] < 2**23
  finally:
    tracemalloc.stop()
  assert str(folder / TABLE) in str(caught.value)
  assert "\n" not in str(caught.value)


def table(folder):
  with np.load(folder / TABLE) as file:
    return {name: file[name] for name in file.files}


@pytest.mark.parametrize("split", ["train", "trainval"])
def test_a_table_with_another_number_of_rows_is_an_error(folder, split):
  np.savez(folder / TABLE, **{name: array[:3] for name, array in table(folder).items()})
  with pytest.raises(
    ValueError, match=r"table_train.npz: .*attributes.npy has 3 rows, the split has 8 records"
  ):
    open_split(folder, split)


class Payload:
  """Creates a file when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return open, (self.path, "w")


def test_objects_in_a_table_are_an_error_and_not_unpickled(folder, tmp_path):
  objects = np.array([Payload(str(tmp_path / "ran"))] * NUM_TRAIN, object)
  assert pickle.dumps(objects)
  np.savez(folder / TABLE, **(table(folder) | {"pid": objects}))
  assert_table_refused(folder, "pid.npy is of type \\|O, expected int32")
  assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("dtype", ["S4", "U2", "complex64", "datetime64[s]", "float64", "bool", "longdouble"])
def test_a_table_of_another_type_is_an_error(folder, dtype):
  np.savez(folder / TABLE, **(table(folder) | {"pid": np.zeros(NUM_TRAIN, dtype)}))
  assert_table_refused(folder, "pid.npy is of type .* expected int32")


def test_a_table_with_a_wrong_header_is_an_error(folder):
  np.savez(folder / TABLE, **(table(folder) | {"pid": np.zeros(NUM_TRAIN, "i4,i4")}))
  assert_table_refused(folder, "pid.npy has the header .* expected the header of an array of numbers")
  for shape in ("(" * 40, "-" * 5000 + "1", "9" * 5000, "(-1,)", "(8.0,)", "__import__('os')"):
    header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    data = b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + bytes(4 * NUM_TRAIN)
    with zipfile.ZipFile(folder / TABLE, "w") as archive:
      for name in ("pid", "camid", "attributes"):
        archive.writestr(f"{name}.npy", data)
    assert_table_refused(folder, "header")


def test_a_table_of_another_shape_or_with_other_arrays_is_an_error(folder):
  whole = table(folder)
  np.savez(folder / TABLE, **(whole | {"attributes": whole["attributes"][:, :3]}))
  assert_table_refused(folder, r"attributes.npy is of shape \(8, 3\), expected \(8, 27\)")
  np.savez(folder / TABLE, **(whole | {"height": whole["pid"]}))
  assert_table_refused(folder, r"expected the arrays attributes, camid, pid, found")
  np.savez(folder / TABLE, pid=whole["pid"])
  assert_table_refused(folder, r"expected the arrays attributes, camid, pid, found")
  os.remove(folder / TABLE)
  assert_table_refused(folder, "No such file")


def bomb(num_bytes):
  """Returns the bytes of a .npy file of zeros."""
  header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': ({num_bytes // 4},), }}\n".encode()
  return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header + bytes(num_bytes)


def test_a_table_that_unpacks_to_gigabytes_is_an_error_before_memory_is_allocated(folder):
  whole = table(folder)
  with zipfile.ZipFile(folder / TABLE, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("pid.npy", bomb(2**24))
    for name in ("camid", "attributes"):
      with archive.open(f"{name}.npy", "w") as file:
        np.lib.format.write_array(file, whole[name])
  assert_table_refused(folder, "pid.npy has 16777.* bytes unpacked")
  # Now the same file states 3 GiB, which it does not contain.
  data = (folder / TABLE).read_bytes()
  stated = len(bomb(2**24)).to_bytes(4, "little")
  assert data.count(stated) == 2
  (folder / TABLE).write_bytes(data.replace(stated, (3 * 2**30).to_bytes(4, "little")))
  assert_table_refused(folder, "pid.npy has 3221225472 bytes unpacked")
  # Now the header states more numbers than the file has bytes.
  with zipfile.ZipFile(folder / TABLE, "w") as archive:
    for name in whole:
      archive.writestr(f"{name}.npy", bomb(2**24)[:200])
  assert_table_refused(folder, "attributes.npy is of type <i4, expected bool")


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_table_with_another_compression_is_an_error(folder, method):
  whole = table(folder)
  with zipfile.ZipFile(folder / TABLE, "w", method) as archive:
    for name, array in whole.items():
      with archive.open(f"{name}.npy", "w") as file:
        np.lib.format.write_array(file, array)
  assert_table_refused(folder, "compressed by method")


def test_a_table_that_is_truncated_or_not_a_zip_file_is_an_error(folder):
  data = (folder / TABLE).read_bytes()
  for wrong in (b"", b"PK", data[:100], data[:-1], data[:-30]):
    (folder / TABLE).write_bytes(wrong)
    assert_table_refused(folder, "not the table of this data set")


def test_numbers_that_fail_the_checksum_of_the_table_are_an_error(folder):
  data = bytearray((folder / TABLE).read_bytes())
  data[data.index(b"attributes.npy") + 14 + 20 + 128 + 50] ^= 1  # a byte of the numbers, after the headers
  (folder / TABLE).write_bytes(data)
  assert_table_refused(folder, "CRC")


def rewrite(folder, edit, options="group_size:1,uncompressed"):
  """Rewrites the shard. `edit` changes the second record; it takes the features of a TFDS example."""
  reader = ArrayRecordReader(str(folder / SHARD))
  records = [reader.read([i])[0] for i in range(NUM_TRAIN)]
  reader.close()
  example = tf_example_pb2.Example.FromString(records[1])
  records[1] = edit(example.features.feature) or example.SerializeToString()
  writer = ArrayRecordWriter(str(folder / SHARD), options)
  for record in records:
    writer.write(record)
  writer.close()


def add_number(field, value):
  return lambda features: features[field].int64_list.value.append(value)


RECORDS = {
  "no picture": (lambda features: features.pop("image") and None, "image holds 0 strings"),
  "two pictures": (lambda features: features["image"].bytes_list.value.append(b"x"), "image holds 2 strings"),
  "no person": (lambda features: features.pop("pid") and None, "pid holds 0 integers, expected 1"),
  "two persons": (add_number("pid", 5), "pid holds 2 integers, expected 1"),
  "person beyond int32": (
    lambda features: features["pid"].int64_list.value.__setitem__(0, 2**40),
    "does not fit into int32",
  ),
  "few joints": (
    lambda features: features["keypoints"].float_list.value.pop() and None,
    "50 floats, expected 51",
  ),
  "joints as integers": (add_number("keypoints", 5), "keypoints holds 0 floats"),
  "text as box": (lambda features: features["box"].bytes_list.value.append(b"x"), "box holds 0 floats"),
  "not a message": (lambda features: b"\xff" * 50, "cannot be read"),
  "empty": (lambda features: b"\x0a\x00", "holds 0"),
}


@pytest.mark.parametrize("case", RECORDS)
def test_a_damaged_record_is_a_bad_record_and_the_others_are_read(folder, case):
  edit, words = RECORDS[case]
  rewrite(folder, edit)
  source = open_split(folder)
  with pytest.raises(BadRecordError, match=rf"record 1 of train in .*{words}"):
    source[1]
  assert source[0]["image"].shape == source[2]["image"].shape == (32, 16, 3)


def test_a_name_that_is_not_utf8_is_a_bad_record(folder):
  rewrite(folder, lambda features: features["name"].bytes_list.value.__setitem__(0, b"caf\xe9"))
  with pytest.raises(BadRecordError, match=r"name is not UTF-8: b'caf\\xe9'"):
    open_split(folder).name(1)


def test_error_names_a_truncated_or_overwritten_shard(folder):
  data = (folder / SHARD).read_bytes()
  for wrong in (b"", data[:100], data[: len(data) // 2], data[:-1], bytes(len(data)), data + b"x" * 2**16):
    (folder / SHARD).write_bytes(wrong)
    with pytest.raises(ValueError, match=r"array_record-00000-of-00001|shardLengths") as caught:
      open_split(folder)
    assert "\n" not in str(caught.value)


def test_compressed_shards_of_earlier_versions_are_read(folder):
  plain = open_split(folder)
  expected = [plain[i] for i in range(NUM_TRAIN)]
  rewrite(folder, lambda features: None, options="group_size:1")
  source = open_split(folder)
  for i, record in enumerate(expected):
    for name, value in source[i].items():
      np.testing.assert_array_equal(value, record[name])


def test_a_record_that_fails_its_checksum_is_a_bad_record(folder):
  data = bytearray((folder / SHARD).read_bytes())
  data[data.rindex(b"\xff\xd8\xff") + 100] ^= 1
  (folder / SHARD).write_bytes(data)
  source = open_split(folder)
  with pytest.raises(BadRecordError, match=r"record 7 of train .*hash mismatch"):
    source[NUM_TRAIN - 1]
  assert source[0]["image"].shape == (32, 16, 3)
