"""A second, independent forward pass in NumPy that reads a file by the file's own names.

It is what a conversion is measured against, so it shares neither the name tables nor the layouts of
`names.py` and `layouts.py`: a mistake there shows as a difference here. Weights are PyTorch's way round,
[out, in].
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import scipy.special

from hap_jax.models import posemb


@dataclasses.dataclass(frozen=True)
class Stack:
  """Transformer blocks with what stands around them; each pair is (weight, bias).

  Attributes:
    embed: pair of the projection of patches, [D, 3*P*P] with the channel outermost, or of latents (decoder).
    token: [1, 1, D], class token, or mask token (decoder). table: [1, 1 + L, D]. depth: number of blocks.
    block: i -> {"norm1", "q", "k", "v", "proj", "norm2", "fc1", "fc2": pair}. norm: pair.
    pred: pair of the decoder's output, None in an encoder.
  """

  embed: tuple
  token: np.ndarray
  table: np.ndarray
  depth: int
  block: Callable
  norm: tuple
  pred: tuple | None = None


def official(state):
  """Returns {"encoder": Stack, "decoder": Stack if any} of a state dict with the names of MAE and timm."""
  prefix = _prefix(state, "patch_embed.proj.weight")

  def pair(name):
    return state[f"{prefix}{name}.weight"], state[f"{prefix}{name}.bias"]

  def block_of(stack):
    def block(i):
      p = f"{stack}.{i}."
      weight, bias = pair(p + "attn.qkv")
      parts, third = {}, len(bias) // 3
      for n, key in enumerate("qkv"):
        rows = slice(n * third, (n + 1) * third)
        parts[key] = weight[rows], bias[rows]
      names = {"norm1": "norm1", "proj": "attn.proj", "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
      return parts | {key: pair(p + name) for key, name in names.items()}

    return block

  weight, bias = pair("patch_embed.proj")
  stacks = {
    "encoder": Stack(
      embed=(weight.reshape(len(weight), -1), bias),
      token=state[prefix + "cls_token"],
      table=state[prefix + "pos_embed"],
      depth=_count(state, prefix + "blocks."),
      block=block_of("blocks"),
      norm=pair("norm"),
    )
  }
  if prefix + "decoder_pos_embed" in state:
    stacks["decoder"] = Stack(
      embed=pair("decoder_embed"),
      token=state[prefix + "mask_token"],
      table=state[prefix + "decoder_pos_embed"],
      depth=_count(state, prefix + "decoder_blocks."),
      block=block_of("decoder_blocks"),
      norm=pair("decoder_norm"),
      pred=pair("decoder_pred"),
    )
  return stacks


# What transformers has called the modules of a block, oldest spelling first.
_HF_BLOCK = {
  "norm1": ("layernorm_before",),
  "q": ("attention.attention.query", "attention.q_proj"),
  "k": ("attention.attention.key", "attention.k_proj"),
  "v": ("attention.attention.value", "attention.v_proj"),
  "proj": ("attention.output.dense", "attention.o_proj"),
  "norm2": ("layernorm_after",),
  "fc1": ("intermediate.dense", "mlp.fc1"),
  "fc2": ("output.dense", "mlp.fc2"),
}


def hugging_face(state):
  """As `official`, of the names of transformers' ViT and ViTMAE, in files and in memory."""
  prefix = _prefix(state, "embeddings.patch_embeddings.projection.weight")

  def pair(name):
    return state[f"{name}.weight"], state[f"{name}.bias"]

  def stack_of(*spellings):
    stack = next(s for s in spellings if any(name.startswith(s) for name in state))

    def block(i):
      found = {}
      for key, names in _HF_BLOCK.items():
        modules = (f"{stack}{i}.{name}" for name in names)
        found[key] = pair(next(module for module in modules if f"{module}.weight" in state))
      return found

    return _count(state, stack), block

  depth, block = stack_of(f"{prefix}encoder.layer.", f"{prefix}layers.")
  weight, bias = pair(f"{prefix}embeddings.patch_embeddings.projection")
  stacks = {
    "encoder": Stack(
      embed=(weight.reshape(len(weight), -1), bias),
      token=state[prefix + "embeddings.cls_token"],
      table=state[prefix + "embeddings.position_embeddings"],
      depth=depth,
      block=block,
      norm=pair(prefix + "layernorm"),
    )
  }
  if "decoder.mask_token" in state:
    depth, block = stack_of("decoder.decoder_layers.", "decoder.decoder_encoder.layer.")
    stacks["decoder"] = Stack(
      embed=pair("decoder.decoder_embed"),
      token=state["decoder.mask_token"],
      table=state["decoder.decoder_pos_embed"],
      depth=depth,
      block=block,
      norm=pair("decoder.decoder_norm"),
      pred=pair("decoder.decoder_pred"),
    )
  return stacks


def own(params):
  """As `official`, of this project's nested parameters."""

  def pair(module):
    return module["kernel"].T, module["bias"]

  def norm(module):
    return module["scale"], module["bias"]

  def stack_of(stack, **ends):
    def block(i):
      b = jax.tree.map(lambda leaf: leaf[i], stack["blocks"])
      parts = {key: pair(b["mlp"][key]) for key in ("fc1", "fc2")} | {"proj": pair(b["attn"]["proj"])}
      parts |= {key: norm(b[key]) for key in ("norm1", "norm2")}
      D = len(b["norm1"]["bias"])
      weight, bias = pair(b["attn"]["qkv"])
      for n, key in enumerate("qkv"):
        parts[key] = weight[n * D : (n + 1) * D], bias[n * D : (n + 1) * D]
      return parts

    depth = len(stack["blocks"]["norm1"]["bias"])
    return Stack(table=stack["pos_embed"], depth=depth, block=block, norm=norm(stack["norm"]), **ends)

  encoder = params["encoder"]
  weight, bias = pair(encoder["patch_embed"])  # [D, P*P*3], rows, columns, channels
  weight = weight.reshape(len(weight), -1, 3).swapaxes(1, 2).reshape(len(weight), -1)
  stacks = {"encoder": stack_of(encoder, embed=(weight, bias), token=encoder["cls_token"])}
  if "decoder" in params:
    decoder = params["decoder"]
    stacks["decoder"] = stack_of(
      decoder, embed=pair(decoder["embed"]), token=decoder["mask_token"], pred=pair(decoder["pred"])
    )
  return stacks


def encode(stack, image, *, num_heads, grids, epsilon, ids_keep=None):
  """Runs an encoder.

  Args:
    stack: a Stack. image: [B, H, W, 3] float32, normalised. num_heads: of its blocks.
    grids: (grid of the stack's table, grid of the image), each (Gh, Gw); the table is resized if they differ.
    epsilon: of its norms. ids_keep: [B, V] int, the visible patches; None: all.
  Returns:
    [B, 1 + V, D] before the final norm, class token first.
  """
  B, H, W, _ = image.shape
  (old, (Gh, Gw)) = grids
  P, Q = H // Gh, W // Gw
  patches = image.reshape(B, Gh, P, Gw, Q, 3).transpose(0, 1, 3, 5, 2, 4).reshape(B, Gh * Gw, -1)
  table = posemb.resize_table(_f32(stack.table), old, (Gh, Gw))
  tokens = linear(patches, stack.embed) + table[:, 1:]
  if ids_keep is not None:
    tokens = np.take_along_axis(tokens, ids_keep[..., None], axis=1)
  first = np.broadcast_to(_f32(stack.token) + table[:, :1], (B, 1, tokens.shape[-1]))
  return _blocks(stack, np.concatenate([first, tokens], axis=1), num_heads, epsilon)


def decode(stack, latent, ids_restore, *, num_heads, grids, epsilon):
  """Runs a decoder on normed latents [B, 1 + V, D]; returns [B, L, P*P*3] in image order.

  Other arguments as in `encode`; ids_restore: [B, L] int, patch j stands at place ids_restore[j] of visible,
  then hidden patches.
  """
  tokens = linear(latent, stack.embed)
  B, L = ids_restore.shape
  hidden = np.broadcast_to(_f32(stack.token), (B, L + 1 - tokens.shape[1], tokens.shape[-1]))
  patches = np.concatenate([tokens[:, 1:], hidden], axis=1)
  patches = np.take_along_axis(patches, ids_restore[..., None], axis=1)
  table = posemb.resize_table(_f32(stack.table), *grids)
  tokens = _blocks(stack, np.concatenate([tokens[:, :1], patches], axis=1) + table, num_heads, epsilon)
  return linear(layer_norm(tokens[:, 1:], stack.norm, epsilon), stack.pred)


def _blocks(stack, x, num_heads, epsilon):
  for i in range(stack.depth):
    p = stack.block(i)
    x = x + _attention(layer_norm(x, p["norm1"], epsilon), p, num_heads)
    hidden = linear(layer_norm(x, p["norm2"], epsilon), p["fc1"])
    hidden *= 0.5 * (1 + scipy.special.erf(hidden / np.sqrt(np.float32(2))))
    x = x + linear(hidden, p["fc2"])
  return x


def _attention(x, p, num_heads):
  B, T, D = x.shape
  q, k, v = (linear(x, p[key]).reshape(B, T, num_heads, -1).swapaxes(1, 2) for key in "qkv")
  scores = q @ k.swapaxes(2, 3) / np.sqrt(np.float32(D // num_heads))
  scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
  mixed = scores / scores.sum(axis=-1, keepdims=True) @ v
  return linear(mixed.swapaxes(1, 2).reshape(B, T, D), p["proj"])


def linear(x, pair):
  weight, bias = pair
  # By order in memory and alignment, which a file's tensors may lack, NumPy chooses how it sums: both sides
  # of a comparison shall sum alike.
  weight = np.require(weight, np.float32, ("C", "ALIGNED"))
  return (x.reshape(-1, x.shape[-1]) @ weight.T).reshape(*x.shape[:-1], -1) + _f32(bias)


def layer_norm(x, pair, epsilon):
  centred = x - x.mean(axis=-1, keepdims=True)
  scale = np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + np.float32(epsilon))
  return centred / scale * _f32(pair[0]) + _f32(pair[1])


def _f32(array):
  return np.asarray(array, np.float32)


def _prefix(state, ending):
  """Returns what stands before the one name that ends so."""
  return next(name.removesuffix(ending) for name in state if name.endswith(ending))


def _count(state, prefix):
  return len({name[len(prefix) :].partition(".")[0] for name in state if name.startswith(prefix)})
