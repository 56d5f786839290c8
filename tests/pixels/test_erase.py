"""Tests of random erasing: it fills the drawn boxes with noise and changes no other pixel."""

import jax
import numpy as np

from hap_jax.pixels import erase

# All pixels are 5 or more, and no drawn noise value reaches 5, so the two cannot be mistaken for each other.
IMAGE = np.random.default_rng(0).uniform(5, 6, size=(3, 40, 20, 3)).astype(np.float32)
# A large box, an empty box, and a box of one pixel in the last corner.
BOX = np.array([[4, 2, 30, 15], [0, 0, 0, 0], [39, 19, 1, 1]], np.int32)


def erased(seed=0):
  return np.asarray(jax.jit(erase.erase)(IMAGE, BOX, jax.random.key(seed)))


def test_exactly_the_box_is_erased():
  inside = np.zeros(IMAGE.shape[:3], bool)
  for i, (top, left, height, width) in enumerate(BOX):
    inside[i, top : top + height, left : left + width] = True
  found = erased()
  np.testing.assert_array_equal(found[~inside], IMAGE[~inside])
  assert (found[inside] < 5).all()


def test_noise_is_standard_normal_and_independent_between_pixels_and_channels():
  noise = erased()[0, 4:34, 2:17].reshape(-1, 3)
  # Each limit is four standard errors of the estimate.
  assert abs(noise.mean()) < 4 / noise.size**0.5
  assert abs(noise.std() - 1) < 4 / (2 * noise.size) ** 0.5
  correlations = [np.corrcoef(noise.T)[i, j] for i, j in ((0, 1), (0, 2), (1, 2))]
  correlations.append(np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1])
  assert np.abs(correlations).max() < 4 / len(noise) ** 0.5


def test_another_key_gives_different_noise():
  assert (erased(0)[0] != erased(1)[0]).sum() == 30 * 15 * 3
