"""Loads the encoder of a checkpoint as a model that turns pictures into tokens."""

import jax
import jax.numpy as jnp

from hap_jax.convert import read as reading
from hap_jax.convert.selection import Selection
from hap_jax.convert.weights import flatten, some
from hap_jax.models.image_encoder import ImageEncoder


def load(path, *, family="", grid=None, num_heads=None, key="", prefix="", encoder_only=False):
  """Loads the encoder of any checkpoint that `hap convert` can read, pre-trained or fine-tuned.

      model, variables, description = hap_jax.load("hap_vit_base.pth")
      images = pixels.normalize(uint8_images)                    # [B, 256, 128, 3]
      tokens = jax.jit(model.apply)(variables, images)           # [B, 1 + 128, 768], class token first

  Encoders of 2D pose have no class token. Their tokens are [B, L, 768], the patches row by row.

  Args:
    path: a .pth or .safetensors file, a Hugging Face folder, or a workdir or checkpoint of this project.
    family: the checkpoint family, if the file does not record it, see `convert.read.read`.
    grid: (rows, columns) of the position table, if the file does not record it.
    num_heads: number of attention heads, if neither the file nor the encoder's size determines it.
    key: the entry of the file that holds the weights, if the file holds several encoders.
    prefix: only tensors whose names begin with this text are read, if the file holds several encoders.
    encoder_only: True: tensors outside of the encoder may have any names. They are not used.
  Returns:
    (model, variables, description).
    model: a float32 `ImageEncoder`.
    variables: {"params": {"encoder": ...}} on the default device of JAX.
    description: plain JSON values with the following keys and everything else that the checkpoint records:
      "family", "licence", "lineage", "task";
      "made_from": the data sets and weights of all stages, see `convert/licences.py`;
      "normalization": mean and std of the pixels;
      "model": "image_size" [H, W], "grid", "patch", "patch_padding", "class_token" and other sizes.
  Raises:
    UnsafePickleError: if the pickle of the file is built in a way that no writer uses. No code of a file is
      executed.
    ValueError: if the file cannot be read, a needed fact is unknown, or a tensor of the encoder is missing.
  """
  selection = Selection(key, prefix, encoder_only)
  return build(path, reading.read(path, family=family, grid=grid, selection=selection), num_heads)


def build(path, weights, num_heads=None):
  """Returns the same as `load` for `convert.weights.Weights` that were read from `path`."""
  weights = _with_heads(path, weights, num_heads)
  if weights.grid is None:
    raise ValueError(
      f"{path}: its grid is {weights.grid_from}; pass grid=(rows, columns) in patches, or "
      "--source_grid=HxW to `hap export` or `hap convert`"
    )
  model = ImageEncoder(weights.description.encoder.build())
  made = {"licence": weights.licence, "made_from": weights.made_from}
  description = {"family": weights.family, **weights.facts(), **made}
  params = {"encoder": weights.params["encoder"]}
  _check_whole(path, model, params, description["model"]["image_size"])
  return model, jax.device_put({"params": params}), description


def _with_heads(path, weights, num_heads):
  """Returns the Weights with the number of heads from the file or from the caller."""
  known = weights.num_heads
  if known is None and num_heads is None:
    raise ValueError(
      f"{path}: the number of heads of an encoder of width {weights.width} with {weights.depth} blocks is "
      "unknown; pass num_heads=N, or --num_heads=N to `hap export` or `hap convert`"
    )
  if num_heads is not None and (known not in (None, num_heads) or num_heads < 1 or weights.width % num_heads):
    raise ValueError(
      f"{path}: num_heads={num_heads} does not fit: the encoder has width {weights.width}"
      + (f" and {known} heads" if known else "")
    )
  return weights.with_encoder(num_heads=known or num_heads)


def _check_whole(path, model, params, image_size):
  """Raises ValueError unless the parameters have exactly the names and shapes that the model needs."""
  # eval_shape returns the expected names and shapes without computing weights.
  wanted = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *image_size, 3)))["params"]
  wanted, given = flatten(wanted), flatten(params)
  missing = [name for name in wanted if name not in given]
  if missing:
    # MAE classifiers with global pooling have a layer norm only for the mean patch token, not for single
    # tokens.
    hint = (
      "; a classifier on the mean patch token has no layer norm for tokens" if "norm" in missing[0] else ""
    )
    raise ValueError(f"{path}: {some(missing)} missing: cannot compute tokens{hint}")
  wrong = [name for name in given if name not in wanted or given[name].shape != wanted[name].shape]
  if wrong:
    raise ValueError(f"{path}: {some(wrong)} do not fit an encoder with the recorded sizes")
