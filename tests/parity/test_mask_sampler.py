"""The mask sampler against statistics of the official code, and its top-k against stored examples.

The description of the golden vectors gives the limits: |z| < 4.5 for every patch and |z| < 4 for the mean
overlap of two masks, with at least 20,000 draws of our sampler. A sampler that counts overlaps once, or that
breaks ties by index, has a |z| of 8 to 90.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from hap_jax.data.skeletons import COCO17
from hap_jax.masking import blocks, parts, sampler

NUM_DRAWS, CHUNK = 20_000, 5_000
PATCH = 16  # pixels, from the description of the vectors; so are the ratio, number of parts and fraction
# A correct sampler fails one histogram with this probability. It is small because the vectors have dozens.
SMALLEST_P = 1e-5


@pytest.fixture(scope="module")
def vectors(golden):
  return golden("mask_sampler")


@pytest.fixture(scope="module")
def sets(vectors):
  return [name.removesuffix("/keypoints") for name in vectors if name.endswith("/keypoints")]


def make_recipe(vectors, name):
  return sampler.MaskRecipe(grid=tuple(vectors[f"{name}/grid"].tolist()), patch=PATCH)


def get_part_patches(vectors, name):
  keypoints_xy = jnp.asarray(vectors[f"{name}/keypoints"])
  visible = jnp.ones(len(keypoints_xy), bool)  # missing joints are negative here
  recipe = make_recipe(vectors, name)
  return parts.part_patches(keypoints_xy, visible, recipe.grid, recipe.patch, COCO17.parts)


def in_chunks(draw, seed):
  """Calls draw(keys) with NUM_DRAWS keys in chunks and concatenates the results."""
  # Chunks limit the memory of one call.
  keys = jax.random.split(jax.random.key(seed), NUM_DRAWS).reshape(-1, CHUNK)
  return jax.tree.map(lambda *x: np.concatenate(x), *[jax.device_get(draw(chunk)) for chunk in keys])


@functools.partial(jax.jit, static_argnames="recipe")
def draw_masks(keys, keypoints_xy, recipe):
  count_key, mask_key = jax.random.split(keys[0])
  num_parts = sampler.draw_num_parts_uniform(count_key, len(keys), recipe.max_parts)
  same = jnp.broadcast_to(keypoints_xy, (len(keys), *keypoints_xy.shape))
  visible = jnp.ones(same.shape[:2], bool)
  return sampler.sample_masks(jax.random.split(mask_key, len(keys)), same, visible, num_parts, recipe)


@functools.partial(jax.jit, static_argnames="recipe")
def draw_stages(keys, patches, recipe):
  """Draws both stages separately; returns in_block [N, L], num_parts [N], order [N, P], marked [N, P, L]."""

  def draw(key):
    count_key, block_key, part_key = jax.random.split(key, 3)
    part_words = jax.random.bits(part_key, (parts.num_words(*patches.shape),))
    num_parts = sampler.draw_num_parts_uniform(count_key, 1, recipe.max_parts)[0]
    num_masked = patches.shape[1] - sampler.num_visible(recipe)
    in_block = blocks.sample_blocks(block_key, recipe.grid, num_masked)
    return in_block, num_parts, *parts.sample_parts(part_words, patches, num_parts, recipe.part_fraction)

  return jax.vmap(draw)(keys)


def largest_z(own, p, se):
  """Returns the largest |z| of our shares, from draws [N, ...] bool, against stored shares.

  Args:
    own: [N, ...] bool, our draws.
    p: stored shares.
    se: standard errors of the stored shares.
  """
  p, se = p.astype(np.float64).reshape(own.shape[1:]), se.astype(np.float64).reshape(own.shape[1:])
  # The lower bound 1 / N keeps z finite where a share is 0 or 1 in all draws.
  deviation = np.abs(own.mean(0) - p)
  return (deviation / np.maximum(np.sqrt(se**2 + p * (1 - p) / len(own)), 1 / len(own))).max()


def same_histogram_p(own, stored):
  """Returns the p-value of the hypothesis that two histograms come from the same distribution."""
  # The chi-squared test needs filled bins, so all rare values share one bin.
  table = np.stack([np.bincount(own, minlength=len(stored)), stored]).astype(np.float64)
  is_rare = table.sum(0) < 20
  table = np.column_stack([table[:, ~is_rare], table[:, is_rare].sum(1)])
  table = table[:, table.sum(0) > 0]
  return stats.chi2_contingency(table).pvalue if table.shape[1] > 1 else 1.0


def test_part_patches_equal_the_official_part_patches(vectors, sets):
  for name in sets:
    ours = np.asarray(get_part_patches(vectors, name)).reshape(vectors[f"{name}/part_patches"].shape)
    np.testing.assert_array_equal(ours, vectors[f"{name}/part_patches"], err_msg=name)


def test_masks_have_the_official_statistics_with_random_ties(vectors, sets):
  for seed, name in enumerate(sets):
    recipe = make_recipe(vectors, name)
    keypoints_xy = jnp.asarray(vectors[f"{name}/keypoints"])
    masks = in_chunks(functools.partial(draw_masks, keypoints_xy=keypoints_xy, recipe=recipe), seed).is_masked
    L = masks.shape[1]
    assert (masks.sum(1) == L - int(L * 0.5)).all(), name
    z = largest_z(masks, vectors[f"{name}/prob_unbiased"], vectors[f"{name}/se_unbiased"])
    assert z < 4.5, f"{name}: largest |z| of a patch is {z:.1f}"

    # The masks of neighbouring draws are independent, as the masks of two views.
    first, second = masks[::2], masks[1::2]
    iou = (first & second).sum(1) / (first | second).sum(1)
    mean, se, _ = vectors[f"{name}/iou_unbiased"]
    z = (iou.mean() - mean) / np.hypot(se, iou.std() / np.sqrt(len(iou)))
    assert abs(z) < 4, f"{name}: z of the mean IoU is {z:.1f}"


def test_stages_have_the_official_statistics(vectors, sets):
  for seed, name in enumerate(sets):
    recipe = make_recipe(vectors, name)
    draw = functools.partial(draw_stages, patches=get_part_patches(vectors, name), recipe=recipe)
    in_block, num_parts, order, marked = in_chunks(draw, 100 + seed)
    in_part = marked.any(1)

    def stored(key, name=name):
      return vectors[f"{name}/{key}"]

    def share_z(own, key, stored=stored):
      p = stored(key).astype(np.float64)
      return largest_z(own, p, np.sqrt(p * (1 - p) / stored("n_samples")))

    # "short": the stages mark fewer patches than the mask hides. "over": they mark more.
    num_union = (in_block | in_part).sum(1)
    num_masked = in_block.shape[1] - sampler.num_visible(recipe)
    z = {
      "block": largest_z(in_block, stored("prob_block_before_topk"), stored("se_block_before_topk")),
      "part": largest_z(in_part, stored("prob_part_before_topk"), stored("se_part_before_topk")),
      "part_chosen": share_z(order >= 0, "prob_part_chosen"),
      "part_any_masked": share_z(marked.any(2), "prob_part_any_masked"),
      "union_short": share_z((num_union < num_masked)[:, None], "frac_union_short"),
      "union_over": share_z((num_union > num_masked)[:, None], "frac_union_over"),
    }
    assert max(z.values()) < 4.5, (name, z)
    p = {
      "num_block": same_histogram_p(in_block.sum(1), stored("hist_num_block")),
      "num_part": same_histogram_p(in_part.sum(1), stored("hist_num_part")),
      "num_union": same_histogram_p(num_union, stored("hist_num_union")),
      "num_parts": same_histogram_p(num_parts, stored("hist_num_parts_drawn")),
    }
    assert min(p.values()) > SMALLEST_P, (name, p)


def test_released_policy_has_the_official_histogram_at_every_position(vectors):
  for name in vectors:
    if not re.fullmatch(r"batch\d+/hist_num_parts_by_position", name):
      continue
    histogram = vectors[name]
    group, num_values = histogram.shape
    draw = functools.partial(
      sampler.draw_num_parts_released, batch=group, max_parts=num_values - 1, group=group
    )
    ours = np.asarray(jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 10_000)))
    p = [same_histogram_p(ours[:, i], histogram[i]) for i in range(group)]
    assert min(p) > SMALLEST_P, (name, np.argmin(p), min(p))


def test_masked_patches_have_the_highest_stored_priorities(golden):
  examples = golden("mask_topk_examples")
  priority = examples["priority"]
  num_masked = examples["must_mask"].sum(1)[0] + examples["num_from_tie_set"][0]
  # Priorities are whole numbers, so noise below 1 changes only the order of ties.
  noise = jax.random.uniform(jax.random.key(0), priority.shape)
  for priorities in (priority, priority + noise):
    is_masked, _, _ = map(np.asarray, sampler.mask_from_priority(priorities, priority.shape[1] - num_masked))
    must_mask, tie_set = examples["must_mask"].astype(bool), examples["tie_set"].astype(bool)
    assert is_masked[must_mask].all()
    np.testing.assert_array_equal((is_masked & tie_set).sum(1), examples["num_from_tie_set"])
    assert not (is_masked & ~must_mask & ~tie_set).any()
