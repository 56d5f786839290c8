"""All sources have the interface of data/sources/base.py. New files in data/sources are found by name."""

import inspect
import pathlib
import pickle

import numpy as np
import pytest

import hap_jax
from configs import common
from hap_jax import config
from hap_jax.data import columns, source_options
from hap_jax.data.skeletons import COCO17
from hap_jax.data.source_options import COMMON
from hap_jax.data.sources import base
from tests.data import tiny_sources

FOLDER = pathlib.Path(hap_jax.__file__).parent / "data" / "sources"
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("__init__", "base"))


def test_there_are_sources():
  assert {"synthetic", "luperson", "coco_persons"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_source_opens_by_keywords_and_names_its_licence(name):
  module = config.load("data/sources", name)
  parameters = inspect.signature(module.open_source).parameters
  assert set(COMMON) - {"num_val"} <= parameters.keys()
  assert all(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters.values())
  for option in parameters.keys() - {"root", "split", "seed", "num_val"}:
    assert option in module.open_source.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_the_configuration_has_every_option_of_the_source(name):
  options = dict(common.data().get(name, {}))
  parameters = inspect.signature(config.load("data/sources", name).open_source).parameters
  assert options.keys() == parameters.keys() - set(COMMON)
  for option, value in options.items():
    assert type(value) is type(parameters[option].default)


@pytest.mark.parametrize("name", NAMES)
def test_columns_are_the_fields_of_all_records_without_reading_a_picture(name, tmp_path, monkeypatch):
  splits = getattr(tiny_sources, name)(tmp_path)
  with monkeypatch.context() as patched:
    patched.setattr(base.cv2, "imdecode", None)
    patched.setattr(base.simplejpeg, "decode_jpeg", None)
    found = [columns.check(source) for source in splits]
  for source, known in zip(splits, found, strict=True):
    assert len(source) > 0
    assert known.keys() == source.columns.keys()
    for i in range(len(source)):
      record = source[i]
      assert record.keys() == set(source.spec.fields)
      for field, column in known.items():
        assert np.asarray(record[field]).dtype.kind == column.dtype.kind
        np.testing.assert_array_equal(record[field], column[i], err_msg=field)


@pytest.mark.parametrize("name", source_options.with_joints())
def test_a_source_that_promises_joints_has_joints(name, tmp_path):
  for source in getattr(tiny_sources, name)(tmp_path):
    assert source.spec.skeleton is not None
    assert {"keypoints_xy", "keypoints_visible"} <= source[0].keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_spec_names_labels_and_people_of_the_columns(name, tmp_path):
  for source in getattr(tiny_sources, name)(tmp_path):
    assert bool(source.spec.people) == ("pid" in source.columns)
    for field, labels in source.spec.labels.items():
      assert len(labels) == len(set(labels)) == source.columns[field].shape[1]


@pytest.mark.parametrize("name", NAMES)
def test_pickle_of_a_source_does_not_grow_when_its_columns_are_computed(name, tmp_path):
  for source in getattr(tiny_sources, name)(tmp_path):
    before = len(pickle.dumps(source))
    for column in source.columns.values():
      assert len(column) == len(source)
    sent = pickle.dumps(source)
    assert len(sent) == before
    for field, column in pickle.loads(sent).columns.items():
      np.testing.assert_array_equal(column, source.columns[field])


def test_flip_pairs_of_the_skeleton_name_the_same_joint_of_both_sides():
  for left, right in COCO17.flip_pairs:
    assert COCO17.joints[left].removeprefix("left_") == COCO17.joints[right].removeprefix("right_")
  indices = {i for _, pairs in COCO17.parts for pair in pairs for i in pair}
  assert indices == set(range(len(COCO17.joints)))
