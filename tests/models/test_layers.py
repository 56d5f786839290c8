"""Tests of patches, attention, linear layers and blocks, and of the pre-training model built from them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.models import attention, layers, vit
from tests import networks

TINY = vit.Variant(width=32, depth=2, num_heads=2)


def build(image_size=(32, 16), patch=8, dtype=jnp.float32, scan=True, remat="none"):
  return networks.pretraining(
    TINY,
    image_size=image_size,
    patch=patch,
    decoder_width=16,
    decoder_depth=2,
    decoder_heads=2,
    dtype=dtype,
    scan=scan,
    remat=remat,
  )


def make_inputs(model, batch=3, views=2, seed=0):
  rng = np.random.default_rng(seed)
  L = model.encoder.grid[0] * model.encoder.grid[1]
  image = rng.normal(size=(batch, *(side * model.encoder.patch for side in model.encoder.grid), 3))
  ids = rng.random((batch, views, L)).argsort(-1)
  return image.astype(np.float32), ids[..., : L // 2], ids.argsort(-1)


def init(model, inputs, seed=0):
  """Returns small random parameters of the model's shapes. The model's own init would compile for seconds."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(x.dtype), shapes)


def apply(model, variables, *inputs):
  return jax.jit(model.apply)(variables, *inputs)


def test_patch_is_row_major_with_channels_fastest():
  image = np.arange(4 * 4 * 3).reshape(1, 4, 4, 3)
  patches = layers.patchify(image, 2)
  assert patches[0, 1].tolist() == [*image[0, 0, 2], *image[0, 0, 3], *image[0, 1, 2], *image[0, 1, 3]]


def test_error_of_a_patch_that_does_not_divide_the_image_names_the_key():
  with pytest.raises(ValueError, match=r"250x128 is not a multiple of patch=16.*model.image_size"):
    layers.grid_of((250, 128), 16)


@pytest.mark.parametrize("image_size", [(32, 16), (16, 40), (24, 24)])
def test_output_shapes_follow_the_grid(image_size):
  model = build(image_size)
  inputs = make_inputs(model)
  outputs = jax.eval_shape(model.apply, init(model, inputs), *inputs)
  L = image_size[0] // 8 * image_size[1] // 8
  assert outputs.pred.shape == (3, 2, L, 8 * 8 * 3)
  assert outputs.cls.shape == (3, 2, 32)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-6), (jnp.bfloat16, 2e-2)])
def test_attention_and_its_gradient_agree_with_jax(dtype, tolerance):
  rng = np.random.default_rng(0)
  qkv = jnp.asarray(rng.normal(size=(3, 9, 3, 2, 8)), dtype)
  gradient = jnp.asarray(rng.normal(size=(3, 9, 2, 8)), dtype)

  @functools.partial(jax.jit, static_argnums=0)  # one program compiles faster than its parts
  def value_and_gradient(attend):
    value, pull = jax.vjp(attend, qkv)
    return value, pull(gradient)[0]

  expected = value_and_gradient(lambda x: jax.nn.dot_product_attention(x[:, :, 0], x[:, :, 1], x[:, :, 2]))
  split = lambda x: [(part.squeeze(2),) for part in jnp.split(x, 3, axis=2)]  # noqa: E731
  ours = value_and_gradient(lambda x: attention.attend(*split(x))[0])
  for found, wanted in zip(ours, expected, strict=True):
    assert found.dtype == dtype
    np.testing.assert_allclose(found.astype(np.float32), wanted.astype(np.float32), atol=tolerance, rtol=0)


def test_scanned_blocks_give_the_values_and_gradients_of_unrolled_blocks():
  loop, scan = build(scan=False), build(scan=True)
  inputs = make_inputs(loop)
  variables = init(loop, inputs)
  shapes = [jax.eval_shape(m.init, jax.random.key(0), *inputs) for m in (loop, scan)]
  assert jax.tree.structure(shapes[0]) == jax.tree.structure(shapes[1])

  def loss(params, model):
    outputs = model.apply({"params": params}, *inputs)
    return jnp.sum(outputs.pred**2) + jnp.sum(outputs.cls**3)

  value_and_grad = jax.jit(jax.value_and_grad(loss), static_argnums=1)
  values, grads = zip(*(value_and_grad(variables["params"], m) for m in (loop, scan)), strict=True)
  np.testing.assert_allclose(values[0], values[1], rtol=1e-6)
  for a, b in zip(jax.tree.leaves(grads[0]), jax.tree.leaves(grads[1]), strict=True):
    assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max() + 1e-12


@pytest.mark.parametrize(
  ("remat", "scan"),
  [
    ("dots", True),  # the default
    *(
      pytest.param(*others, marks=pytest.mark.soak)
      for others in [("elementwise", True), ("full", True), ("full", False)]
    ),
  ],
)
def test_rematerialisation_keeps_the_gradients_and_needs_less_memory(remat, scan):
  inputs = make_inputs(build())
  variables = init(build(), inputs)

  def compiled(model):
    loss = lambda v: jnp.sum(model.apply(v, *inputs).pred ** 2)  # noqa: E731
    return jax.jit(jax.grad(loss)).lower(variables).compile()

  kept, again = compiled(build(scan=scan)), compiled(build(scan=scan, remat=remat))
  for a, b in zip(jax.tree.leaves(kept(variables)), jax.tree.leaves(again(variables)), strict=True):
    assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max() + 1e-12
  # Without a scan the compiler sees all blocks at once and chooses the memory itself.
  if scan:
    assert again.memory_analysis().temp_size_in_bytes < kept.memory_analysis().temp_size_in_bytes


def test_gradient_of_gather_tokens_equals_the_gradient_of_a_plain_gather():
  rng = np.random.default_rng(0)
  tokens, weight = rng.normal(size=(2, 6, 3)).astype("f4"), rng.normal(size=(2, 4, 3)).astype("f4")
  index = rng.random((2, 6)).argsort(1)[:, :4].astype(np.int32)
  inverse = np.full((2, 6), -1, np.int32)
  np.put_along_axis(inverse, index, np.broadcast_to(np.arange(4, dtype=np.int32), index.shape), axis=1)
  plain = jax.grad(lambda x: jnp.sum(jnp.take_along_axis(x, index[..., None], 1) * weight))(tokens)
  ours = jax.grad(lambda x: jnp.sum(layers.gather_tokens(x, index, inverse) * weight))(tokens)
  np.testing.assert_array_equal(ours, plain)


@pytest.mark.parametrize(("width", "features"), [(12, 20), (20, 12)])
@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_linear_layer_and_its_gradients_agree_with_flax(shape, width, features):
  rng = np.random.default_rng(0)
  inputs, weight = rng.normal(size=(*shape, width)).astype("f4"), rng.normal(size=(*shape, features))
  ours, flax = layers.dense(features, jnp.float32, "ours"), nn.Dense(features)
  variables = jax.tree.map(lambda x: x + 0.1, ours.init(jax.random.key(0), inputs))

  def grads(layer):
    return jax.value_and_grad(lambda v, x: jnp.sum(layer.apply(v, x) * weight), argnums=(0, 1))

  found, wanted = (jax.jit(grads(layer))(variables, inputs) for layer in (ours, flax))
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_hidden_pixels_have_no_gradient_on_the_latent():
  model = build()
  image, ids_keep, ids_restore = make_inputs(model)
  variables = init(model, (image, ids_keep, ids_restore))
  one_view = ids_keep[:, :1], ids_restore[:, :1]
  grad = jax.jit(jax.grad(lambda x: jnp.sum(model.apply(variables, x, *one_view).cls ** 2)))(image)
  patches = np.abs(layers.patchify(grad, 8)).max(-1)
  # The first V ranks of ids_restore are the visible patches.
  is_hidden = np.asarray(one_view[1][:, 0]) >= ids_keep.shape[-1]
  assert patches[is_hidden].max() == 0
  assert patches[~is_hidden].min() > 0  # otherwise zero gradients everywhere would pass


def test_views_of_one_batch_equal_views_that_run_separately():
  model = build()
  image, ids_keep, ids_restore = make_inputs(model)
  variables = init(model, (image, ids_keep, ids_restore))
  both = apply(model, variables, image, ids_keep, ids_restore)
  second = apply(model, variables, image, ids_keep[:, 1:], ids_restore[:, 1:])
  np.testing.assert_allclose(both.pred[:, 1], second.pred[:, 0], atol=1e-5)
  np.testing.assert_allclose(both.cls[:, 1], second.cls[:, 0], atol=1e-5)


def test_bfloat16_keeps_float32_parameters_and_outputs():
  model = build(dtype=jnp.bfloat16)
  inputs = make_inputs(model)
  variables = init(model, inputs)
  assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
  outputs = apply(model, variables, *inputs)
  exact = apply(build(), variables, *inputs)
  assert outputs.pred.dtype == jnp.float32
  assert np.abs(outputs.pred - exact.pred).max() < 0.05 * np.abs(exact.pred).max()


def test_heads_that_do_not_divide_the_width_are_an_error():
  with pytest.raises(ValueError, match=r"model\.decoder_width"):
    networks.pretraining(
      TINY, image_size=(32, 16), patch=8, decoder_width=20, decoder_depth=1, decoder_heads=3,
      dtype=jnp.float32, scan=True,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "millions"), [("S", 47.4), ("B", 111.7), ("L", 329.2), ("H", 656.9)])
def test_parameter_counts_equal_the_official_counts(name, millions):
  model = networks.pretraining(
    vit.variant(name), image_size=(256, 128), patch=16, decoder_width=512, decoder_depth=8, decoder_heads=16,
    dtype=jnp.float32, scan=True,
  )  # fmt: skip
  ids = jax.ShapeDtypeStruct((1, 2, 128), "int32")
  params = jax.eval_shape(
    model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 256, 128, 3), "float32"), ids, ids
  )
  sizes = jax.tree_util.tree_leaves_with_path(params)
  # The official counts are of trained parameters, and the position tables are fixed.
  trained = sum(leaf.size for path, leaf in sizes if "pos_embed" not in str(path))
  assert abs(trained / 1e6 - millions) < 0.06
