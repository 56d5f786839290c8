import numpy as np
import pytest

from hap_jax.data.skeletons import COCO17
from hap_jax.data.transforms.canvas import CropOnDevice
from hap_jax.data.transforms.image import (
  HorizontalFlip,
  RandomResizedCrop,
  ResizeWhole,
  ShufflePixels,
  crop_resize,
)


def make_record(H=40, W=24, seed=0):
  rng = np.random.default_rng(seed)
  return {
    "image": rng.integers(0, 256, (H, W, 3), dtype=np.uint8),
    "keypoints_xy": (rng.random((17, 2)) * (W - 1, H - 1)).astype(np.float32),
    "keypoints_visible": rng.random(17) < 0.8,
    "caption": "kept",
  }


def test_flip_twice_is_the_identity():
  record = make_record()
  for pairs in ((), COCO17.flip_pairs):
    flip = HorizontalFlip(pairs, prob=1.0)
    twice = flip(flip(record, np.random.default_rng(0)), np.random.default_rng(0))
    visible = record["keypoints_visible"]
    np.testing.assert_array_equal(twice["image"], record["image"])
    np.testing.assert_array_equal(twice["keypoints_visible"], visible)
    np.testing.assert_allclose(twice["keypoints_xy"][visible], record["keypoints_xy"][visible], atol=1e-5)


def test_flip_moves_joints_with_their_pixels_and_exchanges_pairs():
  record = make_record()
  record["keypoints_visible"][:] = True
  record["keypoints_xy"] = np.floor(record["keypoints_xy"])
  flipped = HorizontalFlip(COCO17.flip_pairs, prob=1.0)(record, np.random.default_rng(0))
  for left, right in (*COCO17.flip_pairs, (0, 0)):
    x, y = record["keypoints_xy"][left].astype(int)
    new_x, new_y = flipped["keypoints_xy"][right].astype(int)
    np.testing.assert_array_equal(flipped["image"][new_y, new_x], record["image"][y, x])


def test_flip_probability_is_kept():
  record = make_record()
  flip, rng = HorizontalFlip(prob=0.25), np.random.default_rng(0)
  share = np.mean([flip(record, rng) is not record for _ in range(2000)])
  assert abs(share - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 2000)


def test_whole_picture_at_its_own_size_is_unchanged():
  record = make_record()
  same = ResizeWhole((40, 24))(record, np.random.default_rng(0))
  np.testing.assert_array_equal(same["image"], record["image"])
  visible = record["keypoints_visible"]
  np.testing.assert_array_equal(same["keypoints_visible"], visible)
  np.testing.assert_array_equal(same["keypoints_xy"][visible], record["keypoints_xy"][visible])
  assert same["caption"] == "kept"


def test_transforms_do_not_change_their_input():
  record = make_record()
  before = {name: np.copy(value) for name, value in record.items()}
  for transform in (
    RandomResizedCrop((32, 16), flip_prob=1.0),
    ResizeWhole((32, 16)),
    HorizontalFlip(COCO17.flip_pairs, prob=1.0),
    ShufflePixels(),
  ):
    result = transform(record, np.random.default_rng(0))
    assert result is not record
    for name, value in before.items():
      np.testing.assert_array_equal(record[name], value)


def crop(image, xy, is_visible, *args, **options):
  """Returns (image, keypoints_xy, keypoints_visible) of `crop_resize`."""
  record = {"image": image, "keypoints_xy": xy, "keypoints_visible": is_visible}
  return tuple(crop_resize(record, *args, **options)[name] for name in record)


def test_a_record_without_joints_is_cropped_like_a_record_with_joints():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 255, (40, 20, 3), dtype=np.uint8)
  joints = {"keypoints_xy": np.zeros((2, 2), np.float32), "keypoints_visible": np.ones(2, bool)}
  cropped = RandomResizedCrop((16, 8), flip_prob=0.5)
  for transform in (
    cropped,
    ResizeWhole((16, 8)),
    CropOnDevice(cropped, (50, 50)),
    CropOnDevice(cropped, (16, 8)),
  ):
    bare = transform({"image": image, "pid": 3}, np.random.default_rng(1))
    whole = transform({"image": image, "pid": 3, **joints}, np.random.default_rng(1))
    assert bare.keys() == whole.keys() - joints.keys()
    for name, value in bare.items():
      np.testing.assert_array_equal(value, whole[name])


def test_joint_outside_before_or_after_the_crop_is_missing():
  image = np.zeros((40, 20, 3), np.uint8)
  xy = np.array(
    [[-0.5, 5], [20, 5], [19.9, 5], [4.9, 5], [5, 10], [14.9, 29.9], [15, 10], [10, 30]], np.float32
  )
  _, moved, visible = crop(image, xy, np.ones(8, bool), (10, 5, 20, 10), (40, 20))
  np.testing.assert_array_equal(visible, [False, False, False, False, True, True, False, False])
  np.testing.assert_allclose(moved[visible], [[0, 0], [19.8, 39.8]], atol=1e-4)
  assert not moved[~visible].any()


def test_invisible_or_nan_joint_stays_missing():
  image = np.zeros((40, 20, 3), np.uint8)
  xy = np.array([[10, 10], [np.nan, 10], [10, 10]], np.float32)
  _, moved, visible = crop(image, xy, np.array([False, True, True]), (0, 0, 40, 20), (40, 20))
  np.testing.assert_array_equal(visible, [False, False, True])
  assert np.isfinite(moved).all()


def test_joint_just_left_of_the_window_is_visible_after_the_mirror():
  image = np.zeros((40, 20, 3), np.uint8)
  xy, is_visible = np.array([[4.8, 12]], np.float32), np.ones(1, bool)
  for flip in (False, True):
    _, _, visible = crop(image, xy, is_visible, (10, 5, 20, 10), (40, 20), flip=flip)
    assert visible[0] == flip


def test_joint_stays_on_its_pixel_under_crop_and_mirror():
  rng = np.random.default_rng(1)
  for trial in range(50):
    H, W = (int(n) for n in rng.integers(60, 200, 2))
    top, left, height, width = RandomResizedCrop((128, 64)).draw_crop(H, W, rng)
    x, y = int(rng.integers(left, left + width)), int(rng.integers(top, top + height))
    image = np.zeros((H, W, 3), np.uint8)
    image[y, x] = 255
    xy, is_visible = np.array([[x, y]], np.float32), np.ones(1, bool)
    flip = trial % 2 == 1
    result, moved, visible = crop(image, xy, is_visible, (top, left, height, width), (128, 64), flip)
    if not visible[0]:
      assert flip  # the mirror uses pixel centres, so a joint in the last column may leave the picture
      continue
    weight = result[..., 0] / result[..., 0].sum()
    centre = np.array([(weight.sum(0) * np.arange(64)).sum(), (weight.sum(1) * np.arange(128)).sum()])
    # The resize scales pixel edges, and the rule for joints scales coordinates. They differ by half a source
    # pixel plus half a pixel of the result. One more source pixel is for the cut tails of the kernel.
    limit = 1.5 * np.array([64 / width, 128 / height]) + 0.5
    assert (np.abs(centre - moved[0]) <= limit).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 3)])
def test_crop_of_a_tiny_picture_fits(size):
  rng = np.random.default_rng(0)
  for _ in range(20):
    top, left, height, width = RandomResizedCrop((8, 4)).draw_crop(*size, rng)
    assert 0 <= top <= top + height <= size[0]
    assert 0 <= left <= left + width <= size[1]
    assert height > 0
    assert width > 0


def test_equal_generators_give_equal_crops():
  record, crop = make_record(), RandomResizedCrop((32, 16), flip_prob=0.5)
  a, b, c = (crop(record, np.random.default_rng((0, epoch, 7))) for epoch in (1, 1, 2))
  np.testing.assert_array_equal(a["image"], b["image"])
  assert not np.array_equal(a["image"], c["image"])


def test_pixel_shuffle_keeps_colours_and_joints():
  record = make_record()
  shuffled = ShufflePixels()(record, np.random.default_rng(0))
  assert shuffled["keypoints_xy"] is record["keypoints_xy"]
  assert not np.array_equal(shuffled["image"], record["image"])

  def colours(image):
    return sorted(map(tuple, image.reshape(-1, 3).tolist()))

  assert colours(shuffled["image"]) == colours(record["image"])
  again = ShufflePixels()(record, np.random.default_rng(0))
  np.testing.assert_array_equal(again["image"], shuffled["image"])


@pytest.mark.parametrize("bad", [{"area": (0.0, 1.0)}, {"area": (0.5, 1.5)}, {"aspect": (2.0, 1.0)}])
def test_impossible_crop_ranges_are_errors(bad):
  with pytest.raises(ValueError, match=f"{next(iter(bad))}="):
    RandomResizedCrop((8, 4), **bad)
