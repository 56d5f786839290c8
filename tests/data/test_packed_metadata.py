"""A packed data set cannot choose the code that runs or the files that are read. Errors name the file."""

import dataclasses
import json
import os
import shutil
import tracemalloc

import numpy as np
import pytest
import tensorflow_datasets

from hap_jax.data.sources import tfds

EVIL = "mydata.evil.Tensor"
MODULES = "tensorflow_datasets.core.features."
NUM_TRAIN = 8


@pytest.fixture
def folder(packed_people, tmp_path):
  """Returns a copy of the data set, which a test may change."""
  return shutil.copytree(packed_people, tmp_path / "mydata")


def open_split(folder, split="train"):
  return tfds.open_source(root=str(folder), split=split, seed=0)


def change(path, edit):
  """Rewrites a JSON file. `edit` changes its content or returns a new one."""
  value = json.loads(path.read_text())
  value = edit(value) or value
  path.write_text(json.dumps(value))


def assert_refused(folder, name, words=None):
  """Asserts that opening raises one line that names the file and the remedy."""
  with pytest.raises(ValueError, match=words) as caught:
    open_split(folder)
  text = str(caught.value)
  assert str(folder / name) in text
  assert "pack" in text
  assert "\n" not in text
  assert len(text) < 1000


def new_spelling(content):
  return {"pythonClassName": f"{MODULES}features_dict.FeaturesDict", "featuresDict": {"features": content}}


def old_spelling(content):
  return {"type": f"{MODULES}features_dict.FeaturesDict", "content": content, "proto_cls": ""}


EVIL_FEATURES = {
  "new": new_spelling({"x": {"pythonClassName": EVIL, "tensor": {"shape": {}, "dtype": "int64"}}}),
  "old": {"type": EVIL, "content": {"shape": [], "dtype": "int64"}, "proto_cls": ""},
  "old, without proto_cls": old_spelling({"x": {"type": EVIL, "content": {"shape": [], "dtype": "int64"}}}),
  "old, with a protocol buffer": {
    "type": f"{MODULES}features_dict.FeaturesDict",
    "content": {"features": {"x": {"pythonClassName": EVIL, "tensor": {}}}},
    "proto_cls": "tensorflow_datasets.FeaturesDict",
  },
  "in a sequence": new_spelling(
    {
      "x": {
        "pythonClassName": f"{MODULES}sequence_feature.Sequence",
        "sequence": {"feature": {"pythonClassName": EVIL, "tensor": {}}},
      }
    }
  ),
  "in a text": {
    "pythonClassName": f"{MODULES}features_dict.FeaturesDict",
    "jsonFeature": {"json": json.dumps({"x": {"type": EVIL, "content": {}}})},
  },
  "in snake case": {"python_class_name": EVIL, "tensor": {}},
}


@pytest.mark.parametrize("spelling", EVIL_FEATURES)
def test_a_class_that_features_json_names_is_not_imported(folder, spelling, monkeypatch):
  (folder / "evil.py").write_text("open(__file__ + '.ran', 'w').close()")
  (folder / "features.json").write_text(json.dumps(EVIL_FEATURES[spelling]))
  monkeypatch.chdir(folder.parent)
  monkeypatch.syspath_prepend(str(folder.parent))
  assert_refused(folder, "features.json")
  assert not (folder / "evil.py.ran").exists()


@pytest.mark.parametrize(
  "name", ["video_feature.Video", "dataset_feature.Dataset", "feature.FeatureConnector"]
)
def test_other_classes_of_tfds_are_an_error(folder, name):
  def edit(value):
    value["featuresDict"]["features"]["box"]["pythonClassName"] = MODULES + name

  change(folder / "features.json", edit)
  assert_refused(folder, "features.json", r"'box': class .* is not allowed")


def test_the_old_forms_of_features_json_give_the_same_records(folder, packed_people):
  features = tensorflow_datasets.features.FeaturesDict.from_config(str(packed_people))
  with_proto = features.to_json()
  assert with_proto["proto_cls"]
  without = old_spelling({})
  for name, feature in json.loads((packed_people / "features.json").read_text())["featuresDict"][
    "features"
  ].items():
    (content,) = (value for key, value in feature.items() if key != "pythonClassName")
    sizes = content.get("shape", {}).get("dimensions", [])
    content = {
      "shape": [None if size == "-1" else int(size) for size in sizes],
      "dtype": content.get("dtype"),
    }
    without["content"][name] = {"type": feature["pythonClassName"], "content": content}
  wanted = open_split(packed_people)
  for value in (with_proto, without):
    (folder / "features.json").write_text(json.dumps(value))
    source = open_split(folder)
    assert source.spec == wanted.spec
    assert source.layout == wanted.layout
    for i in range(NUM_TRAIN):
      for name, array in wanted[i].items():
        np.testing.assert_array_equal(source[i][name], array, err_msg=name)


def test_all_eight_classes_are_accepted_and_features_without_fixed_numbers_are_noted(folder, packed_people):
  module = tensorflow_datasets.features
  features = dict(module.FeaturesDict.from_config(str(packed_people)))
  features |= {
    "scalar": module.Scalar(np.int64),
    "label": module.ClassLabel(num_classes=3),
    "corners": module.BBoxFeature(),
    "pair": module.Sequence(module.Tensor(shape=(2,), dtype=np.float32), length=4),
    "list": module.Sequence(np.int64),
    "caption": module.Text(),
    "more": {"inner": np.int64},
  }
  features = module.FeaturesDict(features)
  features.save_config(str(folder))
  expected = {"scalar": "int64", "label": "int64", "corners": "float32", "pair": "float32"}
  for spelling in ("new", "old"):
    if spelling == "old":
      (folder / "features.json").write_text(json.dumps(features.to_json()))
    source = open_split(folder)
    for name, dtype in expected.items():
      assert source.layout[name] == (np.dtype(dtype), features[name].shape)
    (note,) = source.spec.notes
    assert note.endswith("'caption', 'list', 'more'")


@pytest.mark.parametrize(
  "template",
  [
    "/etc/hostname",
    "../{DATASET}",
    "~/x",
    "gs://bucket/x",
    "a/../b",
    "{SPLIT}/x",
    "{X}",
    "{0.__class__}",
    "..",
    3,
  ],
)
def test_a_file_template_that_leaves_the_folder_is_an_error(folder, template):
  change(folder / "dataset_info.json", lambda info: info["splits"][0].update(filepathTemplate=template))
  assert_refused(folder, "dataset_info.json", "split train")


@pytest.mark.parametrize(("key", "value"), [("name", "../x"), ("name", "a/b"), ("version", "../1.0.0")])
def test_names_that_leave_the_folder_are_an_error(folder, key, value):
  change(folder / "dataset_info.json", lambda info: info.update({key: value}))
  assert_refused(folder, "dataset_info.json", f"{key}: expected")


def test_a_split_name_that_leaves_the_folder_is_an_error(folder):
  change(folder / "dataset_info.json", lambda info: info["splits"][1].update(name="../train"))
  assert_refused(folder, "dataset_info.json", "name: expected")


@pytest.mark.parametrize(
  "lengths", [[2**40], ["9" * 18], [1] * 100_000, [0], [-1], [5.0], [True], [None], [], 5]
)
def test_shard_lengths_beyond_the_size_of_the_shards_are_an_error(folder, lengths):
  change(folder / "dataset_info.json", lambda info: info["splits"][0].update(shardLengths=lengths))
  tracemalloc.start()
  try:
    assert_refused(folder, "dataset_info.json", "shard")
    assert tracemalloc.get_traced_memory()[1] < 2**26
  finally:
    tracemalloc.stop()


def test_shapes_beyond_the_size_of_the_shards_are_an_error(folder):
  def edit(value):
    value["featuresDict"]["features"]["attributes"]["tensor"]["shape"]["dimensions"] = [str(2**31)]

  change(folder / "features.json", edit)
  assert_refused(folder, "features.json", "too many")


def test_error_names_a_shard_with_another_number_of_records(folder):
  change(folder / "dataset_info.json", lambda info: info["splits"][0].update(shardLengths=["4"]))
  with pytest.raises(ValueError, match=r"array_record-00000-of-00001: this shard has 8 records, .* says 4"):
    open_split(folder)


DAMAGED = {
  "no JSON": b"{",
  "not UTF-8": b'{"a": "\xe9"}',
  "nested JSON": b"[" * 100_000,
  "nested objects": b'{"a":' * 100_000,
  "a list": b"[]",
  "a number": b"3",
  "empty": b"",
  "a long number": b"1" * 100_000,
  "too large": b'"' + b"a" * 2**22 + b'"',
  "an empty object": b"{}",
}


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json", "metadata.json"])
def test_error_names_a_json_file_of_another_form(folder, name):
  for data in DAMAGED.values():
    (folder / name).write_bytes(data)
    assert_refused(folder, name)
  os.remove(folder / name)
  os.mkfifo(folder / name)
  assert_refused(folder, name, "regular file")


def test_deeply_nested_features_are_an_error(folder):
  inner = {"pythonClassName": f"{MODULES}scalar.Scalar", "tensor": {"dtype": "int64"}}
  for _ in range(200):
    inner = new_spelling({"x": inner})
  (folder / "features.json").write_text(json.dumps(inner))
  assert_refused(folder, "features.json", "nested")


@pytest.mark.parametrize(
  "key", ["format", "source", "licence", "fields", "notes", "columns", "labels", "people"]
)
@pytest.mark.parametrize("value", [None, -1, [3], {"train": 3}, True])
def test_error_names_a_wrong_key_of_metadata_json(folder, key, value):
  change(folder / "metadata.json", lambda value_: value_["hap_jax"].update({key: value}))
  assert_refused(folder, "metadata.json", f"{key}")
  change(folder / "metadata.json", lambda value_: value_["hap_jax"].pop(key) and None)
  assert_refused(folder, "metadata.json", f"{key}")


@pytest.mark.parametrize(
  ("key", "value"),
  [
    ("exif", "turn"),
    ("exif", None),
    ("exif", "x" * 10_000),
    ("skeleton", "spider"),
    ("skeleton", 3),
    ("labels", {"attributes": ["one"]}),
    ("labels", {"height": ["one"]}),
    ("columns", ["pid", "height"]),
    ("columns", ["image"]),
    ("fields", ["image", "height"]),
  ],
)
def test_error_names_a_key_with_an_unknown_value_or_one_that_contradicts_the_features(folder, key, value):
  change(folder / "metadata.json", lambda value_: value_["hap_jax"].update({key: value}))
  assert_refused(folder, "metadata.json", key)


def as_format_1(folder, **changes):
  """Rewrites metadata.json in format 1. The other files are the same in both formats."""

  def edit(value):
    facts = value["hap_jax"]
    names = facts.pop("labels").get("attributes")
    for key in ("columns", "people", "exif"):
      del facts[key]
    facts |= {"format": 1, "attribute_names": names, **changes}

  change(folder / "metadata.json", edit)


@pytest.mark.parametrize("split", ["train", "trainval"])
def test_format_1_gives_the_same_records_as_the_current_format(folder, packed_people, split):
  as_format_1(folder)
  source, wanted = open_split(folder, split), open_split(packed_people, split)
  assert source.spec == dataclasses.replace(wanted.spec, people=source.spec.people)
  assert len(source.spec.labels["attributes"]) == 27
  assert source.columns.keys() == wanted.columns.keys() == {"pid", "camid", "attributes"}
  for name, column in wanted.columns.items():
    np.testing.assert_array_equal(source.columns[name], column)
  for name, value in wanted[3].items():
    np.testing.assert_array_equal(source[3][name], value)


def test_people_of_format_1_are_equal_only_within_one_data_set(folder, packed_people, tmp_path):
  as_format_1(folder)
  people = open_split(folder).spec.people
  assert people == open_split(folder, "test").spec.people
  assert people == open_split(shutil.copytree(folder, tmp_path / "a copy")).spec.people
  assert people not in ("synthetic", open_split(packed_people).spec.people)
  change(folder / "dataset_info.json", lambda info: info["splits"][0].update(numBytes="12345"))
  assert people != open_split(folder).spec.people
  wanted = {"market1501": ("market1501", "market1501"), "msmt17": ("msmt17", "msmt17, test")}
  for source, pair in wanted.items():
    change(folder / "metadata.json", lambda value, source=source: value["hap_jax"].update(source=source))
    assert tuple(open_split(folder, split).spec.people for split in ("train", "test")) == pair


def test_format_1_without_persons_has_no_people(folder):
  as_format_1(folder, fields=["image", "attributes"])
  with np.load(folder / "table_train.npz") as file:
    attributes = file["attributes"]
  np.savez(folder / "table_train.npz", attributes=attributes)
  source = open_split(folder)
  assert source.spec.people == ""
  assert source.columns.keys() == {"attributes"}


def test_error_names_labels_of_format_1_that_contradict_the_features(folder):
  as_format_1(folder, attribute_names=["one"])
  assert_refused(folder, "metadata.json", "labels, .attributes.: expected 27 names, one per value, found 1")


def test_a_shard_that_is_a_fifo_is_an_error(folder):
  shard = folder / "hap_synthetic-train.array_record-00000-of-00001"
  shard.unlink()
  os.mkfifo(shard)
  assert_refused(folder, "dataset_info.json", "no file")
