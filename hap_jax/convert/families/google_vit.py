"""Files .npz of Google's ViT (arXiv 2010.11929), as the code in JAX writes them."""

import functools

from hap_jax.convert import numpy_vit
from hap_jax.convert.family import CERTAIN, NO, Family
from hap_jax.convert.layouts import FLAT_PATCHES, IDENTITY, VECTOR
from hap_jax.convert.names import PATCHES, Entry

_BLOCK = "Transformer/encoderblock_{i}/"
_ATTENTION = "MultiHeadDotProductAttention_1/"
_TABLE = "Transformer/posembed_input/pos_embedding"
# (name in the file, path in this project, shape) of one block. Linear layers are [inputs, outputs] as in this
# project. In the file, queries, keys and values are cut into heads. `_prepare` joins the heads.
_ROWS = (
  ("LayerNorm_0/scale", "norm1/scale", ("D",)),
  ("LayerNorm_0/bias", "norm1/bias", ("D",)),
  (f"{_ATTENTION}out/kernel", "attn/proj/kernel", ("D", "D")),
  (f"{_ATTENTION}out/bias", "attn/proj/bias", ("D",)),
  ("LayerNorm_2/scale", "norm2/scale", ("D",)),
  ("LayerNorm_2/bias", "norm2/bias", ("D",)),
  ("MlpBlock_3/Dense_0/kernel", "mlp/fc1/kernel", ("D", "F")),
  ("MlpBlock_3/Dense_0/bias", "mlp/fc1/bias", ("F",)),
  ("MlpBlock_3/Dense_1/kernel", "mlp/fc2/kernel", ("F", "D")),
  ("MlpBlock_3/Dense_1/bias", "mlp/fc2/bias", ("D",)),
)


def _blocks():
  found = []
  for k, name in enumerate(("query", "key", "value")):
    third = {"parts": (1, 1, 1), "part": k}
    for leaf, shape in (("kernel", ("D", "D")), ("bias", ("D",))):
      reference, ours = f"{_BLOCK}{_ATTENTION}{name}/{leaf}", f"encoder/blocks/attn/qkv/{leaf}"
      found.append(Entry(reference, ours, IDENTITY, shape, **third))
  found += [Entry(f"{_BLOCK}{r}", f"encoder/blocks/{o}", IDENTITY, shape) for r, o, shape in _ROWS]
  return found


def _recognise(source):
  names = {"cls", "embedding/kernel", _TABLE, f"{_BLOCK.format(i=0)}{_ATTENTION}query/kernel"}
  return CERTAIN if names <= source.state.keys() else NO


def _prepare(source, state, grid):
  """Joins the heads: [D, heads, D / heads] becomes [D, D]."""
  del source, grid
  joined = {}
  for name, array in state.items():
    if (
      _ATTENTION in name and name.endswith(("query/kernel", "key/kernel", "value/kernel")) and array.ndim == 3
    ):
      array = array.reshape(len(array), -1)
    elif _ATTENTION in name and name.endswith("out/kernel") and array.ndim == 3:
      array = array.reshape(-1, array.shape[-1])
    elif _ATTENTION in name and array.ndim == 2 and name.endswith(("query/bias", "key/bias", "value/bias")):
      array = array.reshape(-1)
    joined[name] = array
  return joined, {}


def _find_heads(source):
  bias = source.state[f"{_BLOCK.format(i=0)}{_ATTENTION}query/bias"]
  return len(bias) if bias.ndim == 2 else None


def _content(weights, state):
  """Returns the arrays of the file: the heads of `_prepare` are cut again."""
  heads, cut = weights.num_heads, {}
  for name, array in state.items():
    if _ATTENTION in name and name.endswith("out/kernel"):
      array = array.reshape(heads, -1, array.shape[-1])
    elif _ATTENTION in name and not name.endswith("out/bias"):
      array = array.reshape(*array.shape[:-1], heads, -1)
    cut[name] = array
  return cut


def _network_of(state):
  def pair(name, rows):
    """Returns (weight [outputs, inputs], bias) of a linear layer with this number of inputs."""
    return state[f"{name}/kernel"].reshape(rows, -1).T, state[f"{name}/bias"].reshape(-1)

  def norm(name):
    return state[f"{name}/scale"], state[f"{name}/bias"]

  D = state["cls"].shape[-1]

  def block(i):
    start = f"Transformer/encoderblock_{i}"
    parts = {
      key: pair(f"{start}/{_ATTENTION}{name}", D)
      for key, name in (("q", "query"), ("k", "key"), ("v", "value"))
    }
    hidden = len(state[f"{start}/MlpBlock_3/Dense_0/bias"])
    return parts | {
      "proj": pair(f"{start}/{_ATTENTION}out", D),
      "fc1": pair(f"{start}/MlpBlock_3/Dense_0", D),
      "fc2": pair(f"{start}/MlpBlock_3/Dense_1", hidden),
      "norm1": norm(f"{start}/LayerNorm_0"),
      "norm2": norm(f"{start}/LayerNorm_2"),
    }

  # The pictures of the network have the channel outermost in a patch.
  patches = state["embedding/kernel"].transpose(3, 2, 0, 1).reshape(D, -1)
  numbers = {name.split("/")[1] for name in state if name.startswith("Transformer/encoderblock_")}
  encoder = numpy_vit.Stack(
    embed=(patches, state["embedding/bias"]),
    token=state["cls"],
    table=state[_TABLE],
    depth=len(numbers),
    block=block,
    norm=norm("Transformer/encoder_norm"),
  )
  return numpy_vit.Network(encoder, None, functools.partial(numpy_vit.official_module, state))


FAMILY = Family(
  "google-vit",
  (
    Entry("cls", "encoder/cls_token", IDENTITY, ("1", "1", "D")),
    Entry(_TABLE, "encoder/pos_embed", IDENTITY, ("1", "T", "D")),
    Entry("embedding/kernel", PATCHES, FLAT_PATCHES, ("P", "P", "3", "D")),
    Entry("embedding/bias", "encoder/patch_embed/bias", VECTOR, ("D",)),
    *_blocks(),
    Entry("Transformer/encoder_norm/scale", "encoder/norm/scale", VECTOR, ("D",)),
    Entry("Transformer/encoder_norm/bias", "encoder/norm/bias", VECTOR, ("D",)),
  ),
  _recognise,
  _network_of,
  task="pretrain",
  stage="encoder; the file does not state its training task",
  licence="not stated in the file; the published weights of Google's ViT are Apache-2.0",
  prepare=_prepare,
  unused=("head/", "pre_logits/"),
  find_heads=_find_heads,
  pixels=((0.5,) * 3, (0.5,) * 3),
  pixels_from="published google-vit code",
  suffixes=(".npz",),
  content=_content,
)
