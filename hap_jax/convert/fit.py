"""Loads the weights of a checkpoint into the variables of a network."""

import dataclasses
import math

import numpy as np

from hap_jax.convert import experts
from hap_jax.convert.weights import count_blocks, flatten, grid_text, some, unflatten
from hap_jax.models import posemb, vit

_CLASS_TOKEN = "encoder/cls_token"


@dataclasses.dataclass(frozen=True)
class FitReport:
  """The report of `fit_to` on the arrays that were loaded, and on the arrays that were not.

  Attributes:
    loaded: paths of arrays of the network that were replaced.
    missing: paths of arrays of the network that kept their values.
    unused: the names in the file that were not used.
    resized: one line "path old grid -> new grid" per resized table. Each path is also in `loaded`.
    notes: more lines, such as the reason why a head was not loaded.
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


def fit_to(
  variables,
  weights,
  *,
  grid,
  num_heads=None,
  patch_padding=0,
  norm_eps=None,
  stacks=("encoder",),
  keep=(),
  notes=(),
  interpolation="bicubic",
):
  """Loads a checkpoint's weights into a network's variables. Position tables are resized if the grids differ.

  If only the file has experts, its first expert is used. If only the file has a class token, the class token
  is not used. If only the network has a class token, the class token keeps its initial value. In such a file,
  row 0 of the position table belongs to all patches. So row 0 is added to the rows of the patches and then
  set to 0.

  Args:
    variables: the network's variables, {"params": nested dicts with "encoder", other collections}.
    weights: Weights.
    grid: (Gh, Gw) of the network.
    num_heads: the number of heads of the network's encoder. None: the number in `vit.VARIANTS` for its size.
    patch_padding: padding of the network's patches in pixels, see `layers.patchify`. A different padding in
      the file is not an error, but is reported.
    norm_eps: epsilon of the network's layer norms. A different epsilon in the file is not an error, but is
      reported. None: it is not compared.
    stacks: the subtrees to load if both the network and the file have them, such as ("encoder", "decoder").
    keep: paths of subtrees that keep their values, such as "encoder/norm".
    notes: more lines for the report, see `FitReport.notes`.
    interpolation: how position tables are resized, see `posemb.resize_table`.
  Returns:
    (variables, FitReport). Loaded leaves are float32 NumPy arrays. All other leaves are unchanged.
  Raises:
    ValueError: if the encoder has another size or another number of heads, a tensor has another shape, or the
      file's grid is unknown.
  """
  weights, expert_notes = _without_experts(weights, variables["params"])
  source = weights.lineage[0]["file"]
  _check_sizes(source, weights, variables["params"], num_heads, stacks)
  given = {collection: flatten(tree) for collection, tree in weights.variables.items()}
  fitted = {collection: flatten(tree) for collection, tree in variables.items()}
  class_tokens = [_CLASS_TOKEN in fitted["params"], _CLASS_TOKEN in given["params"]]
  keep = tuple(f"{path}/" for path in keep)
  loaded, missing, resized = [], [], []
  for collection, flat in fitted.items():
    for path, old in flat.items():
      is_chosen = path.partition("/")[0] in stacks and not path.startswith(keep)
      if path not in given.get(collection, {}) or not is_chosen:
        missing.append(path)
        continue
      new = given[collection].pop(path)  # the arrays that remain in `given` are reported as unused
      # The grids are compared, not the numbers of patches, because 8x4 and 4x8 have the same number.
      if path.endswith("/pos_embed") and weights.grid != tuple(grid):
        new = _resize(source, new, weights, grid, interpolation)
        resized.append(f"{path} {grid_text(weights.grid)} -> {grid_text(grid)}")
      if path == "encoder/pos_embed" and class_tokens == [True, False]:
        new = _give_row_0_to_patches(new)
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
    notes=(
      *notes,
      *expert_notes,
      *_class_token_notes(*class_tokens),
      *_padding_notes(patch_padding, weights),
      *_epsilon_notes(norm_eps, weights),
    ),
  )
  return {collection: unflatten(flat) for collection, flat in fitted.items()}, report


def _without_experts(weights, params):
  """Returns (Weights, lines for the report). If only the file has experts, its first expert is used."""
  network = params.get("encoder", {}).get("blocks", {}).get("mlp")
  if weights.description.encoder.num_experts == 1 or network is None:
    return weights, ()
  if network["fc2"]["bias"].shape[-1] != weights.width:
    return weights, ()
  return experts.choose(weights, (0,)), ("of the experts in the file, the first one is used",)


def _resize(source, table, weights, grid, interpolation):
  if weights.grid is None:
    raise ValueError(
      f"{source}: its grid is {weights.grid_from}; run `hap convert` with --source_grid=HxW in patches"
    )
  return posemb.resize_table(table, weights.grid, grid, interpolation=interpolation)


def _give_row_0_to_patches(table):
  """Adds row 0 of a position table [1, 1 + L, D] to the other rows and sets it to 0."""
  return np.concatenate([np.zeros_like(table[:, :1]), table[:, 1:] + table[:, :1]], axis=1)


def _class_token_notes(in_network, in_file):
  """Returns lines for the report if only the network or only the file has a class token."""
  if in_file and not in_network:
    return ("the class token of the file is not used: the network has none",)
  if in_network and not in_file:
    change = "row 0 of its position table was added to the rows of the patches and is now 0"
    return (f"the class token is new: the file has none; {change}",)
  return ()


def _padding_notes(padding, weights):
  """Returns lines for the report if the padding of the patches differs."""
  given = weights.description.encoder.patch_padding
  if given == padding:
    return ()
  text = f"padding {given} in the file, {padding} in the network"
  return (f"the patches are shifted by {abs(given - padding)} pixels relative to the file: {text}",)


def _epsilon_notes(norm_eps, weights):
  """Returns lines for the report if the epsilon of the layer norms differs."""
  given = weights.description.encoder.norm_eps
  if norm_eps in (None, given):
    return ()
  return (
    f"the layer norms have the epsilon {norm_eps:g} (config.model.norm_eps), but {given:g} in the file",
  )


def _check_shape(source, names, path, new, old):
  if new.shape != tuple(old.shape):
    raise ValueError(
      f"{source}: tensor {some(names)} becomes {path} with shape {new.shape}, but the network has "
      f"{tuple(old.shape)}: change config.model to the sizes of the file, or change config.init_from"
    )


def _check_sizes(source, weights, params, num_heads, stacks):
  if "encoder" not in params:
    raise ValueError(f"{source}: expected a network with an encoder, found only {', '.join(params)}")
  encoder = params["encoder"]
  kernel = encoder["patch_embed"]["kernel"]  # the shape [P*P*3, D] gives patch side and width
  model = (kernel.shape[1], count_blocks(encoder), math.isqrt(kernel.shape[0] // 3))
  file = (weights.width, weights.depth, weights.patch)
  if file != model:
    raise ValueError(
      f"{source}: checkpoint is {_size_text(*file)}, but config.model.variant and config.model.patch make "
      f"{_size_text(*model)}: change these two keys, or change config.init_from"
    )
  # The variant in the configuration determines the number of heads. If the file does not record its number of
  # heads, the number of the variant is assumed.
  variant = vit.VARIANTS.get(vit.variant_of(weights.width, weights.depth))
  expected = num_heads or (variant and variant.num_heads)
  if expected and weights.num_heads not in (None, expected):
    other = vit.variant_of(weights.width, weights.depth, weights.num_heads)
    change = f"set it to {other}, or set" if other else "set"
    raise ValueError(
      f"{source}: checkpoint has {weights.num_heads} heads, but config.model.variant makes {expected}: "
      f"{change} config.init_from to another checkpoint"
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
