"""Tests of crop, resize and mirror on the device against OpenCV on the host, and of `CropOnDevice`."""

import jax
import numpy as np
import pytest

from hap_jax.data.transforms.canvas import CropOnDevice
from hap_jax.data.transforms.image import RandomResizedCrop
from hap_jax.pixels import warp

SIZE, CANVAS = (64, 32), (96, 48)
crop_resize_flip = jax.jit(warp.crop_resize_flip, static_argnums=3)


def make_record(H, W, seed=0):
  rng = np.random.default_rng(seed)
  y, x = np.mgrid[:H, :W]
  waves = np.stack([127 + 90 * np.sin(x / a + y / b) for a, b in ((9, 31), (17, 5), (40, 13))], axis=-1)
  # The noise depends on the seed: the image is smooth, rough or mostly noise.
  image = waves + rng.normal(0, 40 * (seed % 3), (H, W, 3))
  return {
    "image": image.clip(0, 255).astype(np.uint8),
    "keypoints_xy": (rng.random((17, 2)) * (W, H) * 1.2 - 2).astype(np.float32),
    "keypoints_visible": rng.random(17) < 0.8,
    "pid": seed,
  }


@pytest.fixture(scope="module")
def pairs():
  """Returns (records warped on the host, the same records prepared for the device)."""
  # Random sizes around the size of the canvas, then equal sizes, sizes one pixel larger, and tiny pictures.
  sizes = np.random.default_rng(1).integers((30, 12), (130, 66), (40, 2)).tolist()
  sizes += [CANVAS, SIZE, (96, 20), (97, 48), (96, 49), (1, 1), (3, 40)]
  crop = RandomResizedCrop(SIZE, area=(0.3, 1.0), flip_prob=0.5)
  transform = CropOnDevice(crop, CANVAS)
  records = [make_record(H, W, seed) for seed, (H, W) in enumerate(sizes)]
  host = [crop(record, np.random.default_rng((0, i))) for i, record in enumerate(records)]
  device = [transform(record, np.random.default_rng((0, i))) for i, record in enumerate(records)]
  return host, device


def batch_of(records, names):
  return [np.stack([record[name] for record in records]) for name in names]


def test_device_pixels_are_within_one_grey_level_of_host_pixels(pairs):
  host, device = pairs
  result = crop_resize_flip(*batch_of(device, ("image", "crop", "flip")), SIZE)
  assert result.dtype == np.uint8
  # Both cases must occur: mirrored and not mirrored.
  assert any(record["flip"] for record in device)
  assert not all(record["flip"] for record in device)
  (wanted,) = batch_of(host, ("image",))
  difference = np.abs(np.asarray(result).astype(int) - wanted)
  assert difference.max() <= 1, np.unravel_index(difference.argmax(), difference.shape)
  assert np.mean(difference == 0) > 0.998


def test_joints_and_other_fields_equal_the_fields_of_the_host_path(pairs):
  for host, device in zip(*pairs, strict=True):
    for name in ("keypoints_xy", "keypoints_visible", "pid"):
      np.testing.assert_array_equal(device[name], host[name])
    assert device.keys() == {*host, *CropOnDevice.adds}
    assert device["image"].shape == (*CANVAS, 3)


def test_a_picture_larger_than_the_canvas_equals_the_host_picture_exactly(pairs):
  host, device = pairs
  # The host itself warps a picture that does not fit the canvas. The device then only copies a window.
  larger = [i for i, record in enumerate(device) if tuple(record["crop"]) == (0, 0, *SIZE)]
  assert len(larger) >= 5
  result = np.asarray(crop_resize_flip(*batch_of(device, ("image", "crop", "flip")), SIZE))
  for i in larger:
    np.testing.assert_array_equal(result[i], host[i]["image"])


def test_pixels_outside_the_window_do_not_change_the_result(pairs):
  _, device = pairs
  images, crops, flips = batch_of(device, ("image", "crop", "flip"))
  white = np.full_like(images, 255)
  for (top, left, height, width), image, result in zip(crops, images, white, strict=True):
    window = slice(top, top + height), slice(left, left + width)
    result[window] = image[window]
  assert (white != images).any()  # otherwise equal pictures would be compared
  results = (np.asarray(crop_resize_flip(batch, crops, flips, SIZE)) for batch in (images, white))
  np.testing.assert_array_equal(*results)


def test_a_canvas_smaller_than_the_result_is_an_error():
  with pytest.raises(ValueError, match=r"canvas=\(96, 31\).*at least \(64, 32\)"):
    CropOnDevice(RandomResizedCrop(SIZE), (96, 31))
