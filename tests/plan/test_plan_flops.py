"""The count of a traced function's FLOPs agrees with numbers computed by hand."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from hap_jax import sharding
from hap_jax.plan import flops

X, W = jnp.ones((4, 8)), jnp.ones((8, 8))
PRODUCT = 2 * 4 * 8 * 8


def count(function, *arguments):
  return flops.count(jax.jit(function).trace(*arguments).jaxpr)


def test_a_product_and_its_gradients():
  assert count(lambda x, w: x @ w, X, W) == PRODUCT
  assert count(jax.grad(lambda w, x: ((x @ w) ** 2).sum(), (0, 1)), W, X) == 3 * PRODUCT


def test_a_batched_product():
  assert count(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), jnp.ones((5, 2, 3)), jnp.ones((5, 3, 4))) == (
    2 * 5 * 2 * 3 * 4
  )


def test_a_scan_counts_as_often_as_it_runs():
  function = lambda x, w: jax.lax.scan(lambda x, _: (x @ w, None), x, None, length=7)[0]  # noqa: E731
  assert count(function, X, W) == 7 * PRODUCT


def test_of_two_branches_the_expensive_one_counts():
  function = lambda x, w: jax.lax.cond(x.sum() > 0, lambda: x @ w @ w, lambda: x)  # noqa: E731
  assert count(function, X, W) == 2 * PRODUCT


def test_recomputation_for_the_gradient_counts():
  loss = jax.checkpoint(lambda w, x: (jnp.sin(x @ w) ** 2).sum())
  assert count(jax.grad(loss), W, X) == 3 * PRODUCT  # forward, again forward, and the gradient of w


def test_the_work_of_all_devices_counts():
  mesh = sharding.make_mesh(devices=jax.devices()[:4])

  def function(x, w):
    with sharding.on(mesh):
      return jax.shard_map(lambda x, w: x @ w, in_specs=(P("data"), P()), out_specs=P("data"))(x, w)

  assert count(function, X, W) == PRODUCT


@pytest.mark.parametrize("stride", [1, 2])
def test_a_convolution_and_its_transpose(stride):
  image, kernel = jnp.ones((2, 8, 8, 3)), jnp.ones((4, 4, 3, 5))
  numbers = ("NHWC", "HWIO", "NHWC")
  plain = lambda x, k: jax.lax.conv_general_dilated(  # noqa: E731
    x, k, (stride, stride), "SAME", dimension_numbers=numbers
  )
  assert count(plain, image, kernel) == 2 * 2 * (8 // stride) ** 2 * 5 * 4 * 4 * 3
  up = lambda x, k: jax.lax.conv_transpose(x, k, (stride, stride), "SAME", dimension_numbers=numbers)  # noqa: E731
  assert count(up, image, kernel) == 2 * 2 * 8**2 * 5 * 4 * 4 * 3
