"""The plain vision transformer (ViT), the encoder of every task."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from hap_jax.models import layers, posemb


@dataclasses.dataclass(frozen=True)
class Variant:
  """Width D, number of blocks and number of heads of an encoder."""

  width: int
  depth: int
  num_heads: int


VARIANTS = {
  "Mu": Variant(128, 4, 2),  # not in the paper; the demo trains it in minutes on two CPU cores
  "Ti": Variant(192, 12, 3),
  "S": Variant(384, 12, 6),
  "B": Variant(768, 12, 12),
  "L": Variant(1024, 24, 16),
  "H": Variant(1280, 32, 16),
  "S12": Variant(384, 12, 12),  # the small model of ViTPose: S with 12 heads
}


def variant(name):
  """Returns the Variant with this name.

  Raises:
    ValueError: if no variant has this name.
  """
  if name not in VARIANTS:
    raise ValueError(f"config.model.variant={name!r} is not one of {', '.join(VARIANTS)}")
  return VARIANTS[name]


def variant_of(width, depth, num_heads=None):
  """Returns the name of the first variant with these sizes, or None if there is no such variant.

  Args:
    width, depth: the width and the number of blocks.
    num_heads: the number of heads. None: any number.
  """
  return next(
    (
      name
      for name, size in VARIANTS.items()
      if (size.width, size.depth) == (width, depth) and num_heads in (None, size.num_heads)
    ),
    None,
  )


@dataclasses.dataclass(frozen=True)
class Compute:
  """Settings of the computation of a network. The parameters do not depend on them.

  Attributes:
    dtype: type of the computation. Parameters are always float32.
    scan, remat, attention: see `layers.run_blocks`.
  """

  dtype: jnp.dtype = jnp.float32
  scan: bool = True
  remat: str = "none"
  attention: str = "xla"

  def options(self):
    """Returns the settings as keyword arguments for `ViT` and `Decoder`."""
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


FLOAT32 = Compute()


@struct.dataclass
class Latent:
  """Tokens of B*N views. Each view has V patch tokens. If there is a class token, it comes before them.

  Code that needs only some of the tokens uses `cls`, `patches` or `raw_patches`. Under jit, the compiler
  removes the computation of a field that the caller does not use.

  Attributes:
    normed: [B*N, 1 + V or V, D], the tokens after the final norm.
    raw: [B*N, 1 + V or V, D], the tokens before the final norm.
    class_token: True if there is a class token.
  """

  normed: jnp.ndarray
  raw: jnp.ndarray
  class_token: bool = struct.field(pytree_node=False, default=True)

  @property
  def cls(self):
    """Returns the class tokens after the final norm, [B*N, D].

    Raises:
      ValueError: if there is no class token.
    """
    if not self.class_token:
      raise ValueError("this encoder has no class token: expected an encoder with class_token=True")
    return self.normed[:, 0]

  @property
  def patches(self):
    """Returns the patch tokens after the final norm, [B*N, V, D]."""
    return self.normed[:, int(self.class_token) :]

  @property
  def raw_patches(self):
    """Returns the patch tokens before the final norm, [B*N, V, D]."""
    return self.raw[:, int(self.class_token) :]


class ViT(nn.Module):
  """Plain ViT encoder of visible patches. As in timm, it has pre-norm blocks, a class token and a final norm.

  The encoder of 2D pose has no class token, and its patches are shifted by a padding (ViTPose,
  arXiv 2204.12484).

  Attributes:
    width, depth, num_heads: see `VARIANTS`.
    grid: (Gh, Gw) in patches.
    patch: side P in pixels.
    mlp_ratio: width of the hidden MLP layer divided by `width`.
    patch_padding: padding of the patches, see `layers.patchify`. The parameters do not depend on it.
    class_token: False: there is no parameter `cls_token`. Row 0 of the position table, which is the position
      of the class token, is then added to all patches.
    norm_eps: epsilon of all layer norms.
    drop_path: stochastic depth rate of the last block. The rate rises linearly from 0 at the first block.
    dtype: compute type; parameters are float32.
    scan, remat, attention: see `layers.run_blocks`.
    num_experts, part_features: sizes of the experts, see `layers.Experts`.
  """

  width: int
  depth: int
  num_heads: int
  grid: tuple[int, int]
  patch: int
  mlp_ratio: float = 4.0
  patch_padding: int = 0
  class_token: bool = True
  norm_eps: float = layers.LAYER_NORM_EPSILON
  drop_path: float = 0.0
  dtype: jnp.dtype = jnp.float32
  scan: bool = True
  remat: str = "none"
  attention: str = "xla"
  num_experts: int = 1
  part_features: int = 0

  @nn.compact
  def __call__(self, patches, ids_keep=None, *, drop_key=None, expert=None):
    """Encodes all patches, or the visible patches of N masked views of each image.

    The views of one image are next to each other on the batch axis of the result. So if the batch is split
    over devices, no data moves between devices.

    Args:
      patches: [B, L, P*P*C] float, normalised, from `layers.patchify` with this encoder's patch and padding.
      ids_keep: [B, N, V] int32, the visible patches of each view, in the order of the returned tokens. None:
        one view with all L patches in image order.
      drop_key: PRNG key of stochastic depth; None: no branch is dropped.
      expert: [B] int, the expert of each image, if there are experts. None: the first expert.
    Returns:
      Latent.
    """
    # Every patch is embedded once, although several views may use it.
    tokens = layers.dense(self.width, self.dtype, "patch_embed")(patches)
    table = self.param("pos_embed", lambda _: jnp.asarray(posemb.sincos_table(self.grid, self.width)))
    table = table.astype(self.dtype)
    # Positions are added before the views pick their patches, so a token keeps the position of its patch.
    tokens = tokens + table[:, 1:]
    if not self.class_token:
      # Parity: the official pose code keeps row 0 in the table and adds it to every patch.
      tokens = tokens + table[:, :1]
    if ids_keep is not None:
      tokens = _pick_views(tokens, ids_keep)
    if self.class_token:
      cls_token = self.param("cls_token", nn.initializers.normal(0.02), (1, 1, self.width))
      cls_token = jnp.broadcast_to(
        cls_token.astype(self.dtype) + table[:, :1], (tokens.shape[0], 1, self.width)
      )
      tokens = jnp.concatenate([cls_token, tokens], axis=1)
    branch_scales = None
    if drop_key is not None and self.drop_path:
      branch_scales = layers.drop_path_scales(
        drop_key, len(tokens), depth=self.depth, drop_path=self.drop_path
      )
    if self.num_experts > 1:
      expert = jnp.zeros(len(patches), jnp.int32) if expert is None else expert
      expert = jnp.repeat(expert, len(tokens) // len(patches))  # the views of an image have the same expert
    (tokens,) = layers.run_blocks(
      self,
      (tokens,),
      depth=self.depth,
      num_heads=self.num_heads,
      mlp_ratio=self.mlp_ratio,
      dtype=self.dtype,
      scan=self.scan,
      remat=self.remat,
      attention=self.attention,
      branch_scales=branch_scales,
      experts=layers.Experts(self.num_experts, self.part_features),
      expert=expert if self.num_experts > 1 else None,
      norm_eps=self.norm_eps,
    )
    normed = layers.layer_norm(self.dtype, "norm", self.norm_eps)(tokens)
    return Latent(normed=normed, raw=tokens, class_token=self.class_token)


def _pick_views(tokens, ids_keep):
  """Returns the visible tokens of N views of each image: [B, L, D], [B, N, V] -> [B*N, V, D]."""
  (B, L, D), (_, N, V) = tokens.shape, ids_keep.shape
  ids_keep = ids_keep.reshape(B * N, V)
  # `gather_tokens` needs the inverse for its gradient. A hidden patch has -1, because no visible token comes
  # from it. Comparing every pair is faster on accelerators than writing to V places.
  is_kept = ids_keep[:, :, None] == jnp.arange(L, dtype=jnp.int32)  # [B*N, V, L]
  inverse = jnp.max(jnp.where(is_kept, jnp.arange(V, dtype=jnp.int32)[:, None], -1), axis=1)
  tokens = jnp.broadcast_to(tokens[:, None], (B, N, L, D)).reshape(B * N, L, D)
  return layers.gather_tokens(tokens, ids_keep, inverse)
