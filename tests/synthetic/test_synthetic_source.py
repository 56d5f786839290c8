"""Tests of the source of synthetic people: splits, sizes, pictures in memory, pickling, messages."""

import pickle

import numpy as np
import pytest

from hap_jax.data.skeletons import AIC14, COCO17, MPII16
from hap_jax.data.sources import synthetic
from hap_jax.synthetic import anatomy, draw


def open_small(**options):
  """Opens a small source; `options` replace its defaults."""
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


def test_a_joint_is_visible_if_it_is_inside_the_picture_even_if_it_is_hidden():
  source = open_small(num_train=200)
  inside, hidden = [], []
  for k in range(0, 200, 3):
    record = source[k]
    xy = record["keypoints_xy"]
    # A pixel reaches half a pixel to each side of its centre.
    is_inside = (xy >= -0.5).all(axis=1) & (xy < np.array((19.5, 39.5))).all(axis=1)
    np.testing.assert_array_equal(record["keypoints_visible"], is_inside)
    inside.append(is_inside)
    hidden.append(record["keypoints_occluded"] & is_inside)
  assert np.mean(hidden) > 0.1


def test_pictures_in_memory_equal_pictures_drawn_on_access():
  held, drawn = open_small(hold_in_memory=True), open_small()
  for k in (0, 7, 23):
    for name in drawn.spec.fields:
      np.testing.assert_array_equal(held[k][name], drawn[k][name])


@pytest.mark.parametrize("skeleton", [AIC14, MPII16])
@pytest.mark.parametrize("hold_in_memory", [False, True])
def test_joints_in_another_order_are_the_same_joints_and_the_others_are_missing(skeleton, hold_in_memory):
  options = {"num_train": 3, "image_size": (32, 16), "hold_in_memory": hold_in_memory}
  own = synthetic.open_source(skeleton=skeleton.name, **options)
  coco = synthetic.open_source(**options)
  assert own.spec.skeleton is skeleton
  known = [name for name in skeleton.joints if name in COCO17.joints]
  assert len(known) == 12
  for i in range(3):
    found, expected = own[i], coco[i]
    for field in ("keypoints_xy", "keypoints_visible", "keypoints_occluded", "keypoints_3d"):
      assert len(found[field]) == len(skeleton.joints)
      for row, name in enumerate(skeleton.joints):
        other = expected[field][COCO17.joints.index(name)] if name in known else 0
        np.testing.assert_array_equal(found[field][row], other, err_msg=f"{field} {name}")
    np.testing.assert_array_equal(found["image"], expected["image"])
  truth = own.truth().annotations
  assert truth["categories"][0]["keypoints"] == skeleton.joints
  assert len(truth["annotations"][0]["keypoints"]) == 3 * len(skeleton.joints)


def test_the_truth_is_computed_once_and_not_pickled(monkeypatch):
  source = open_small()
  size = len(pickle.dumps(source))
  truth = source.truth()
  assert len(pickle.dumps(source)) == size
  monkeypatch.setattr(draw, "draw_person", None)
  assert source.truth() is truth
  assert truth.annotations["images"][5] == {
    "id": 6,
    "file_name": source.name(5),
    "height": 40,
    "width": 20,
    "license": 1,
  }


def test_the_area_is_the_number_of_pixels_of_the_person():
  source = open_small()
  for k in (0, 9):
    parts = draw.draw_person(3, int(source.indices[k]), (40, 20))["parts"]
    names = np.array(anatomy.PARTS)[parts]
    is_person = ~np.isin(names, ("background", "carried", "other_person", "object"))
    area = source[k]["area"]
    assert area.dtype == np.float32
    assert 0 < area <= 40 * 20
    assert area == is_person.sum()


def test_processes_draw_the_same_pictures(monkeypatch):
  # The limit for processes is lowered, so that a small source uses them.
  monkeypatch.setattr(synthetic, "_WORTH_A_POOL", 10)
  pooled, drawn = open_small(hold_in_memory=True), open_small()
  for k in (0, 23):
    np.testing.assert_array_equal(pooled[k]["image"], drawn[k]["image"])


def test_splits_share_no_person():
  pids = {}
  for split in ("train", "val", "test"):
    source = open_small(split=split, num_val=24, num_test=24)
    pids[split] = {int(source[k]["pid"]) for k in range(24)}
    assert len(pids[split]) == 3  # 24 pictures, 8 per person
  assert not pids["train"] & pids["val"]
  assert not pids["train"] & pids["test"]
  assert not pids["val"] & pids["test"]


def test_query_and_gallery_divide_the_test_pictures():
  splits = {name: open_small(split=name, num_test=32) for name in ("test", "query", "gallery")}
  assert {name: len(source) for name, source in splits.items()} == {"test": 32, "query": 8, "gallery": 24}
  divided = np.concatenate([splits["query"].indices, splits["gallery"].indices])
  np.testing.assert_array_equal(np.sort(divided), splits["test"].indices)
  assert set(splits["query"].columns["pid"]) == set(splits["gallery"].columns["pid"])


def test_each_query_has_matches_by_other_cameras_and_junk_by_its_own():
  query, gallery = (open_small(split=name, num_test=160) for name in ("query", "gallery"))
  # A person has 8 pictures by 6 cameras: 2 queries, then 6 in the gallery. The last 2 are by the cameras of
  # the queries, so they are no matches.
  for pid in np.unique(query.columns["pid"]):
    own, others = (side.columns["camid"][side.columns["pid"] == pid] for side in (query, gallery))
    assert len(set(own)) == 2
    assert sorted(others[-2:]) == sorted(own)
    assert len(set(others[:4]) - set(own)) == 4


def test_persons_cameras_and_attributes_need_no_drawing(monkeypatch):
  drawn = open_small(split="gallery", num_test=24)
  records = [drawn[k] for k in range(len(drawn))]
  # Any attempt to draw now fails.
  monkeypatch.delattr(synthetic.draw, "draw_person")
  source = open_small(split="gallery", num_test=24)
  assert source.columns["pid"].dtype == source.columns["camid"].dtype == np.int32
  assert source.columns["attributes"].shape[1] == len(source.spec.labels["attributes"])
  assert source.columns.keys() == {"pid", "camid", "attributes"}
  for name, known in source.columns.items():
    np.testing.assert_array_equal(known, [record[name] for record in records])


def test_captions_describe_the_person_in_the_picture():
  source = open_small()
  assert source.captions(9) == draw.draw_person(3, 9, (40, 20))["captions"]


def test_source_survives_pickling():
  source = open_small(hold_in_memory=True)
  again = pickle.loads(pickle.dumps(source))
  assert len(again) == 24
  np.testing.assert_array_equal(again[4]["image"], source[4]["image"])


def test_a_name_contains_split_number_and_seed():
  assert open_small().name(7) == "synthetic/train/000007 (seed 3)"


@pytest.mark.parametrize("index", [-1, 24])
def test_index_outside_the_source_is_an_error(index):
  with pytest.raises(IndexError, match="24"):
    open_small()[index]


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"split": "dev"}, "split='dev'.*train, val, test, trainval, query, gallery"),
    ({"split": "gallery", "num_test": 2}, "num_test=2; expected 3"),
    ({"num_train": 0}, "num_train=0"),
    ({"image_size": (8, 8)}, r"image_size=\(8, 8\).*640"),
    ({"image_size": (256,)}, "expected .H, W."),
    ({"image_size": (2000, 100)}, "image_size"),
    ({"skeleton": "cats"}, "skeleton=.cats.; expected one of coco17, mpii16, aic14"),
  ],
)
def test_bad_options_name_the_key(options, message):
  with pytest.raises(ValueError, match=message):
    open_small(**options)


def test_trainval_is_train_then_val():
  def indices(split, **counts):
    return synthetic.open_source(split=split, num_train=16, image_size=(40, 20), **counts).indices

  both = np.concatenate([indices("train", num_val=8), indices("val", num_val=8)])
  np.testing.assert_array_equal(indices("trainval", num_val=8), both)
  np.testing.assert_array_equal(indices("trainval", num_val=0), indices("train"))
