"""The pre-training model: it takes masked views of pictures and predicts the pixels of all patches."""

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from hap_jax.models import decoder, layers, vit


@struct.dataclass
class HapOutputs:
  """The model's outputs for a batch of B images with N masked views each.

  Attributes:
    pred: [B, N, L, P*P*C] float32, predicted patches.
    cls: [B, N, D] float32, class tokens after the encoder's final norm.
  """

  pred: jnp.ndarray
  cls: jnp.ndarray


class HAP(nn.Module):
  """Encoder and decoder for N masked views of each image (HAP, arXiv 2310.20695, Sec. 3).

  Encoder and decoder process all views as one batch of size B*N. With one view and random masks, the model is
  an MAE.
  """

  encoder: vit.ViT
  decoder: decoder.Decoder

  def __call__(self, image, ids_keep, ids_restore):
    """Runs the encoder, then the decoder.

    Args:
      image: [B, H, W, 3] float, normalised.
      ids_keep: [B, N, V] int32, visible patches of each view.
      ids_restore: [B, N, L] int32, see `Decoder`.
    Returns:
      HapOutputs.
    Raises:
      ValueError: if the encoder has no class token.
    """
    B, N, L = ids_restore.shape
    patches = layers.patchify(image, self.encoder.patch, self.encoder.patch_padding)
    latent = self.encoder(patches, ids_keep)
    cls = latent.cls  # raises ValueError without a class token, which the decoder needs
    pred = self.decoder(latent.normed, ids_keep.reshape(B * N, -1), ids_restore.reshape(B * N, L))
    # The losses are computed in float32, whatever the compute type of the network.
    return HapOutputs(
      pred=pred.reshape(B, N, L, -1).astype(jnp.float32),
      cls=cls.reshape(B, N, -1).astype(jnp.float32),
    )
