"""FLOPs of pre-training in closed form: matrix products alone, a multiplication with its addition being two.

Recomputation is not counted, so shares of a peak that are built on it compare across ways to compute.
"""

from hap_jax.models import layers, vit


def blocks(num_tokens, width, depth, mlp_ratio=4.0):
  """Returns the FLOPs of `depth` blocks over one sequence of tokens, forward."""
  dense = 2 * num_tokens * width * width * (4 + 2 * mlp_ratio)  # qkv 3, proj 1, two of the MLP
  scores = 4 * num_tokens**2 * width
  return depth * (dense + scores)


def view(variant, *, image_size=(256, 128), patch=16, ratio=0.5, decoder_width=512, decoder_depth=8):
  """Returns the FLOPs of one masked view of a picture through encoder and decoder, forward.

  Args:
    variant: key of `vit.VARIANTS`. ratio: share of the patches that is hidden. Others: the configuration's.
  Returns:
    {"embed", "encoder", "decoder"}: of the patches, the encoder's blocks, and what turns tokens into pixels.
  """
  size = vit.variant(variant)
  rows, columns = layers.grid_of(image_size, patch)
  num_patches, num_pixels = rows * columns, 3 * patch * patch
  num_visible = int(num_patches * (1 - ratio))  # as masking.sampler rounds
  return {
    "embed": 2 * num_patches * num_pixels * size.width,
    "encoder": blocks(1 + num_visible, size.width, size.depth),
    "decoder": 2 * (1 + num_visible) * size.width * decoder_width
    + blocks(1 + num_patches, decoder_width, decoder_depth)
    + 2 * (1 + num_patches) * decoder_width * num_pixels,
  }


def image(variant, *, views=2, backward=True, **sizes):
  """Returns the FLOPs of one picture of a step: all views, and twice the forward again for the gradient."""
  return views * (3 if backward else 1) * sum(view(variant, **sizes).values())


def of_config(config, backward=True):
  """Returns the FLOPs of one picture of a step of a pre-training configuration."""
  return image(
    config.model.variant,
    views=config.views,
    backward=backward,
    image_size=tuple(config.model.image_size),
    patch=config.model.patch,
    ratio=config.mask.ratio,
    decoder_width=config.model.decoder_width,
    decoder_depth=config.model.decoder_depth,
  )
