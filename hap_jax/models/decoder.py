"""The small decoder of masked image modelling."""

import flax.linen as nn
import jax.numpy as jnp

from hap_jax.models import layers, posemb


class Decoder(nn.Module):
  """Predicts the pixels of every patch from the visible patches (MAE, arXiv 2111.06377, Sec. 3).

  `vit.ViT` describes the attributes that are not listed here.

  Attributes:
    width: width of the decoder. It may differ from the width of the encoder.
    num_outputs: P*P*C, the number of values of a patch.
  """

  width: int
  depth: int
  num_heads: int
  grid: tuple[int, int]
  num_outputs: int
  mlp_ratio: float = 4.0
  norm_eps: float = layers.LAYER_NORM_EPSILON
  dtype: jnp.dtype = jnp.float32
  scan: bool = True
  remat: str = "none"
  attention: str = "xla"

  @nn.compact
  def __call__(self, latent, ids_keep, ids_restore):
    """Puts the visible tokens and the mask tokens back in image order and decodes them.

    Args:
      latent: [B, 1 + V, D], the output of an encoder with a class token, which is the first token.
      ids_keep: [B, V] int32, the visible patches in the order of the latent.
      ids_restore: [B, L] int32. If the visible patches are listed first and then the hidden patches, patch j
        has position ids_restore[j] in this list.
    Returns:
      [B, L, P*P*C] in image order.
    """
    tokens = layers.dense(self.width, self.dtype, "embed")(latent)
    mask_token = self.param("mask_token", nn.initializers.normal(0.02), (1, 1, self.width)).astype(self.dtype)
    V = ids_keep.shape[1]
    # A hidden patch has no token. Its index is clipped to V - 1, and the gathered token is then replaced by
    # the mask token.
    shown = layers.gather_tokens(tokens[:, 1:], jnp.minimum(ids_restore, V - 1), ids_keep)
    patches = jnp.where(ids_restore[..., None] >= V, mask_token, shown)
    # The table is a parameter, because checkpoints store it. The optimizer rules keep it fixed.
    table = self.param("pos_embed", lambda _: jnp.asarray(posemb.sincos_table(self.grid, self.width)))
    table = table.astype(self.dtype)
    # The class token is a group of its own, see `attention`. Nothing reads it after the last block.
    patches, _ = layers.run_blocks(
      self,
      (patches + table[:, 1:], tokens[:, :1] + table[:, :1]),
      depth=self.depth,
      num_heads=self.num_heads,
      mlp_ratio=self.mlp_ratio,
      dtype=self.dtype,
      scan=self.scan,
      remat=self.remat,
      attention=self.attention,
      norm_eps=self.norm_eps,
    )
    patches = layers.layer_norm(self.dtype, "norm", self.norm_eps)(patches)
    return layers.dense(self.num_outputs, self.dtype, "pred")(patches)
