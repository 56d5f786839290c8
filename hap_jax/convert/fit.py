"""Loads the weights of a checkpoint into the variables of a network."""

import dataclasses
import math

from hap_jax.convert.weights import count_blocks, flatten, grid_text, some, unflatten
from hap_jax.models import posemb, vit


@dataclasses.dataclass(frozen=True)
class FitReport:
  """The report of `fit_to`: which arrays were loaded and which were not.

  Attributes:
    loaded: the paths of the network's arrays that were replaced.
    missing: the paths of the network's arrays that kept their values.
    unused: the names in the file that were not used.
    resized: one line "path old grid -> new grid" per resized table. These paths are in `loaded` too.
    notes: further lines, such as the reason why a head was not loaded.
  """

  loaded: tuple[str, ...]
  missing: tuple[str, ...]
  unused: tuple[str, ...]
  resized: tuple[str, ...]
  notes: tuple[str, ...] = ()

  def lines(self):
    """Returns the report as lines of text for a log."""
    kinds = [("kept at their initial values", self.missing), ("in the file, not used", self.unused)]
    kinds.append(("position tables resized", self.resized))
    return [
      f"loaded: {len(self.loaded)} tensors",
      *(f"{kind}: {len(items)} ({', '.join(items)})" for kind, items in kinds if items),
      *self.notes,
    ]


def fit_to(variables, weights, *, grid, stacks=("encoder",), notes=()):
  """Loads a checkpoint's weights into a network's variables. Position tables are resized if the grids differ.

  Args:
    variables: the network's variables, {"params": nested dicts with "encoder", other collections}.
    weights: Weights.
    grid: (Gh, Gw) of the network.
    stacks: the subtrees to load if both the network and the file have them, such as ("encoder", "decoder").
    notes: further lines for the report, see `FitReport.notes`.
  Returns:
    (variables, FitReport). Loaded leaves are float32 NumPy arrays. All other leaves are unchanged.
  Raises:
    ValueError: if the encoder has another size or another number of heads, a tensor has another shape, or the
      file's grid is unknown.
  """
  source = weights.lineage[0]["file"]
  _check_sizes(source, weights, variables["params"], stacks)
  given = {collection: flatten(tree) for collection, tree in weights.variables.items()}
  fitted = {collection: flatten(tree) for collection, tree in variables.items()}
  loaded, missing, resized = [], [], []
  for collection, flat in fitted.items():
    for path, old in flat.items():
      if path not in given.get(collection, {}) or path.partition("/")[0] not in stacks:
        missing.append(path)
        continue
      new = given[collection].pop(path)  # the arrays that remain in `given` are reported as unused
      # The grids are compared, not the numbers of patches: 8x4 and 4x8 have the same number.
      if path.endswith("/pos_embed") and weights.grid != tuple(grid):
        new = _resize(source, new, weights, grid)
        resized.append(f"{path} {grid_text(weights.grid)} -> {grid_text(grid)}")
      _check_shape(source, weights.source_names[path], path, new, old)
      flat[path] = new
      loaded.append(path)
  report = FitReport(
    loaded=tuple(loaded),
    missing=tuple(missing),
    unused=(
      *weights.unused,
      *(name for flat in given.values() for path in flat for name in weights.source_names[path]),
    ),
    resized=tuple(resized),
    notes=tuple(notes),
  )
  return {collection: unflatten(flat) for collection, flat in fitted.items()}, report


def _resize(source, table, weights, grid):
  if weights.grid is None:
    raise ValueError(
      f"{source}: its grid is {weights.grid_from}; run `hap convert` with --source_grid=HxW in patches"
    )
  return posemb.resize_table(table, weights.grid, grid)


def _check_shape(source, names, path, new, old):
  if new.shape != tuple(old.shape):
    raise ValueError(
      f"{source}: tensor {some(names)} becomes {path} with shape {new.shape}, but the network has "
      f"{tuple(old.shape)}: change config.model to the sizes of the file, or change config.init_from"
    )


def _check_sizes(source, weights, params, stacks):
  if "encoder" not in params:
    raise ValueError(f"{source}: expected a network with an encoder, found only {', '.join(params)}")
  encoder = params["encoder"]
  kernel = encoder["patch_embed"]["kernel"]  # [P*P*3, D], so its shape gives patch side and width
  model = (kernel.shape[1], count_blocks(encoder), math.isqrt(kernel.shape[0] // 3))
  file = (weights.width, weights.depth, weights.patch)
  if file != model:
    raise ValueError(
      f"{source}: checkpoint is {_size_text(*file)}, but config.model.variant and config.model.patch make "
      f"{_size_text(*model)}: change these two keys, or change config.init_from"
    )
  # A configuration names a variant, and the variant determines the number of heads. If the file does not
  # record its number of heads, it is assumed to be the number of the variant.
  variant = vit.VARIANTS.get(vit.variant_of(weights.width, weights.depth))
  if variant and weights.num_heads not in (None, variant.num_heads):
    raise ValueError(
      f"{source}: checkpoint has {weights.num_heads} heads, but config.model.variant makes "
      f"{variant.num_heads}: set config.init_from to another checkpoint"
    )
  if "decoder" in stacks and "decoder" in params and "decoder" in weights.params:
    in_file, in_model = count_blocks(weights.params["decoder"]), count_blocks(params["decoder"])
    if in_file != in_model:
      raise ValueError(
        f"{source}: its decoder has {in_file} blocks, but config.model.decoder_depth={in_model}: change this "
        "key, or load only the encoder"
      )


def _size_text(width, depth, patch):
  variant = vit.variant_of(width, depth)
  return f"ViT{f'-{variant}' if variant else ''} (width {width}, depth {depth}, patch {patch})"
