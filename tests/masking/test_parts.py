"""Tests of part masking: the patches of a part, the choice of parts, and the marked patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from hap_jax.masking import parts

LIMB = (("limb", ((0, 1),)),)


def limb_patches(first_xy, second_xy, visible=(True, True), grid=(4, 3), patch=8):
  patches = parts.part_patches(
    jnp.array([first_xy, second_xy], jnp.float32), jnp.array(visible), grid, patch, LIMB
  )
  return np.asarray(patches[0]).reshape(grid)


def words(*shape):
  return jax.random.bits(jax.random.key(0), shape)


def test_pair_covers_the_rectangle_between_its_joints():
  expected = np.zeros((4, 3), bool)
  expected[1:3, :2] = True
  np.testing.assert_array_equal(limb_patches((0.5, 23.9), (15.9, 8.0)), expected)
  np.testing.assert_array_equal(limb_patches((15.9, 8.0), (0.5, 23.9)), expected)


def test_part_is_the_union_of_its_pairs():
  joints = jnp.array([[0, 0], [7, 7], [16, 24]], jnp.float32)
  patches = parts.part_patches(joints, jnp.ones(3, bool), (4, 3), 8, (("part", ((0, 1), (2, 2))),))
  assert np.flatnonzero(patches[0]).tolist() == [0, 11]


@pytest.mark.parametrize("x", [-1.0, -10000.0, np.nan, np.inf, -np.inf])
def test_negative_or_non_finite_joint_is_missing(x):
  assert not limb_patches((x, 4), (4, 4)).any()
  assert not limb_patches((4, 4), (4, x)).any()


def test_invisible_joint_is_missing():
  assert not limb_patches((4, 4), (4, 4), visible=(True, False)).any()


def test_coordinates_are_truncated_to_pixels_before_the_sign_is_checked():
  assert np.flatnonzero(limb_patches((-0.9, -0.5), (4, 4))).tolist() == [0]


@pytest.mark.parametrize("far", [24.0, 1e9, 3e38])
def test_joint_beyond_the_right_or_bottom_edge_is_moved_to_the_edge(far):
  assert np.flatnonzero(limb_patches((20, 4), (far, 4))).tolist() == [2]
  assert np.flatnonzero(limb_patches((4, 28), (4, far + 8))).tolist() == [9]
  assert np.flatnonzero(limb_patches((far, 4), (far, 12))).tolist() == [2, 5]


def test_parts_without_patches_are_not_taken_and_not_counted():
  has_patches = jnp.array([False, True, False, True, True, False])
  order = np.asarray(
    jax.jit(jax.vmap(lambda words: parts.choose_parts(words, has_patches, 2)))(words(300, 6))
  )
  assert (order[:, ~np.asarray(has_patches)] == -1).all()
  assert (np.sort(order, axis=-1) == [-1, -1, -1, -1, 0, 1]).all()


def test_order_of_parts_is_uniform():
  order = jax.jit(jax.vmap(lambda words: parts.choose_parts(words, jnp.ones(3, bool), 3)))(words(6000, 3))
  _, counts = np.unique(np.asarray(order), axis=0, return_counts=True)
  assert len(counts) == 6  # every permutation of three parts
  assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize("num_cells", [5, 32, 70])
def test_subset_has_the_requested_size_and_lies_in_its_set(num_cells):
  rng = np.random.default_rng(0)
  cells = rng.random((400, 2, num_cells)) < 0.6
  size = rng.integers(0, cells.sum(-1) + 1)
  subset = np.asarray(
    jax.jit(jax.vmap(parts.random_subset))(words(400, 16, 2, -(-num_cells // 32)), cells, size)
  )
  np.testing.assert_array_equal(subset.sum(-1), size)
  assert not (subset & ~cells).any()


def test_all_subsets_are_equally_likely():
  # The cells are in both words of the set and at the border between the words.
  cells = jnp.zeros((1, 40), bool).at[0, jnp.array([0, 3, 31, 32, 39])].set(True)
  subset = jax.jit(jax.vmap(lambda words: parts.random_subset(words, cells, jnp.array([2]))))(
    words(10_000, 16, 1, 2)
  )
  _, counts = np.unique(np.asarray(subset)[:, 0], axis=0, return_counts=True)
  assert len(counts) == 10  # pairs of five cells
  assert stats.chisquare(counts).pvalue > 1e-3


def test_subsets_of_equal_parts_are_independent():
  cells = jnp.ones((2, 9), bool)
  subset = jax.jit(jax.vmap(lambda words: parts.random_subset(words, cells, jnp.array([3, 3]))))(
    words(10_000, 16, 2, 1)
  )
  # Two independent subsets of 3 of 9 cells share a number of cells with a hypergeometric distribution.
  both = np.asarray(subset).all(1).sum(1)
  counts = np.bincount(both, minlength=4)
  assert stats.chisquare(counts, 10_000 * stats.hypergeom(9, 3, 3).pmf(range(4))).pvalue > 1e-3


@jax.jit
def sample_parts(patches, num_parts, fraction):
  """Draws parts 600 times with the same patches [6, 32]; num_parts is [600]."""
  sample = jax.vmap(parts.sample_parts, in_axes=(0, None, 0, None))
  return sample(words(600, parts.num_words(*patches.shape)), patches, num_parts, fraction)


def test_part_of_three_patches_is_never_marked_and_part_of_ten_has_at_most_two_marked_patches():
  patches = jnp.zeros((6, 32), bool).at[0, :3].set(True).at[5, :10].set(True)
  order, marked = map(np.asarray, sample_parts(patches, jnp.full(600, 6), 0.3))
  num_marked = marked.sum(-1)
  assert num_marked[:, :5].max() == 0
  assert set(num_marked[:, 5]) == {0, 1, 2}
  # A part is taken and counts as taken, even if no patch of it is marked.
  assert (np.sort(order) == [-1, -1, -1, -1, 0, 1]).all()


def test_only_parts_that_were_taken_are_marked():
  num_parts = jnp.arange(600) % 7
  order, marked = map(np.asarray, sample_parts(jnp.ones((6, 32), bool), num_parts, 1.0))
  np.testing.assert_array_equal((order >= 0).sum(1), num_parts)
  assert not marked[order < 0].any()
