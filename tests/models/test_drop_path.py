"""Stochastic depth: which branches are left out, and that both ways to run the blocks agree on it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.models import layers, vit

DEPTH, BATCH = 3, 4
ENCODER = vit.ViT(width=16, depth=DEPTH, num_heads=2, grid=(2, 1), patch=4, drop_path=0.5, scan=False)
PATCHES = np.random.default_rng(0).normal(size=(BATCH, 2, 48)).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
  """Random parameters of the encoder's shapes, large enough that every branch matters."""
  shapes = jax.eval_shape(ENCODER.init, jax.random.key(0), PATCHES)
  rng = np.random.default_rng(1)
  return jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(x.dtype), shapes)


def scales(seed, batch=BATCH, depth=DEPTH, drop_path=0.5):
  return np.asarray(layers.drop_path_scales(jax.random.key(seed), batch, depth=depth, drop_path=drop_path))


def test_rates_rise_linearly_from_zero_and_expectations_stay():
  found = scales(0, batch=20_000, depth=5, drop_path=0.4)
  for i, rate in enumerate([0, 0.1, 0.2, 0.3, 0.4]):
    assert set(np.unique(found[i])) <= {0, np.float32(1) / np.float32(1 - np.float32(rate))}
    standard_error = np.sqrt(rate * (1 - rate) / 40_000)
    assert abs((found[i] == 0).mean() - rate) <= 4 * standard_error
    assert abs(found[i].mean() - 1) <= 4 * standard_error / (1 - rate)
  assert (found[0] == 1).all()


def test_branches_examples_and_blocks_are_drawn_apart():
  is_left_out = scales(0, batch=20_000, depth=3, drop_path=0.5) == 0  # the last block's rate is 0.5
  for a, b in ((is_left_out[2, 0], is_left_out[2, 1]), (is_left_out[2, 0, 1:], is_left_out[2, 0, :-1])):
    assert abs((a & b).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 20_000)
  assert abs((is_left_out[1, 0] & is_left_out[2, 0]).mean() - 0.125) < 4 * np.sqrt(0.125 * 0.875 / 20_000)


def test_a_single_block_is_never_left_out():
  np.testing.assert_array_equal(scales(0, depth=1), 1)


def test_scanned_and_unrolled_blocks_leave_out_the_same_branches(variables):
  key = jax.random.key(3)
  assert (scales(3) == 0).any()  # or nothing would be compared
  outputs = [
    jax.jit(dataclasses.replace(ENCODER, scan=scan).apply)(variables, PATCHES, drop_key=key)
    for scan in (False, True)
  ]
  np.testing.assert_array_equal(outputs[0].raw, outputs[1].raw)
  np.testing.assert_array_equal(outputs[0].normed, outputs[1].normed)


def test_a_branch_that_is_left_out_adds_nothing_and_one_that_stays_is_scaled_up(variables):
  """Blocks whose branches are left out might as well have zero output layers."""
  key, drawn = jax.random.key(3), scales(3)
  found = ENCODER.apply(variables, PATCHES, drop_key=key).raw
  for example in range(BATCH):
    by_hand = jax.tree.map(np.copy, variables)
    for i in range(DEPTH):
      block = by_hand["params"]["blocks"]
      for which, output in enumerate((block["attn"]["proj"], block["mlp"]["fc2"])):
        output["kernel"][i] *= drawn[i, which, example]
        output["bias"][i] *= drawn[i, which, example]
    expected = ENCODER.apply(by_hand, PATCHES[example : example + 1]).raw
    np.testing.assert_allclose(found[example : example + 1], expected, rtol=1e-5, atol=1e-5)


def test_rate_zero_or_no_key_leaves_the_program_as_it_is(variables):
  def program(encoder, **kwargs):
    return str(jax.make_jaxpr(lambda v, x: encoder.apply(v, x, **kwargs))(variables, PATCHES))

  plain = dataclasses.replace(ENCODER, drop_path=0.0)
  assert program(plain) == program(plain, drop_key=jax.random.key(0)) == program(ENCODER)
  assert program(ENCODER) != program(ENCODER, drop_key=jax.random.key(0))


def test_compute_type_stays_bfloat16(variables):
  latent = jax.eval_shape(
    lambda: dataclasses.replace(ENCODER, dtype=jnp.bfloat16).apply(
      variables, PATCHES, drop_key=jax.random.key(0)
    )
  )
  assert (latent.raw.dtype, latent.normed.dtype) == (jnp.bfloat16, jnp.bfloat16)
