"""Tests of the masks: exact counts, reproducible draws, the order of the stages, and random ties."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from hap_jax.masking import sampler
from hap_jax.masking.sampler import CAUSE_BLOCK, CAUSE_FILL, CAUSE_PART, CAUSE_VISIBLE, MaskRecipe

SMALL = MaskRecipe(grid=(8, 4), patch=8)
RANDOM = MaskRecipe(grid=(16, 8), patch=16, ratio=0.75, use_blocks=False, use_parts=False)


@functools.cache
def jitted(recipe):
  return jax.jit(functools.partial(sampler.sample_masks, recipe=recipe))


def people(recipe, num=64, seed=0):
  """Returns arguments of sample_masks: joints anywhere in the image; one joint in five is missing.

  Most tests draw 64 masks of the same recipe, so the sampler is compiled once.
  """
  joint_key, missing_key, count_key, mask_key = jax.random.split(jax.random.key(seed), 4)
  size_xy = jnp.array(recipe.grid[::-1]) * recipe.patch
  keypoints_xy = jax.random.uniform(joint_key, (num, 17, 2)) * size_xy
  keypoints_visible = jax.random.bernoulli(missing_key, 0.8, (num, 17))
  num_parts = sampler.draw_num_parts_uniform(count_key, num, recipe.max_parts)
  return jax.random.split(mask_key, num), keypoints_xy, keypoints_visible, num_parts


def check(mask, recipe):
  """Asserts the properties of every batch of masks; returns the batch as NumPy arrays."""
  mask = jax.tree.map(np.asarray, mask)
  N, L = mask.is_masked.shape
  V = sampler.num_visible(recipe)
  assert {name: x.dtype.name for name, x in dataclasses.asdict(mask).items()} == {
    "is_masked": "bool",
    "ids_keep": "int32",
    "ids_restore": "int32",
    "cause": "int8",
  }
  assert (mask.is_masked.sum(1) == L - V).all()
  # Each row of ids_restore must be a permutation, and the other fields must follow from it.
  order = np.argsort(mask.ids_restore, axis=1)
  np.testing.assert_array_equal(np.take_along_axis(mask.ids_restore, order, 1), np.tile(np.arange(L), (N, 1)))
  np.testing.assert_array_equal(mask.ids_keep, order[:, :V])
  np.testing.assert_array_equal(mask.is_masked, mask.ids_restore >= V)
  np.testing.assert_array_equal(mask.is_masked, mask.cause != CAUSE_VISIBLE)
  # In ascending order of priority, fill comes first, then blocks, then parts.
  stage = np.array([0, 3, 2, 1])[np.take_along_axis(mask.cause, order[:, V:], 1)]
  assert (np.diff(stage, axis=1) >= 0).all()
  return mask


@pytest.mark.parametrize(
  "recipe",
  [
    SMALL,
    MaskRecipe(grid=(24, 8), patch=16, ratio=0.6, use_parts=False),
    MaskRecipe(grid=(5, 7), patch=4, ratio=0.34, use_blocks=False, part_fraction=1.0),
    MaskRecipe(grid=(14, 14), patch=16, ratio=0.9, use_blocks=False, use_parts=False),
    MaskRecipe(grid=(2, 1), patch=8, use_blocks=False, use_parts=False),
  ],
)
def test_mask_count_is_exact_for_every_row(recipe):
  L = math.prod(recipe.grid)
  for seed in range(5):
    mask = check(jitted(recipe)(*people(recipe, seed=seed)), recipe)
    assert mask.is_masked.shape == (64, L)
    assert (mask.is_masked.sum(1) == L - int(L * (1 - recipe.ratio))).all()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
  keypoints_xy=hnp.arrays(np.float32, (17, 2), elements=st.floats(width=32) | st.floats(-4, 70, width=32)),
  visible=hnp.arrays(bool, 17),
  num_parts=st.integers(0, 6),
  seed=st.integers(0, 2**31),
)
def test_any_joints_give_a_valid_mask(keypoints_xy, visible, num_parts, seed):
  keys = jax.random.split(jax.random.key(seed), 64)
  keypoints_xy, visible, num_parts = (
    np.repeat(np.asarray(x)[None], 64, axis=0) for x in (keypoints_xy, visible, np.int32(num_parts))
  )
  check(jitted(SMALL)(keys, keypoints_xy, visible, num_parts), SMALL)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
  # XLA treats subnormal numbers as zero, so NumPy would order them differently.
  priority=hnp.arrays(np.float32, (2, 24), elements=st.floats(-9, 9, width=32, allow_subnormal=False)),
  num_keep=st.sampled_from([0, 1, 10, 24]),
)
def test_highest_priorities_are_masked_for_every_count(priority, num_keep):
  is_masked, ids_keep, ids_restore = map(np.asarray, sampler.mask_from_priority(priority, num_keep))
  assert (is_masked.sum(1) == 24 - num_keep).all()
  ranked = np.take_along_axis(priority, np.argsort(ids_restore, axis=1), 1)
  assert (np.diff(ranked, axis=1) >= 0).all()
  np.testing.assert_array_equal(ids_keep, np.argsort(ids_restore, axis=1)[:, :num_keep])


def test_mask_from_priority_keeps_leading_axes():
  priority = np.random.default_rng(0).random((2, 3, 8))
  nested = sampler.mask_from_priority(priority, 5)
  flat = sampler.mask_from_priority(priority.reshape(6, 8), 5)
  for x, y in zip(nested, flat, strict=True):
    np.testing.assert_array_equal(x.reshape(6, -1), y)


def test_same_key_gives_the_same_mask_and_another_key_gives_another_mask():
  keys, *person = people(SMALL)
  same = jax.tree.map(lambda x: jnp.repeat(x[:1], len(keys), axis=0), person)
  first, second = jitted(SMALL)(keys, *same), jitted(SMALL)(keys, *same)
  jax.tree.map(np.testing.assert_array_equal, first, second)
  assert len(np.unique(first.ids_restore, axis=0)) == len(keys)


# Without jit, each operation of the sampler is compiled separately, which takes many seconds.
@pytest.mark.parametrize("is_jitted", [True, pytest.param(False, marks=pytest.mark.soak)])
def test_jit_and_vmap_change_nothing(is_jitted):
  args = people(SMALL)
  batched = jitted(SMALL)(*args)
  sample = functools.partial(sampler.sample_mask, recipe=SMALL)
  sample = jax.jit(sample) if is_jitted else sample
  for i in range(3):
    single = sample(*(x[i] for x in args))
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda x, i=i: x[i], batched), single)


def test_sharded_batch_gives_the_same_masks():
  args = people(SMALL)
  mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
  sharding = jax.NamedSharding(mesh, jax.P("data"))
  sharded = jitted(SMALL)(*jax.device_put(args, sharding))
  assert not sharded.is_masked.sharding.is_fully_replicated  # otherwise nothing would be tested
  jax.tree.map(np.testing.assert_array_equal, jitted(SMALL)(*args), sharded)


def test_without_joints_only_blocks_and_fill_are_masked():
  keys, keypoints_xy, keypoints_visible, num_parts = people(SMALL)
  mask = check(jitted(SMALL)(keys, keypoints_xy, jnp.zeros_like(keypoints_visible), num_parts), SMALL)
  assert set(np.unique(mask.cause)) == {CAUSE_VISIBLE, CAUSE_BLOCK, CAUSE_FILL}


def test_all_causes_occur():
  assert set(np.unique(jitted(SMALL)(*people(SMALL)).cause)) == {0, 1, 2, 3}
  assert CAUSE_PART == 1


def test_parts_rank_above_blocks_and_fill_and_a_later_part_overwrites_an_earlier_part():
  in_block = jnp.array([False, True, True, False, True])
  order = jnp.array([1, -1, 0])
  marked = jnp.array([[0, 0, 1, 1, 0], [0, 0, 0, 0, 0], [0, 0, 0, 1, 1]], bool)
  level = sampler.priority_levels(in_block, order, marked)
  # Both parts mark patch 3. It gets the level of the later part, which patch 2 has, too. Patch 4 is marked
  # only by the earlier part, so it has the highest level.
  np.testing.assert_array_equal(level, [0, 1, 3, 3, 4])


def test_random_recipe_needs_no_joints_and_hides_every_patch_equally_often():
  keys = jax.random.split(jax.random.key(1), 20_000)
  mask = check(jitted(RANDOM)(keys, None, None, None), RANDOM)
  assert set(np.unique(mask.cause)) == {CAUSE_VISIBLE, CAUSE_FILL}
  z = (mask.is_masked.mean(0) - 0.75) / np.sqrt(0.75 * 0.25 / 20_000)
  assert np.abs(z).max() < 4.5


def test_order_of_tied_patches_is_uniform():
  recipe = MaskRecipe(grid=(2, 2), patch=8, use_blocks=False, use_parts=False)
  mask = jitted(recipe)(jax.random.split(jax.random.key(2), 12_000), None, None, None)
  _, counts = np.unique(np.asarray(mask.ids_restore), axis=0, return_counts=True)
  assert len(counts) == 24  # every permutation of four patches
  assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(
  ("changes", "key"),
  [
    ({"ratio": 0.0}, "config.mask.ratio"),
    ({"ratio": 1.0}, "config.mask.ratio"),
    ({"ratio": 0.99}, "config.mask.ratio"),
    ({"ratio": math.nan}, "config.mask.ratio"),
    ({"grid": (0, 4)}, "config.model.image_size"),
    ({"grid": (1000, 1000)}, "config.model.image_size"),
    ({"patch": 0}, "config.model.patch"),
    ({"max_parts": 7}, "config.mask.max_parts"),
    ({"max_parts": -1}, "config.mask.max_parts"),
    ({"part_fraction": 1.5}, "config.mask.part_fraction"),
  ],
)
def test_error_of_an_impossible_recipe_names_the_key(changes, key):
  with pytest.raises(ValueError, match=key):
    dataclasses.replace(SMALL, **changes)


def test_joints_of_another_skeleton_are_refused():
  keys, keypoints_xy, keypoints_visible, num_parts = people(SMALL)
  sample = functools.partial(sampler.sample_masks, recipe=SMALL)
  with pytest.raises(ValueError, match=r"\(16, 2\).*config.mask.parts"):
    jax.eval_shape(sample, keys, keypoints_xy[:, :16], keypoints_visible[:, :16], num_parts)


def test_uniform_policy_draws_every_number_equally_often():
  counts = np.bincount(sampler.draw_num_parts_uniform(jax.random.key(0), 14_000, 6))
  assert len(counts) == 7
  assert stats.chisquare(counts).pvalue > 1e-3


def draw_released(num, batch, group):
  draw = functools.partial(sampler.draw_num_parts_released, batch=batch, max_parts=6, group=group)
  return np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), num)))


def test_released_policy_never_rises_inside_a_group_and_starts_again_in_the_next_group():
  num_parts = draw_released(1000, batch=22, group=8)  # the last group is short: 6 images
  is_start = np.arange(22) % 8 == 0
  assert (np.diff(num_parts, axis=1)[:, ~is_start[1:]] <= 0).all()
  assert num_parts[:, 7].max() <= 3
  for start in np.flatnonzero(is_start):
    assert stats.chisquare(np.bincount(num_parts[:, start], minlength=7)).pvalue > 1e-3


def test_released_policy_with_groups_of_one_image_is_uniform():
  counts = np.bincount(draw_released(1000, batch=7, group=1).ravel())
  assert len(counts) == 7
  assert stats.chisquare(counts).pvalue > 1e-3


def test_released_policy_with_a_group_of_no_images_is_an_error():
  with pytest.raises(ValueError, match=r"config\.mask\.released_group"):
    sampler.draw_num_parts_released(jax.random.key(0), 8, 6, 0)
