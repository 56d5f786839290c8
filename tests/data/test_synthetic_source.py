"""The source of synthetic people: splits, sizes, held pictures, pickling, messages."""

import pickle

import numpy as np
import pytest

from hap_jax.data.sources import synthetic


def open_small(**options):
  return synthetic.open_source(
    **{"split": "train", "seed": 3, "num_train": 24, "image_size": (40, 20), **options}
  )


def test_record_has_the_fields_that_the_spec_names():
  source = open_small()
  record = source[5]
  assert set(record) == set(source.spec.fields)
  assert record["image"].shape == (40, 20, 3)
  assert record["image"].dtype == np.uint8
  assert record["keypoints_xy"].shape == (17, 2)
  assert record["keypoints_xy"].dtype == np.float32
  assert record["keypoints_visible"].dtype == np.bool_
  assert record["keypoints_occluded"].shape == (17,)


def test_visible_means_inside_the_picture_though_it_may_be_hidden():
  source = open_small(num_train=200)
  inside, hidden = [], []
  for k in range(0, 200, 3):
    record = source[k]
    xy = record["keypoints_xy"]
    is_inside = (xy >= -0.5).all(axis=1) & (xy < np.array((19.5, 39.5))).all(axis=1)
    np.testing.assert_array_equal(record["keypoints_visible"], is_inside)
    inside.append(is_inside)
    hidden.append(record["keypoints_occluded"] & is_inside)
  assert np.mean(hidden) > 0.1


def test_held_pictures_equal_those_drawn_when_asked_for():
  held, drawn = open_small(hold_in_memory=True), open_small()
  for k in (0, 7, 23):
    for name in drawn.spec.fields:
      np.testing.assert_array_equal(held[k][name], drawn[k][name])


def test_processes_draw_the_same_pictures(monkeypatch):
  monkeypatch.setattr(synthetic, "_WORTH_A_POOL", 10)
  pooled, drawn = open_small(hold_in_memory=True), open_small()
  for k in (0, 23):
    np.testing.assert_array_equal(pooled[k]["image"], drawn[k]["image"])


def test_splits_share_no_person():
  pids = {}
  for split in ("train", "val", "test"):
    source = open_small(split=split, num_val=24, num_test=24)
    pids[split] = {int(source[k]["pid"]) for k in range(24)}
    assert len(pids[split]) == 3
  assert not pids["train"] & pids["val"]
  assert not pids["train"] & pids["test"]
  assert not pids["val"] & pids["test"]


def test_source_survives_pickling():
  source = open_small(hold_in_memory=True)
  again = pickle.loads(pickle.dumps(source))
  assert len(again) == 24
  np.testing.assert_array_equal(again[4]["image"], source[4]["image"])


def test_names_tell_split_number_and_seed():
  assert open_small().name(7) == "synthetic/train/000007 (seed 3)"


@pytest.mark.parametrize("index", [-1, 24])
def test_index_outside_the_source_is_an_error(index):
  with pytest.raises(IndexError, match="24"):
    open_small()[index]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"split": "dev"}, "split='dev'.*train, val, test"),
    ({"num_train": 0}, "num_train=0"),
    ({"image_size": (8, 8)}, r"image_size=\(8, 8\).*640"),
    ({"image_size": (256,)}, "expected .H, W."),
    ({"image_size": (2000, 100)}, "image_size"),
  ],
)
def test_bad_options_name_the_key(options, message):
  with pytest.raises(ValueError, match=message):
    open_small(**options)
