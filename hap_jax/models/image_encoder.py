"""The encoder with pictures as its input, for everything that takes features from a trained model."""

import flax.linen as nn
import jax.numpy as jnp

from hap_jax.models import layers, vit


class ImageEncoder(nn.Module):
  """A ViT over whole pictures; its parameters are {"encoder": ...}, as in every checkpoint."""

  encoder: vit.ViT

  def __call__(self, images):
    """Encodes pictures.

    Args:
      images: [B, H, W, 3] float of the encoder's size, normalised by `pixels.normalize`.
    Returns:
      [B, 1 + L, D] after the final norm, class token first, then the patches row by row.
    Raises:
      ValueError: for pictures of another size, or that are not floats.
    """
    expected = (*(side * self.encoder.patch for side in self.encoder.grid), 3)
    if images.ndim != 4 or images.shape[1:] != expected:
      H, W, _ = expected
      raise ValueError(
        f"images have shape {images.shape}, this encoder takes [B, {H}, {W}, 3]: resize them, or convert the "
        "checkpoint to another --grid first"
      )
    if not jnp.issubdtype(images.dtype, jnp.floating):
      raise ValueError(f"images are {images.dtype}: normalise them, see hap_jax.models.pixels.normalize")
    return self.encoder(layers.patchify(images, self.encoder.patch)).normed
