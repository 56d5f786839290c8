"""From a checkpoint to a model that turns pictures into features."""

import jax
import jax.numpy as jnp

from hap_jax.convert import read as reading
from hap_jax.convert.weights import flatten, some
from hap_jax.models.image_encoder import ImageEncoder


def load(path, *, family="", grid=None, num_heads=None):
  """Loads the encoder of any checkpoint that `hap convert` reads, pre-trained or fine-tuned.

      model, variables, description = hap_jax.load("hap_vit_base.pth")
      images = pixels.normalize(uint8_images)                    # [B, 256, 128, 3]
      tokens = jax.jit(model.apply)(variables, images)           # [B, 1 + 128, 768], class token first

  Args:
    path: a .pth or .safetensors file, a Hugging Face folder, or a workdir or checkpoint of this project.
    family, grid: of the file, where it does not tell them itself, see `convert.read.read`.
    num_heads: of the encoder, where neither the file nor its size tells them.
  Returns:
    (model, variables, description). model: an `ImageEncoder` of float32. variables: {"params": {"encoder":
    ...}} on JAX's default device. description: plain JSON values: "family", "licence", "made_from" (the data
    sets and weights of all stages, see `convert/licences.py`), "lineage", "task", "normalization" of the
    pixels, "model" with "image_size" [H, W], "grid", "patch" and sizes, and what else the checkpoint records.
  Raises:
    UnsafePickleError: if the file asks for code; nothing in it is executed. ValueError: if it cannot be read,
      does not tell what it takes to run it, or lacks a tensor of the encoder.
  """
  return build(path, reading.read(path, family=family, grid=grid), num_heads)


def build(path, weights, num_heads=None):
  """Returns what `load` does from Weights that were read from `path`."""
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
  """Returns the Weights with their number of heads, the file's or the caller's."""
  known = weights.num_heads
  if known is None and num_heads is None:
    raise ValueError(
      f"{path}: nothing tells how many heads an encoder of width {weights.width} and {weights.depth} blocks "
      "has; pass num_heads="
    )
  if num_heads is not None and (known not in (None, num_heads) or num_heads < 1 or weights.width % num_heads):
    raise ValueError(
      f"{path}: num_heads={num_heads} was given, but the encoder is {weights.width} wide"
      + (f" and has {known} heads" if known else "")
    )
  return weights.with_encoder(num_heads=known or num_heads)


def _check_whole(path, model, params, image_size):
  """Raises ValueError unless the parameters are just the model's."""
  wanted = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *image_size, 3)))["params"]
  wanted, given = flatten(wanted), flatten(params)
  lacking = [name for name in wanted if name not in given]
  if lacking:
    hint = "; a classifier over averaged patches has no norm for its tokens" if "norm" in lacking[0] else ""
    raise ValueError(f"{path}: lacks {some(lacking)}: no tokens come of it{hint}")
  wrong = [name for name in given if name not in wanted or given[name].shape != wanted[name].shape]
  if wrong:
    raise ValueError(f"{path}: {some(wrong)} do not belong to an encoder of the sizes that it records")
