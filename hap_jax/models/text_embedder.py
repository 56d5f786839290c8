"""The network of text-to-image person re-identification: pictures and captions in one shared space."""

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from hap_jax.models import image_encoder, vit
from hap_jax.models.lstm import BidirectionalLstm

POOLINGS = ("floor", "masked")


@struct.dataclass
class TextEmbedderOutputs:
  """Embeddings and logits of pairs of a picture and a caption.

  Attributes:
    image: [B, F] float32, not normalised.
    text: [B, F] float32, not normalised.
    image_logits: [B, C] float32.
    text_logits: [B, C] float32.
  """

  image: jnp.ndarray
  text: jnp.ndarray
  image_logits: jnp.ndarray
  text_logits: jnp.ndarray


class TextEmbedder(nn.Module):
  """Two branches with one projection. The parameters are {"encoder", "lstm", "projection", "head"}.

  The text encoder is not a part of this network, because its parameters are usually frozen. The text branch
  starts at the token features of `bert.Bert`. Source: the official text-to-image ReID of HAP.

  Attributes:
    encoder: the image encoder. The LSTM has the same width, because both branches share the projection.
    embedding_dim: F, the width of the shared space.
    num_classes: C, the number of training persons.
    pooling: see `pool_captions`.
  """

  encoder: vit.ViT
  embedding_dim: int
  num_classes: int
  pooling: str = "floor"

  def setup(self):
    self.lstm = BidirectionalLstm(self.encoder.width, self.encoder.dtype)
    # Parity: the official code initialises the projection as a convolution before a ReLU, from a normal
    # distribution with the variance 2 / fan_out.
    init = nn.initializers.normal((2 / self.embedding_dim) ** 0.5)
    self.projection = nn.Dense(self.embedding_dim, use_bias=False, kernel_init=init)
    self.head = nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.001))

  def __call__(self, image, features, lengths, *, drop_key=None):
    """Returns the TextEmbedderOutputs of B pairs. For the arguments, see the methods of the two branches."""
    image = self.embed_images(image, drop_key=drop_key)
    text = self.embed_captions(features, lengths)
    return TextEmbedderOutputs(image, text, self.classify(image), self.classify(text))

  def embed_images(self, image, *, drop_key=None):
    """Embeds pictures: the largest value of each channel over the patch tokens, then the projection.

    Args:
      image: [B, H, W, 3] float, normalised, of the encoder's size.
      drop_key: see `vit.ViT`.
    Returns:
      [B, F] float32, not normalised.
    Raises:
      ValueError: if the pictures have another size.
    """
    return self.project(self.image_tokens(image, drop_key=drop_key).max(axis=1))

  def image_tokens(self, image, *, drop_key=None):
    """Returns the patch tokens of pictures before the final norm, [B, L, D]; see `embed_images`."""
    # Parity: the official code creates the final norm and the class token, but pools the raw patch tokens.
    return image_encoder.encode(self.encoder, image, drop_key).raw_patches

  def embed_captions(self, features, lengths):
    """Embeds captions: LSTM, pooling over the tokens, projection.

    Args:
      features: [B, T, D] token features from `bert.Bert`, of any width D.
      lengths: [B] int32, at least 1.
    Returns:
      [B, F] float32, not normalised. The embedding of a caption does not depend on the other captions of the
      batch, nor on T.
    Raises:
      ValueError: if the pooling has an unknown name.
    """
    return self.project(pool_captions(self.caption_tokens(features, lengths), lengths, self.pooling))

  def caption_tokens(self, features, lengths):
    """Returns the outputs of the LSTM, [B, T, width of the image encoder]; see `embed_captions`."""
    return self.lstm(features, lengths)

  def project(self, pooled):
    """Projects pooled tokens of either branch into the shared space: [B, D] -> [B, F] float32."""
    return self.projection(pooled.astype(jnp.float32))

  def classify(self, embedding):
    """Returns the logits of the training persons: [B, F] -> [B, C] float32."""
    return self.head(embedding)


def pool_captions(tokens, lengths, pooling):
  """Pools the tokens of captions. The result depends neither on the padding nor on other captions.

  The official code fills up all captions of a batch with zeros to the length of the longest caption, and
  takes the maximum over all positions. So its value of a caption depends on the batch. "floor" gives the
  official value of every caption that is shorter than the longest caption of its batch.

  Args:
    tokens: [B, T, D] float.
    lengths: [B] int32, at least 1.
    pooling: "masked": the maximum over the tokens of the caption. "floor": the larger of this maximum and 0.
  Returns:
    [B, D], in the type of the tokens.
  Raises:
    ValueError: if the pooling has another name.
  """
  if pooling not in POOLINGS:
    raise ValueError(f"config.text.pooling={pooling!r} is not one of {', '.join(POOLINGS)}")
  is_real = (jnp.arange(tokens.shape[1]) < lengths[:, None])[..., None]
  pooled = jnp.where(is_real, tokens, jnp.finfo(tokens.dtype).min).max(axis=1)
  return jnp.maximum(pooled, 0) if pooling == "floor" else pooled
