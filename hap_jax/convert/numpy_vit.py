"""A second, independent forward pass in NumPy. It finds the tensors of a file by the names in the file.

The result of a conversion is compared with this pass. This pass does not use the name tables of `names.py` or
the layouts of `layouts.py`, so a mistake in them causes a difference. Weights are [out, in], as in PyTorch.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from hap_jax.convert import numpy_text
from hap_jax.convert.numpy_layers import attention, f32, gelu, layer_norm, linear
from hap_jax.models import posemb


@dataclasses.dataclass(frozen=True)
class Stack:
  """Transformer blocks with the layers before and after them. Each pair is (weight, bias).

  Attributes:
    embed: the pair of the first projection. An encoder projects patches: the weight is [D, 3*P*P], with the
      channel outermost. A decoder projects the tokens of the encoder.
    token: [1, 1, D], the class token in an encoder, the mask token in a decoder. None: the encoder has no
      class token.
    table: [1, 1 + L, D], the position table. [1, L, D] if the class token has no position.
    depth: the number of blocks.
    block: i -> {"norm1", "q", "k", "v", "proj", "norm2", "fc1", "fc2": pair}. With layer scale, also
      {"scale1", "scale2": vector}, the factors of the outputs of attention and MLP. With experts, fc2 has
      only the shared outputs, and there is also "experts", a list with the pair of each expert.
    norm: the pair of the final norm.
    pred: the pair of the decoder's output layer, None in an encoder.
  """

  embed: tuple
  token: np.ndarray | None
  table: np.ndarray
  depth: int
  block: Callable
  norm: tuple
  pred: tuple | None = None


@dataclasses.dataclass(frozen=True)
class Network:
  """The tensors of a network, found by their names in the file.

  Attributes:
    encoder: a Stack.
    decoder: a Stack. None: there is no decoder.
    text: a `numpy_text.TextBranch`. None: there is no text branch.
    module: (name in the official code, path in this project's variables) -> tensors of one module of a head,
      {"weight", "bias", "mean", "var": tensor}. Keys that the module does not have are left out.
  """

  encoder: Stack
  decoder: Stack | None
  module: Callable
  text: numpy_text.TextBranch | None = None


@dataclasses.dataclass(frozen=True)
class Forward:
  """A network and the pictures that it is run on.

  Attributes:
    network: a Network.
    batch: a `verify.Batch`.
    num_heads: the encoder's number of heads.
    sizes: the values of `Description.network`.
    grids: (grid of the position tables, grid of the pictures), each (Gh, Gw).
    epsilon: the epsilon of the layer norms.
    padding: the padding of the encoder's patches in pixels.
    head: the number of the first head whose outputs are computed.
  """

  network: Network
  batch: Any
  num_heads: int
  sizes: Mapping[str, Any]
  grids: tuple
  epsilon: float
  padding: int = 0
  head: int = 0

  def encode(self, ids_keep=None):
    """Returns the tokens before the final norm, [B, 1 + V, D], see `numpy_vit.encode`.

    Args:
      ids_keep: [B, V] int, the visible patches. None: all patches.
    """
    return encode(
      self.network.encoder,
      self.batch.image,
      num_heads=self.num_heads,
      grids=self.grids,
      epsilon=self.epsilon,
      ids_keep=ids_keep,
      padding=self.padding,
      expert=self.batch.expert,
    )

  def normed(self, tokens):
    """Returns the tokens after the encoder's final norm."""
    return layer_norm(tokens, self.network.encoder.norm, self.epsilon)

  @functools.cached_property
  def raw(self):
    """Returns the class token, if there is one, and all patch tokens before the final norm, [B, 1 + L, D]."""
    return self.encode()

  @functools.cached_property
  def tokens(self):
    """Returns the class token, if there is one, and all patch tokens after the final norm, [B, 1 + L, D]."""
    return self.normed(self.raw)

  @property
  def cls(self):
    """Returns the class token after the final norm, [B, D].

    Raises:
      ValueError: if the encoder has no class token.
    """
    if not self._num_class_tokens:
      raise ValueError("the head of this network reads a class token, but its encoder has none")
    return self.tokens[:, 0]

  @property
  def patches(self):
    """Returns the patch tokens after the final norm, [B, L, D]."""
    return self.tokens[:, self._num_class_tokens :]

  @property
  def raw_patches(self):
    """Returns the patch tokens before the final norm, [B, L, D]."""
    return self.raw[:, self._num_class_tokens :]

  @property
  def _num_class_tokens(self):
    return 0 if self.network.encoder.token is None else 1


def official(state):
  """Returns the Network of a state dict with the names of MAE and timm."""
  prefix = _prefix(state, "patch_embed.proj.weight")

  def pair(name):
    return state[f"{prefix}{name}.weight"], state[f"{prefix}{name}.bias"]

  # The tensors of a block are read only when the block runs, so a large file is never in memory as a whole.
  def block_of(stack):
    def block(i):
      p = f"{stack}.{i}."
      weight = state[f"{prefix}{p}attn.qkv.weight"]
      parts, third = {}, len(weight) // 3  # the rows are queries, then keys, then values
      bias = state.get(f"{prefix}{p}attn.qkv.bias")
      for n, key in enumerate("qkv"):
        rows = slice(n * third, (n + 1) * third)
        one = state.get(f"{prefix}{p}attn.{key}_bias", np.zeros(third)) if bias is None else bias[rows]
        parts[key] = weight[rows], one
      for key, spellings in _SCALES.items():
        for name in spellings:
          parts |= {key: state[f"{prefix}{p}{name}"]} if f"{prefix}{p}{name}" in state else {}
      names = {"norm1": "norm1", "proj": "attn.proj", "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
      return parts | {key: pair(p + name) for key, name in names.items()} | _experts(state, p, pair)

    return block

  weight, bias = pair("patch_embed.proj")
  encoder = Stack(
    embed=(weight.reshape(len(weight), -1), bias),
    token=state.get(prefix + "cls_token"),
    table=state[prefix + "pos_embed"],
    depth=_count(state, prefix + "blocks."),
    block=block_of("blocks"),
    norm=pair("norm"),
  )
  decoder = None
  if prefix + "decoder_pos_embed" in state:
    decoder = Stack(
      embed=pair("decoder_embed"),
      token=state[prefix + "mask_token"],
      table=state[prefix + "decoder_pos_embed"],
      depth=_count(state, prefix + "decoder_blocks."),
      block=block_of("decoder_blocks"),
      norm=pair("decoder_norm"),
      pred=pair("decoder_pred"),
    )
  return Network(encoder, decoder, functools.partial(official_module, state))


def _experts(state, block, pair):
  """Returns {"experts": pairs} of a block whose names begin with `block`, or {} without experts."""
  count = _count(state, f"{block}mlp.experts.")
  return {"experts": [pair(f"{block}mlp.experts.{number}") for number in range(count)]} if count else {}


_SCALES = {"scale1": ("ls1.gamma", "gamma_1"), "scale2": ("ls2.gamma", "gamma_2")}
# Names of the modules of a block in the versions of transformers, the oldest name first.
_HF_BLOCK = {
  "norm1": ("layernorm_before", "norm1"),
  "q": ("attention.attention.query", "attention.q_proj"),
  "k": ("attention.attention.key", "attention.k_proj"),
  "v": ("attention.attention.value", "attention.v_proj"),
  "proj": ("attention.output.dense", "attention.o_proj"),
  "norm2": ("layernorm_after", "norm2"),
  "fc1": ("intermediate.dense", "mlp.fc1"),
  "fc2": ("output.dense", "mlp.fc2"),
}


def hugging_face(state):
  """Returns the Network of a state dict with the names of transformers' ViT, ViTMAE or VitPose."""
  prefix = _prefix(state, "embeddings.patch_embeddings.projection.weight")

  def pair(name):
    return state[f"{name}.weight"], state[f"{name}.bias"]

  def stack_of(*spellings):
    # A file uses only one of the spellings, so their order does not matter.
    stack = next(s for s in spellings if any(name.startswith(s) for name in state))

    def block(i):
      found = {}
      for key, names in _HF_BLOCK.items():
        modules = (f"{stack}{i}.{name}" for name in names)
        found[key] = pair(next(module for module in modules if f"{module}.weight" in state))
      for n in (1, 2):
        scale = state.get(f"{stack}{i}.layer_scale{n}.lambda1")
        found |= {} if scale is None else {f"scale{n}": scale}
      return found | _experts(state, f"{stack}{i}.", pair)

    return _count(state, stack), block

  depth, block = stack_of(f"{prefix}encoder.layer.", f"{prefix}layers.")
  weight, bias = pair(f"{prefix}embeddings.patch_embeddings.projection")
  encoder = Stack(
    embed=(weight.reshape(len(weight), -1), bias),
    token=state.get(prefix + "embeddings.cls_token"),
    table=state[prefix + "embeddings.position_embeddings"],
    depth=depth,
    block=block,
    norm=pair(prefix + "layernorm"),
  )
  decoder = None
  if "decoder.mask_token" in state:
    depth, block = stack_of("decoder.decoder_layers.", "decoder.decoder_encoder.layer.")
    decoder = Stack(
      embed=pair("decoder.decoder_embed"),
      token=state["decoder.mask_token"],
      table=state["decoder.decoder_pos_embed"],
      depth=depth,
      block=block,
      norm=pair("decoder.decoder_norm"),
      pred=pair("decoder.decoder_pred"),
    )
  return Network(encoder, decoder, functools.partial(official_module, state))


def own(variables, part_features=0):
  """Returns the Network of this project's variables, {"params": nested dicts, other collections}.

  Args:
    variables: the variables.
    part_features: number of outputs of each expert, if there are experts.
  """
  params = variables["params"]

  def pair(module):
    return module["kernel"].T, module["bias"]

  def norm(module):
    return module["scale"], module["bias"]

  def stack_of(stack, **ends):
    def block(i):
      # Blocks are stacked along the first axis.
      b = jax.tree.map(lambda leaf: leaf[i], stack["blocks"])
      parts = {key: pair(b["mlp"][key]) for key in ("fc1", "fc2")} | {"proj": pair(b["attn"]["proj"])}
      parts |= {key: norm(b[key]) for key in ("norm1", "norm2")}
      D = len(b["norm1"]["bias"])
      if experts := _own_experts(parts["fc2"], D, part_features):
        parts |= experts
      weight, bias = pair(b["attn"]["qkv"])
      for n, key in enumerate("qkv"):
        parts[key] = weight[n * D : (n + 1) * D], bias[n * D : (n + 1) * D]
      return parts

    depth = len(stack["blocks"]["norm1"]["bias"])
    return Stack(table=stack["pos_embed"], depth=depth, block=block, norm=norm(stack["norm"]), **ends)

  encoder = params["encoder"]
  # This project orders the inputs as (row, column, channel), but `Stack.embed` has the channel outermost.
  weight, bias = pair(encoder["patch_embed"])  # [D, P*P*3]
  weight = weight.reshape(len(weight), -1, 3).swapaxes(1, 2).reshape(len(weight), -1)
  encoder = stack_of(encoder, embed=(weight, bias), token=encoder.get("cls_token"))
  decoder = params.get("decoder")
  if decoder is not None:
    decoder = stack_of(
      decoder, embed=pair(decoder["embed"]), token=decoder["mask_token"], pred=pair(decoder["pred"])
    )
  module = functools.partial(_own_module, variables)
  return Network(encoder, decoder, module, numpy_text.own(variables))


def _own_experts(fc2, width, part_features):
  """Returns {"fc2": pair of the shared outputs, "experts": pairs}, or {} if fc2 has no experts."""
  weight, bias = fc2
  if len(bias) == width:
    return {}
  starts = [0, *range(width - part_features, len(bias) + 1, part_features)]
  first, *others = ((weight[start:stop], bias[start:stop]) for start, stop in itertools.pairwise(starts))
  return {"fc2": first, "experts": others}


def encode(stack, image, *, num_heads, grids, epsilon, ids_keep=None, padding=0, expert=None):
  """Runs an encoder.

  Args:
    stack: a Stack.
    image: [B, H, W, 3] float32, normalised.
    num_heads: the number of heads of a block.
    grids: (grid of the stack's table, grid of the image), each (Gh, Gw). The table is resized if they differ.
    epsilon: the epsilon of the norms.
    ids_keep: [B, V] int, the visible patches. None: all patches.
    padding: zero pixels on all four sides of the image. The first patch begins at the outer border of the
      padding. Pixels that do not fill a whole patch are not used.
    expert: [B] int, the expert of each picture, if the blocks have experts.
  Returns:
    [B, 1 + V, D] before the final norm, class token first. [B, V, D] if there is no class token.
  """
  B, H, W, _ = image.shape
  (old, (Gh, Gw)) = grids
  P, Q = H // Gh, W // Gw
  image = np.pad(image, ((0, 0), (padding, padding), (padding, padding), (0, 0)))[:, :H, :W]
  # [B, Gh, Gw, 3, P, Q]: the channel is outermost in a patch, as in the weight of PyTorch's convolution.
  patches = image.reshape(B, Gh, P, Gw, Q, 3).transpose(0, 1, 3, 5, 2, 4).reshape(B, Gh * Gw, -1)
  weight, bias = stack.embed
  if weight.shape[1] != 3 * P * Q:
    weight = _resize_kernel(f32(weight), P)
  table = f32(stack.table)
  if table.shape[1] == old[0] * old[1]:
    table = np.concatenate([np.zeros_like(table[:, :1]), table], axis=1)
  table = posemb.resize_table(table, old, (Gh, Gw))
  tokens = linear(patches, (weight, bias)) + table[:, 1:]  # row 0 of the table belongs to the class token
  if stack.token is None:
    tokens = tokens + table[:, :1]  # without a class token, row 0 belongs to all patches
  if ids_keep is not None:
    tokens = np.take_along_axis(tokens, ids_keep[..., None], axis=1)
  if stack.token is None:
    return _blocks(stack, tokens, num_heads, epsilon, expert)
  first = np.broadcast_to(f32(stack.token) + table[:, :1], (B, 1, tokens.shape[-1]))
  return _blocks(stack, np.concatenate([first, tokens], axis=1), num_heads, epsilon, expert)


def _resize_kernel(weight, side):
  """Resizes patch kernels [D, 3*P*P], with the channel outermost, to another side by least squares.

  If B resizes all P*P pixels of a patch by bilinear interpolation, the result w' is the smallest w' with the
  smallest |B^T w' - w|, as in FlexiViT (arXiv 2212.08013).
  """
  P = int(np.sqrt(weight.shape[1] // 3))
  centres = (np.arange(side) + 0.5) * P / side - 0.5
  one = np.stack([np.interp(centres, np.arange(P), pixel) for pixel in np.eye(P)], axis=1)  # [side, P]
  resize = np.kron(one, one)  # [side*side, P*P]
  columns = weight.reshape(-1, P * P).T.astype(np.float64)
  found = np.linalg.lstsq(resize.T, columns, rcond=None)[0].T
  return f32(found.reshape(len(weight), -1))


def decode(stack, latent, ids_restore, *, num_heads, grids, epsilon):
  """Runs a decoder.

  Args:
    stack: a Stack.
    latent: [B, 1 + V, D], tokens after the encoder's final norm.
    ids_restore: [B, L] int, the position of each patch if visible patches come first, then hidden patches.
    num_heads: the number of heads of a block.
    grids: as in `encode`.
    epsilon: the epsilon of the norms.
  Returns:
    the predicted patches in image order, [B, L, P*P*3].
  """
  tokens = linear(latent, stack.embed)
  B, L = ids_restore.shape
  # The mask tokens of the hidden patches are added after the visible patches. Then all patches are put back
  # in the order of the image.
  hidden = np.broadcast_to(f32(stack.token), (B, L + 1 - tokens.shape[1], tokens.shape[-1]))
  patches = np.concatenate([tokens[:, 1:], hidden], axis=1)
  patches = np.take_along_axis(patches, ids_restore[..., None], axis=1)
  table = posemb.resize_table(f32(stack.table), *grids)
  tokens = _blocks(stack, np.concatenate([tokens[:, :1], patches], axis=1) + table, num_heads, epsilon)
  return linear(layer_norm(tokens[:, 1:], stack.norm, epsilon), stack.pred)


def _blocks(stack, x, num_heads, epsilon, expert=None):
  for i in range(stack.depth):
    p = stack.block(i)
    x = x + attention(layer_norm(x, p["norm1"], epsilon), p, num_heads) * f32(p.get("scale1", 1))
    hidden = gelu(linear(layer_norm(x, p["norm2"], epsilon), p["fc1"]))
    mixed = linear(hidden, p["fc2"])
    if "experts" in p:
      own = [linear(hidden[k : k + 1], p["experts"][number]) for k, number in enumerate(expert.tolist())]
      mixed = np.concatenate([mixed, np.concatenate(own)], axis=-1)
    x = x + mixed * f32(p.get("scale2", 1))
  return x


def _prefix(state, ending):
  """Returns the part before `ending` of the first name that ends with it."""
  return next(name.removesuffix(ending) for name in state if name.endswith(ending))


def _count(state, prefix):
  return len({name[len(prefix) :].partition(".")[0] for name in state if name.startswith(prefix)})


def official_module(state, name, path):
  """Returns a head's module from a file's tensors, see `Network.module`."""
  del path
  fields = {"weight": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
  return {key: state[f"{name}.{field}"] for key, field in fields.items() if f"{name}.{field}" in state}


def _own_module(variables, name, path):
  """Returns a head's module from this project's variables, see `Network.module`."""
  del name
  found = {}
  # A batch norm has its scale in "params" and its mean in "batch_stats", so the collections are joined.
  for node in variables.values():
    for part in path.split("/"):
      node = node.get(part, {})
    found |= node
  if "kernel" in found:
    kernel = found.pop("kernel")  # [in, out], or [kh, kw, in, out] of a convolution
    found["weight"] = kernel.T if kernel.ndim == 2 else kernel.transpose(3, 2, 0, 1)
  if "scale" in found:
    found["weight"] = found.pop("scale")
  return found
