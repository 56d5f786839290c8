"""Transforms of person ReID: their results for fixed draws, and the distribution of the draws."""

import math

import numpy as np
import pytest
from PIL import Image

from hap_jax.data.transforms.image import HorizontalFlip
from hap_jax.data.transforms.reid import DrawErasing, PadCrop, ResizeBicubic


def picture(H=128, W=64, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (H, W, 3), dtype=np.uint8)


def bicubic_weights(old, new):
  """Returns the [new, old] weights of the textbook's bicubic filter, a = -0.5.

  If the picture becomes smaller, the filter is widened by the scale.
  """
  scale = old / new
  support = max(scale, 1)
  distance = ((np.arange(new) + 0.5) * scale)[:, None] - (np.arange(old) + 0.5)
  t = np.abs(distance / support)
  near = 1.5 * t**3 - 2.5 * t**2 + 1
  far = -0.5 * (t**3 - 5 * t**2 + 8 * t - 4)
  weights = np.where(t < 1, near, np.where(t < 2, far, 0))
  return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize("size", [(256, 128), (61, 23), (128, 64), (384, 128)])
def test_resize_equals_pillow_on_files_byte_for_byte(tmp_path, size):
  path = tmp_path / "odd.png"
  Image.fromarray(picture(131, 57)).save(path)
  with Image.open(path) as file:
    expected = np.asarray(file.convert("RGB").resize(size[::-1], Image.BICUBIC))
  result = ResizeBicubic(size)({"image": picture(131, 57)}, None)["image"]
  np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("size", [(80, 40), (21, 11)])
def test_resize_averages_over_the_pixels_that_the_filter_covers(size):
  image = picture(48, 24)
  rows, columns = bicubic_weights(48, size[0]), bicubic_weights(24, size[1])
  # Pillow rounds and clips to 0 ... 255 after each of its two passes.
  narrow = np.clip(np.round(np.einsum("xw,hwc->hxc", columns, image)), 0, 255)
  expected = np.clip(np.round(np.einsum("yh,hxc->yxc", rows, narrow)), 0, 255)
  result = ResizeBicubic(size)({"image": image}, None)["image"]
  # Pillow also ignores pixels at the very end of the filter. A filter without widening differs by more than
  # 100.
  np.testing.assert_allclose(result, expected, atol=2)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (20, 20), (10, 10), (3, 17)])
def test_crop_is_a_window_of_the_padded_picture(top, left):
  image = picture()
  padded = np.pad(image, ((10, 10), (10, 10), (0, 0)))
  result = PadCrop(10).crop({"image": image}, top, left)["image"]
  np.testing.assert_array_equal(result, padded[top : top + 128, left : left + 64])


def test_border_may_be_wider_than_the_picture():
  image = picture(6, 4)
  for seed in range(30):
    result = PadCrop(10)({"image": image}, np.random.default_rng(seed))["image"]
    assert result.shape == (6, 4, 3)


def test_training_transform_follows_its_random_numbers():
  """An equal generator gives the same draws, so NumPy and Pillow can compute the expected result."""
  image = picture(120, 61)
  chain = (ResizeBicubic((64, 32)), HorizontalFlip(), PadCrop(10), DrawErasing())
  mirrored = erased = 0
  for seed in range(12):
    record, rng = {"image": image, "pid": np.int32(3)}, np.random.default_rng(seed)
    for transform in chain:
      record = transform(record, rng)
    draws = np.random.default_rng(seed)
    expected = np.asarray(Image.fromarray(image).resize((32, 64), Image.BICUBIC))
    if draws.random() < 0.5:
      expected, mirrored = expected[:, ::-1], mirrored + 1
    top, left = int(draws.random() * 21), int(draws.random() * 21)
    expected = np.pad(expected, ((10, 10), (10, 10), (0, 0)))[top : top + 64, left : left + 32]
    np.testing.assert_array_equal(record["image"], expected)
    assert record["pid"] == 3
    if draws.random() < 0.5:
      erased += 1
      area = (0.02 + (1 / 3 - 0.02) * draws.random()) * 64 * 32
      aspect = 0.3 ** (1 - 2 * draws.random())
      height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
      if height < 64 and width < 32:
        assert record["erase_box"][2:].tolist() == [height, width]
    else:
      assert record["erase_box"].tolist() == [0, 0, 0, 0]
  assert 0 < mirrored < 12
  assert 0 < erased < 12


def test_offsets_are_uniform_over_all_windows():
  image = np.zeros((41, 41, 3), np.uint8)
  image[20, 20] = 255  # the place of this pixel in the result gives both offsets
  counts = np.zeros((41, 41))
  rng = np.random.default_rng(0)
  for _ in range(8_820):
    counts += PadCrop(10)({"image": image}, rng)["image"][..., 0] > 0
  assert counts.sum() == 8_820
  assert counts[10:31, 10:31].sum() == 8_820  # 21 x 21 windows, 20 draws each
  chi2 = ((counts[10:31, 10:31] - 20) ** 2 / 20).sum()
  assert abs(chi2 - 440) < 5 * math.sqrt(2 * 440)
  assert counts[10:31, 10:31].min() > 0


def boxes(count, H=256, W=128, **options):
  rng = np.random.default_rng(1)
  record = {"image": np.broadcast_to(np.uint8(0), (H, W, 3))}
  return np.array([DrawErasing(**options)(record, rng)["erase_box"] for _ in range(count)])


def test_erasing_has_the_official_rate_areas_and_shapes():
  drawn = boxes(4_000)
  assert drawn.dtype == np.int32
  is_erased = drawn[:, 2] > 0
  assert abs(is_erased.mean() - 0.5) < 3 * math.sqrt(0.25 / 4_000)
  assert (drawn[~is_erased] == 0).all()
  top, left, height, width = drawn[is_erased].T
  assert (top >= 0).all()
  assert (left >= 0).all()
  assert (top + height <= 256).all()
  assert (left + width <= 128).all()
  assert (height < 256).all()
  assert (width < 128).all()
  # Rounding moves each side by at most half a pixel.
  assert ((height + 0.5) * (width + 0.5) >= 0.02 * 256 * 128).all()
  assert ((height - 0.5) * (width - 0.5) <= 256 * 128 / 3).all()
  assert ((height + 0.5) / (width - 0.5) >= 0.3).all()
  assert ((height - 0.5) / (width + 0.5) <= 1 / 0.3).all()


def test_erasing_areas_are_uniform_and_shapes_log_uniform_if_boxes_fit():
  # The widest box has 541 pixels, so only few boxes do not fit and are drawn again.
  _, _, height, width = boxes(3_000, H=512, W=512, prob=1).T
  share = (height * width / 512**2 - 0.02) / (1 / 3 - 0.02)
  shape = np.log(height / width) / np.log(1 / 0.3)
  for values, expected in ((share, np.linspace(0, 1, 3_000)), (shape, np.linspace(-1, 1, 3_000))):
    # A uniform instead of a log-uniform shape would differ by 0.3.
    assert np.abs(np.sort(values) - expected).max() < 0.06


def test_erasing_boxes_reach_both_sides():
  top, left, height, width = boxes(3_000, prob=1).T
  for place, room in ((top, 256 - height), (left, 128 - width)):
    assert (place == 0).any()
    assert (place == room).any()
    assert abs((place / room).mean() - 0.5) < 0.03


def test_box_that_never_fits_erases_nothing():
  assert (boxes(20, prob=1, area=(0.9, 1.0), aspect=(4, 5)) == 0).all()  # higher than the picture
  assert (boxes(20, prob=0) == 0).all()


def test_joints_move_with_the_picture():
  record = {
    "image": picture(64, 32),
    "keypoints_xy": np.array([[8, 16], [31, 63], [40, 1]], np.float32),
    "keypoints_visible": np.array([True, True, True]),
  }
  resized = ResizeBicubic((128, 96))(record, None)
  np.testing.assert_array_equal(resized["keypoints_xy"], [[24, 32], [93, 126], [0, 0]])
  np.testing.assert_array_equal(resized["keypoints_visible"], [True, True, False])
  cut = PadCrop(4).crop(record, top=0, left=7)
  np.testing.assert_array_equal(cut["keypoints_xy"], [[5, 20], [0, 0], [0, 0]])
  np.testing.assert_array_equal(cut["keypoints_visible"], [True, False, False])
  np.testing.assert_array_equal(cut["image"][20, 5], record["image"][16, 8])
  assert record["keypoints_visible"].all()


def test_mirror_works_without_joints():
  image = picture(7, 5)
  flipped = HorizontalFlip(prob=1)({"image": image, "camid": 2}, np.random.default_rng(0))
  np.testing.assert_array_equal(flipped["image"], image[:, ::-1])
  assert flipped.keys() == {"image", "camid"}


@pytest.mark.parametrize(
  ("make", "match"),
  [
    (lambda: PadCrop(-1), "pad=-1"),
    (lambda: DrawErasing(prob=1.5), "prob=1.5"),
    (lambda: DrawErasing(area=(0.0, 0.3)), "area="),
    (lambda: DrawErasing(aspect=(2, 1)), "aspect="),
  ],
)
def test_impossible_settings_of_transforms_are_errors(make, match):
  with pytest.raises(ValueError, match=match):
    make()
