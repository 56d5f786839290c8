"""Experts in the feed-forward: each picture uses its own one, and the others get no gradient."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax import sharding
from hap_jax.convert import experts
from hap_jax.description import Description, Encoder
from hap_jax.models import image_encoder, vit

DENSE = Encoder(16, 2, 2, (3, 2), 8, patch_padding=2, class_token=False)
EXPERTS = dataclasses.replace(DENSE, num_experts=3, part_features=4)
SHARED = 12
RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(8, 24, 16, 3)).astype(np.float32)
EXPERT = np.array([0, 2, 2, 1, 0, 1, 2, 0], np.int32)
FC2 = ("kernel", "bias")


def build(encoder, **options):
  return image_encoder.ImageEncoder(encoder.build(vit.Compute(**options)))


def values_of(encoder, seed=1):
  """Returns random parameters with the shapes of an encoder."""
  shapes = jax.eval_shape(lambda key: build(encoder).init(key, IMAGE), jax.random.key(0))
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)


def run(encoder, variables, expert=None, **options):
  return jax.jit(encode(build(encoder, **options)))(variables, expert).normed


def encode(model):
  """Returns a function (variables, expert of each picture) -> Latent."""

  def method(module, expert):
    return image_encoder.encode(module.encoder, IMAGE, expert=expert)

  return lambda variables, expert: model.apply(variables, expert, method=method)


def changed(variables, **leaves):
  """Returns the variables with other arrays of fc2."""
  encoder = variables["params"]["encoder"]
  blocks = encoder["blocks"]
  mlp = {**blocks["mlp"], "fc2": {**blocks["mlp"]["fc2"], **leaves}}
  return {"params": {"encoder": {**encoder, "blocks": {**blocks, "mlp": mlp}}}}


def fc2_of(variables):
  return variables["params"]["encoder"]["blocks"]["mlp"]["fc2"]


def dense_of(variables, number):
  """Returns the variables of the encoder without experts that has this expert."""
  columns = [*range(SHARED), *range(SHARED + 4 * number, SHARED + 4 * number + 4)]
  return changed(variables, **{leaf: fc2_of(variables)[leaf][..., columns] for leaf in FC2})


def test_each_picture_has_the_tokens_of_the_dense_encoder_with_its_expert():
  variables = values_of(EXPERTS)
  assert fc2_of(variables)["kernel"].shape == (2, 64, 24)
  found = run(EXPERTS, variables, EXPERT)
  for number in range(3):
    expected = run(DENSE, dense_of(variables, number))
    own = number == EXPERT
    np.testing.assert_allclose(found[own], expected[own], rtol=0, atol=2e-6 * np.abs(expected).max())
    assert np.abs(found[~own] - expected[~own]).max() > 0.1
  np.testing.assert_array_equal(run(EXPERTS, variables), run(EXPERTS, variables, np.zeros(8, np.int32)))


def test_a_dense_encoder_with_copied_experts_gives_its_own_tokens_for_every_data_set():
  variables = values_of(DENSE)
  columns = experts.columns(DENSE, (0, 0, 0), 4)
  copied = changed(variables, **{leaf: fc2_of(variables)[leaf][..., columns] for leaf in FC2})
  expected, found = run(DENSE, variables), run(EXPERTS, copied, EXPERT)
  np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * np.abs(expected).max())
  # A choice of one expert undoes the copy bit for bit.
  for number in range(3):
    kept = experts.columns(EXPERTS, (number,), 4)
    for leaf in FC2:
      np.testing.assert_array_equal(fc2_of(copied)[leaf][..., kept], fc2_of(variables)[leaf])


@pytest.mark.parametrize(("scan", "remat"), [(True, "none"), (False, "full"), (True, "dots")])
def test_experts_of_other_data_sets_get_a_gradient_of_exactly_zero(scan, remat):
  variables, target = values_of(EXPERTS), RNG.normal(size=(8, 6, 16)).astype(np.float32)
  tokens = encode(build(EXPERTS, scan=scan, remat=remat))

  def loss(variables, expert):
    return jnp.square(tokens(variables, expert).normed - target).mean()

  gradient = jax.jit(jax.grad(loss))
  for number in range(3):
    found = fc2_of(gradient(variables, jnp.full(8, number)))
    for leaf in FC2:
      own = found[leaf][..., SHARED:].reshape(*found[leaf].shape[:-1], 3, 4)
      assert np.abs(own[..., number, :]).min() > 0
      assert not np.any(np.delete(own, number, axis=-2))
      assert np.abs(found[leaf][..., :SHARED]).min() > 0


def test_scan_and_remat_do_not_change_the_tokens():
  variables = values_of(EXPERTS)
  plain = run(EXPERTS, variables, EXPERT)
  for options in ({"scan": False}, {"remat": "full"}):
    np.testing.assert_allclose(run(EXPERTS, variables, EXPERT, **options), plain, rtol=0, atol=1e-5)


def test_the_experts_are_placed_as_the_layer_that_holds_them():
  mesh = sharding.make_mesh(2, 2, 2)
  shapes = jax.eval_shape(lambda key: build(EXPERTS).init(key, IMAGE), jax.random.key(0))
  placed = fc2_of(sharding.places(shapes, mesh))["kernel"]
  assert tuple(placed.spec) == (None, "tensor", "fsdp")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_tokens_have_the_type_of_the_computation(dtype):
  assert run(EXPERTS, values_of(EXPERTS), EXPERT, dtype=dtype).dtype == dtype


def test_the_description_records_experts_only_if_there_are_any():
  for encoder in (DENSE, EXPERTS):
    values = Description("pose2d", encoder).to_json()
    assert ("num_experts" in values["model"]) == (encoder.num_experts > 1)
    assert Description.from_json(values).encoder == encoder
  for changes, match in (
    ({"part_features": None}, "model.part_features is None, expected 1 to 15 for 3 experts"),
    ({"part_features": 16}, "model.part_features is 16, expected 1 to 15"),
    ({"num_experts": 0}, "model.num_experts is 0"),
    ({"num_experts": "three"}, "model.num_experts is 'three'"),
  ):
    wrong = {**values, "model": {**values["model"], **changes}}
    with pytest.raises(ValueError, match=match):
      Description.from_json(wrong)
