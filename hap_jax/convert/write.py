"""Writes weights in the names and the container of another project, or as a checkpoint of this one."""

import dataclasses
import json
import pathlib

import jax
import numpy as np

from hap_jax.convert import families, names
from hap_jax.convert.source import RECORD
from hap_jax.convert.weights import flatten, grid_text, some, unflatten
from hap_jax.io import checkpoint_file, safetensors_file, torch_writer
from hap_jax.models import posemb

OWN = "orbax"
_TORCH_SUFFIXES = (".pth", ".pt", ".bin")


def targets():
  """Returns what weights can be written as: `OWN` and the names of all families, a tuple."""
  return (OWN, *families.names())


def makes_folder(to):
  """Whether a target is a folder."""
  return to == OWN or families.load(to).folder is not None


def regrid(weights, grid):
  """Resizes the position tables to another grid.

  Returns:
    (Weights, names of the resized tables with both grids).
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


def check_target(weights, to):
  """Raises ValueError if a target cannot hold the weights, or the weights do not fill it."""
  file = weights.lineage[0]["file"]
  if weights.grid is None:
    raise ValueError(f"{file}: its grid is {weights.grid_from}; give --source_grid=HxW in patches")
  if weights.num_heads is None:
    raise ValueError(
      f"{file}: neither it nor its size (width {weights.width}, depth {weights.depth}) tells the number of "
      "heads: give --num_heads"
    )
  if weights.decoder is not None and weights.decoder["num_heads"] is None:
    raise ValueError(
      f"{file}: neither it nor its width of {weights.decoder['width']} tells the number of the decoder's "
      "heads: give --decoder_heads"
    )
  if "norm" not in weights.params["encoder"]:
    raise ValueError(
      f"{file} lacks the norm of the encoder's tokens, as classifiers over averaged patches do: no tokens "
      "come of it that could be compared; training can start from it by config.init_from"
    )
  if to != OWN:
    families.load(to).check_weights(weights)


@dataclasses.dataclass(frozen=True)
class Written:
  """What was written.

  Attributes:
    num_tensors: of weights that were written. num_parameters: numbers in them, statistics left out.
    dropped: paths of ours that the target has no place for.
    missing: subtrees that the target could hold and the source lacks.
  """

  num_tensors: int
  num_parameters: int
  dropped: tuple[str, ...] = ()
  missing: tuple[str, ...] = ()


def to_state(weights, family):
  """Puts weights under a family's names.

  Args:
    weights: Weights. family: a Family.
  Returns:
    ({name: array}, Written). What is dropped is whole subtrees, never a part of one.
  Raises:
    ValueError: if the weights lack a tensor of the family.
  """
  flats = {collection: flatten(tree) for collection, tree in weights.variables.items()}
  is_whole = "decoder" in family.stacks and (weights.decoder is not None or family.needs_decoder)
  decoder_depth = max(1, weights.decoder["depth"] if weights.decoder else 0) if is_whole else 0
  rows = names.table(family, depth=weights.depth, decoder_depth=decoder_depth)
  lacking = [row.ours for row in rows if row.ours not in flats.get(row.collection, {})]
  if lacking:
    raise ValueError(
      f"{weights.lineage[0]['file']} lacks {some(list(dict.fromkeys(lacking)))} for the {family.name} family"
    )
  state = {row.reference: row.layout.to_reference(row.of(flats[row.collection][row.ours])) for row in rows}
  state |= {name: np.zeros((), np.int64) for name in family.counters}
  placed = {row.ours for row in rows}
  dropped = tuple(path for flat in flats.values() for path in flat if path not in placed)
  astray = [path for path in dropped if path.partition("/")[0] in family.stacks]
  if astray:
    raise ValueError(f"the {family.name} family has no name for {some(astray)}")
  missing = () if is_whole or "decoder" not in family.stacks else ("decoder",)
  num_parameters = sum(state[row.reference].size for row in rows if row.collection == "params")
  return state, Written(len(rows), num_parameters, dropped, missing)


def check_container(path, to):
  """Raises ValueError if a destination's name does not go with the target."""
  suffix = pathlib.Path(path).suffix
  if makes_folder(to):
    if suffix in (*_TORCH_SUFFIXES, ".safetensors"):
      raise ValueError(f"--out={path}: --to={to} makes a folder, not a {suffix} file")
  elif suffix not in (*_TORCH_SUFFIXES, ".safetensors"):
    raise ValueError(
      f"--out={path}: --to={to} makes a file, expected a name in {', '.join(_TORCH_SUFFIXES)} or .safetensors"
    )


def write(path, weights, to):
  """Writes weights.

  Args:
    path: of the file or folder to make; a file's suffix says its kind.
    weights: Weights.
    to: one of `targets()`.
  Returns:
    Written.
  Raises:
    ValueError: if the weights lack a tensor of the target. OSError: if the disk does not take them.
  """
  path = pathlib.Path(path)
  if to == OWN:
    checkpoint_file.write(path, weights.variables, weights.description.to_json())
    sizes = [leaf.size for leaf in jax.tree.leaves(weights.params)]
    return Written(len(jax.tree.leaves(weights.variables)), sum(sizes))
  family = families.load(to)
  state, written = to_state(weights, family)
  state = {family.in_file(name): array for name, array in state.items()}
  record = _record(weights, family)
  metadata = {RECORD: json.dumps(record)}
  if family.folder is not None:
    path.mkdir()
    safetensors_file.save(path / "model.safetensors", state, metadata)
    for name, text in family.folder(weights).items():
      (path / name).write_text(text)
  elif path.suffix == ".safetensors":
    safetensors_file.save(path, state, metadata)
  else:
    torch_writer.save(path, {**family.content(weights, state), RECORD: record})
  return written


def _record(weights, family):
  """Returns the description that a family's file carries, plain JSON values."""
  described = weights.description
  if family.task != described.task:  # the head stays behind, and with it what is recorded of it
    described = dataclasses.replace(described, task=family.task, network={}, classes={})
  return {**described.to_json(), "family": family.name}
