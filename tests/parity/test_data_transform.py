"""The pre-training transform against the official code: pixels of given crops, statistics of random crops."""

import numpy as np
import pytest

from hap_jax.data.transforms.image import RandomResizedCrop, crop_resize

_MISSING = -10_000.0  # the reference's value for each of x, y and score
_DRAWS = 20_000
_Z = 5.0  # allowed error of a mean in standard errors; a correct mean exceeds it with probability 6e-7


@pytest.fixture(scope="module")
def transform(golden):
  return golden("data_transform")


def _cases(arrays):
  return sorted({key.split("/")[0] for key in arrays if key.startswith("case")})


def _run(transform, case):
  keypoints = transform[f"{case}/keypoints_in"]
  record = {
    "image": transform[f"{case}/image_u8"],
    "keypoints_xy": keypoints[:, :2],
    "keypoints_visible": np.ones(len(keypoints), bool),
  }
  result = crop_resize(
    record,
    tuple(int(v) for v in transform[f"{case}/crop_top_left_height_width"]),
    tuple(int(v) for v in transform["out_size"]),
    flip=bool(transform[f"{case}/flip"]),
  )
  image, xy, visible = (result[name] for name in ("image", "keypoints_xy", "keypoints_visible"))
  return image, np.where(visible[:, None], np.concatenate([xy, keypoints[:, 2:]], axis=1), _MISSING), visible


def test_crop_pixels_are_within_two_grey_levels_and_nearly_all_within_one(transform):
  for case in _cases(transform):
    image, _, _ = _run(transform, case)
    expected = transform[f"{case}/resized_u8"]
    assert image.shape == expected.shape
    assert image.dtype == np.uint8
    difference = np.abs(image.astype(int) - expected)
    assert difference.max() <= 2, f"{case}: {difference.max()} at {np.argmax(difference)}"
    assert np.mean(difference <= 1) >= 0.99


def test_normalised_pixels_follow_from_the_uint8_image(transform):
  # The training step normalises on the device. This test only checks that the stored float rows are the
  # normalised uint8 rows.
  for case in _cases(transform):
    image, _, _ = _run(transform, case)
    rows = ((image / 255 - transform["mean"]) / transform["std"]).transpose(2, 0, 1)[:, ::37]
    expected = transform[f"{case}/normalised_rows_every_37"]
    two_levels = 2 / 255 / transform["std"].min()
    np.testing.assert_allclose(rows, expected, atol=two_levels + 1e-5, rtol=0)


def test_keypoints_move_with_the_crop_and_the_mirror(transform):
  for case in _cases(transform):
    _, keypoints, visible = _run(transform, case)
    np.testing.assert_allclose(keypoints, transform[f"{case}/keypoints_out"], atol=1e-3, rtol=0, err_msg=case)
    assert visible.sum() == transform[f"{case}/num_inbound"]


def _sizes(arrays):
  return sorted({key.split("/")[1] for key in arrays if key.startswith("crop_stats/")})


def _draw(H, W, seed=0):
  rng = np.random.default_rng(seed)
  crop = RandomResizedCrop(size=(1, 1))
  top, left, height, width = np.array([crop.draw_crop(H, W, rng) for _ in range(_DRAWS)]).T
  return {
    "area": height * width / (H * W),
    "aspect": width / height,
    # A window as large as the picture has only one place; the official statistics count it as 0.
    "rel_top": np.where(height < H, top / np.maximum(H - height, 1), 0),
    "rel_left": np.where(width < W, left / np.maximum(W - width, 1), 0),
  }


def _standard_error(values):
  return values.std() / np.sqrt(len(values))


def test_random_crop_has_the_reference_means(transform):
  """Compares two samples: |difference| <= 5 * sqrt(se_ours^2 + se_theirs^2) + 1e-6.

  The 1e-6 is for constants, which have no standard error but are rounded to float32.
  """
  for size in _sizes(transform):
    drawn = _draw(*map(int, size.split("x")))
    n = int(transform[f"crop_stats/{size}/n"])
    for ours, theirs in (("area", "area_mean_se"), ("aspect", "aspect_wh_mean_se")):
      mean, error = transform[f"crop_stats/{size}/{theirs}"]
      limit = _Z * np.hypot(_standard_error(drawn[ours]), error) + 1e-6
      assert abs(drawn[ours].mean() - mean) <= limit, f"{size} {ours}: {drawn[ours].mean()} against {mean}"
    for name in ("rel_top", "rel_left"):
      mean = transform[f"crop_stats/{size}/{name}_mean"]
      limit = _Z * _standard_error(drawn[name]) * np.sqrt(1 + _DRAWS / n) + 1e-6
      assert abs(drawn[name].mean() - mean) <= limit, f"{size} {name}: {drawn[name].mean()} against {mean}"


def test_random_crop_has_the_reference_quantiles(transform):
  """Compares the level of each reference quantile with the share of our draws below it.

  The limit is 5 standard errors. Sizes are whole pixels, so some draws equal the quantile. The level must
  therefore lie between the share of draws below the quantile and the share of draws not above it. The levels
  0
  and 100 are the extremes of a sample: at most 0.2 % of our draws may lie beyond them.
  """
  for size in _sizes(transform):
    drawn = _draw(*map(int, size.split("x")))
    n = int(transform[f"crop_stats/{size}/n"])
    for name in ("area", "aspect"):
      levels = transform["crop_stats/" + size + "/quantile_levels"] / 100
      for level, quantile in zip(levels, transform[f"crop_stats/{size}/{name}_quantiles"], strict=True):
        below, not_above = np.mean(drawn[name] < quantile - 1e-6), np.mean(drawn[name] <= quantile + 1e-6)
        limit = max(_Z * np.sqrt(level * (1 - level) * (1 / _DRAWS + 1 / n)), 0.002)
        assert below - limit <= level <= not_above + limit, f"{size} {name} {level}: {below} to {not_above}"
