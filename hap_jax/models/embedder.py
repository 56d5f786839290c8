"""Networks of person re-identification: they return features for retrieval and class scores for training."""

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from hap_jax.models import image_encoder, layers, vit
from hap_jax.models.batch_norm import BatchNorm
from hap_jax.models.initializers import UNIFORM_IN_FAN, uniform_within


@struct.dataclass
class EmbedderOutputs:
  """Features and logits of the heads. Each tuple has one array per head.

  Attributes:
    features: arrays [B, D_h] float32, not normalised. The triplet loss uses them one by one. Retrieval joins
      them with `embedding`.
    logits: arrays [B, C] float32. If a jitted caller does not use them, the compiler removes the classifier.
  """

  features: tuple[jnp.ndarray, ...]
  logits: tuple[jnp.ndarray, ...]


def embedding(outputs):
  """Joins the features of all heads. Returns [B, sum of D_h] float32 embeddings with unit norm."""
  # Parity: the features are not normalised before they are joined. So the feature with the larger norm has
  # more weight.
  return layers.l2_normalize(jnp.concatenate(outputs.features, axis=-1))


class Embedder(nn.Module):
  """An encoder with a linear classifier on its class token. The parameters are {"encoder", "head"}.

  The feature is the class token after the final norm. There is no batch norm before the classifier.
  """

  encoder: vit.ViT
  num_classes: int

  @nn.compact
  def __call__(self, image, *, train, drop_key=None):
    """Runs the encoder and the head.

    Args:
      image: [B, H, W, 3] float, normalised, of the encoder's size.
      train: not used here. The argument exists so that `LocalityEmbedder` can be called in the same way.
      drop_key: see `vit.ViT`.
    Returns:
      EmbedderOutputs.
    Raises:
      ValueError: if the pictures have another size, or if the encoder has no class token.
    """
    del train
    feature = image_encoder.encode(self.encoder, image, drop_key).cls.astype(jnp.float32)
    return EmbedderOutputs(features=(feature,), logits=(_head(self.num_classes)(feature),))


class LocalityEmbedder(nn.Module):
  """An `Embedder` with a second, convolutional head on the patch tokens: the locality enhanced module (LEM).

  The second head takes the map of patch tokens before the final norm. Three bottlenecks of half the width of
  the encoder follow. The first bottleneck has stride 2. The second feature is the LayerNorm of the mean over
  the resulting map. It is twice as wide as the first feature. Before each classifier, a batch norm is applied
  to the feature. The bias of this batch norm must stay zero, so `optim.layer_decay_rules` freezes it.
  """

  encoder: vit.ViT
  num_classes: int

  @nn.compact
  def __call__(self, image, *, train, drop_key=None):
    """Runs the encoder and both heads.

    Args:
      image: [B, H, W, 3] float, normalised, of the encoder's size.
      train: see `BatchNorm`.
      drop_key: see `vit.ViT`.
    Returns:
      EmbedderOutputs: the class-token head first, then the patch-token head.
    Raises:
      ValueError: if the pictures have another size, if the encoder has no class token, or if a training batch
        has one picture.
    """
    latent = image_encoder.encode(self.encoder, image, drop_key)
    D = self.encoder.width
    # Parity: the convolutions read the tokens before the final norm. The class-token head reads its token
    # after the norm.
    x = latent.raw_patches.reshape(image.shape[0], *self.encoder.grid, D)
    for i in range(3):
      stride = 2 if i == 0 else 1
      x = Bottleneck(D // 2, stride, self.encoder.dtype, name=f"conv_head_{i}")(x, train=train)
    # The last bottleneck multiplies D // 2 by 4, so the pooled feature has 2 * D values.
    pooled = x.astype(jnp.float32).mean(axis=(1, 2))
    features = (
      latent.cls.astype(jnp.float32),
      layers.layer_norm(jnp.float32, "conv_fc_norm")(pooled),
    )
    conv_fc = nn.Dense(
      self.num_classes,
      kernel_init=UNIFORM_IN_FAN,
      bias_init=uniform_within(1 / (2 * D) ** 0.5),
      name="conv_fc",
    )
    return EmbedderOutputs(
      features=features,
      logits=(
        _head(self.num_classes)(BatchNorm(name="bn")(features[0], train=train)),
        conv_fc(BatchNorm(name="conv_bn")(features[1], train=train)),
      ),
    )


class Bottleneck(nn.Module):
  """Residual unit of 1x1, 3x3 and 1x1 convolutions with batch norms (ResNet, arXiv 1512.03385).

  [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), 4 * width]. The stride belongs to the 3x3
  convolution. If the shapes of input and output differ, the shortcut is a 1x1 convolution with this stride,
  followed by a batch norm.
  """

  width: int
  stride: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, *, train):
    def conv(features, size, stride, name):
      # Parity: with stride 2, "SAME" would pad one side only and shift the map, so the padding is explicit.
      padding = [(size // 2, size // 2)] * 2
      return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=padding,
        use_bias=False,
        dtype=self.dtype,
        kernel_init=UNIFORM_IN_FAN,
        name=name,
      )

    def norm(name):
      return BatchNorm(self.dtype, name=name)

    y = nn.relu(norm("bn1")(conv(self.width, 1, 1, "conv1")(x), train=train))
    y = nn.relu(norm("bn2")(conv(self.width, 3, self.stride, "conv2")(y), train=train))
    y = norm("bn3")(conv(4 * self.width, 1, 1, "conv3")(y), train=train)
    if x.shape != y.shape:
      x = norm("downsample_1")(conv(4 * self.width, 1, self.stride, "downsample_0")(x), train=train)
    return nn.relu(x + y)


def _head(num_classes):
  # Parity: the official code truncates the normal distribution at -2 and 2, which is 100 standard deviations.
  # No value is ever that large, so a plain normal distribution gives the same result.
  return nn.Dense(num_classes, kernel_init=nn.initializers.normal(0.02), name="head")
