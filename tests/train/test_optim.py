"""Parameter rules, updates and the schedule's ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.train import optim

PARAMS = {"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "pos_embed": jnp.ones((1, 3))}
RULES = (
  optim.Rule("pos_embed", trainable=False),
  optim.Rule(".*/bias", lr_scale=0.5),
  optim.Rule(".*", weight_decay=0.1),
)


def test_first_matching_rule_wins():
  matched = optim.match_rules(PARAMS, RULES)
  assert matched["a"]["bias"].lr_scale == 0.5
  assert matched["a"]["bias"].weight_decay == 0.0
  assert matched["a"]["kernel"].weight_decay == 0.1
  assert not matched["pos_embed"].trainable


def test_parameter_without_rule_is_an_error_that_names_it():
  with pytest.raises(ValueError, match="a/kernel matches no rule"):
    optim.match_rules(PARAMS, (optim.Rule(".*/bias"), optim.Rule("pos_embed")))


def test_update_follows_scale_and_decay_and_leaves_frozen_parameters():
  ones = {"a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "pos_embed": jnp.ones((1, 3))}
  new = optim.apply_update(PARAMS, ones, 0.1, optim.match_rules(PARAMS, RULES))
  np.testing.assert_allclose(new["a"]["kernel"], 1 - 0.1 * (1 + 0.1), rtol=1e-6)
  np.testing.assert_allclose(new["a"]["bias"], 1 - 0.05, rtol=1e-6)
  np.testing.assert_array_equal(new["pos_embed"], 1)


def test_frozen_parameters_hold_no_moments():
  direction = optim.make_direction(optim.OptimizerSpec(), optim.match_rules(PARAMS, RULES))
  shapes = [np.shape(leaf) for leaf in jax.tree.leaves(direction.init(PARAMS))]
  assert (1, 3) not in shapes
  assert shapes.count((2, 2)) == 2


def test_unknown_optimizer_names_the_key():
  with pytest.raises(ValueError, match=r"config.optimizer.kind='lion'"):
    optim.OptimizerSpec(kind="lion")


def test_schedule_starts_and_ends_at_zero_and_peaks_after_warmup():
  lr = [float(optim.warmup_cosine(e, peak=2.0, warmup=10, total=100)) for e in (0, 5, 10, 55, 100)]
  np.testing.assert_allclose(lr, [0, 1, 2, 1, 0], atol=1e-6)


def test_schedule_without_warmup_starts_at_the_peak():
  assert float(optim.warmup_cosine(0.0, peak=2.0, warmup=0, total=5)) == 2.0
