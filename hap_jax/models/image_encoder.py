"""The encoder with pictures as its input, for everything that takes features from a trained model."""

import flax.linen as nn
import jax.numpy as jnp

from hap_jax.models import layers, vit


def encode(encoder, images, drop_key=None):
  """Encodes pictures; for use inside a module that holds the encoder.

  Args:
    encoder: `vit.ViT`. images: [B, H, W, 3] float of its size, normalised by `pixels.normalize`.
    drop_key: see `vit.ViT`.
  Returns:
    `vit.Latent` of 1 + L tokens, class token first, then the patches row by row.
  Raises:
    ValueError: for pictures of another size (a grid of as many patches would pass unseen), or no floats.
  """
  expected = (*(side * encoder.patch for side in encoder.grid), 3)
  if images.ndim != 4 or images.shape[1:] != expected:
    H, W, _ = expected
    raise ValueError(
      f"images have shape {images.shape}, this encoder takes [B, {H}, {W}, 3]: resize them, or convert the "
      "checkpoint to another --grid first"
    )
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise ValueError(f"images are {images.dtype}: normalise them, see hap_jax.pixels.normalize")
  return encoder(layers.patchify(images, encoder.patch), drop_key=drop_key)


class ImageEncoder(nn.Module):
  """A ViT over whole pictures; its parameters are {"encoder": ...}, as in every checkpoint."""

  encoder: vit.ViT

  def __call__(self, images):
    """Encodes pictures, see `encode`; returns [B, 1 + L, D] after the final norm."""
    return encode(self.encoder, images).normed
