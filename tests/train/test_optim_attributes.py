"""The optimizer features of the attribute recipes: clipping by the global norm, and one rate per epoch."""

import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.train import optim

# Rates of the official schedule, with seven digits: {epochs of the run: (peak, {epoch: rate})}.
RATES = {
  55: (1.7e-4, {0: 1e-4, 5: 1.636364e-4, 6: 1.653475e-4, 8: 1.617919e-4, 53: 1.052146e-5, 54: 1.013047e-5}),
  8: (2.4e-4, {0: 1e-4, 1: 2.312461e-4, 4: 1.25e-4, 7: 1.875385e-5}),
  50: (1.9e-4, {0: 1e-4, 4: 1.72e-4, 5: 1.855951e-4, 8: 1.788676e-4, 49: 1.017759e-5}),
}


@pytest.mark.parametrize("total", RATES)
def test_learning_rates_equal_the_official_rates_and_are_constant_within_an_epoch(total):
  peak, rates = RATES[total]
  options = {"start": 1e-4, "peak": peak, "end": 1e-5, "warmup": 0.1 * total, "total": total}
  for within in (0.0, 0.5):
    found = [optim.warmup_cosine_by_epoch(epoch + within, **options) for epoch in rates]
    np.testing.assert_allclose(found, list(rates.values()), rtol=2e-6)


@pytest.mark.parametrize(("norm", "left"), [(25.0, 10.0), (3.0, 3.0)])
def test_a_gradient_is_clipped_by_the_global_norm_of_the_trained_parameters(norm, left):
  params = {"a": jnp.ones(2), "b": jnp.ones(2), "frozen": jnp.ones(1)}
  rules = (optim.Rule("frozen", trainable=False), optim.Rule(".*"))
  matched = optim.match_rules(params, rules)
  direction = optim.make_direction(optim.OptimizerSpec(kind="sgd", clip_norm=10.0), matched)
  # 0.6 and 0.8 make a vector of length 1. It must not include the large gradient of the frozen parameter.
  grad = {"a": jnp.array([0.6, 0.0]) * norm, "b": jnp.array([0.0, 0.8]) * norm, "frozen": jnp.array([1e3])}
  found, _ = direction.update(grad, direction.init(params), params)
  np.testing.assert_allclose(found["a"], [0.6 * left, 0.0], rtol=1e-6)
  np.testing.assert_allclose(found["b"], [0.0, 0.8 * left], rtol=1e-6)
  np.testing.assert_array_equal(found["frozen"], [0.0])
