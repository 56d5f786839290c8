"""The pre-training model: masked views of a picture in, pixels and latents out."""

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from hap_jax.models import decoder, layers, vit


@struct.dataclass
class HapOutputs:
  """What pre-training needs of a batch of B images with N masked views each.

  Attributes:
    pred: [B, N, L, P*P*C] float32, predicted patches.
    cls: [B, N, D] float32, class tokens after the encoder's final norm.
  """

  pred: jnp.ndarray
  cls: jnp.ndarray


class HAP(nn.Module):
  """Encoder and decoder over N masked views of each image (HAP, arXiv 2310.20695, Sec. 3).

  All views go through both as one batch of B*N. One view and random masks make it an MAE.
  """

  encoder: vit.ViT
  decoder: decoder.Decoder

  def __call__(self, image, ids_keep, ids_restore):
    """Runs both halves.

    Args:
      image: [B, H, W, 3] float, normalised.
      ids_keep: [B, N, V] int32, visible patches of each view. ids_restore: [B, N, L] int32, see `Decoder`.
    Returns:
      HapOutputs.
    """
    B, N, L = ids_restore.shape
    latent = self.encoder(layers.patchify(image, self.encoder.patch), ids_keep).normed
    pred = self.decoder(latent, ids_restore.reshape(B * N, L))
    return HapOutputs(
      pred=pred.reshape(B, N, L, -1).astype(jnp.float32),
      cls=latent[:, 0].reshape(B, N, -1).astype(jnp.float32),
    )
