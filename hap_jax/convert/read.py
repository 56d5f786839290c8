"""Reads all checkpoints that this project can use.

They are its own checkpoints and foreign files, which are files and Hugging Face folders of other projects.
"""

import dataclasses
import hashlib
import math
import pathlib

import ml_dtypes
import numpy as np

from hap_jax.convert import detect, families, lineage, names
from hap_jax.convert import match as matching
from hap_jax.convert.container import weights_file
from hap_jax.convert.selection import WHOLE
from hap_jax.convert.source import open_source
from hap_jax.convert.weights import Weights, count_blocks, flatten, unflatten
from hap_jax.description import Description, Encoder
from hap_jax.io import checkpoint_file
from hap_jax.models import layers, vit

_FLOATS = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)
OWN_FAMILY = lineage.OWN_FAMILY
# An encoder without heads is described as the result of pre-training, the task that has no head.
ENCODER_TASK = "pretrain"


def read(path, *, family="", grid=None, selection=WHOLE):
  """Reads a checkpoint. Executes no code of the file.

  Args:
    path: a .pth, .pth.tar, .pt, .bin or .safetensors file, a Hugging Face folder, or a workdir, checkpoints
      folder or checkpoint of this project.
    family: the name of a foreign file's family. "": it is detected from the file.
    grid: (Gh, Gw) of the file's position tables. None: it is found from the file, see `Weights.grid_from`.
    selection: a `Selection`, the part of the file to read.
  Returns:
    Weights.
  Raises:
    UnsafePickleError: if the pickle of the file is built in a way that no writer uses.
    ValueError: in these cases:
      the file is missing or damaged, belongs to no known family, or holds several encoders;
      the name of a tensor is unknown, or a tensor is missing;
      a tensor has an unexpected shape or type, or contains NaN or infinity;
      the file records a model that this project's encoder cannot compute;
      the file records another grid than `grid`.
  """
  path = pathlib.Path(path)
  if path.is_dir() and weights_file(path) is None:
    return _read_own(path, family, grid, selection)
  source = open_source(path, selection)
  found = detect.find_family(source, family)
  source = dataclasses.replace(source, config=found.read_config(source.config))
  found.check_source(source)
  state, file_names = matching.rename(source, found)
  state, made = found.prepare(source, state, grid)
  # From here on, a tensor that was made from several ones stands for all of them.
  joined = {part for parts in made.values() for part in parts} - state.keys()
  parts = {name: tuple(file_names[part] for part in items) for name, items in made.items()}
  file_names = {name: file_names.get(name, name) for name in (*file_names, *made) if name not in joined}
  try:
    found = found.for_file(found.variant_of_file(state), source, state)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error
  rows, unused = matching.match(source, found, state, file_names, selection)
  variables, source_names, sizes = to_ours(source, rows, state, file_names, parts)
  params = variables["params"]
  tables = [params[stack]["pos_embed"] for stack in ("encoder", "decoder") if stack in params]
  grid, grid_from = detect.find_grid(source, found, tables, grid)
  if any(row.ours == "encoder/pos_embed" and row.reference in made for row in rows):
    grid_from += "; the position table has no row for the class token"
  return Weights(
    variables=variables,
    source_names=source_names,
    family=found.name,
    grid_from=grid_from,
    unused=(*unused, *source.left),
    description=_describe(source, found, variables, sizes["P"], grid, selection),
    is_recorded=bool(source.record),
    taken=source.taken,
    objects=source.objects,
  )


def read_task(path, selection=WHOLE):
  """Returns the task of a checkpoint, the name of a file in `hap_jax/tasks`. Reads no weights.

  Raises:
    UnsafePickleError, ValueError: same as `read`, but the weights are not checked.
  """
  path = pathlib.Path(path)
  if selection.encoder_only:
    return ENCODER_TASK
  if path.is_dir() and weights_file(path) is None:
    return Description.from_json(checkpoint_file.read_description(path, is_checked=False)).task
  return detect.find_family(open_source(path, selection)).task


def to_ours(source, rows, state, file_names, parts=None):
  """Turns the tensors of a foreign file into arrays of this project. Checks their shapes and values.

  Args:
    source: a `source.Source`.
    rows: the rows of a name table, one for each tensor.
    state: {name in the table's spelling: array}.
    file_names: {name in the table's spelling: name in the file}.
    parts: {name in the table's spelling: names in the file of further tensors that it was made from}. None:
      all tensors are views of the file.
  Returns:
    (variables, {path in a collection: names in the file}, {letter of the table's shapes: number}).
  Raises:
    ValueError: if a tensor has an unexpected shape or type, or contains NaN or infinity. Also if several
      tensors share one storage.
  """
  path = source.path
  sizes = matching.check_shapes(path, rows, state, file_names)
  # If several tensors share one storage, a small file can claim arrays that do not fit into memory.
  parts, sizes_in_file = (
    parts or {},
    {source.names[name]: array.nbytes for name, array in source.state.items()},
  )
  claimed = sum(sizes_in_file.get(file_names[row.reference], 0) for row in rows)
  if claimed > sum(file.stat().st_size for file in source.files):
    raise ValueError(
      f"{path}: its tensors claim {claimed} bytes, more than the file has: several tensors share one storage"
    )
  source_names = {}
  for row in rows:
    more = parts.get(row.reference, ())
    # A tensor without a name in the file is made from the others, or has only zeros.
    own = (file_names[row.reference],) if file_names[row.reference] in sizes_in_file else ()
    source_names[row.ours] = (*source_names.get(row.ours, ()), *own, *more)
  flat = names.assemble(rows, lambda row: _to_float32(path, file_names[row.reference], state[row.reference]))
  return {collection: unflatten(leaves) for collection, leaves in flat.items()}, source_names, sizes


def _describe(source, family, variables, patch, grid, selection):
  """Returns the Description of a foreign file, from its shapes, its record and the facts of its family."""
  params = variables["params"]
  recorded = Description.from_json(source.record) if source.record else None
  width, depth = params["encoder"]["pos_embed"].shape[-1], count_blocks(params["encoder"])
  try:
    layers.check_padding(family.patch_padding, patch)
  except ValueError as error:
    raise ValueError(f"{source.path}: {error}") from error
  encoder = Encoder(
    width=width,
    depth=depth,
    num_heads=_num_heads(source, family, width, depth),
    grid=grid,
    patch=patch,
    mlp_ratio=_mlp_ratio(params),
    patch_padding=family.patch_padding,
    class_token=family.class_token,
    num_experts=family.num_experts,
    part_features=family.part_features,
    norm_eps=detect.norm_eps(source, family),
  )
  described = Description(
    task=family.task,
    encoder=encoder,
    normalization=detect.normalization(source, family),
    lineage=_lineage(source, family),
    place=source.path,
  )
  # If the file has a record, the record replaces the facts of the family. The sizes and the lineage still
  # come from the file itself.
  if recorded is not None:
    more = {key: value for key, value in recorded.more.items() if key != "family"}
    kept = {"network": recorded.network, "classes": recorded.classes, "data": recorded.data}
    described = dataclasses.replace(described, **kept, config=recorded.config, more=more)
  if selection.encoder_only:
    return _without_heads(described)
  return _completed(described, family, variables, source.config)


def _without_heads(description):
  """Returns the Description of an encoder without decoder and heads."""
  return dataclasses.replace(description, task=ENCODER_TASK, network={"decoder": None}, classes={})


def _completed(description, family, variables, config):
  """Returns the Description with the part `network` as the family reads it from the arrays.

  If the Description has no classes, it also gets the classes of the family.

  Raises:
    ValueError: if a recorded value does not fit the arrays. The message names the file.
  """
  try:
    network = {**description.network, **family.network(variables, config, description.network)}
  except ValueError as error:
    raise ValueError(f"{description.place}: {error}") from error
  decoder = network.get("decoder")
  if decoder:
    _check_heads(description.place, "decoder", decoder["num_heads"], decoder["width"])
  classes = description.classes or family.classes(network, config)
  return dataclasses.replace(description, network=network, classes=classes)


def _mlp_ratio(params):
  width, hidden = params["encoder"]["blocks"]["mlp"]["fc1"]["kernel"].shape[1:]  # axis 0 stacks the blocks
  return hidden / width


def _check_sizes(path, encoder, params):
  """Raises ValueError if the arrays of an encoder do not have the sizes that its description states."""
  found = {name: leaf.shape for name, leaf in flatten(params).items()}
  stated = {
    "patch_embed/kernel": (encoder.patch**2 * 3, encoder.width),
    "blocks/norm1/scale": (encoder.depth, encoder.width),
  }
  if encoder.grid is not None:
    stated["pos_embed"] = (1, 1 + math.prod(encoder.grid), encoder.width)
  if encoder.num_experts > 1:
    outputs = encoder.width + (encoder.num_experts - 1) * encoder.part_features
    stated["blocks/mlp/fc2/bias"] = (encoder.depth, outputs)
  for name, shape in stated.items():
    if found.get(name) != shape:
      raise ValueError(
        f"{path}: {name} of the encoder has the shape {found.get(name)}, but the description of the file "
        f"states {shape}"
      )
  if encoder.class_token != ("cls_token" in found):
    stated, is_there = ("a", "none") if encoder.class_token else ("no", "one")
    raise ValueError(
      f"{path}: the description of the file states {stated} class token, but its encoder has {is_there}"
    )


def _to_float32(path, name, array):
  if array.dtype not in _FLOATS:
    raise ValueError(f"{path}: tensor {name} has dtype {array.dtype}, expected floating point")
  with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which is an error below
    array = array.astype(np.float32)
  _check_finite(path, name, array)
  return array


def _check_finite(path, name, array):
  bad = np.size(array) - np.count_nonzero(np.isfinite(array))
  if bad:
    raise ValueError(f"{path}: tensor {name} has {bad} values that are NaN, infinite or beyond float32")


def _num_heads(source, family, width, depth):
  variant = vit.VARIANTS.get(vit.variant_of(width, depth))
  # A number in the record or in config.json has priority over the published number for this size.
  known = [source.record.get("model", {}).get("num_heads"), source.config.get("num_attention_heads")]
  known.append(family.find_heads(source))
  known.append(family.num_heads.get((width, depth)))
  heads = next(filter(None, known), variant.num_heads if variant else None)
  _check_heads(source.path, "encoder", heads, width)
  return heads


def _check_heads(path, stack, heads, width):
  if heads is not None and (type(heads) is not int or heads < 1 or width % heads):
    raise ValueError(
      f"{path}: records {heads!r} heads of its {stack}, expected a number that divides its width {width}"
    )


def _lineage(source, family):
  """Returns the lineage of a foreign file: the file itself, then the origins in its record."""
  digest = hashlib.sha256()
  for path in source.files:
    with path.open("rb") as file:
      hashlib.file_digest(file, lambda: digest)
  licence = _card_licence(source.card) or family.licence
  return lineage.of_file(source.path.name, digest.hexdigest(), family.name, licence, source.record)


def _card_licence(card):
  """Returns the licence that a model card states, or "" if it states no licence."""
  # For a licence without a name on the hub, `license` is "other" and `license_name` has the name.
  licence = card.get("license", "")
  return card.get("license_name") or licence if licence == "other" else licence


def _read_own(path, family, grid, selection):
  """Reads a checkpoint of this project. Its description states facts that foreign files do not state."""
  for name in ("key", "prefix"):
    if getattr(selection, name):
      option = selection.option(name, getattr(selection, name))
      raise ValueError(f"{path}: {option} has no effect on a folder without foreign weights: leave it out")
  if family not in ("", OWN_FAMILY):
    raise ValueError(f"{path}: expected a file of the {family} family, found a folder without its weights")
  variables, description = checkpoint_file.read(path)
  params = variables["params"]
  if "encoder" not in params:
    raise ValueError(f"{path}: expected a checkpoint with an encoder, found only {', '.join(params)}")
  if "blocks" not in params["encoder"]:
    raise ValueError(
      f"{path}: its encoder has no subtree `blocks`; an earlier version of hap_jax stored the blocks "
      "separately: convert the checkpoint again from its source, or train it again"
    )
  flat = {name: leaf for tree in variables.values() for name, leaf in flatten(tree).items()}
  for name, array in flat.items():
    _check_finite(path, name, array)
  try:
    described = Description.from_json(description, path)
  except ValueError as error:
    raise ValueError(f"{path}: {error}") from error
  encoder = described.encoder
  # The description states the grid with certainty, so `grid` must be the same.
  if grid is not None and tuple(grid) != encoder.grid:
    raise ValueError(f"{path}: grid {tuple(grid)} was given, but the checkpoint's grid is {encoder.grid}")
  _check_sizes(path, encoder, params["encoder"])
  described = dataclasses.replace(
    described,
    encoder=dataclasses.replace(encoder, mlp_ratio=_mlp_ratio(params)),
    normalization={"from": "recorded in the checkpoint", **described.normalization},
    lineage=lineage.of_own(path, description),
  )
  unused = ()
  if selection.encoder_only:
    unused = tuple(name for name in flat if not name.startswith("encoder/"))
    variables, described = {"params": {"encoder": params["encoder"]}}, _without_heads(described)
  family = families.holding(described.task, variables["params"])
  return Weights(
    variables=variables,
    source_names={name: (name,) for name in flat if name not in unused},
    family=OWN_FAMILY,
    grid_from="the checkpoint's description",
    unused=unused,
    description=_completed(described, family, variables, {}) if family else described,
    is_recorded=True,
  )
