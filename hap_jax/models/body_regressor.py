"""The network for 3D pose and shape: it computes the parameters of a body model from the mean patch token."""

import flax.linen as nn
import jax.numpy as jnp
from flax import struct

from hap_jax.models import image_encoder, rotations, vit

NUM_ROTATIONS = 24  # joints of SMPL
NUM_BETAS = 10
NUM_CAMERA = 3
# Numbers of one person: six per rotation, the shape, and the camera.
NUM_VALUES = 6 * NUM_ROTATIONS + NUM_BETAS + NUM_CAMERA


@struct.dataclass
class BodyParameters:
  """Parameters of the body model for B people, float32.

  Attributes:
    rotations: [B, 24, 3, 3], relative to the parent joint. The first one turns the body frame to the camera
      frame.
    betas: [B, 10], the shape coefficients.
    camera: [B, 3], see `crop_camera.camera_translation`.
  """

  rotations: jnp.ndarray
  betas: jnp.ndarray
  camera: jnp.ndarray


class BodyRegressor(nn.Module):
  """An encoder with a head that computes the parameters of a body model directly, without a graph.

  The parameters are {"encoder", "body_head"}. The encoder is the encoder of 2D pose: it has no class token.

  Attributes:
    encoder: `vit.ViT`.
    hidden: width of the hidden layer of the head.
    start: NUM_VALUES numbers, the output for every picture before the training. `train/start_pose.py`
      computes them.
  """

  encoder: vit.ViT
  hidden: int
  start: tuple[float, ...]

  @nn.compact
  def __call__(self, image, *, drop_key=None):
    """Runs the encoder and the head.

    Args:
      image: [B, H, W, 3] float, normalised, of the encoder's size.
      drop_key: see `vit.ViT`.
    Returns:
      BodyParameters.
    Raises:
      ValueError: if the pictures have another size.
    """
    patches = image_encoder.encode(self.encoder, image, drop_key).patches
    offsets = BodyHead(self.hidden, name="body_head")(patches.astype(jnp.float32).mean(axis=1))
    return split(jnp.asarray(self.start, jnp.float32) + offsets)


class BodyHead(nn.Module):
  """A hidden layer, and an output layer whose parameters start at zero: [B, D] -> [B, NUM_VALUES] float32."""

  hidden: int

  @nn.compact
  def __call__(self, feature):
    x = nn.gelu(nn.Dense(self.hidden, name="hidden")(feature), approximate=False)
    return nn.Dense(NUM_VALUES, kernel_init=nn.initializers.zeros, name="output")(x)


def split(values):
  """Converts the numbers of people, [B, NUM_VALUES] float32, to BodyParameters."""
  sixd = values[:, : 6 * NUM_ROTATIONS].reshape(-1, NUM_ROTATIONS, 6)
  betas, camera = jnp.split(values[:, 6 * NUM_ROTATIONS :], [NUM_BETAS], axis=1)
  return BodyParameters(rotations.sixd_to_matrix(sixd), betas, camera)
