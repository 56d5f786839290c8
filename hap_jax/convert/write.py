"""Writes weights with the names and in the format of another project, or as a checkpoint of this project."""

import dataclasses
import json
import pathlib

import jax
import numpy as np

from hap_jax import config as config_lib
from hap_jax.convert import constants, families, names
from hap_jax.convert.container import RECORD
from hap_jax.convert.family import CONSTANTS, FILE_SUFFIXES
from hap_jax.convert.weights import flatten, grid_text, some, unflatten
from hap_jax.io import checkpoint_file, safetensors_file, torch_writer
from hap_jax.models import posemb

OWN = "orbax"


def targets():
  """Returns the possible values of --to: `OWN` and the names of all families, as a tuple."""
  return (OWN, *families.names())


def makes_folder(to):
  """Returns True if the target is a folder, False if it is a file."""
  return to == OWN or families.load(to).folder is not None


def holds_constants(to):
  """Returns True if the target holds the constants of a network, or stores them next to the checkpoint."""
  return to == OWN or families.load(to).has_constants


def regrid(weights, grid):
  """Resizes the position tables to another grid.

  Args:
    weights: Weights.
    grid: (Gh, Gw). None: the tables keep their grid.
  Returns:
    (Weights, one line "path old grid -> new grid" per resized table).
  Raises:
    ValueError: if the grid of the weights is unknown.
  """
  if grid is None or tuple(grid) == weights.grid:
    return weights, ()
  if weights.grid is None:
    raise ValueError(
      f"{weights.lineage[0]['file']}: its grid is {weights.grid_from}; give --source_grid=HxW in patches"
    )
  flat = flatten(weights.params)
  tables = [path for path in ("encoder/pos_embed", "decoder/pos_embed") if path in flat]
  flat |= {path: posemb.resize_table(flat[path], weights.grid, grid) for path in tables}
  resized = tuple(f"{path} {grid_text(weights.grid)} -> {grid_text(grid)}" for path in tables)
  variables = {**weights.variables, "params": unflatten(flat)}
  grid_from = f"resized from {grid_text(weights.grid)}"
  weights = dataclasses.replace(weights, variables=variables, grid_from=grid_from)
  return weights.with_encoder(grid=tuple(grid)), resized


def find_gap(weights):
  """Returns a message about a missing fact that targets with constants need, or "" if none is missing."""
  family = families.find(weights.family)
  return family.find_gap(weights) if family else ""


def check_target(weights, to):
  """Raises ValueError if a target cannot hold the weights, or if a fact that it needs is unknown."""
  file = weights.lineage[0]["file"]
  if weights.grid is None:
    raise ValueError(f"{file}: its grid is {weights.grid_from}; give --source_grid=HxW in patches")
  if weights.num_heads is None:
    raise ValueError(
      f"{file}: neither the file nor its size (width {weights.width}, depth {weights.depth}) shows the "
      "number of heads: set --num_heads"
    )
  if weights.decoder is not None and weights.decoder["num_heads"] is None:
    raise ValueError(
      f"{file}: neither the file nor its decoder's width {weights.decoder['width']} shows the decoder's "
      "number of heads: set --decoder_heads"
    )
  if "norm" not in weights.params["encoder"]:
    raise ValueError(
      f"{file}: the final norm of the encoder is missing, as in classifiers that average the patches. So "
      "the tokens cannot be compared. To start a training from this file, set config.init_from"
    )
  gap = find_gap(weights)
  if gap and holds_constants(to):
    raise ValueError(f"{file}: {gap}")
  if to != OWN:
    family = families.load(to)
    _check_network(weights, family)
    _check_task(weights, family)
    family.for_weights(family, weights)
    family.check_weights(weights)


def _check_network(weights, family):
  """Raises ValueError if a family's files are for encoders with another padding, class token or epsilon."""
  encoder = weights.description.encoder
  own, theirs = ((x.patch_padding, x.class_token) for x in (encoder, family))
  if own != theirs:
    raise ValueError(
      f"--to={family.name}: its files are for encoders with {_network_text(*theirs)}, but the encoder of "
      f"{weights.lineage[0]['file']} has {_network_text(*own)}: choose another --to"
    )

  if not family.states_norm_eps and encoder.norm_eps != family.norm_eps:
    raise ValueError(
      f"--to={family.name}: its files are for layer norms with the epsilon {family.norm_eps:g}, but "
      f"{weights.lineage[0]['file']} has {encoder.norm_eps:g}: choose another --to, or change the epsilon "
      f"with --norm_eps={family.norm_eps:g}"
    )


def _check_task(weights, family):
  """Raises ValueError if a family has heads with the same names for another task."""
  heads = sorted(family.stacks & set(weights.heads))
  if heads and family.task != weights.task:
    raise ValueError(
      f"--to={family.name}: the part {', '.join(heads)} of its files is for the task {family.task}, but "
      f"{weights.lineage[0]['file']} is for {weights.task}: use --to=hap for the encoder only"
    )


def _network_text(patch_padding, class_token):
  return f"patch padding {patch_padding} and {'a' if class_token else 'no'} class token"


@dataclasses.dataclass(frozen=True)
class Written:
  """How many tensors and parameters were written, and the names of parts that were not written.

  Attributes:
    num_tensors: the number of written tensors.
    num_parameters: the number of written parameters, without running statistics.
    dropped: the paths of our arrays that the target cannot hold.
    missing: subtrees that the target can hold, but the source does not have.
    placeholders: names of written tensors that do not come from the source and have fixed values.
  """

  num_tensors: int
  num_parameters: int
  dropped: tuple[str, ...] = ()
  missing: tuple[str, ...] = ()
  placeholders: tuple[str, ...] = ()


def to_state(weights, family):
  """Returns the weights under a family's names.

  Args:
    weights: Weights.
    family: a Family.
  Returns:
    ({name: array}, Written). Only whole subtrees are dropped, never parts of a subtree.
  Raises:
    ValueError: if the weights have no array for a tensor of the family, or the family has no name for an
      array in one of its subtrees.
  """
  # Collections are merged, because a text encoder may be a constant or a part of the parameters.
  arrays = {path: leaf for tree in weights.variables.values() for path, leaf in flatten(tree).items()}
  family = family.for_weights(family.variant_of_arrays(arrays), weights)
  is_whole = "decoder" in family.stacks and (weights.decoder is not None or family.needs_decoder)
  # If a family needs a decoder, its table has at least one decoder block. So a missing decoder is an error.
  decoder_depth = max(1, weights.decoder["depth"] if weights.decoder else 0) if is_whole else 0
  depths = {stack: len(arrays[path]) for stack, path in names.block_stacks(family).items() if path in arrays}
  rows = names.table(family, depth=weights.depth, decoder_depth=decoder_depth, depths=depths)
  absent = [row.ours for row in rows if row.ours not in arrays]
  if absent:
    raise ValueError(
      f"{weights.lineage[0]['file']} has no {some(list(dict.fromkeys(absent)))} for the {family.name} family"
    )
  state = {row.reference: row.layout.to_reference(row.of(arrays[row.ours])) for row in rows}
  placed = {row.ours for row in rows}
  dropped = tuple(path for path in arrays if path not in placed)
  # A dropped array inside a subtree of the family would change the model, so it is an error.
  unnamed = [path for path in dropped if path.partition("/")[0] in family.stacks]
  if unnamed:
    raise ValueError(f"the {family.name} family has no name for {some(unnamed)}; choose another --to")
  missing = () if is_whole or "decoder" not in family.stacks else ("decoder",)
  num_parameters = sum(state[row.reference].size for row in rows if row.collection != "batch_stats")
  fixed = _placeholders(names.placeholders(family, weights.depth), rows, state)
  return {**state, **fixed}, Written(len(rows), num_parameters, dropped, missing, tuple(fixed))


def _placeholders(items, rows, state):
  """Returns {name: array} of tensors that a loader of the official code needs, but the code never uses."""
  sizes = {
    letter: number
    for row in rows
    for letter, number in zip(row.shape, state[row.reference].shape, strict=True)
    if letter.isalpha()
  }
  found = {}
  for item in items:
    found[item.reference] = item.values(tuple(int(names.size_of(token, sizes)) for token in item.shape))
  return found


def check_container(path, to):
  """Raises ValueError if the suffix of a destination does not fit the target."""
  path = pathlib.Path(path)
  suffix = ".pth.tar" if path.name.endswith(".pth.tar") else path.suffix
  if makes_folder(to):
    if suffix in FILE_SUFFIXES:
      raise ValueError(f"--out={path}: --to={to} makes a folder, not a {suffix} file")
  elif suffix not in (known := families.load(to).suffixes):
    listed = " or ".join((", ".join(known[:-1]), known[-1])) if len(known) > 1 else known[0]
    raise ValueError(f"--out={path}: --to={to} makes a file, expected a name in {listed}")


def write(path, weights, to):
  """Writes weights.

  Args:
    path: the file or folder to make. The suffix of a file determines its format.
    weights: Weights.
    to: one of `targets()`.
  Returns:
    Written.
  Raises:
    ValueError: if the weights have no array for a tensor of the target, or their constants are not found.
    OSError: if the file or folder cannot be written.
  """
  path = pathlib.Path(path)
  if holds_constants(to):
    weights = constants.complete(weights)
  if to == OWN:
    variables = {name: tree for name, tree in weights.variables.items() if name != CONSTANTS}
    checkpoint_file.write(path, variables, weights.description.to_json())
    if weights.constants:
      config_lib.load("tasks", weights.task).store(weights.description, weights.constants, path)
    sizes = [leaf.size for leaf in jax.tree.leaves((weights.params, weights.constants))]
    return Written(len(jax.tree.leaves(weights.variables)), sum(sizes))
  family = families.load(to)
  state, written = to_state(weights, family)
  state = {family.in_file(name): array for name, array in state.items()}
  # The record has the facts that the tensors do not show, so a later conversion needs no options.
  record = _record(weights, family)
  metadata = {RECORD: json.dumps(record)}
  if family.folder is not None:
    path.mkdir()
    safetensors_file.save(path / "model.safetensors", state, metadata)
    for name, text in family.folder(weights).items():
      (path / name).write_text(text)
  elif path.suffix == ".safetensors":
    safetensors_file.save(path, state, metadata)
  elif path.suffix == ".npz":
    with path.open("wb") as file:  # given a path, NumPy would append another ending to a temporary name
      np.savez(file, **family.content(weights, state), **{RECORD: np.array(metadata[RECORD])})
  else:
    torch_writer.save(path, {**family.content(weights, state), RECORD: record})
  return written


def _record(weights, family):
  """Returns the description that is written into the file of a family, plain JSON values."""
  described = weights.description
  # A file of another task has no head, so it must not record the head's sizes and classes.
  if family.task != described.task:
    described = dataclasses.replace(described, task=family.task, network={}, classes={})
  return {**described.to_json(), "family": family.name}
