"""Computes the FLOPs of pre-training from a formula, and lists the peak FLOP/s of devices.

Only matrix products count. One multiplication with one addition counts as 2 FLOPs. Recomputation for the
gradient does not count, so that the shares of a peak can be compared between settings.
"""

from hap_jax.models import layers, vit

# {name of a device in jax: its peak bfloat16 FLOP/s without sparsity}. "measured": speed of a product of two
# matrices of 8192 x 8192 on such a device, or None if it was not measured. "datasheet": the vendor's number.
PEAKS = {
  "NVIDIA H200": {"measured": 788e12, "datasheet": 989.5e12},
  "NVIDIA H100 80GB HBM3": {"measured": None, "datasheet": 989.5e12},
}


def blocks(num_tokens, width, depth, mlp_ratio=4.0):
  """Returns the FLOPs of the forward pass of `depth` blocks over one sequence of tokens."""
  # The 4 stands for qkv (3) and proj (1). The MLP has two layers.
  dense = 2 * num_tokens * width * width * (4 + 2 * mlp_ratio)
  scores = 4 * num_tokens**2 * width
  return depth * (dense + scores)


def view(variant, *, image_size=(256, 128), patch=16, ratio=0.5, decoder_width=512, decoder_depth=8):
  """Returns the FLOPs of the forward pass of one masked view of a picture through encoder and decoder.

  Args:
    variant: key of `vit.VARIANTS`.
    image_size: pixels (H, W).
    patch: side in pixels.
    ratio: share of the patches that are hidden.
    decoder_width: width of the decoder.
    decoder_depth: number of blocks of the decoder.
  Returns:
    {"embed": FLOPs of the patch embedding, "encoder": of the encoder's blocks, "decoder": of the decoder with
    both projections, from tokens to its width and from its width to pixels}.
  """
  # The encoder sees the class token and the visible patches. The decoder sees the class token and all
  # patches.
  size = vit.variant(variant)
  rows, columns = layers.grid_of(image_size, patch)
  num_patches, num_pixels = rows * columns, 3 * patch * patch
  num_visible = int(num_patches * (1 - ratio))  # rounded down, as in masking.sampler
  return {
    "embed": 2 * num_patches * num_pixels * size.width,
    "encoder": blocks(1 + num_visible, size.width, size.depth),
    "decoder": 2 * (1 + num_visible) * size.width * decoder_width
    + blocks(1 + num_patches, decoder_width, decoder_depth)
    + 2 * (1 + num_patches) * decoder_width * num_pixels,
  }


def image(variant, *, views=2, backward=True, **sizes):
  """Returns the FLOPs of a step per picture, for all views. A backward pass costs two forward passes."""
  return views * (3 if backward else 1) * sum(view(variant, **sizes).values())


def of_config(config, backward=True):
  """Returns the FLOPs of a step per picture for a pre-training configuration."""
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
  """Returns the useful FLOP/s of a device as a share of each known peak.

  Args:
    flops_per_second: useful FLOP/s by the formula above.
    device_kind: name of the device, a key of `PEAKS`.
    dtype: compute type. The peaks are for bfloat16, so the shares are None for other types.
  Returns:
    {"measured": share or None, "datasheet": share or None}.
  """
  peaks = PEAKS.get(device_kind, {}) if dtype == "bfloat16" else {}
  shares = {}
  for kind in ("measured", "datasheet"):
    peak = peaks.get(kind)
    shares[kind] = round(flops_per_second / peak, 4) if peak else None
  return shares
