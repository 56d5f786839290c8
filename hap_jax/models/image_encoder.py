"""The encoder with pictures as input. All code that computes features with a trained model uses `encode`."""

import flax.linen as nn
import jax.numpy as jnp

from hap_jax.models import layers, vit


def encode(encoder, images, drop_key=None, expert=None):
  """Encodes pictures. Call it inside a module that has the encoder as a submodule.

  Args:
    encoder: `vit.ViT`.
    images: [B, H, W, 3] float of the encoder's size, normalised by `pixels.normalize`.
    drop_key, expert: see `vit.ViT`.
  Returns:
    `vit.Latent` of all L patches, row by row.
  Raises:
    ValueError: if the pictures have another size or are not floats.
  """
  # A picture of 16x8 patches has as many tokens as a picture of 8x16 patches, so both sides are checked.
  expected = (*(side * encoder.patch for side in encoder.grid), 3)
  if images.ndim != 4 or images.shape[1:] != expected:
    H, W, _ = expected
    raise ValueError(
      f"images have shape {images.shape}, this encoder takes [B, {H}, {W}, 3]: resize them, or convert the "
      "checkpoint to another --grid first"
    )
  if not jnp.issubdtype(images.dtype, jnp.floating):
    raise ValueError(f"images are {images.dtype}: normalise them to floats with hap_jax.pixels.normalize")
  patches = layers.patchify(images, encoder.patch, encoder.patch_padding)
  return encoder(patches, drop_key=drop_key, expert=expert)


class ImageEncoder(nn.Module):
  """A ViT for whole pictures; its parameters are {"encoder": ...}, as in every checkpoint."""

  encoder: vit.ViT

  def __call__(self, images):
    """Returns the tokens of pictures after the final norm, [B, 1 + L, D]; see `encode`.

    The class token is the first token. If the encoder has no class token, the result is [B, L, D].
    """
    return self.latent(images).normed

  def latent(self, images):
    """Returns the `vit.Latent` of pictures. It has the class token and the patches as separate properties."""
    return encode(self.encoder, images)
