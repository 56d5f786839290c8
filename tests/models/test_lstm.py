"""Tests of the bidirectional LSTM: a NumPy loop for each caption, its padding, and its size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.models.lstm import BidirectionalLstm

WIDTH_IN, WIDTH = 6, 5
LENGTHS = np.array([7, 1, 4, 4, 6], np.int32)  # not sorted, with equal lengths
INPUTS = np.random.default_rng(0).normal(size=(len(LENGTHS), 9, WIDTH_IN)).astype(np.float32)
NETWORK = BidirectionalLstm(WIDTH)


@pytest.fixture(scope="module")
def variables():
  rng = np.random.default_rng(1)
  shapes = jax.eval_shape(NETWORK.init, jax.random.key(0), INPUTS, LENGTHS)
  return jax.tree.map(lambda x: rng.normal(0, 0.7, x.shape).astype(x.dtype), shapes)


@pytest.fixture(scope="module")
def outputs(variables):
  return np.asarray(jax.jit(NETWORK.apply)(variables, INPUTS, LENGTHS))


def run_loop(x, params, direction):
  """Runs one direction over one caption [T, D] in float64. Returns [T, H]."""
  of_input, of_state = (params[f"{direction}_{name}"]["kernel"] for name in ("input", "recurrent"))
  sigmoid = lambda z: 1 / (1 + np.exp(-z))  # noqa: E731
  hidden = cell = np.zeros(WIDTH)
  outputs = []
  for token in x:
    i, f, g, o = np.split(token @ of_input + hidden @ of_state, 4)
    cell = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    hidden = sigmoid(o) * np.tanh(cell)
    outputs.append(hidden)
  return np.array(outputs)


def test_the_outputs_are_those_of_a_loop_over_each_caption(variables, outputs):
  params = jax.tree.map(lambda x: x.astype(np.float64), variables["params"])
  for x, length, found in zip(INPUTS, LENGTHS, outputs, strict=True):
    forward = run_loop(x[:length], params, "forward")
    backward = run_loop(x[:length][::-1], params, "backward")[::-1]
    np.testing.assert_allclose(found[:length], (forward + backward) / 2, atol=1e-5)
    assert not found[length:].any()


def test_the_padding_has_no_effect_and_no_gradient(variables, outputs):
  def total(inputs):
    found = NETWORK.apply(variables, inputs, LENGTHS)
    return found.sum(), found

  is_real = (np.arange(INPUTS.shape[1]) < LENGTHS[:, None])[..., None]
  changed = np.where(is_real, INPUTS, 100).astype(np.float32)
  gradient, found = jax.jit(jax.grad(total, has_aux=True))(changed)
  np.testing.assert_allclose(found, outputs, atol=1e-6)
  assert not np.where(is_real, 0, gradient).any()
  assert np.where(is_real, gradient, 1).all()


def test_products_in_bfloat16_give_float32_outputs_that_agree_roughly(variables, outputs):
  network = BidirectionalLstm(WIDTH, dtype=jnp.bfloat16)
  found = jax.jit(network.apply)(variables, INPUTS, LENGTHS)
  assert found.dtype == jnp.float32
  np.testing.assert_allclose(found, outputs, atol=0.05)


def test_the_number_of_parameters_is_the_official_one_and_no_bias_exists():
  network = BidirectionalLstm(768)
  shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 2, 768)), jnp.ones(1, jnp.int32))
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 9_437_184


def test_initial_kernels_are_uniform_as_in_pytorch():
  network = BidirectionalLstm(16)
  init = jax.jit(lambda key: network.init(key, jnp.zeros((1, 1, 8)), jnp.ones(1, jnp.int32)))
  for kernel in jax.tree.leaves(init(jax.random.key(0))):
    assert 0.2 < np.abs(kernel).max() <= 0.25  # 1 / sqrt(16)
    np.testing.assert_allclose(np.std(kernel), 0.25 / 3**0.5, rtol=0.1)
