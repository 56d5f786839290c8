"""FLOPs of pre-training in closed form, and the peaks of devices.

Only matrix products count; a multiplication with its addition is two. Recomputation does not count, so that
shares of a peak can be compared across ways to compute.
"""

from hap_jax.models import layers, vit

# Dense bfloat16 FLOP/s by the name that the device gives itself. "measured": of a product of two matrices of
# 8192 x 8192 on such a device, None where it was not taken; "datasheet": the vendor's figure, no sparsity.
PEAKS = {
  "NVIDIA H200": {"measured": 788e12, "datasheet": 989.5e12},
  "NVIDIA H100 80GB HBM3": {"measured": None, "datasheet": 989.5e12},
}


def blocks(num_tokens, width, depth, mlp_ratio=4.0):
  """Returns the FLOPs of `depth` blocks over one sequence of tokens, forward."""
  dense = 2 * num_tokens * width * width * (4 + 2 * mlp_ratio)  # qkv 3, proj 1, two of the MLP
  scores = 4 * num_tokens**2 * width
  return depth * (dense + scores)


def view(variant, *, image_size=(256, 128), patch=16, ratio=0.5, decoder_width=512, decoder_depth=8):
  """Returns the FLOPs of one masked view of a picture through encoder and decoder, forward.

  Args:
    variant: key of `vit.VARIANTS`.
    image_size: pixels (H, W).
    patch: side in pixels.
    ratio: share of the patches that is hidden.
    decoder_width: width of the decoder.
    decoder_depth: number of its blocks.
  Returns:
    {"embed", "encoder", "decoder"}: FLOPs of the patches, of the encoder's blocks, and from tokens to pixels.
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


def utilisation(flops_per_second, device_kind, dtype):
  """Returns which share of each known peak of a device its useful FLOP/s are.

  Args:
    flops_per_second: by the closed form above.
    device_kind: see `PEAKS`.
    dtype: the peaks are for bfloat16; shares of another type are None.
  Returns:
    {"measured": share or None, "datasheet": share or None}.
  """
  peaks = PEAKS.get(device_kind, {}) if dtype == "bfloat16" else {}
  shares = {}
  for kind in ("measured", "datasheet"):
    peak = peaks.get(kind)
    shares[kind] = round(flops_per_second / peak, 4) if peak else None
  return shares
