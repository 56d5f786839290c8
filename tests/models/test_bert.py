"""Tests of the text encoder: its size, its mask, and its agreement with transformers at full size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.convert import text_encoder
from hap_jax.convert.weights import flatten, unflatten
from hap_jax.models import bert

TINY = bert.Sizes(width=16, depth=2, num_heads=2, hidden=24, vocab_size=30, max_positions=12)
BASE = bert.Sizes(width=768, depth=12, num_heads=12, hidden=3072, vocab_size=30522, max_positions=512)
IDS = np.random.default_rng(0).integers(1, TINY.vocab_size, (4, 8), np.int32)
LENGTHS = np.array([8, 1, 5, 3], np.int32)


def shapes(sizes):
  ids = jax.ShapeDtypeStruct((1, 4), "int32")
  network = bert.Bert(**sizes.to_json())
  return jax.eval_shape(network.init, jax.random.key(0), ids, jax.ShapeDtypeStruct((1,), "int32"))


@pytest.fixture(scope="module")
def variables():
  rng = np.random.default_rng(1)
  return jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(x.dtype), shapes(TINY))


@pytest.fixture(scope="module")
def features(variables):
  return np.asarray(jax.jit(bert.Bert(**TINY.to_json()).apply)(variables, IDS, LENGTHS))


def test_the_number_of_parameters_is_that_of_bert_base():
  pooler = 768 * 768 + 768  # this project does not use it
  found = sum(leaf.size for leaf in jax.tree.leaves(shapes(BASE))) + pooler
  assert found == 109_482_240


def test_tokens_behind_a_caption_do_not_change_its_features(variables, features):
  ids = IDS.copy()
  for row, length in zip(ids, LENGTHS, strict=True):
    row[length:] = np.random.default_rng(2).integers(0, TINY.vocab_size, len(row) - length)
  found = jax.jit(bert.Bert(**TINY.to_json()).apply)(variables, ids, LENGTHS)
  is_real = np.arange(IDS.shape[1]) < LENGTHS[:, None]
  np.testing.assert_array_equal(np.asarray(found)[is_real], features[is_real])
  assert not np.allclose(np.asarray(found)[~is_real], features[~is_real])


def test_the_network_in_bfloat16_agrees_roughly_and_takes_a_row_without_tokens(variables, features):
  network = bert.Bert(**TINY.to_json(), dtype=jnp.bfloat16)
  lengths = np.where(np.arange(len(LENGTHS)) == 1, 0, LENGTHS)
  found = jax.jit(network.apply)(variables, IDS, lengths)
  assert found.dtype == jnp.bfloat16
  assert np.isfinite(found.astype(np.float32)).all()
  for i in (0, 2, 3):
    np.testing.assert_allclose(found[i, : LENGTHS[i]].astype(np.float32), features[i, : LENGTHS[i]], atol=0.2)


def test_more_tokens_than_positions_are_an_error():
  ids = np.zeros((1, TINY.max_positions + 1), np.int32)
  with pytest.raises(ValueError, match=r"13 tokens, but the text encoder has 12 positions"):
    jax.eval_shape(bert.Bert(**TINY.to_json()).init, jax.random.key(0), ids, np.ones(1, np.int32))


def random_params(sizes):
  """Returns random parameters of a text encoder."""
  # Parts of one array of random numbers, because 109 million new numbers would take seconds.
  numbers = np.random.default_rng(0).normal(0, 0.05, 1 << 20).astype(np.float32)
  flat = flatten(shapes(sizes)["params"])
  for k, (name, leaf) in enumerate(flat.items()):
    flat[name] = np.resize(np.roll(numbers, 1009 * k), leaf.shape)
    if name.endswith("/scale"):
      flat[name] += 1
  return unflatten(flat)


def test_features_at_full_size_are_those_of_transformers():
  torch = pytest.importorskip("torch")
  transformers = pytest.importorskip("transformers")
  params = random_params(BASE)
  with torch.device("meta"):  # the class would draw its own weights
    model = transformers.BertModel(transformers.BertConfig(), add_pooling_layer=False)
  encoder = text_encoder.TextEncoder(BASE, params, ())
  state = {name: torch.from_numpy(array) for name, array in text_encoder.to_state(encoder).items()}
  model.load_state_dict(state, assign=True)
  model.embeddings.position_ids = torch.arange(BASE.max_positions)[None]
  model.embeddings.token_type_ids = torch.zeros_like(model.embeddings.position_ids)
  ids, lengths = np.random.default_rng(0).integers(0, 30522, (2, 6), np.int32), np.array([6, 3], np.int32)
  is_real = np.arange(6) < lengths[:, None]
  with torch.no_grad():
    mask = torch.from_numpy(is_real.astype(np.int64))
    expected = model.eval()(torch.from_numpy(ids), attention_mask=mask)[0].numpy()
  found = np.asarray(jax.jit(bert.Bert(**BASE.to_json()).apply)({"params": params}, ids, lengths))
  assert np.abs(expected[is_real]).max() > 1
  np.testing.assert_allclose(found[is_real], expected[is_real], atol=1e-4, rtol=0)
