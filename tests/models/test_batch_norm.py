"""Tests of batch normalisation: the biased and the unbiased variance, running statistics, several devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax import sharding
from hap_jax.models.batch_norm import BatchNorm

STATS = {"mean": np.array([1, -2, 0.5], np.float32), "var": np.array([2, 0.5, 1], np.float32)}
PARAMS = {"scale": np.array([1.5, 1, -1], np.float32), "bias": np.array([0, 3, 0.1], np.float32)}
VARIABLES = {"params": PARAMS, "batch_stats": STATS}


def draw(*shape):
  return np.random.default_rng(0).normal(3, 2, size=(*shape, 3)).astype(np.float32)


def train(x, dtype=jnp.float32):
  y, state = BatchNorm(dtype).apply(VARIABLES, x, train=True, mutable=["batch_stats"])
  return y, state["batch_stats"]


@pytest.mark.parametrize("shape", [(5,), (2, 3, 2)])
def test_training_normalises_by_the_biased_variance_and_stores_the_unbiased_variance(shape):
  x = draw(*shape)
  y, stats = train(x)
  # The expected values are computed in float64, so their own error does not matter.
  rows = x.reshape(-1, 3).astype(np.float64)
  expected = (x - rows.mean(0)) / np.sqrt(rows.var(0) + 1e-5) * PARAMS["scale"] + PARAMS["bias"]
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(stats["mean"], 0.9 * STATS["mean"] + 0.1 * rows.mean(0), rtol=1e-5)
  np.testing.assert_allclose(stats["var"], 0.9 * STATS["var"] + 0.1 * rows.var(0, ddof=1), rtol=1e-5)


def test_evaluation_uses_the_running_statistics_and_does_not_change_them():
  x = draw(4)
  y, state = BatchNorm().apply(VARIABLES, x, train=False, mutable=["batch_stats"])
  expected = (x - STATS["mean"]) / np.sqrt(STATS["var"] + 1e-5) * PARAMS["scale"] + PARAMS["bias"]
  np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
  jax.tree.map(np.testing.assert_array_equal, state["batch_stats"], STATS)


def test_initialisation_leaves_the_running_mean_0_and_variance_1():
  variables = BatchNorm().init(jax.random.key(0), draw(4), train=True)
  assert np.array_equal(variables["batch_stats"]["mean"], np.zeros(3))
  assert np.array_equal(variables["batch_stats"]["var"], np.ones(3))


def test_statistics_are_float32_whatever_the_compute_type():
  """Checks values around 300: bfloat16 cannot represent 301, so bfloat16 sums would be wrong."""
  x = (300 + draw(512)).astype(jnp.bfloat16)
  y, stats = train(x, jnp.bfloat16)
  assert (y.dtype, stats["var"].dtype) == (jnp.bfloat16, jnp.float32)
  exact = np.asarray(x, np.float64)
  np.testing.assert_allclose(stats["mean"], 0.9 * STATS["mean"] + 0.1 * exact.mean(0), rtol=1e-5)
  np.testing.assert_allclose(stats["var"], 0.9 * STATS["var"] + 0.1 * exact.var(0, ddof=1), rtol=1e-4)


def test_a_batch_split_over_devices_has_the_statistics_of_the_whole_batch():
  x = draw(16)
  split = jax.device_put(x, sharding.batch_split(sharding.make_mesh()))
  assert len(split.sharding.device_set) > 1  # on one device the test would compare nothing
  for whole, parts in zip(jax.tree.leaves(train(x)), jax.tree.leaves(jax.jit(train)(split)), strict=True):
    np.testing.assert_allclose(parts, whole, rtol=1e-5, atol=1e-6)


def test_training_with_one_value_per_channel_is_an_error():
  with pytest.raises(ValueError, match="batch_size of 2 or more"):
    train(draw(1))
