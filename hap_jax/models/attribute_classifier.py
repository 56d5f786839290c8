"""The network of pedestrian attributes: one logit an attribute from the mean of the patch tokens."""

import flax.linen as nn
import jax.numpy as jnp

from hap_jax.models import image_encoder, vit
from hap_jax.models.initializers import UNIFORM_IN_FAN, uniform_within


class AttributeClassifier(nn.Module):
  """An encoder with a linear classifier on the mean of its patch tokens.

  Parameters {"encoder", "classifier"}. The class token takes part in attention and is not read.
  Source: HAP's official attribute recognition.
  """

  encoder: vit.ViT
  num_attributes: int

  @nn.compact
  def __call__(self, image):
    """Runs encoder and classifier.

    Args:
      image: [B, H, W, 3] float, normalised, of the encoder's size.
    Returns:
      [B, A] float32 logits.
    Raises:
      ValueError: for pictures of another size.
    """
    tokens = image_encoder.encode(self.encoder, image).normed
    # Parity: the norm comes before the mean, not after it.
    feature = tokens[:, 1:].astype(jnp.float32).mean(axis=1)
    bias_init = uniform_within(1 / self.encoder.width**0.5)
    classifier = nn.Dense(
      self.num_attributes, kernel_init=UNIFORM_IN_FAN, bias_init=bias_init, name="classifier"
    )
    return classifier(feature)
