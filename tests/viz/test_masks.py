"""Tests of pictures of masks: tints, borders, joints, legend."""

import numpy as np
import pytest

from hap_jax.data.skeletons import COCO17
from hap_jax.masking import sampler
from hap_jax.viz import canvas
from hap_jax.viz.masks import CAUSES, COLORS, LEGEND, draw_mask
from hap_jax.viz.pose import draw_skeleton

GRID = (4, 2)
PATCH = 8


@pytest.fixture
def image():
  return np.random.default_rng(0).integers(60, 200, (GRID[0] * PATCH, GRID[1] * PATCH, 3), dtype=np.uint8)


def interior(picture, index, scale=1):
  """Returns the pixels of a patch without its borders."""
  side = PATCH * scale
  top, left = index // GRID[1] * side, index % GRID[1] * side
  return picture[top + 1 : top + side, left + 1 : left + side]


def test_causes_have_the_same_numbers_as_in_the_sampler():
  assert (CAUSES[sampler.CAUSE_PART], CAUSES[sampler.CAUSE_BLOCK], CAUSES[sampler.CAUSE_FILL]) == (
    "part",
    "block",
    "fill",
  )


@pytest.mark.parametrize("scale", [1, 3])
def test_hidden_patches_have_the_tint_of_their_cause_and_visible_patches_have_no_tint(image, scale):
  cause = np.array([0, 1, 2, 3, 0, 1, 2, 3], np.int8)
  picture = draw_mask(image, cause, GRID, scale=scale)
  assert picture.shape == (32 * scale, 16 * scale, 3)
  assert picture.dtype == np.uint8
  for index in range(1, 8):
    if cause[index]:
      mean = interior(picture, index, scale).mean((0, 1))
      distance = {name: np.abs(mean - color).sum() for name, color in COLORS.items()}
      assert min(distance, key=distance.get) == CAUSES[cause[index]]
  if scale == 1:
    for index in (0, 4):
      np.testing.assert_array_equal(interior(picture, index), interior(image, index))


def test_patch_borders_are_darker_than_the_picture(image):
  picture = draw_mask(image, np.zeros(8, np.int8), GRID)
  assert (picture[PATCH] < image[PATCH]).all()
  assert (picture[:, PATCH] < image[:, PATCH]).all()
  # The edge of the picture has no border.
  np.testing.assert_array_equal(picture[0, :PATCH], image[0, :PATCH])


def test_missing_joints_and_their_bones_are_not_drawn(image):
  # Some data sets mark a missing joint with a huge negative number.
  xy = np.full((17, 2), -10000.0)
  is_visible = np.zeros(17, bool)
  np.testing.assert_array_equal(draw_skeleton(image, xy, is_visible, COCO17), image)
  xy[5], is_visible[5] = (4, 4), True  # bones from this shoulder end at missing joints
  picture = draw_skeleton(image, xy, is_visible, COCO17)
  changed = np.argwhere((picture != image).any(-1))
  assert len(changed) > 0
  assert (np.abs(changed - 4) <= 4).all()


def test_joint_stays_on_its_pixel_when_the_picture_is_enlarged():
  xy, is_visible = np.zeros((17, 2)), np.zeros(17, bool)
  xy[0], is_visible[0] = (10, 20), True
  picture = draw_skeleton(np.full((160, 80, 3), 128, np.uint8), xy, is_visible, COCO17, scale=5)
  center = np.argwhere((picture == 255).all(-1)).mean(0)
  np.testing.assert_allclose(center, (20 * 5 + 2, 10 * 5 + 2), atol=0.5)


def test_drawing_does_not_change_its_input(image):
  before = image.copy()
  draw_mask(image, np.ones(8, np.int8), GRID, np.full((17, 2), 5.0), np.ones(17, bool))
  np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("width", [300, 900])
def test_legend_shows_every_colour_and_fits(width):
  strip = canvas.swatches(LEGEND, width)
  assert strip.shape[1] == width
  for color in COLORS.values():
    assert (strip == color).all(-1).any()
  assert (strip[:, -1] == 255).all()


def test_a_wrong_grid_or_cause_is_an_error(image):
  with pytest.raises(ValueError, match="3x2"):
    draw_mask(image, np.zeros(6, np.int8), (3, 2))
  with pytest.raises(ValueError, match="cause"):
    draw_mask(image, np.zeros(7, np.int8), GRID)
  with pytest.raises(ValueError, match="known are"):
    draw_mask(image, np.full(8, 4, np.int8), GRID)
