"""The source attribute_table reads good tables. For a bad table, the error names the line and the remedy."""

import itertools

import numpy as np
import pytest
from PIL import Image

from hap_jax.cli.__main__ import main as hap
from hap_jax.data.sources import attribute_table, tfds

TABLE = """\
file,split,person,hat,bag
a/1.png,train,anna,1,0
a/2.png,train,anna,,1
b/3.png,val,ben,0,0
b/4.png,test,carl,1,
5.png,test,dora,0,1
"""


def write(root, text=TABLE, name="attributes.csv", encoding="utf-8"):
  """Writes the table, and each picture that its first column names."""
  for number, line in enumerate(text.splitlines()[1:]):
    path = root / line.split(",")[0]
    if path.suffix == ".png":
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.new("RGB", (4, 8), (20 * number,) * 3).save(path)
  (root / name).write_text(text, encoding=encoding, newline="")


def people(count):
  """Returns a table of persons with three pictures each, without the column split."""
  rows = [f"{i:03d}.png,person {i // 3},{i % 2}" for i in range(3 * count)]
  return "\n".join(["file,person,hat", *rows]) + "\n"


def open_split(root, split="train", **options):
  return attribute_table.open_source(root=str(root), split=split, seed=0, **options)


def files(source):
  return [source.paths[i].decode() for i in range(len(source))]


def test_each_split_has_its_rows_and_trainval_is_train_then_val(tmp_path):
  write(tmp_path)
  assert files(open_split(tmp_path)) == ["a/1.png", "a/2.png"]
  assert files(open_split(tmp_path, "trainval")) == ["a/1.png", "a/2.png", "b/3.png"]
  test = open_split(tmp_path, "test")
  assert test.spec.labels == {"attributes": ("hat", "bag")}
  np.testing.assert_array_equal(test.columns["attributes"], [[True, False], [False, True]])
  np.testing.assert_array_equal(test.columns["attributes_known"], [[True, False], [True, True]])
  assert test[1]["image"].tolist() == np.full((8, 4, 3), 80).tolist()
  np.testing.assert_array_equal(test[0]["attributes_known"], [True, False])


def test_notes_count_the_labels_that_are_not_known_and_the_persons_in_two_splits(tmp_path):
  write(tmp_path, TABLE.replace("dora", "ben"))
  notes = open_split(tmp_path, "test").spec.notes
  assert notes == (
    "1 of 3 persons are in more than one split; 1 of 2 test pictures show a person of train or val",
    "1 of 4 labels of test are not known",
  )


def test_a_table_without_empty_labels_has_no_mask(tmp_path):
  write(tmp_path, TABLE.replace(",,", ",0,").replace("1,\n", "1,1\n"))
  for split in attribute_table.SPLITS:
    source = open_split(tmp_path, split)
    assert list(source.columns) == ["attributes"]
    assert source.spec.fields == ("image", "attributes")


@pytest.mark.parametrize(
  ("encoding", "change"),
  [
    ("utf-8-sig", str),  # a mark at the start, as programs for tables write it
    ("utf-8", lambda text: text.replace("\n", "\r\n")),
    ("utf-8", lambda text: text.replace("\n", "\r")),
    ("utf-8", lambda text: text.replace("\n", "\n\n")),
    ("utf-8", lambda text: text.replace(",", " , ")),
    ("utf-8", lambda text: text.replace("a/1.png", '"a/1.png"').replace("anna", '"anna, Graz"')),
  ],
)
def test_tables_of_other_programs_give_the_same_records(tmp_path, encoding, change):
  write(tmp_path)
  expected = {split: open_split(tmp_path, split) for split in attribute_table.SPLITS}
  (tmp_path / "attributes.csv").write_text(change(TABLE), encoding=encoding, newline="")
  for split, source in expected.items():
    found = open_split(tmp_path, split)
    assert files(found) == files(source)
    assert found.spec == source.spec
    for field, column in source.columns.items():
      np.testing.assert_array_equal(found.columns[field], column)


def test_without_the_column_split_no_person_is_in_two_splits(tmp_path):
  write(tmp_path, people(40))
  found = {split: files(open_split(tmp_path, split)) for split in attribute_table.SPLITS}
  assert sorted(itertools.chain(*found.values())) == [f"{i:03d}.png" for i in range(120)]
  persons = [{int(name[:3]) // 3 for name in names} for names in found.values()]
  assert sum(map(len, persons)) == len(set.union(*persons)) == 40
  assert [len(names) for names in found.values()] == [84, 12, 24]  # shares of 0.7, 0.1 and 0.2
  (note,) = open_split(tmp_path).spec.notes
  assert note == "40 persons divided by split_seed=0: 84 train, 12 val, 24 test pictures"


def test_the_division_depends_on_split_seed_and_not_on_the_order_of_the_rows(tmp_path):
  write(tmp_path, people(20))
  test = [set(files(open_split(tmp_path, "test", split_seed=seed))) for seed in (0, 0, 1)]
  assert test[0] == test[1] != test[2]
  first, *rows = people(20).splitlines()
  (tmp_path / "attributes.csv").write_text("\n".join([first, *reversed(rows)]))
  assert set(files(open_split(tmp_path, "test"))) == test[0]


def test_without_persons_pictures_are_divided(tmp_path):
  write(tmp_path, "\n".join(["file,hat", *(f"{i}.png,{i % 2}" for i in range(50))]))
  found = [files(open_split(tmp_path, split, val_share=0.0, test_share=0.5)) for split in ("train", "test")]
  assert [len(names) for names in found] == [25, 25]
  assert len(set(itertools.chain(*found))) == 50
  with pytest.raises(ValueError, match="no pictures in split 'val'; there are 25 train, 0 val, 25 test"):
    open_split(tmp_path, "val", val_share=0.0, test_share=0.5)


WRONG = {
  "a value": ("anna,1,0", "anna,1,2", r"line 2, column bag: found '2'; expected 0, 1 or an empty cell"),
  "a word": (
    "ben,0,0",
    "ben,no,0",
    r"line 4, column hat: found 'no'; .* remove the column if it is not an",
  ),
  "too few cells": (
    "anna,1,0",
    "anna,1",
    r"line 2 has 4 cells; expected 5, one per name .*: correct its commas",
  ),
  "too many cells": ("dora,0,1", "dora,0,1,", r"line 6 has 6 cells; expected 5"),
  "a split": ("b/3.png,val", "b/3.png,dev", r"line 4: split 'dev'; expected train, val or test: correct"),
  "an empty split": ("b/3.png,val", "b/3.png,", r"line 4: split ''; expected train, val or test"),
  "a picture twice": (
    "a/2.png",
    "a/1.png",
    r"line 3: a/1\.png is also in line 2; expected each picture once",
  ),
  "one twice, spelt anew": ("a/2.png", "./a//1.png", r"line 3: \./a//1\.png is also in line 2"),
  "a missing picture": (
    "a/2.png",
    "a/9.jpg",
    r"line 3: the picture a/9\.jpg is missing, and 1 of 2 in all; .*add",
  ),
  "a missing folder": (
    "a/2.png",
    "c/9.jpg",
    r"line 3: the picture c/9\.jpg is missing.*found there: 5\.png, a",
  ),
  "a path outside": ("a/2.png", "../2.jpg", r"line 3: the file name is '\.\./2\.jpg'; expected a path below"),
  "an absolute path": ("a/2.png", "/etc/2.jpg", r"line 3: the file name is '/etc/2\.jpg'"),
  "no path": ("a/2.png", "", r"line 3: the file name is ''"),
  "no attribute": (
    "file,split,person,hat,bag",
    "file,split,person",
    r"line 1: no attribute; .*0 and 1 for each",
  ),
  "no file": ("file,split", "picture,split", r"line 1: no column file; .*found the columns 'picture, split"),
  "semicolons": (
    "file,split,person,hat,bag",
    "file;split;hat",
    r"line 1: no column file; expected names separated by com",
  ),
  "tabs": ("file,split,person,hat,bag", "file\tsplit\that", r"line 1: no column file; expected names separ"),
  "a name twice": (
    "hat,bag",
    "hat,hat",
    r"line 1: two columns are named hat; expected each once: rename one",
  ),
  "no name": ("hat,bag", "hat,", r"line 1: column 5 is named ''; expected a name: add it"),
  "an open quote": (
    "anna,1,0",
    'anna,1,"0',
    r"line 2: unexpected end of data; expected cells separated by comm",
  ),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_error_in_the_table_names_its_line_and_the_remedy(name, tmp_path):
  before, after, message = WRONG[name]
  write(tmp_path)
  text = TABLE.replace(before, after, 1)
  assert text != TABLE
  (tmp_path / "attributes.csv").write_text(text)
  with pytest.raises(ValueError, match=rf"attributes\.csv: {message}") as error:
    open_split(tmp_path)
  assert "\n" not in str(error.value)


def test_a_table_that_is_not_utf8_names_its_line(tmp_path):
  write(tmp_path)
  (tmp_path / "attributes.csv").write_text(TABLE.replace("ben", "bén"), encoding="latin-1")
  with pytest.raises(
    ValueError, match=r"attributes\.csv: line 4 is not UTF-8: save the file as CSV in UTF-8"
  ):
    open_split(tmp_path)


@pytest.mark.parametrize("text", ["", "\n\n", "file,hat\n"])
def test_an_empty_table_is_an_error(tmp_path, text):
  write(tmp_path, text)
  with pytest.raises(ValueError, match=r"attributes\.csv: .*expected"):
    open_split(tmp_path)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"split": "query"}, "split='query': attribute_table has train, val, test, trainval"),
    (
      {"val_share": 0.5, "test_share": 0.5},
      r"val_share=0\.5, test_share=0\.5: expected at least 0, and a sum",
    ),
    ({"split_seed": -1}, r"config\.data\.attribute_table\.split_seed=-1: expected at least 0"),
    ({"test_share": -0.1}, r"test_share=-0\.1: expected at least 0"),
    ({"test_share": float("nan")}, r"test_share=nan: expected at least 0"),
    ({"file": "other.csv"}, r"other\.csv: cannot be read: No such file.*config\.data\.attribute_table\.file"),
    ({"file": "pictures"}, r"pictures: expected a regular file, found a folder"),
  ],
)
def test_a_wrong_option_is_named(tmp_path, options, message):
  write(tmp_path)
  (tmp_path / "pictures").mkdir()
  with pytest.raises(ValueError, match=message):
    open_split(tmp_path, **options)


def test_a_division_of_persons_needs_enough_persons_with_names(tmp_path):
  write(tmp_path, people(2))
  with pytest.raises(
    ValueError, match=r"2 persons are too few to divide: .*expected at least one picture per"
  ):
    open_split(tmp_path)
  write(tmp_path, people(9).replace("002.png,person 0", "002.png,"))
  with pytest.raises(
    ValueError, match=r"line 4: no person; expected a name in each row, .*add a column split"
  ):
    open_split(tmp_path)


def test_a_table_may_be_in_another_folder(tmp_path):
  (tmp_path / "data").mkdir()
  write(tmp_path / "data")
  table = (tmp_path / "data" / "attributes.csv").rename(tmp_path / "mine.csv")
  assert len(open_split(tmp_path / "data", file=str(table))) == len(
    open_split(tmp_path / "data", file="../mine.csv")
  )


def test_a_packed_table_keeps_the_labels_that_are_not_known(tmp_path):
  write(tmp_path)
  out = tmp_path / "packed"
  assert hap(["prepare", "attribute_table", f"--root={tmp_path}", f"--out={out}"]) == 0
  for split in (*attribute_table.SPLITS, "trainval"):
    source = open_split(tmp_path, split)
    packed = tfds.open_source(root=str(out), split=split, seed=0)
    assert len(packed) == len(source)
    assert packed.spec.labels == source.spec.labels
    assert set(packed.spec.fields) == set(source.spec.fields)
    for field, column in source.columns.items():
      np.testing.assert_array_equal(packed.columns[field], column)
      assert packed.columns[field].dtype == bool
    for i in range(len(source)):
      record, expected = packed[i], source[i]
      assert record.keys() == expected.keys()
      for field, value in expected.items():
        np.testing.assert_array_equal(record[field], value)
