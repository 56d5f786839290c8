"""Networks of person re-identification: features to compare, and class scores to train by."""

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from hap_jax.models import image_encoder, layers, vit
from hap_jax.models.batch_norm import BatchNorm
from hap_jax.models.initializers import UNIFORM_IN_FAN, uniform_within


@struct.dataclass
class EmbedderOutputs:
  """One entry a head in each tuple.

  Attributes:
    features: [B, D_h] float32 each, not normalised: for the triplet loss and, joined, for retrieval.
    logits: [B, C] float32 each. Who leaves them unused under jit does not pay for the classifier.
  """

  features: tuple[jnp.ndarray, ...]
  logits: tuple[jnp.ndarray, ...]


def embedding(outputs):
  """Joins the features of all heads and scales each joined one to length 1; [B, sum of D_h] float32."""
  # Parity: heads are not normalised one by one, so the longer feature weighs more.
  return layers.l2_normalize(jnp.concatenate(outputs.features, axis=-1))


class Embedder(nn.Module):
  """An encoder with a linear classifier on its class token; parameters {"encoder", "head"}.

  The class token after the final norm is the feature, without a batch norm before the classifier.
  """

  encoder: vit.ViT
  num_classes: int

  @nn.compact
  def __call__(self, image, *, train, drop_key=None):
    """Runs encoder and head.

    Args:
      image: [B, H, W, 3] float, normalised, of the encoder's size. train: of no effect here, taken as by
        `LocalityEmbedder`. drop_key: see `vit.ViT`.
    Returns:
      EmbedderOutputs.
    Raises:
      ValueError: for pictures of another size.
    """
    del train
    feature = image_encoder.encode(self.encoder, image, drop_key).normed[:, 0].astype(jnp.float32)
    return EmbedderOutputs(features=(feature,), logits=(_head(self.num_classes)(feature),))


class LocalityEmbedder(nn.Module):
  """An `Embedder` with a second head of convolutions on the patch tokens, the locality enhanced module (LEM).

  The map of patch tokens, before the final norm, goes through three bottlenecks of half its width, the first
  with stride 2; its mean, normalised, is the second feature, twice as wide as the first. Each feature reaches
  its classifier through a batch norm whose bias is to stay zero (`optim.layer_decay_rules` freezes it).
  """

  encoder: vit.ViT
  num_classes: int

  @nn.compact
  def __call__(self, image, *, train, drop_key=None):
    """Runs encoder and heads.

    Args:
      image: [B, H, W, 3] float, normalised, of the encoder's size. train: see `BatchNorm`.
      drop_key: see `vit.ViT`.
    Returns:
      EmbedderOutputs: of the class token, then of the patch tokens.
    Raises:
      ValueError: for pictures of another size, or one picture in training.
    """
    latent = image_encoder.encode(self.encoder, image, drop_key)
    D = self.encoder.width
    x = latent.raw[:, 1:].reshape(image.shape[0], *self.encoder.grid, D)
    for i in range(3):
      stride = 2 if i == 0 else 1
      x = Bottleneck(D // 2, stride, self.encoder.dtype, name=f"conv_head_{i}")(x, train=train)
    pooled = x.astype(jnp.float32).mean(axis=(1, 2))
    features = (
      latent.normed[:, 0].astype(jnp.float32),
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
  """Residual unit 1x1 - 3x3 - 1x1 with batch norms (ResNet, arXiv 1512.03385), stride in the 3x3.

  [B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), 4 * width]; where that is another shape, the
  shortcut is a strided 1x1 convolution with a batch norm.
  """

  width: int
  stride: int
  dtype: jnp.dtype

  @nn.compact
  def __call__(self, x, *, train):
    def conv(features, size, stride, name):
      # Padding is stated: with stride 2, "SAME" would pad one side only and so shift the map.
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
  # Parity: the official "truncated" normal is cut at +-2, 100 standard deviations.
  return nn.Dense(num_classes, kernel_init=nn.initializers.normal(0.02), name="head")
