"""The network for pedestrian attributes: it computes one logit per attribute from the mean patch token."""

import flax.linen as nn
import jax.numpy as jnp

from hap_jax.models import image_encoder, vit
from hap_jax.models.initializers import UNIFORM_IN_FAN, uniform_within


class AttributeClassifier(nn.Module):
  """An encoder with a linear classifier on the mean of its patch tokens.

  The parameters are {"encoder", "classifier"}. The class token takes part in attention, but the classifier
  does not read it. Source: the official attribute recognition of HAP.
  """

  encoder: vit.ViT
  num_attributes: int

  @nn.compact
  def __call__(self, image):
    """Runs the encoder and the classifier.

    Args:
      image: [B, H, W, 3] float, normalised, of the encoder's size.
    Returns:
      [B, A] float32 logits.
    Raises:
      ValueError: if the pictures have another size.
    """
    patches = image_encoder.encode(self.encoder, image).patches
    # Parity: the official code takes the mean after the final norm, not before it.
    feature = patches.astype(jnp.float32).mean(axis=1)
    # Parity: PyTorch draws the bias of a linear layer uniformly from -1 / sqrt(fan_in) to 1 / sqrt(fan_in).
    bias_init = uniform_within(1 / self.encoder.width**0.5)
    classifier = nn.Dense(
      self.num_attributes, kernel_init=UNIFORM_IN_FAN, bias_init=bias_init, name="classifier"
    )
    return classifier(feature)
