"""Puts a checkpoint's weights into a model's parameters."""

import dataclasses
import math

from hap_jax.convert.weights import count_blocks, flatten, grid_text, some, unflatten, variant_of
from hap_jax.models import posemb, vit


@dataclasses.dataclass(frozen=True)
class FitReport:
  """What `fit_to` did, each a tuple of names.

  Attributes:
    loaded: paths of the model's parameters that were replaced. missing: that kept their values.
    unused: names in the file that went nowhere. resized: "path old grid -> new grid"; these are loaded too.
  """

  loaded: tuple[str, ...]
  missing: tuple[str, ...]
  unused: tuple[str, ...]
  resized: tuple[str, ...]

  def lines(self):
    """Returns the report as lines of text for a log."""
    kinds = [("kept at their initial values", self.missing), ("in the file, not used", self.unused)]
    kinds.append(("position tables resized", self.resized))
    return [f"loaded: {len(self.loaded)} tensors"] + [
      f"{kind}: {len(items)} ({', '.join(items)})" for kind, items in kinds if items
    ]


def fit_to(params, weights, *, grid, with_decoder):
  """Puts a checkpoint's weights into a model's parameters; position tables are resized if the grids differ.

  Args:
    params: the model's, nested dicts with "encoder" and perhaps "decoder" and others, left as they are.
    weights: Weights. grid: (Gh, Gw) of the model.
    with_decoder: take the decoder too if the file and the model have one.
  Returns:
    (params with float32 NumPy arrays where loaded and the given leaves elsewhere, FitReport).
  Raises:
    ValueError: if the encoder is of another size or has other heads, a tensor is of another shape, or the
      file's grid is unknown.
  """
  source = weights.lineage[0]["file"]
  _check_sizes(source, weights, params, with_decoder)
  given = flatten(weights.params)
  fitted, missing, resized = flatten(params), [], []
  for path, old in fitted.items():
    if path not in given or not (with_decoder or path.startswith("encoder/")):
      missing.append(path)
      continue
    new = given.pop(path)
    if path.endswith("/pos_embed") and weights.grid != tuple(grid):
      if weights.grid is None:
        raise ValueError(
          f"{source}: its grid is {weights.grid_from}; convert it first, with --source_grid=HxW in patches"
        )
      new = posemb.resize_table(new, weights.grid, grid)
      resized.append(f"{path} {grid_text(weights.grid)} -> {grid_text(grid)}")
    if new.shape != tuple(old.shape):
      names = some(weights.source_names[path])
      raise ValueError(
        f"{source}: tensor {names} becomes {path} with shape {new.shape}, the model has {tuple(old.shape)}: "
        "change config.model to the file's sizes, or config.init_from"
      )
    fitted[path] = new
  report = FitReport(
    loaded=tuple(path for path in fitted if path not in missing),
    missing=tuple(missing),
    unused=(*weights.unused, *(name for path in given for name in weights.source_names[path])),
    resized=tuple(resized),
  )
  return unflatten(fitted), report


def _check_sizes(source, weights, params, with_decoder):
  if "encoder" not in params:
    raise ValueError(f"{source}: the model has no encoder for it, only {', '.join(params)}")
  encoder = params["encoder"]
  kernel = encoder["patch_embed"]["kernel"]
  model = (kernel.shape[1], count_blocks(encoder), math.isqrt(kernel.shape[0] // 3))
  file = (weights.width, weights.depth, weights.patch)
  if file != model:
    raise ValueError(
      f"{source}: checkpoint is {_size_text(*file)}, but config.model.variant and config.model.patch make "
      f"{_size_text(*model)}: change them, or config.init_from"
    )
  # A configuration's model is a variant, whose size tells its heads, as it does where a file does not.
  variant = vit.VARIANTS.get(variant_of(weights.width, weights.depth))
  if variant and weights.num_heads not in (None, variant.num_heads):
    raise ValueError(
      f"{source}: checkpoint has {weights.num_heads} heads, but config.model.variant makes "
      f"{variant.num_heads}: take another checkpoint for config.init_from"
    )
  if with_decoder and "decoder" in params and "decoder" in weights.params:
    in_file, in_model = count_blocks(weights.params["decoder"]), count_blocks(params["decoder"])
    if in_file != in_model:
      raise ValueError(
        f"{source}: its decoder has {in_file} blocks, but config.model.decoder_depth={in_model}: change it, "
        "or take the encoder alone"
      )


def _size_text(width, depth, patch):
  variant = variant_of(width, depth)
  return f"ViT{f'-{variant}' if variant else ''} (width {width}, depth {depth}, patch {patch})"
