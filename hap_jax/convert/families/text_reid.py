"""Files of the official HAP code for text-to-image person ReID, `best.pth.tar`: a ViT, BERT and an LSTM.

The entry "network" holds the two branches. The entry "W" holds the classifier. BERT is frozen, so its tensors
are constants here. The files record neither the vocabulary of BERT nor its number of heads.
"""

import dataclasses

import jax
import numpy as np

from hap_jax.convert import bert_names, numpy_text, numpy_vit, official, rows, text_encoder
from hap_jax.convert.family import CERTAIN, CONSTANTS, NO, Family
from hap_jax.convert.layouts import CONV_1X1, LINEAR
from hap_jax.convert.names import Entry, Placeholder
from hap_jax.convert.numpy_layers import linear, pair
from hap_jax.convert.outputs import Outputs
from hap_jax.models import bert

_IMAGE, _BERT, _LSTM = "ImageExtract.model.", "TextExtract.text_embed.", "TextExtract.lstm."
_PROJECTION, _CLASSIFIER = "conv_1X1_2.block.0", "W.block"
# Letters in the shapes: Z is the width of the shared space. `bert_names` explains the letters of BERT.
_ENTRIES = (
  *(dataclasses.replace(row, reference=f"{_IMAGE}{row.reference}") for row in rows.ENCODER),
  *bert_names.entries(_BERT, "bert/", CONSTANTS),
  *(
    Entry(f"{_LSTM}{name}_l0{suffix}", f"lstm/{direction}_{kernel}/kernel", LINEAR, ("4D", width))
    for direction, suffix in (("forward", ""), ("backward", "_reverse"))
    for name, kernel, width in (("weight_ih", "input", "W"), ("weight_hh", "recurrent", "D"))
  ),
  Entry(f"{_PROJECTION}.weight", "projection/kernel", CONV_1X1, ("Z", "D", "1", "1")),
  *rows.linear(_CLASSIFIER, "head", "C", "Z"),
)


def _zeros(shape):
  return np.zeros(shape, np.float32)


def _positions(shape):
  return np.arange(shape[1], dtype=np.int64)[None]


# Tensors that the official network has but never uses, and a table of constants. Its strict loading needs
# them. The table exists in transformers 4.2.1, which the official code uses. Version 4.31 removed it.
_PLACEHOLDERS = (
  Placeholder(f"{_IMAGE}fc.weight", ("1000", "D"), _zeros),
  Placeholder(f"{_IMAGE}fc.bias", ("1000",), _zeros),
  Placeholder(f"{_BERT}pooler.dense.weight", ("W", "W"), _zeros),
  Placeholder(f"{_BERT}pooler.dense.bias", ("W",), _zeros),
  Placeholder(f"{_BERT}embeddings.position_ids", ("1", "Q"), _positions),
)
_MAX_TOKENS = 100  # longest caption in the official code
_GAP = (
  "holds a text encoder, but neither its vocabulary nor its number of heads; give --text_encoder=DIR, the "
  "BERT folder that the network was trained with"
)


def _recognise(source):
  names = {f"{_IMAGE}patch_embed.proj.weight", f"{_LSTM}weight_ih_l0"}
  return CERTAIN if names <= source.state.keys() else NO


def _network(variables, config, recorded):
  """Returns `Description.network` of text ReID, see `tasks/text_reid.py`."""
  del config
  params, found = variables["params"], {}
  if "projection" in params:
    found["embedding_dim"] = params["projection"]["kernel"].shape[1]
  if "head" in params:
    found["num_classes"] = len(params["head"]["bias"])
  is_trained = "bert" in params
  if not is_trained and "bert" not in variables.get(CONSTANTS, {}):
    return found  # a checkpoint of this project records all other values, too
  tree = (params if is_trained else variables[CONSTANTS])["bert"]
  (V, W), Q = tree["word_embeddings"].shape, len(tree["position_embeddings"])
  sizes = {
    "width": W,
    "depth": len(tree["blocks"]["norm1"]["bias"]),
    "num_heads": _recorded_heads(recorded, W),
    "hidden": tree["blocks"]["fc1"]["bias"].shape[1],
    "vocab_size": V,
    "max_positions": Q,
    "num_segments": len(tree["token_type_embeddings"]),
  }
  if is_trained:
    return found | {"text": sizes}
  return found | {
    "pooling": recorded.get("pooling", "floor"),
    "max_tokens": recorded.get("max_tokens", min(_MAX_TOKENS, Q)),
    "text": sizes,
    "text_is_trained": False,
    "text_digest": "",  # until the vocabulary is known
  }


def _recorded_heads(recorded, width):
  """Returns the number of heads of the text encoder, or None if it is not recorded."""
  text = recorded.get("text")
  heads = text.get("num_heads") if isinstance(text, dict) else None
  # No tensor shows the number of heads, so only its form can be checked.
  if heads is not None and (type(heads) is not int or heads < 1 or width % heads):
    raise ValueError(
      f"records {heads!r:.40} heads of its text encoder, expected a number that divides its width {width}"
    )
  return heads


def _add_text_encoder(weights, folder):
  """Returns the Weights with vocabulary and digest of the text encoder, see `Family.add_text_encoder`."""
  description = weights.description
  sizes, words = description.network["text"], description.more.get("vocabulary")
  if folder:
    found, given = text_encoder.read_words(folder, sizes)
    if words is not None and tuple(words) != given:
      raise ValueError(
        f"--text_encoder={folder}: {description.place} records a different vocabulary; remove --text_encoder"
      )
    sizes, words = found.to_json(), given
  if words is None or sizes["num_heads"] is None:
    return weights
  vocabulary = text_encoder.check_words(description.place, words, sizes["vocab_size"])
  encoder = text_encoder.TextEncoder(bert.Sizes(**sizes), weights.constants["bert"], vocabulary)
  network = {**description.network, "text": sizes, "text_digest": encoder.digest}
  more = {**description.more, "vocabulary": list(vocabulary)}
  described = dataclasses.replace(description, network=network, more=more)
  return dataclasses.replace(weights, description=described)


def _find_gap(weights):
  return "" if weights.description.network["text_digest"] else _GAP


def _content(weights, state):
  """Returns the content from which the official code resumes.

  The official loader needs all these entries. It prints "epoch", and compares later scores with "test_best".
  """
  del weights
  classifier = {name: array for name, array in state.items() if name.startswith(f"{_CLASSIFIER}.")}
  network = {name: array for name, array in state.items() if name not in classifier}
  return {"test_best": 0.0, "network": network, "W": classifier, "epoch": "not recorded"}


def _network_of(state):
  return dataclasses.replace(numpy_vit.official(state), text=numpy_text.official(state))


def captions(sizes):
  """Returns (ids [2, T] int32, lengths [2] int32) of two fixed captions for a text encoder.

  Args:
    sizes: {field of `bert.Sizes`: number}.
  """
  T = min(12, sizes["max_positions"])
  lengths = np.array([T, max(1, T // 2)], np.int32)
  ids = np.random.default_rng(T).integers(1, max(2, sizes["vocab_size"]), (2, T)).astype(np.int32)
  return np.where(np.arange(T) < lengths[:, None], ids, 0).astype(np.int32), lengths


def _in_numpy(forward):
  module, sizes = forward.network.module, forward.sizes
  weight = module(_PROJECTION, "projection")["weight"]
  project = weight.reshape(len(weight), -1), np.zeros((), np.float32)
  classifier = pair(module(_CLASSIFIER, "head"))
  image = linear(forward.raw_patches.max(axis=1), project)
  found = {"image_embedding": image, "image_logits": linear(image, classifier)}
  heads = sizes["text"]["num_heads"]
  if heads is None:
    return found  # targets without a text encoder need nothing else
  branch, pooled = forward.network.text, []
  for ids, length in zip(*captions(sizes["text"]), strict=True):
    tokens = numpy_text.run_lstm(branch, numpy_text.token_features(branch, ids[:length], heads))
    pooled.append(numpy_text.pool(tokens, sizes["pooling"]))
  text = linear(np.stack(pooled), project)
  return found | {"text_embedding": text, "text_logits": linear(text, classifier)}


def _in_jax(model, variables, batch, description):
  params, sizes = variables["params"], description.network["text"]
  ids, lengths = captions(sizes)
  tree = variables.get(CONSTANTS, params)["bert"]
  branches = {name: tree for name, tree in params.items() if name != "bert"}

  @jax.jit  # one program compiles faster than its parts
  def run(tree, branches):
    features = bert.Bert(**sizes).apply({"params": tree}, ids, lengths)
    return model.apply({"params": branches}, batch.image, features, lengths)

  found = run(tree, branches)
  return {
    "image_embedding": found.image,
    "image_logits": found.image_logits,
    "text_embedding": found.text,
    "text_logits": found.text_logits,
  }


FAMILY = Family(
  "text-reid",
  _ENTRIES,
  _recognise,
  _network_of,
  licence=official.OF_HAP,
  made_from=(
    *official.made_from_fine_tuned_hap("cuhk_pedes, icfg_pedes or rstpreid"),
    ("weights", "BERT-base-uncased", "Apache-2.0", official.IF_HAP),
  ),
  task="text_reid",
  placeholders=_PLACEHOLDERS,
  siblings={"network": "W"},
  grids={192: ((24, 8), "text ReID at 384 x 128")},
  pixels_from="published text-reid code",
  network=_network,
  add_text_encoder=_add_text_encoder,
  find_gap=_find_gap,
  content=_content,
  outputs=Outputs(
    needs={
      "image_embedding": "projection",
      "image_logits": "head",
      "text_embedding": "bert",
      "text_logits": "bert",
    },
    in_numpy=_in_numpy,
    in_jax=_in_jax,
  ),
)
