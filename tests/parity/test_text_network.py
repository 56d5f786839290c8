"""Text encoder, LSTM, pooling and the complete network of text-to-image ReID against the official code.

The notes of the golden vectors give the tolerances. The official pooling of captions depends on the batch, so
it is not a part of this project. These tests write it out, because losses and gradients depend on it.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax.convert import bert_names
from hap_jax.convert.weights import flatten
from hap_jax.losses.identity import identity_loss
from hap_jax.models import bert, layers, lstm, posemb, text_embedder, vit
from tests.parity import text_names

POOLINGS = ("batch_padded", *text_embedder.POOLINGS)


@dataclasses.dataclass(frozen=True)
class Case:
  """A golden file and the networks with its weights.

  Attributes:
    file: arrays of the golden file.
    entries: the rows of its name table.
    params: nested dicts of arrays.
  """

  file: dict[str, np.ndarray]
  entries: tuple
  params: Any

  def cfg(self, name):
    return self.file[f"cfg/{name}"].tolist()

  def part(self, prefix):
    return {key.removeprefix(prefix): value for key, value in self.file.items() if key.startswith(prefix)}

  def check(self, found, name, atol):
    np.testing.assert_allclose(found, self.file[name], atol=atol, rtol=0, err_msg=name)

  def check_gradients(self, found, prefix, limit):
    """Checks a gradient of `params`. `limit` is relative to the largest value of each official tensor."""
    found = flatten(found)
    state = {name: value for name, value in self.part(prefix).items() if name != "inputs"}
    rows = text_names.rows_of(self.entries, state)
    for name, expected in state.items():
      gradient = rows[name].layout.to_reference(rows[name].of(np.asarray(found[rows[name].ours])))
      worst = np.abs(gradient - expected).max()
      assert worst <= limit * np.abs(expected).max(), f"{prefix}{name}: off by {worst}"
    return {rows[name].ours for name in state}


def read(golden, name, entries):
  file = golden(name)
  state = {key.removeprefix("param/"): value for key, value in file.items() if key.startswith("param/")}
  return Case(file, entries, text_names.to_ours(entries, state))


def official_pooling(tokens, lengths):
  """Pools as the official code: a maximum over all positions up to the longest caption of the batch."""
  return tokens[:, : lengths.max()].max(axis=1)


# The text encoder


@pytest.fixture(scope="module")
def encoder(golden):
  return read(golden, "text_bert", bert_names.entries())


def network_of(case, params, prefix=""):
  """Returns the text encoder with the sizes of a golden file, whose keys may have a prefix."""
  return bert.Bert(
    width=params["word_embeddings"].shape[1],
    depth=case.cfg(f"{prefix}num_hidden_layers"),
    num_heads=case.cfg(f"{prefix}num_attention_heads"),
    hidden=case.cfg(f"{prefix}intermediate_size"),
    vocab_size=case.cfg(f"{prefix}vocab_size"),
    max_positions=case.cfg(f"{prefix}max_position_embeddings"),
  )


def test_official_weights_fill_the_text_encoder_exactly(encoder):
  ids, lengths = encoder.file["input_ids"], encoder.file["lengths"]
  init = jax.eval_shape(network_of(encoder, encoder.params).init, jax.random.key(0), ids, lengths)
  expected = {name: leaf.shape for name, leaf in flatten(init["params"]).items()}
  assert {name: leaf.shape for name, leaf in flatten(encoder.params).items()} == expected


def test_the_embedding_of_words_agrees_with_the_official_code(encoder):
  # Without blocks, the network returns the embeddings after their norm.
  params = encoder.params | {"blocks": jax.tree.map(lambda x: x[:0], encoder.params["blocks"])}
  network = network_of(encoder, encoder.params).clone(depth=0)
  found = network.apply({"params": params}, encoder.file["input_ids"], encoder.file["lengths"])
  encoder.check(found, "embedding_output", 2e-5)


def test_token_features_agree_with_the_official_code(encoder):
  ids, mask = encoder.file["input_ids"], encoder.file["attention_mask"]
  np.testing.assert_array_equal(mask, np.arange(ids.shape[1]) < encoder.file["lengths"][:, None])
  network = network_of(encoder, encoder.params)
  apply = jax.jit(lambda lengths: network.apply({"params": encoder.params}, ids, lengths))
  # The values behind a caption are compared, too: they also depend on the mask.
  encoder.check(apply(mask.sum(axis=1)), "last_hidden_state", 2e-5)
  whole = np.full(len(ids), ids.shape[1])
  encoder.check(apply(whole), "last_hidden_state_mask_all_ones", 2e-5)


# The trainable text branch


@pytest.fixture(scope="module")
def branch(golden):
  return read(golden, "text_branch", text_names.BRANCH)


@pytest.fixture(scope="module")
def captions(branch):
  """Returns (tokens of the LSTM, pooled captions, embeddings, scalars, gradients).

  All but the tokens have an axis for POOLINGS.
  """
  file = branch.file
  network = lstm.BidirectionalLstm(branch.params["lstm"]["forward_recurrent"]["kernel"].shape[0])

  def scalars(params, inputs):
    tokens = network.apply({"params": params["lstm"]}, inputs, file["lengths"])
    pooled = [official_pooling(tokens, file["lengths"])]
    pooled += [text_embedder.pool_captions(tokens, file["lengths"], name) for name in POOLINGS[1:]]
    embedding = jnp.stack(pooled) @ params["projection"]["kernel"]
    values = jnp.sum(file["grad_weights"] * embedding, axis=(1, 2))
    return values, (tokens, pooled, embedding, values)

  gradients, found = jax.jit(jax.jacrev(scalars, argnums=(0, 1), has_aux=True))(branch.params, file["inputs"])
  return *found, gradients


def test_the_lstm_agrees_with_the_official_code(branch, captions):
  longest = branch.file["lengths"].max()
  branch.check(captions[0][:, :longest], "sequence", 1e-5)
  assert not np.any(captions[0][:, longest:])
  branch.check(captions[1][POOLINGS.index("masked")], "pooled_alone", 1e-5)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_pooled_captions_and_their_gradients_agree_with_the_official_code(branch, captions, pooling):
  k = POOLINGS.index(pooling)
  _, pooled, embedding, values, gradients = captions
  branch.check(pooled[k], f"{pooling}/pooled", 1e-5)
  branch.check(embedding[k], f"{pooling}/embedding", 1e-5)
  branch.check(values[k], f"{pooling}/scalar", 1e-5)
  of_params, of_inputs = jax.tree.map(lambda x: x[k], gradients)
  names = {f"{pooling}/grad/{name}" for name in branch.part("param/")}
  assert names | {f"{pooling}/grad/inputs"} == {
    key for key in branch.file if key.startswith(f"{pooling}/grad")
  }
  branch.check_gradients(of_params, f"{pooling}/grad/", 1e-4)
  expected = branch.file[f"{pooling}/grad/inputs"]
  np.testing.assert_allclose(of_inputs, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


# The complete network


@pytest.fixture(scope="module")
def model(golden):
  case = read(golden, "text_model", text_names.MODEL)
  encoder, width = case.params["encoder"], case.cfg("embed_dim")
  if "norm" not in encoder:
    # The golden network has no final norm. This network makes one and does not use it.
    norm = {"scale": np.ones(width, np.float32), "bias": np.zeros(width, np.float32)}
    case.params["encoder"] = encoder | {"norm": norm}
  return case


@pytest.fixture(scope="module")
def network(model):
  """Returns (text encoder, TextEmbedder)."""
  patch = model.cfg("patch_size")
  grid = layers.grid_of(model.cfg("img_size"), patch)
  sizes = (model.cfg("embed_dim"), model.cfg("depth"), model.cfg("num_heads"))
  hidden = model.params["encoder"]["blocks"]["mlp"]["fc1"]["bias"].shape[1]
  encoder = vit.ViT(*sizes, grid, patch, mlp_ratio=hidden / sizes[0])
  two_branches = text_embedder.TextEmbedder(encoder, model.cfg("feature_length"), model.cfg("num_classes"))
  return network_of(model, model.params["bert"], "bert_"), two_branches


@pytest.fixture(scope="module")
def image(model):
  return model.file["images"].transpose(0, 2, 3, 1)


def forced_ranking_loss(similarity, triplets, margin):
  """Returns the sum of the hinges of the stored triplets (anchor, positive, negative)."""
  anchor, positive, negative = triplets.T
  return jnp.maximum(margin - similarity[anchor, positive] + similarity[anchor, negative], 0).sum()


@pytest.fixture(scope="module")
def hidden(model, network):
  """Returns the token features of the text encoder."""
  apply = jax.jit(network[0].apply)
  return apply({"params": model.params["bert"]}, model.file["input_ids"], model.file["lengths"])


@pytest.fixture(scope="module")
def trainable(model):
  """Returns the parameters that have a gradient in the official code: all but the text encoder."""
  return {key: value for key, value in model.params.items() if key != "bert"}


# The two branches and the losses are compiled separately, each in the first test that needs it. The fixture
# of a branch returns (tokens, function from a gradient of the tokens to the gradient of the parameters).


@pytest.fixture(scope="module")
def image_branch(network, trainable, image):
  tokens = lambda params: network[1].apply({"params": params}, image, method="image_tokens")  # noqa: E731
  return jax.vjp(jax.jit(tokens), trainable)


@pytest.fixture(scope="module")
def text_branch(model, network, trainable, hidden):
  def tokens(params):
    return network[1].apply({"params": params}, hidden, model.file["lengths"], method="caption_tokens")

  return jax.vjp(jax.jit(tokens), trainable)


@pytest.fixture(scope="module")
def outputs(model, network, trainable, image_branch, text_branch):
  """Returns (activations, losses, accuracies, gradients of the total loss) with the official pooling."""
  file, lengths, labels = model.file, model.file["lengths"], model.file["labels"]

  def total_loss(params, image_tokens, text_tokens):
    apply = lambda method, x: network[1].apply({"params": params}, x, method=method)  # noqa: E731
    pooled = {"image": image_tokens.max(axis=1), "text": official_pooling(text_tokens, lengths)}
    embeddings = {key: apply("project", x) for key, x in pooled.items()}
    unit = {key: x / jnp.linalg.norm(x, axis=1, keepdims=True) for key, x in embeddings.items()}
    similarity = unit["image"] @ unit["text"].T
    logits = {key: apply("classify", x) for key, x in embeddings.items()}
    margin = model.cfg("margin")
    ranking_loss = forced_ranking_loss(similarity, file["image_triplets"], margin)
    ranking_loss += forced_ranking_loss(similarity.T, file["text_triplets"], margin)
    id_loss = sum(identity_loss(x, labels).mean() for x in logits.values())
    activations = {"image_pooled": pooled["image"], "similarity": similarity}
    activations |= {f"{key}_embedding": x for key, x in embeddings.items()}
    for pooling in text_embedder.POOLINGS:
      x = text_embedder.pool_captions(text_tokens, lengths, pooling)
      activations[f"text_embedding_{pooling}"] = apply("project", x)
    accuracies = {f"acc_{key}": (x.argmax(axis=1) == labels).mean() for key, x in logits.items()}
    losses = {"id_loss": id_loss, "ranking_loss": ranking_loss, "total_loss": id_loss + ranking_loss}
    return losses["total_loss"], (activations, losses, accuracies)

  run = jax.jit(jax.value_and_grad(total_loss, argnums=(0, 1, 2), has_aux=True))
  (_, found), gradients = run(trainable, image_branch[0], text_branch[0])
  return *found, gradients


def test_tokens_of_captions_agree_with_the_official_code(model, hidden, text_branch):
  model.check(hidden, "text_hidden", 5e-5)
  model.check(text_branch[0][:, : model.file["lengths"].max()], "text_sequence", 5e-5)


def test_tokens_of_pictures_agree_with_the_official_code(model, image_branch):
  model.check(image_branch[0], "image_tokens", 5e-5)


def test_embeddings_agree_with_the_official_code(model, outputs):
  for name, value in outputs[0].items():
    model.check(value, name, 5e-5)


def test_losses_agree_with_the_official_code(model, outputs):
  for name, value in outputs[1].items():
    np.testing.assert_allclose(value, model.file[name], rtol=2e-5, err_msg=name)
  for name, value in outputs[2].items():
    np.testing.assert_allclose(value, model.file[name], rtol=1e-6, err_msg=name)


def test_gradients_agree_with_the_official_code(model, image_branch, text_branch, outputs):
  of_heads, of_image_tokens, of_text_tokens = outputs[3]
  (of_encoder,), (of_lstm,) = image_branch[1](of_image_tokens), text_branch[1](of_text_tokens)
  gradients = jax.tree.map(lambda *parts: sum(parts), of_heads, of_encoder, of_lstm)
  compared = model.check_gradients(gradients, "grad/", 1e-3)
  unused = {"encoder/norm/scale", "encoder/norm/bias"}  # the branch takes tokens before the final norm
  assert compared | unused == flatten(gradients).keys()
  assert not any(np.any(flatten(gradients)[name]) for name in unused)


def test_position_tables_are_resized_as_the_official_code_does(model):
  names = [key.removeprefix("pos_resize/output_") for key in model.file if key.startswith("pos_resize/out")]
  assert names
  table = model.file["pos_resize/input_16x8"]
  for name in names:
    grid = tuple(int(side) for side in name.split("x"))
    found = posemb.resize_table(table, (16, 8), grid, "bilinear")
    model.check(found, f"pos_resize/output_{name}", 1e-5)
    np.testing.assert_array_equal(found[:, 0], table[:, 0])
