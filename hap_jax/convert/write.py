"""Writes weights in the names and the container of another project, or as a checkpoint of this one."""

import dataclasses
import json
import pathlib

import jax
import numpy as np

from hap_jax.convert import hugging_face, names
from hap_jax.convert.source import RECORD
from hap_jax.convert.weights import flatten, grid_text, some, unflatten, variant_of
from hap_jax.io import checkpoint_file, safetensors_file, torch_writer
from hap_jax.models import posemb

OWN = "orbax"
TARGETS = (OWN, *names.FAMILIES)
FOLDERS = (OWN, "hf-vit", "hf-vitmae")  # targets that are folders
_TORCH_SUFFIXES = (".pth", ".pt", ".bin")
# Beginnings of `arch`. The official ReID code takes a file with its own model's name for a run to resume,
# with optimizer and all, so ours are others.
_ARCHES = {"hap": "pose_mae_vit", "reid-vit": "reid_vit", "reid-lem": "reid_lem"}
_SIZES = {"S": "small", "B": "base", "L": "large", "H": "huge"}


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
  return dataclasses.replace(weights, variables=variables, grid=tuple(grid), grid_from=grid_from), resized


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
  if to == "reid-vit" and "conv_fc" in weights.params:
    raise ValueError(
      f"--to=reid-vit: the classifier of {file} reads what a batch norm of its locality enhanced module "
      "gives: use --to=reid-lem, or --to=hap for the encoder alone"
    )
  if to == "hf-vitmae" and weights.grid[0] != weights.grid[1]:
    raise ValueError(
      f"--to=hf-vitmae: ViTMAE of transformers is square, these weights have a grid of "
      f"{grid_text(weights.grid)}: use --to=hf-vit, or a square --grid"
    )


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
  is_whole = "decoder" in family.stacks and (weights.decoder is not None or family.name == "hf-vitmae")
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
  if to in FOLDERS:
    if suffix in (*_TORCH_SUFFIXES, ".safetensors"):
      raise ValueError(f"--out={path}: --to={to} makes a folder, not a {suffix} file")
  elif suffix not in (*_TORCH_SUFFIXES, ".safetensors"):
    raise ValueError(
      f"--out={path}: --to={to} makes a file, expected a name in {', '.join(_TORCH_SUFFIXES)} or .safetensors"
    )


def write(path, weights, to):
  """Writes weights.

  Args:
    path: of the file or folder to make; a file's suffix tells its kind. weights: Weights.
    to: one of `TARGETS`.
  Returns:
    Written.
  Raises:
    ValueError: if the weights lack a tensor of the target. OSError: if the disk does not take them.
  """
  path = pathlib.Path(path)
  if to == OWN:
    checkpoint_file.write(path, weights.variables, weights.description())
    sizes = [leaf.size for leaf in jax.tree.leaves(weights.params)]
    return Written(len(jax.tree.leaves(weights.variables)), sum(sizes))
  state, written = to_state(weights, names.FAMILIES[to])
  state = {names.FAMILIES[to].in_file(name): array for name, array in state.items()}
  record = {**weights.description(), "family": to, "task": names.FAMILIES[to].task}
  metadata = {RECORD: json.dumps(record)}
  if to in FOLDERS:
    path.mkdir()
    safetensors_file.save(path / "model.safetensors", state, metadata)
    (path / "config.json").write_text(json.dumps(hugging_face.config(weights, to), indent=2) + "\n")
    processor = json.dumps(hugging_face.processor(weights), indent=2)
    (path / "preprocessor_config.json").write_text(processor + "\n")
    (path / "README.md").write_text(hugging_face.card(weights, to))
  elif path.suffix == ".safetensors":
    safetensors_file.save(path, state, metadata)
  else:
    torch_writer.save(path, _content(weights, to, state, record))
  return written


def _content(weights, to, state, record):
  """Returns what the official scripts of a family expect in a .pth file, and our own description."""
  if to == "timm":
    return {"state_dict": state, RECORD: record}
  if to == "attributes-vit":
    # The official loader wants a parallel model's names, and prints the other two.
    parallel = {f"module.{name}": array for name, array in state.items()}
    return {"state_dicts": parallel, "epoch": "not recorded", "metric": "not recorded", RECORD: record}
  arch = _ARCHES.get(to)
  size = _SIZES.get(variant_of(weights.width, weights.depth))
  named = {"arch": f"{arch}_{size}_patch{weights.patch}"} if arch and size else {}
  return {**named, "model": state, RECORD: record}
