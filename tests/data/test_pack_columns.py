"""A packed data set has all columns of its source, also texts. Texts from a file are checked."""

import pickle
import shutil
import tracemalloc
import zipfile

import numpy as np
import pytest
import tensorflow_datasets
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tensorflow_datasets.proto import tf_example_pb2

from hap_jax.data import pack
from hap_jax.data.sources import tfds
from hap_jax.data.sources.base import BadRecordError
from hap_jax.io import npz_file
from tests.data.tiny_sources import TEXTS, Described

TABLE = "table_train.npz"
SHARD = "hap_described-train.array_record-00000-of-00001"


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
  """Returns the folder of a packed data set with texts: 5 records in train, 3 in val."""
  out = tmp_path_factory.mktemp("packed") / "described"
  pack.write_dataset(out, {"train": Described(), "val": Described(3)})
  return out / "hap_described" / "1.0.0"


@pytest.fixture
def folder(packed, tmp_path):
  """Returns a copy of the data set, which a test may change."""
  return shutil.copytree(packed, tmp_path / "described")


def open_split(folder, split="train"):
  return tfds.open_source(root=str(folder), split=split, seed=0)


def write(folder, **changed):
  pack.write_dataset(folder / "packed", {"train": Described(changed=changed)})


def test_records_columns_and_facts_equal_the_source(packed):
  source, wanted = open_split(packed), Described()
  assert source.spec == wanted.spec
  assert source.columns.keys() == wanted.columns.keys()
  assert source.columns["caption"].tolist() == list(TEXTS)
  for field in ("pid", "captions", "joints"):
    np.testing.assert_array_equal(source.columns[field], wanted.columns[field])
    assert source.columns[field].dtype.kind == wanted.columns[field].dtype.kind
  for i in range(len(wanted)):
    assert source[i].keys() == wanted[i].keys()
    for field in wanted.fields:
      np.testing.assert_array_equal(source[i][field], wanted[i][field])
  assert isinstance(source[1]["caption"], str)


def test_trainval_joins_texts_of_different_lengths(tmp_path):
  long = Described(3, changed={"caption": ["x" * 300, "y", "z"]})
  pack.write_dataset(tmp_path / "packed", {"train": Described(), "val": long})
  both = open_split(tmp_path / "packed", "trainval").columns["caption"]
  assert both.tolist() == [*TEXTS, "x" * 300, "y", "z"]


def test_bad_records_are_left_out_of_the_columns(tmp_path):
  pack.write_dataset(tmp_path / "packed", {"train": Described(bad=(1, 4))}, max_bad_share=0.5)
  source = open_split(tmp_path / "packed")
  assert source.columns["caption"].tolist() == [TEXTS[0], TEXTS[2], TEXTS[3]]
  assert source.columns["pid"].tolist() == [source[i]["pid"] for i in range(3)]


def test_tfds_itself_reads_the_texts(packed):
  skip = {"image": tensorflow_datasets.decode.SkipDecoding()}
  raw = tensorflow_datasets.data_source(
    "hap_described", split="train", data_dir=packed.parents[1], decoders=skip
  )
  for i, text in enumerate(TEXTS):
    assert raw[i]["caption"].decode() == text
    assert [one.decode() for one in raw[i]["captions"]] == [text, f"{text} {i}"]


def test_tables_contain_no_pickle(packed):
  with np.load(packed / TABLE, allow_pickle=False) as file:
    assert {name: file[name].dtype.kind for name in file.files} == {
      "pid": "i",
      "joints": "f",
      "caption": "U",
      "captions": "U",
    }


def nested(lengths):
  array = np.empty(len(lengths), object)
  array[:] = [["a text"] * length for length in lengths]
  return array


@pytest.mark.parametrize(
  ("values", "words"),
  [
    (nested([1, 2, 1, 2, 3]), "is ragged"),
    ([["a"], ["b", "c"], ["d"], ["e"], ["f"]], "is ragged"),
    ([np.zeros(n) for n in (1, 2, 3, 4, 5)], "is ragged"),
    (["a", "b", "c", "d", 5], "types int, str; expected texts only, or numbers only"),
    (["a", "b", "c", "d", None], "types NoneType, str"),
    ([None] * 5, "of type object; expected numbers"),
    (np.zeros(5, complex), "of type complex128; expected numbers"),
    (np.zeros(5, "S3"), "of type |S3; expected numbers"),
    (["a"] * 4, "has 4 rows; expected 5"),
    ("text", r"of shape \(\)"),
    (["a", "b", "c", "d\0", "e"], "record 3: 'd.x00', of 2 characters"),
    (["a", "b\ud800", "c", "d", "e"], "record 1: 'b.ud800'"),
    (["a", "b", "c", "d", "e" * 4097], "record 4: .* of 4097 characters; expected UTF-8 of at most 4096"),
  ],
)
def test_error_names_a_column_that_cannot_be_packed(values, words, tmp_path):
  with pytest.raises(ValueError, match=rf"column caption of described.*{words}") as caught:
    write(tmp_path, caption=values)
  assert "\n" not in str(caught.value)
  assert not list(tmp_path.iterdir())


def test_error_names_a_column_that_is_not_a_field(tmp_path):
  with pytest.raises(ValueError, match=r"column height of described: not a field .*; they have image,"):
    write(tmp_path, height=np.zeros(5))


def test_splits_with_different_columns_are_an_error(tmp_path):
  other = Described(3, fields=("pid", "caption", "captions", "joints", "score", "age"))
  other.changed["age"] = np.zeros(3, np.int32)
  with pytest.raises(ValueError, match=r"splits with different columns, train: caption, .*; val: age, "):
    pack.write_dataset(tmp_path / "packed", {"train": Described(), "val": other})


def table(folder):
  with np.load(folder / TABLE) as file:
    return dict(file)


def assert_table_refused(folder, words, field="pid"):
  """Asserts that reading the column raises one line that names the table, and that it needs little memory."""
  tracemalloc.start()
  try:
    with pytest.raises(ValueError, match=words) as caught:
      open_split(folder).columns[field]
    assert tracemalloc.get_traced_memory()[1] < 2**23
  finally:
    tracemalloc.stop()
  assert str(folder / TABLE) in str(caught.value)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("values", "words"),
  [
    (np.zeros(5, np.int32), "caption.npy is of type <i4, expected texts of 1 to 4096 characters"),
    (np.zeros(5, "S3"), "caption.npy is of type .S3, expected texts"),
    (np.array(["a"] * 5, object), r"caption.npy is of type \|O, expected texts"),
    (np.array(["a"] * 4), "caption.npy has 4 rows, the split has 5 records"),
    (np.array([["a", "b"]] * 5), r"caption.npy is of shape \(5, 2\), expected \(5,\)"),
    (np.zeros(5, "U4097"), "caption.npy is of type <U4097, expected texts of 1 to 4096"),
  ],
)
def test_a_table_without_the_right_texts_is_an_error(folder, values, words):
  if values.dtype.kind == "O":
    assert pickle.dumps(values)
  np.savez(folder / TABLE, **(table(folder) | {"caption": values}))
  assert_table_refused(folder, words)


def test_texts_that_are_larger_than_the_file_are_an_error_before_memory_is_allocated(folder):
  whole = table(folder)
  whole["caption"] = np.zeros(5, "U4096")
  np.savez_compressed(folder / TABLE, **whole)
  assert_table_refused(folder, "caption.npy holds texts, .* by method 8 .* that are not compressed")
  np.savez(folder / TABLE, **whole)
  assert open_split(folder).columns["caption"].tolist() == [""] * 5
  # Now the directory of the zip file states more bytes than the file has.
  whole["caption"] = np.array(["abc"] * 5)
  np.savez(folder / TABLE, **whole)
  with zipfile.ZipFile(folder / TABLE) as archive:
    stated = archive.getinfo("caption.npy").file_size
  data = (folder / TABLE).read_bytes()
  start = data.rindex(b"caption.npy") - 46  # start of the entry in the directory at the end of the file
  entry = data[start:].replace(stated.to_bytes(4, "little"), (2**16).to_bytes(4, "little"), 2)
  (folder / TABLE).write_bytes(data[:start] + entry)
  assert_table_refused(folder, "caption.npy holds texts, 65536 bytes")


@pytest.mark.parametrize("code", [0x110000, 0xFFFFFFFF, 0xD800])
@pytest.mark.parametrize("order", "<>")
def test_numbers_that_are_not_characters_are_an_error(folder, code, order):
  caption = np.full((5, 3), ord("a"), f"{order}u4")
  caption[3, 1] = code
  np.savez(folder / TABLE, **(table(folder) | {"caption": caption.view(f"{order}U3").reshape(5)}))
  assert open_split(folder).columns["pid"].shape == (5,)
  assert_table_refused(folder, "caption.npy holds numbers that are not characters", "caption")


def test_texts_in_the_other_byte_order_are_read(folder):
  caption = np.array(TEXTS).astype(np.dtype("U20").newbyteorder(">"))
  np.savez(folder / TABLE, **(table(folder) | {"caption": caption}))
  assert open_split(folder).columns["caption"].tolist() == list(TEXTS)


def test_a_table_with_other_columns_than_expected_is_an_error(folder):
  expected = {"pid": npz_file.Column((5,), np.dtype(np.int32))}
  with pytest.raises(ValueError, match="expected the arrays pid, found"):
    npz_file.read(folder / TABLE, expected, "pid")


@pytest.mark.parametrize(
  ("field", "values", "words"),
  [
    ("caption", [], "caption holds 0 texts, expected 1"),
    ("caption", [b"a", b"b"], "caption holds 2 texts, expected 1"),
    ("captions", [b"a"], "captions holds 1 texts, expected 2"),
    ("caption", [b"caf\xe9"], r"caption is not UTF-8: b'caf\\xe9'"),
  ],
)
def test_a_damaged_text_is_a_bad_record(folder, field, values, words):
  reader = ArrayRecordReader(str(folder / SHARD))
  records = [reader.read([i])[0] for i in range(5)]
  reader.close()
  example = tf_example_pb2.Example.FromString(records[1])
  example.features.feature[field].bytes_list.value[:] = values
  records[1] = example.SerializeToString()
  writer = ArrayRecordWriter(str(folder / SHARD), "group_size:1,uncompressed")
  for record in records:
    writer.write(record)
  writer.close()
  source = open_split(folder)
  with pytest.raises(BadRecordError, match=rf"record 1 of train in .*{words}"):
    source[1]
  assert source[2]["caption"] == TEXTS[2]
