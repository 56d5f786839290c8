"""Tests of the block stage against a serial version of its rules, on several grids."""

import math
import random

import jax
import numpy as np
import pytest
from scipy import stats

from hap_jax.masking import blocks


def draw_blocks_serially(rng, grid, num_masked):
  """Applies the rules in plain Python, one try at a time; returns [Gh, Gw] of 0 and 1."""
  Gh, Gw = grid
  cells = np.zeros(grid, int)
  while cells.sum() < num_masked:
    rest = num_masked - cells.sum()
    for _ in range(10):
      area = rng.uniform(12, rest)
      aspect = math.exp(rng.uniform(math.log(0.3), math.log(1 / 0.3)))
      h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
      if h >= Gh or w >= Gw:
        continue  # this counts as one of the ten tries
      top, left = rng.randint(0, Gh - h), rng.randint(0, Gw - w)
      block = cells[top : top + h, left : left + w]
      if 0 < h * w - 2 * block.sum() <= rest:
        block[:] = 1
        break
    else:
      break
  return cells


def sample(grid, num_masked, num_draws, seed=0):
  keys = jax.random.split(jax.random.key(seed), num_draws)
  cells = jax.jit(jax.vmap(lambda key: blocks.sample_blocks(key, grid, num_masked)))(keys)
  return np.asarray(cells).reshape(num_draws, *grid)


# A small grid, a square grid, and a grid that is wider than a word of 32 bits.
@pytest.mark.parametrize(("grid", "num_masked"), [((8, 4), 16), ((14, 14), 147), ((6, 40), 120)])
def test_blocks_follow_the_rules_on_every_grid(grid, num_masked):
  num_serial = 2000
  ours = sample(grid, num_masked, 10_000)
  rng = random.Random(0)
  theirs = np.stack([draw_blocks_serially(rng, grid, num_masked) for _ in range(num_serial)])

  # Each patch: z of the difference of two shares, with the pooled share p of 10,000 and 2,000 draws.
  p = ours.mean(0) * 10 / 12 + theirs.mean(0) * 2 / 12
  z = (ours.mean(0) - theirs.mean(0)) / np.sqrt(p * (1 - p) * (1 / len(ours) + 1 / len(theirs)))
  assert np.abs(z).max() < 4.5
  # The number of set patches: a chi-squared test needs filled bins, so rare numbers share a bin.
  counts = np.stack([np.bincount(x.sum((1, 2)), minlength=math.prod(grid) + 1) for x in (ours, theirs)])
  edges = np.searchsorted(np.cumsum(counts[1]), np.linspace(0, num_serial, 12)[1:-1])
  table = np.stack([np.add.reduceat(row, np.unique([0, *edges])) for row in counts])
  assert stats.chi2_contingency(table[:, table.sum(0) > 0]).pvalue > 1e-4


def test_no_patch_is_set_if_no_block_fits():
  assert not sample((1, 8), 4, 20).any()


def test_stage_ends_on_a_grid_that_is_hardly_larger_than_a_block():
  cells = sample((4, 3), 6, 200)
  assert 0 < cells.sum((1, 2)).mean() < 6


def test_rectangles_lie_in_the_grid_and_fit_only_if_smaller_in_both_directions():
  keys = jax.random.split(jax.random.key(1), 500)
  draw = jax.jit(jax.vmap(lambda key: blocks.make_rectangles(jax.random.uniform(key, (3, 10)), 12, (5, 4))))
  height, width, top, left, fits = map(np.asarray, draw(keys))
  assert (fits == ((height < 5) & (width < 4))).all()
  assert (top[fits] + height[fits] <= 5).all()
  assert (left[fits] + width[fits] <= 4).all()
  assert min(top.min(), left.min()) >= 0
  # A 4x3 rectangle has two rows and two columns to start at in a 5x4 grid, and the last ones must occur.
  for side, places in ((top, 2), (left, 2)):
    assert side[fits & (height == 4) & (width == 3)].max() == places - 1
