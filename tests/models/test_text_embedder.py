"""Tests of the two branches of text-to-image ReID: pooling, single captions, sizes and initial weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.models import bert, text_embedder, vit
from hap_jax.models.text_embedder import TextEmbedder, pool_captions

SIZES = bert.Sizes(width=16, depth=1, num_heads=2, hidden=24, vocab_size=30, max_positions=16)
TEXT_ENCODER = bert.Bert(**SIZES.to_json())
ENCODER = vit.ViT(8, 2, 2, grid=(3, 2), patch=8, drop_path=0.5)
NETWORK = TextEmbedder(ENCODER, embedding_dim=6, num_classes=5)
LENGTHS = np.array([8, 3, 5], np.int32)
IDS = np.random.default_rng(0).integers(1, SIZES.vocab_size, (3, 8), np.int32)
IDS[np.arange(8) >= LENGTHS[:, None]] = 0
IMAGE = np.random.default_rng(1).normal(size=(3, 24, 16, 3)).astype(np.float32)


def shapes(network, image, width):
  features = jax.ShapeDtypeStruct((len(image), 4, width), "float32")
  lengths = jax.ShapeDtypeStruct((len(image),), "int32")
  return jax.eval_shape(network.init, jax.random.key(0), image, features, lengths)["params"]


@pytest.fixture(scope="module")
def params():
  """Returns {"text": parameters of the text encoder, "own": parameters of the two branches}."""
  rng = np.random.default_rng(2)
  text = jax.eval_shape(TEXT_ENCODER.init, jax.random.key(0), IDS, LENGTHS)["params"]
  tree = {"text": text, "own": shapes(NETWORK, IMAGE, SIZES.width)}
  return jax.tree.map(lambda x: rng.normal(0, 0.4, x.shape).astype(x.dtype), tree)


@pytest.mark.parametrize("pooling", text_embedder.POOLINGS)
def test_the_embedding_of_a_caption_depends_on_no_other_caption_and_no_padding(params, pooling):
  network = NETWORK.clone(pooling=pooling)

  @jax.jit
  def embed(ids, lengths):
    features = TEXT_ENCODER.apply({"params": params["text"]}, ids, lengths)
    return network.apply({"params": params["own"]}, features, lengths, method="embed_captions")

  together = embed(IDS, LENGTHS)
  assert together.dtype == jnp.float32
  longer = np.pad(IDS, ((0, 0), (0, 4)))
  for i in range(len(IDS)):
    alone = embed(longer[i : i + 1], LENGTHS[i : i + 1])
    np.testing.assert_allclose(alone[0], together[i], atol=1e-6, rtol=0)


def test_pooled_captions_of_a_hand_made_case():
  tokens = jnp.array([[[-3.0, 1.0], [-2.0, -5.0], [0.0, 0.0]], [[-1.0, 4.0], [7.0, -9.0], [9.0, 9.0]]])
  lengths = jnp.array([2, 1])
  np.testing.assert_array_equal(pool_captions(tokens, lengths, "masked"), [[-2, 1], [-1, 4]])
  np.testing.assert_array_equal(pool_captions(tokens, lengths, "floor"), [[0, 1], [0, 4]])
  more = jnp.pad(tokens, ((0, 0), (0, 5), (0, 0)), constant_values=3)
  for pooling in text_embedder.POOLINGS:
    np.testing.assert_array_equal(
      pool_captions(more, lengths, pooling), pool_captions(tokens, lengths, pooling)
    )
  with pytest.raises(ValueError, match=r"config\.text\.pooling='mean' is not one of floor, masked"):
    pool_captions(tokens, lengths, "mean")


def test_one_call_gives_the_outputs_of_both_branches(params):
  features = np.random.default_rng(3).normal(size=(3, 8, SIZES.width)).astype(np.float32)
  variables, apply = {"params": params["own"]}, NETWORK.apply
  key = jax.random.key(0)

  @jax.jit
  def run(image, features):
    parts = (
      apply(variables, image, method="embed_images"),
      apply(variables, image, drop_key=key, method="embed_images"),
      apply(variables, features, LENGTHS, method="embed_captions"),
    )
    return apply(variables, image, features, LENGTHS, drop_key=key), parts

  found, (image, dropped, text) = run(IMAGE, features)
  np.testing.assert_allclose(found.image, dropped, atol=1e-6)
  assert not np.allclose(found.image, image, atol=1e-3)  # the key of stochastic depth reaches the encoder
  np.testing.assert_allclose(found.text, text, atol=1e-6)
  head = params["own"]["head"]
  for embedding, logits in ((dropped, found.image_logits), (text, found.text_logits)):
    np.testing.assert_allclose(logits, embedding @ head["kernel"] + head["bias"], atol=1e-5)
    assert logits.dtype == jnp.float32


def test_parameter_counts_are_the_official_ones():
  size = vit.variant("B")
  encoder = vit.ViT(size.width, size.depth, size.num_heads, grid=(24, 8), patch=16)
  image = jax.ShapeDtypeStruct((1, 384, 128, 3), "float32")
  found = shapes(TextEmbedder(encoder, embedding_dim=384, num_classes=11000), image, 768)
  counts = {name: sum(leaf.size for leaf in jax.tree.leaves(tree)) for name, tree in found.items()}
  # Blocks, patch projection, class token, 193 positions, and the final norm that this network does not use.
  encoder_count = 12 * 7_087_872 + (768 + 1) * 768 + 768 + 193 * 768 + 2 * 768
  assert counts == {
    "encoder": encoder_count,
    "lstm": 9_437_184,
    "projection": 294_912,
    "head": 11000 * 385,
  }


def test_initial_weights_of_projection_and_classifier_are_the_official_ones():
  network = TextEmbedder(ENCODER, embedding_dim=384, num_classes=500)
  projection = network.init(jax.random.key(0), jnp.zeros((1, 64)), method="project")["params"]["projection"]
  head = network.init(jax.random.key(0), jnp.zeros((1, 384)), method="classify")["params"]["head"]
  assert projection.keys() == {"kernel"}
  np.testing.assert_allclose(np.std(projection["kernel"]), (2 / 384) ** 0.5, rtol=0.02)
  np.testing.assert_allclose(np.std(head["kernel"]), 0.001, rtol=0.02)
  assert not head["bias"].any()
