"""Encoders with a padding of their patches and without a class token, as 2D pose has them."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from hap_jax.convert import numpy_vit
from hap_jax.description import Encoder
from hap_jax.models import attribute_classifier, embedder, image_encoder, layers, pooling

GRID, PATCH, PADDING = (3, 2), 8, 2
SIZE = tuple(side * PATCH for side in GRID)
IMAGE = np.random.default_rng(0).normal(size=(2, *SIZE, 3)).astype(np.float32)
WITH = Encoder(16, 2, 2, GRID, PATCH)
WITHOUT = dataclasses.replace(WITH, patch_padding=PADDING, class_token=False)


def build(encoder):
  return image_encoder.ImageEncoder(encoder.build())


def values_of(encoder):
  """Returns random parameters. The shared parameters of different encoders are equal."""
  shapes = jax.eval_shape(lambda key: build(encoder).init(key, IMAGE), jax.random.key(0))["params"]["encoder"]
  rng = np.random.default_rng(1)
  draw = lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32)  # noqa: E731
  return {"params": {"encoder": {name: jax.tree.map(draw, shapes[name]) for name in sorted(shapes)[::-1]}}}


def test_patches_begin_outside_of_the_picture():
  found = np.asarray(layers.patchify(IMAGE, PATCH, PADDING)).reshape(2, *GRID, PATCH, PATCH, 3)
  for i, j in np.ndindex(GRID):
    for row, column in np.ndindex(PATCH, PATCH):
      y, x = PATCH * i - PADDING + row, PATCH * j - PADDING + column
      expected = IMAGE[:, y, x] if min(y, x) >= 0 else np.zeros((2, 3), np.float32)
      np.testing.assert_array_equal(found[:, i, j, row, column], expected)


def test_the_last_rows_and_columns_are_never_seen():
  H, W = SIZE
  gradient = jax.grad(lambda image: layers.patchify(image, PATCH, PADDING).sum())(IMAGE)
  assert (gradient[:, : H - PADDING, : W - PADDING] == 1).all()
  assert not np.any(gradient[:, H - PADDING :])
  assert not np.any(gradient[:, :, W - PADDING :])


@pytest.mark.parametrize("padding", [-1, 4, 8])
def test_a_padding_that_does_not_fit_the_patch_is_an_error(padding):
  with pytest.raises(ValueError, match=rf"patch_padding={padding} does not fit patch=8"):
    layers.patchify(IMAGE, PATCH, padding)
  with pytest.raises(ValueError, match=rf"patch_padding={padding} does not fit patch=8"):
    Encoder.of_variant("Mu", image_size=SIZE, patch=PATCH, patch_padding=padding)


def test_row_0_of_the_table_is_added_to_every_patch():
  model, values = build(WITHOUT), values_of(WITHOUT)
  assert "cls_token" not in values["params"]["encoder"]
  table = values["params"]["encoder"]["pos_embed"]
  moved = np.concatenate([np.zeros_like(table[:, :1]), table[:, 1:] + table[:, :1]], axis=1)
  others = {"params": {"encoder": {**values["params"]["encoder"], "pos_embed": moved}}}
  tokens = [jax.jit(model.apply)(params, IMAGE) for params in (values, others)]
  assert tokens[0].shape == (2, GRID[0] * GRID[1], 16)
  np.testing.assert_allclose(*tokens, atol=1e-5)


@pytest.fixture(scope="module")
def latents():
  return {
    encoder.class_token: jax.jit(functools.partial(build(encoder).apply, method="latent"))(
      values_of(encoder), IMAGE
    )
    for encoder in (WITH, WITHOUT)
  }


@pytest.mark.parametrize("encoder", [WITH, WITHOUT])
def test_the_second_forward_pass_gives_the_same_tokens(encoder, latents):
  forward = numpy_vit.Forward(
    network=numpy_vit.own(values_of(encoder)),
    batch=dataclasses.make_dataclass("Batch", ["image", "expert"])(IMAGE, None),
    num_heads=encoder.num_heads,
    sizes={},
    grids=(GRID, GRID),
    epsilon=layers.LAYER_NORM_EPSILON,
    padding=encoder.patch_padding,
  )
  latent = latents[encoder.class_token]
  names = ["patches", "raw_patches", *(["cls"] if encoder.class_token else [])]
  for name in names:
    np.testing.assert_allclose(getattr(forward, name), getattr(latent, name), atol=2e-5, rtol=0)
  if not encoder.class_token:
    with pytest.raises(ValueError, match="reads a class token, but its encoder has none"):
      _ = forward.cls


def test_patches_are_all_tokens_but_the_class_token(latents):
  for class_token, latent in latents.items():
    first = 1 if class_token else 0
    np.testing.assert_array_equal(latent.patches, latent.normed[:, first:])
    np.testing.assert_array_equal(latent.raw_patches, latent.raw[:, first:])
    assert latent.patches.shape[1] == GRID[0] * GRID[1]
  np.testing.assert_array_equal(latents[True].cls, latents[True].normed[:, 0])


def test_a_class_token_that_does_not_exist_is_an_error(latents):
  with pytest.raises(ValueError, match="this encoder has no class token"):
    pooling.pool(latents[False], GRID, "cls")
  model = embedder.Embedder(WITHOUT.build(), num_classes=2)
  with pytest.raises(ValueError, match="this encoder has no class token"):
    jax.eval_shape(lambda key: model.init(key, IMAGE, train=False), jax.random.key(0))


def test_pooling_takes_all_patches_of_an_encoder_without_class_token(latents):
  assert pooling.kinds_of(WITH.build()) == ("cls", "mean")
  assert pooling.kinds_of(WITHOUT.build()) == ("mean",)
  assert pooling.kinds_of(dataclasses.replace(WITHOUT, grid=(4, 2)).build()) == ("mean", "stripes")
  for latent in latents.values():
    mean = np.asarray(latent.patches).mean(axis=1)
    expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(pooling.pool(latent, GRID, "mean"), expected, atol=1e-6)


def test_a_head_on_the_mean_patch_works_without_a_class_token():
  model = attribute_classifier.AttributeClassifier(WITHOUT.build(), num_attributes=3)
  variables = jax.eval_shape(lambda key: model.init(key, IMAGE), jax.random.key(0))
  assert jax.eval_shape(model.apply, variables, IMAGE).shape == (2, 3)
