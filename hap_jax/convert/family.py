"""Defines `Family`, the description of a checkpoint family. Each file in `families/` defines one Family."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from hap_jax.convert import reconstruction
from hap_jax.convert.names import PATCHES, Entry, Placeholder
from hap_jax.convert.outputs import Outputs
from hap_jax.models.layers import LAYER_NORM_EPSILON
from hap_jax.pixels.normalize import IMAGENET_MEAN, IMAGENET_STD

# How likely a file belongs to a family. The family with the highest value is chosen. Two families with the
# same highest value are an error.
#   NO        the file belongs to another family
#   POSSIBLE  the names of the encoder fit
#   LIKELY    the names of the encoder fit, and the file has a property that makes other families unlikely
#   CERTAIN   the file has names that only this family has
NO, POSSIBLE, LIKELY, CERTAIN = range(4)
FILE_SUFFIXES = (".pth", ".pth.tar", ".pt", ".bin", ".safetensors", ".npz")
CONSTANTS = "constants"  # the collection of arrays that are stored outside the checkpoints of this project
NOT_STATED = "unknown: the file does not state it; ask where the weights were published"


@dataclasses.dataclass(frozen=True)
class TorchClass:
  """A PyTorch class of another project, which loads the files of a family.

  It is used only if PyTorch is installed.

  Attributes:
    package: the package that has the class.
    run: (path of the written file, `verify.Setting`, `verify.Batch`) -> ({output: array}, name of the class).
      Raises ValueError or RuntimeError if the class does not load the file unchanged.
  """

  package: str
  run: Callable


def _nothing(*_):
  return {}


def _check_nothing(_):
  pass


def _prepare_nothing(source, state, grid):
  del source, grid
  return state, {}


def _find_nothing(_):
  return ""


def _find_none(_):
  return None


def _unchanged(config):
  return config


def _same_for_file(family, source, state):
  """Returns the family: all its files have the same rows."""
  del source, state
  return family


def _without_experts(family, weights):
  """Returns the family. Raises ValueError if the MLPs of the weights have experts."""
  if weights.description.encoder.num_experts > 1:
    raise ValueError(
      f"--to={family.name}: its files have no experts, but {weights.lineage[0]['file']} has one for each "
      "data set: choose a data set with --dataset"
    )
  return family


def _official_content(weights, state):
  del weights
  return {"model": state}


@dataclasses.dataclass(frozen=True)
class Preference:
  """A choice between two encoders of a file that a published code makes.

  Attributes:
    taken: the name of the entry or of the module that the code reads.
    beside: the name of the entry or of the module that it does not read.
    code: the name of the code.
  """

  taken: str
  beside: str
  code: str


@dataclasses.dataclass(frozen=True)
class Family:
  """A checkpoint family: the files that use the same names for their tensors.

  Attributes:
    name: the name of the family in commands. Its file name has underscores in place of the hyphens.
    entries: the rows of the name table, in the order in which the tensors are written.
    recognise: `source.Source` -> NO, POSSIBLE, LIKELY or CERTAIN.
    licence: the licence of the published weights. The files themselves do not state it.
    made_from: the data sets and weights that the published files were made from, newest first. Each item is a
      tuple of arguments for `licences.source`.
    task: the task that the files are trained for, the name of a file in `hap_jax/tasks`.
    stage: text that names the training stage. It is used for a file that has only an encoder and no metadata
      of this project.

    unused: prefixes of the names of tensors that the files may hold and that this project does not use.
    stand_ins: {name: other name}. A file without the first name is complete if it has the second one.
    prepare: (`source.Source`, {name in the table's spelling: array}, (Gh, Gw) or None) -> (the same dict with
      equal tensors in the usual form, {name of a changed tensor: names of the tensors that it was made
      from}), see `equivalents.py`.
    renames: (pattern, replacement) pairs, used in this order. They turn other spellings of a name into the
      name in the table.
    placeholders: tensors that this project does not use, but that a loader of the official code needs. They
      are written with fixed values.
    siblings: {entry that holds the weights: entry next to it with more weights of the network}.
    prefers: choices of the published code between two encoders of one file.
    backbone: the prefix that is written before the names of the encoder, but not before the names of heads.
    needs_decoder: True if the files cannot be written without a decoder.
    variants: one Family per alternative head. A file uses the variant that is the closest match.
    for_file: (Family, `source.Source`, {name in the table: array}) -> the Family with the rows of the experts
      and the further heads of a file.
    for_weights: (Family, Weights) -> the same for Weights. Raises ValueError if its files cannot hold them.
    more_stacks: prefixes of the names of such heads in this project.
    num_experts, part_features: sizes of the experts, see `description.Encoder`. `for_file` sets them.

    patch_padding: padding of the patches, see `layers.patchify`. The tensors do not show it, so it is stated
      here for all files of the family.
    class_token: False: the network of the files has no class token.
    norm_eps: epsilon of the layer norms in the code of the family.
    states_norm_eps: True if config.json may state another epsilon, so the files can hold any.
    grids: {number of patches: (grid, text about the images)} of published models with learned tables.
    num_heads: {(width, depth): number of heads} of published encoders whose number of heads differs from
      `vit.VARIANTS`.
    find_heads: `source.Source` -> the number of heads that the tensors show, or None.
    pixels: (mean, standard deviation) of pixels that the code of the family uses.
    pixels_from: the reason to assume this normalisation of pixels, as text.
    read_config: content of config.json -> the same content with the sizes of the encoder at the top level.
      Some config files nest these sizes or leave out default values. {} stays {}.
    check_source: raises ValueError for a `source.Source` whose model this project's encoder cannot compute.
    check_weights: raises ValueError for Weights that the files cannot hold.
    network: (variables, config.json of a folder or {}, recorded `Description.network` or {}) -> the settings
      of the network beyond the sizes of the encoder. Sizes are read from the arrays. If the files do not
      record some settings, the function assumes them and adds the key "assumed", a line of text that says so.
    classes: (`Description.network`, config.json of a folder or {}) -> the meaning of the outputs, or {} if it
      is not known.
    add_text_encoder: (Weights, BERT folder or "") -> Weights whose description has the vocabulary of the text
      encoder. None: the files have no text encoder.
    find_gap: Weights -> a message about a fact that the file does not record and the option that supplies it,
      or "" if nothing is missing. Only targets with the constants of the network need this fact.

    suffixes: endings of the written files.
    content: (Weights, {name: array}) -> the content of a .pth file, or the arrays of an .npz file, as the
      official scripts expect it.
    folder: Weights -> {file name: text} of the files next to model.safetensors. None: the target is a file.

    network_of: {name: array} of a file -> `numpy_vit.Network`. It uses the names in the file.
    outputs: how to compute the outputs of the heads, in NumPy and in JAX. None: the only outputs are tokens.
    torch_class: the class that loads the files. None: no installable package has such a class.
  """

  name: str
  entries: tuple[Entry, ...]
  recognise: Callable
  network_of: Callable
  task: str
  licence: str = NOT_STATED
  made_from: tuple[tuple[str, ...], ...] = ()
  stage: str = "pre-trained, without decoder"
  unused: tuple[str, ...] = ()
  stand_ins: Mapping[str, str] = dataclasses.field(default_factory=dict)
  prepare: Callable = _prepare_nothing
  renames: tuple[tuple[str, str], ...] = ()
  placeholders: tuple[Placeholder, ...] = ()
  siblings: Mapping[str, str] = dataclasses.field(default_factory=dict)
  prefers: tuple[Preference, ...] = ()
  backbone: str = ""
  needs_decoder: bool = False
  variants: tuple["Family", ...] = ()
  for_file: Callable[..., "Family"] = _same_for_file
  for_weights: Callable[..., "Family"] = _without_experts
  more_stacks: tuple[str, ...] = ()
  num_experts: int = 1
  part_features: int = 0
  patch_padding: int = 0
  class_token: bool = True
  norm_eps: float = LAYER_NORM_EPSILON
  states_norm_eps: bool = False
  grids: Mapping[int, tuple[tuple[int, int], str]] = dataclasses.field(default_factory=dict)
  num_heads: Mapping[tuple[int, int], int] = dataclasses.field(default_factory=dict)
  find_heads: Callable[..., int | None] = _find_none
  pixels: tuple[tuple[float, ...], tuple[float, ...]] = (IMAGENET_MEAN, IMAGENET_STD)
  pixels_from: str = "assumed: the file does not state it"
  read_config: Callable[..., dict[str, Any]] = _unchanged
  check_source: Callable = _check_nothing
  check_weights: Callable = _check_nothing
  network: Callable[..., dict[str, Any]] = reconstruction.network
  classes: Callable[..., dict[str, Any]] = _nothing
  add_text_encoder: Callable | None = None
  find_gap: Callable[..., str] = _find_nothing
  suffixes: tuple[str, ...] = FILE_SUFFIXES[:-1]
  content: Callable = _official_content
  folder: Callable | None = None
  outputs: Outputs | None = None
  torch_class: TorchClass | None = None

  @property
  def stacks(self):
    """Returns a frozenset of the subtrees of this project's variables that files of the family can hold."""
    return frozenset(entry.stack for entry in self.entries)

  def can_hold(self, subtrees):
    """Returns True if files of the family can hold these subtrees of this project's variables."""
    return all(name in self.stacks or name.startswith(self.more_stacks) for name in subtrees)

  @property
  def has_constants(self):
    """Returns True if the files hold arrays that checkpoints of this project keep as constants."""
    return any(entry.collection == CONSTANTS for entry in self.entries)

  @property
  def patches(self):
    """Returns the name of the patch projection in the table."""
    return next(entry.reference for entry in self.entries if entry.ours == PATCHES)

  def variant_of_file(self, names):
    """Returns the variant whose tensors are the most similar to the tensors of a file.

    Args:
      names: the names in the file, in the spelling of the table.
    """
    return self._most_similar(names, lambda entry: entry.reference)

  def variant_of_arrays(self, paths):
    """Returns the variant whose arrays are the most similar to the arrays of a checkpoint of this project.

    Args:
      paths: the paths of the arrays, with slashes.
    """
    return self._most_similar(paths, lambda entry: entry.ours)

  def _most_similar(self, names, name_of):
    names = set(names)

    def distance(family):
      # The blocks are the same in all variants.
      own = {name_of(entry) for entry in family.entries if "{i}" not in entry.reference}
      return len(own ^ names)

    return min((self, *self.variants), key=distance)

  def in_file(self, name):
    """Turns a name of the table into the name in the family's files."""
    # Only names of the encoder have the prefix of the backbone. Heads are not a part of the backbone.
    encoder = (entry for entry in self.entries if entry.stack == "encoder")
    is_encoder = any(name.startswith(entry.reference.partition("{i}")[0]) for entry in encoder)
    return f"{self.backbone}{name}" if is_encoder else name

  def is_of_encoder(self, name):
    """Returns True if a name, in the spelling of the table, lies in a module of the encoder."""
    references = (entry.reference for entry in self.entries if entry.stack == "encoder")
    # "blocks.0.x" lies in "blocks.", and "norm.x" in "norm.", but no name lies in "cls_token".
    modules = (re.match(r"[^./]+[./]", reference) for reference in references)
    return name.startswith(tuple(module[0] for module in modules if module))

  def rename(self, name):
    """Turns a name in a file into the name of the table."""
    for pattern, replacement in self.renames:
      name = re.sub(pattern, replacement, name)
    return name
