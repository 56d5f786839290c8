"""Tests of the pictures of a prediction, and of the panel that shows them."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest

from hap_jax.data.skeletons import COCO17
from hap_jax.losses.reconstruction import normalize_patches
from hap_jax.models import layers
from hap_jax.pixels.normalize import normalize
from hap_jax.viz import canvas
from hap_jax.viz.masks import CAUSES, COLORS
from hap_jax.viz.reconstruction import RANGE, panel, reconstruct

GRID = (4, 2)
PATCH = 8
N = 3


def make_inputs(target_space, num_views=2):
  """Returns pictures, masks and the perfect prediction, computed with functions of the model and the loss."""
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (N, GRID[0] * PATCH, GRID[1] * PATCH, 3), dtype=np.uint8)
  target = layers.patchify(normalize(images), PATCH)
  if target_space == "normalized":
    target = normalize_patches(target)
  pred = np.repeat(np.asarray(target)[:, None], num_views, axis=1)
  cause = rng.integers(0, 4, (N, num_views, GRID[0] * GRID[1])).astype(np.int8)
  return {"images": images, "cause": cause, "pred": pred, "grid": GRID, "patch": PATCH}


def hidden_pixels(cause):
  """Converts causes [N, views, L] to bool [N, views, H, W, 1]; True in hidden patches."""
  is_hidden = (cause != 0).reshape(*cause.shape[:2], *GRID)
  return is_hidden.repeat(PATCH, axis=2).repeat(PATCH, axis=3)[..., None]


@pytest.mark.parametrize("target_space", ["normalized", "pixels"])
def test_perfect_prediction_gives_the_picture_back(target_space):
  inputs = make_inputs(target_space)
  readings = reconstruct(**inputs, target_space=target_space)
  expected = np.broadcast_to(inputs["images"][:, None], readings.denormalized.shape)
  # 1 grey level is the rounding to uint8.
  assert np.abs(readings.denormalized.astype(int) - expected).max() <= 1
  assert np.abs(readings.pasted.astype(int) - expected).max() <= 1


def test_prediction_is_pasted_over_hidden_patches_only():
  inputs = make_inputs("normalized")
  inputs["pred"] = np.zeros_like(inputs["pred"])
  readings = reconstruct(**inputs, target_space="normalized")
  is_hidden = hidden_pixels(inputs["cause"])
  expected = np.where(is_hidden, readings.denormalized, inputs["images"][:, None])
  np.testing.assert_array_equal(readings.pasted, expected)
  assert (readings.denormalized != inputs["images"][:, None]).any()


def test_target_space_maps_its_range_to_black_grey_and_white():
  inputs = make_inputs("normalized")
  for value, grey in ((-RANGE, 0), (0.0, 128), (RANGE, 255), (10.0, 255)):
    inputs["pred"] = np.full_like(inputs["pred"], value)
    assert (reconstruct(**inputs, target_space="normalized").target_space == grey).all()


def test_zero_prediction_denormalizes_to_the_patch_mean():
  inputs = make_inputs("normalized")
  inputs["pred"] = np.zeros_like(inputs["pred"])
  inputs["images"] = np.full_like(inputs["images"], 77)
  assert (reconstruct(**inputs, target_space="normalized").denormalized != 77).any()  # a mean over colours
  grey = reconstruct(**inputs, target_space="normalized", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
  assert (grey.denormalized == 77).all()


@pytest.mark.parametrize(("num_views", "target_space"), [(1, "pixels"), (2, "normalized"), (3, "normalized")])
def test_panel_shows_every_picture_of_every_example(num_views, target_space):
  inputs = make_inputs(target_space, num_views)
  readings = reconstruct(**inputs, target_space=target_space)
  picture = panel(**inputs, target_space=target_space)
  assert picture.dtype == np.uint8
  assert picture.shape[1] <= 1500
  # Each cell must occur somewhere in the panel; one enlarged line is enough to find it.
  windows = np.lib.stride_tricks.sliding_window_view(picture, (24, 3), axis=(1, 2))[:, :, 0]
  cells = [*inputs["images"], *readings.target_space.reshape(-1, 32, 16, 3)]
  scale = min(1400 // (16 * (1 + 4 * num_views)), 10)
  for cell in cells:
    row = canvas.enlarge(cell, scale)[40, :24]
    assert (windows == row).all((-1, -2)).any()


def test_title_and_joints_change_the_panel():
  inputs = make_inputs("normalized")
  bare = panel(**inputs)
  titled = panel(**inputs, title="step 100")
  assert titled.shape[0] > bare.shape[0]
  xy = np.full((N, 17, 2), 8.0)
  jointed = panel(**inputs, keypoints_xy=xy, keypoints_visible=np.ones((N, 17), bool), skeleton=COCO17)
  assert jointed.shape == bare.shape
  assert (jointed != bare).any()


@pytest.mark.parametrize("causes", [("visible",), ("visible", "fill"), ("visible", "part", "block", "fill")])
def test_the_legend_names_only_the_causes_that_are_shown(causes):
  inputs = make_inputs("normalized")
  inputs["cause"] = np.resize([CAUSES.index(cause) for cause in causes], inputs["cause"].shape).astype(
    np.int8
  )
  legend = panel(**inputs)[-200:]
  for cause, color in COLORS.items():
    assert (legend == color).all(-1).any() == (cause in causes)


def test_large_pictures_are_not_enlarged():
  images = np.zeros((1, 256, 128, 3), np.uint8)
  pred = np.zeros((1, 2, 128, 768), np.float32)
  picture = panel(images=images, cause=np.zeros((1, 2, 128), np.int8), pred=pred, grid=(16, 8), patch=16)
  assert 9 * 128 < picture.shape[1] < 1400


def test_inputs_that_contradict_each_other_are_an_error():
  inputs = make_inputs("normalized")
  with pytest.raises(ValueError, match="target_space='grey'"):
    panel(**inputs, target_space="grey")
  for name, value in (
    ("images", inputs["images"].astype(np.float32)),
    ("images", inputs["images"][:2]),
    ("cause", inputs["cause"][:, 0]),
    ("pred", inputs["pred"][..., :-1]),
    ("grid", (2, 4)),
    ("patch", 4),
  ):
    with pytest.raises(ValueError, match="do not fit"):
      panel(**(inputs | {name: value}))


def test_drawing_needs_no_jax_and_only_charts_need_matplotlib():
  names = [path.stem for path in pathlib.Path(canvas.__file__).parent.glob("[a-z]*.py")]
  script = (
    f"import sys\nfrom hap_jax.viz import {', '.join(names)}\n"
    "sys.exit(', '.join({'jax', 'matplotlib'} & set(sys.modules)) or 0)"
  )
  done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
  assert done.returncode == 0, done.stderr


def test_long_text_is_split_into_lines_that_fit():
  lines = canvas.wrap("one two three four five six seven eight", 90, 16)
  assert len(lines) > 2
  assert all(canvas.text_width(line, 16) <= 90 for line in lines)
  assert canvas.paragraph("one two three four five", 90, 16).shape[1] == 90
  assert canvas.fit_size("a fairly long label", 60, 16) < 16
