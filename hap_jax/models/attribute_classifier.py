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


def build_attribute_classifier(variant, *, image_size, patch, num_attributes, **options):
  """Builds a network of attributes from plain numbers.

  Args:
    variant: a `vit.Variant`. image_size: (H, W) pixels. patch: side P. num_attributes: A.
    options: further attributes of `vit.ViT`; logits are float32 anyway.
  Raises:
    ValueError: if the patch does not divide the image, or there are no attributes.
  """
  if num_attributes < 1:
    raise ValueError(
      f"a classifier of {num_attributes} attributes cannot be trained: the data set names none"
    )
  encoder = vit.build_vit(variant, image_size=image_size, patch=patch, **options)
  return AttributeClassifier(encoder, num_attributes)
