"""The text branch of text ReID in NumPy, for the independent forward pass of `numpy_vit.py`.

Each caption runs alone and without padding, so no masks are needed. A comparison with the network therefore
checks the masks of the network. Weights are [out, in], as in PyTorch.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy.special

from hap_jax.convert.numpy_layers import attention, f32, gelu, layer_norm, linear
from hap_jax.models import bert

_NO_BIAS = np.zeros((), np.float32)


@dataclasses.dataclass(frozen=True)
class TextBranch:
  """The tensors of BERT and of the LSTM. Each pair is (weight, bias).

  Attributes:
    words: [V, W], embeddings of the vocabulary.
    positions: [Q, W], embeddings of the positions.
    segments: [S, W], embeddings of the segments.
    norm: the pair of the norm after the embeddings.
    depth: the number of blocks.
    block: i -> {"q", "k", "v", "proj", "norm1", "fc1", "fc2", "norm2": pair}.
    forward: ([4 D, W], [4 D, D]), the weights of the LSTM for the input and for the state.
    backward: the same for the direction that starts at the end of the caption.
  """

  words: np.ndarray
  positions: np.ndarray
  segments: np.ndarray
  norm: tuple
  depth: int
  block: Callable
  forward: tuple
  backward: tuple


# Names of the modules of a block in BERT of transformers.
_BLOCK = {
  "q": "attention.self.query",
  "k": "attention.self.key",
  "v": "attention.self.value",
  "proj": "attention.output.dense",
  "norm1": "attention.output.LayerNorm",
  "fc1": "intermediate.dense",
  "fc2": "output.dense",
  "norm2": "output.LayerNorm",
}


def official(state):
  """Returns the TextBranch of a state dict with the names of the official text ReID."""
  bert_prefix, lstm = "TextExtract.text_embed.", "TextExtract.lstm."

  def pair(name):
    return state[f"{bert_prefix}{name}.weight"], state[f"{bert_prefix}{name}.bias"]

  def block(i):
    return {key: pair(f"encoder.layer.{i}.{name}") for key, name in _BLOCK.items()}

  def table(name):
    return state[f"{bert_prefix}embeddings.{name}_embeddings.weight"]

  start = f"{bert_prefix}encoder.layer."
  return TextBranch(
    words=table("word"),
    positions=table("position"),
    segments=table("token_type"),
    norm=pair("embeddings.LayerNorm"),
    depth=len({name[len(start) :].partition(".")[0] for name in state if name.startswith(start)}),
    block=block,
    forward=(state[f"{lstm}weight_ih_l0"], state[f"{lstm}weight_hh_l0"]),
    backward=(state[f"{lstm}weight_ih_l0_reverse"], state[f"{lstm}weight_hh_l0_reverse"]),
  )


def own(variables):
  """Returns the TextBranch of this project's variables, or None if they have no text encoder.

  The text encoder may be a constant or a part of the parameters.
  """
  tree = variables.get("constants", {}).get("bert") or variables["params"].get("bert")
  if tree is None:
    return None
  blocks, lstm = tree["blocks"], variables["params"]["lstm"]

  def linear_of(module, i):
    return module["kernel"][i].T, module["bias"][i]

  def norm_of(module, i):
    return module["scale"][i], module["bias"][i]

  def block(i):
    weight, bias = linear_of(blocks["attn"]["qkv"], i)
    third = len(bias) // 3  # the rows are queries, then keys, then values
    parts = {key: (weight[k * third :][:third], bias[k * third :][:third]) for k, key in enumerate("qkv")}
    parts |= {key: linear_of(blocks[key], i) for key in ("fc1", "fc2")}
    parts |= {key: norm_of(blocks[key], i) for key in ("norm1", "norm2")}
    return parts | {"proj": linear_of(blocks["attn"]["proj"], i)}

  def direction(name):
    return tuple(lstm[f"{name}_{kind}"]["kernel"].T for kind in ("input", "recurrent"))

  return TextBranch(
    words=tree["word_embeddings"],
    positions=tree["position_embeddings"],
    segments=tree["token_type_embeddings"],
    norm=(tree["embeddings_norm"]["scale"], tree["embeddings_norm"]["bias"]),
    depth=len(blocks["norm1"]["bias"]),
    block=block,
    forward=direction("forward"),
    backward=direction("backward"),
  )


def token_features(branch, ids, num_heads):
  """Runs BERT on one caption.

  Args:
    branch: a TextBranch.
    ids: [T] int, the tokens of the caption, without padding.
    num_heads: the number of heads of BERT.
  Returns:
    [T, W] float32, the output of the last block. W is the width of BERT.
  """
  epsilon = bert.LAYER_NORM_EPSILON
  x = f32(branch.words[ids]) + f32(branch.positions[: len(ids)]) + f32(branch.segments[0])
  x = layer_norm(x[None], branch.norm, epsilon)
  for i in range(branch.depth):
    p = branch.block(i)
    x = layer_norm(x + attention(x, p, num_heads), p["norm1"], epsilon)  # BERT has post-norm blocks
    x = layer_norm(x + linear(gelu(linear(x, p["fc1"])), p["fc2"]), p["norm2"], epsilon)
  return x[0]


def run_lstm(branch, features):
  """Runs both directions of the LSTM on one caption, [T, W]. Returns their mean, [T, D]."""
  forward = _run_direction(features, *branch.forward)
  backward = _run_direction(features[::-1], *branch.backward)[::-1]
  return (forward + backward) / 2


def _run_direction(features, of_input, of_state):
  hidden = cell = np.zeros(of_state.shape[1], np.float32)
  states = []
  for x in features:
    gates = linear(x[None], (of_input, _NO_BIAS)) + linear(hidden[None], (of_state, _NO_BIAS))
    # The rows of the weights are input gate, forget gate, cell candidate and output gate.
    enter, forget, candidate, leave = np.split(gates[0], 4)
    cell = scipy.special.expit(forget) * cell + scipy.special.expit(enter) * np.tanh(candidate)
    hidden = scipy.special.expit(leave) * np.tanh(cell)
    states.append(hidden)
  return np.stack(states)


def pool(tokens, pooling):
  """Returns the largest value of each channel over the tokens [T, D] of a caption, [D].

  Args:
    tokens: [T, D].
    pooling: "masked", or "floor", which replaces negative results by 0.
  """
  pooled = tokens.max(axis=0)
  return np.maximum(pooled, 0) if pooling == "floor" else pooled
