"""Tests of stochastic depth: rates, independence, and agreement of scanned and unrolled blocks."""

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
  """Returns random parameters of the encoder's shapes. They are large, so every branch changes the output."""
  shapes = jax.eval_shape(ENCODER.init, jax.random.key(0), PATCHES)
  rng = np.random.default_rng(1)
  return jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(x.dtype), shapes)


def scales(seed, batch=BATCH, depth=DEPTH, drop_path=0.5):
  return np.asarray(layers.drop_path_scales(jax.random.key(seed), batch, depth=depth, drop_path=drop_path))


def test_rates_rise_linearly_from_zero_and_expected_values_do_not_change():
  found = scales(0, batch=20_000, depth=5, drop_path=0.4)
  for i, rate in enumerate([0, 0.1, 0.2, 0.3, 0.4]):
    assert set(np.unique(found[i])) <= {0, np.float32(1) / np.float32(1 - np.float32(rate))}
    # 40,000 draws: 20,000 examples with two branches each.
    standard_error = np.sqrt(rate * (1 - rate) / 40_000)
    assert abs((found[i] == 0).mean() - rate) <= 4 * standard_error
    assert abs(found[i].mean() - 1) <= 4 * standard_error / (1 - rate)
  assert (found[0] == 1).all()


def test_draws_of_branches_examples_and_blocks_are_independent():
  is_left_out = scales(0, batch=20_000, depth=3, drop_path=0.5) == 0  # the last block's rate is 0.5
  # Independent events of probability 0.5 happen together with probability 0.25.
  for a, b in ((is_left_out[2, 0], is_left_out[2, 1]), (is_left_out[2, 0, 1:], is_left_out[2, 0, :-1])):
    assert abs((a & b).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 20_000)
  assert abs((is_left_out[1, 0] & is_left_out[2, 0]).mean() - 0.125) < 4 * np.sqrt(0.125 * 0.875 / 20_000)


def test_a_single_block_is_never_dropped():
  np.testing.assert_array_equal(scales(0, depth=1), 1)


def test_scanned_and_unrolled_blocks_drop_the_same_branches(variables):
  key = jax.random.key(3)
  assert (scales(3) == 0).any()  # without a dropped branch the test would compare nothing
  outputs = [
    jax.jit(dataclasses.replace(ENCODER, scan=scan).apply)(variables, PATCHES, drop_key=key)
    for scan in (False, True)
  ]
  np.testing.assert_array_equal(outputs[0].raw, outputs[1].raw)
  np.testing.assert_array_equal(outputs[0].normed, outputs[1].normed)


def test_a_dropped_branch_adds_nothing_and_a_kept_branch_is_scaled_up(variables):
  """Compares with blocks whose output layers are scaled by hand; a dropped branch has weights of zero."""
  drawn, apply = scales(3), jax.jit(ENCODER.apply)
  found = apply(variables, PATCHES, drop_key=jax.random.key(3)).raw
  for example in range(BATCH):
    by_hand = jax.tree.map(np.copy, variables)
    for i in range(DEPTH):
      block = by_hand["params"]["blocks"]
      for which, output in enumerate((block["attn"]["proj"], block["mlp"]["fc2"])):
        output["kernel"][i] *= drawn[i, which, example]
        output["bias"][i] *= drawn[i, which, example]
    expected = apply(by_hand, PATCHES[example : example + 1]).raw
    np.testing.assert_allclose(found[example : example + 1], expected, rtol=1e-5, atol=1e-5)


def test_rate_zero_or_no_key_does_not_change_the_program(variables):
  def program(encoder, **kwargs):
    return str(jax.make_jaxpr(lambda v, x: encoder.apply(v, x, **kwargs))(variables, PATCHES))

  # Equal programs mean that evaluation pays nothing for stochastic depth.
  plain = dataclasses.replace(ENCODER, drop_path=0.0)
  assert program(plain) == program(plain, drop_key=jax.random.key(0)) == program(ENCODER)
  assert program(ENCODER) != program(ENCODER, drop_key=jax.random.key(0))


def test_outputs_stay_bfloat16_with_stochastic_depth(variables):
  latent = jax.eval_shape(
    lambda: dataclasses.replace(ENCODER, dtype=jnp.bfloat16).apply(
      variables, PATCHES, drop_key=jax.random.key(0)
    )
  )
  assert (latent.raw.dtype, latent.normed.dtype) == (jnp.bfloat16, jnp.bfloat16)
