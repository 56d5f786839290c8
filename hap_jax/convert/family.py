"""What conversion knows of a checkpoint family: the record that each file of `families/` fills in."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

from hap_jax.convert import reconstruction
from hap_jax.convert.layouts import PATCH_CONV
from hap_jax.convert.names import Entry
from hap_jax.convert.outputs import Outputs

# What a family says of a file that it looks at. The surest family wins; equally sure ones are an error.
# NO: the file is of another family. POSSIBLE: the encoder's names fit. LIKELY: besides, something in the file
# speaks against other families with these names. CERTAIN: it holds names that only this family has.
NO, POSSIBLE, LIKELY, CERTAIN = range(4)
PRETRAINING = "pretrain"  # task of an encoder without a head, with or without a decoder
NOT_STATED = "not stated in the file; ask where the weights were published"


@dataclasses.dataclass(frozen=True)
class TorchClass:
  """The class of another project that takes a family's files, run where PyTorch is installed.

  Attributes:
    package: that has the class.
    run: (path of what was written, `verify.Setting`, `verify.Batch`) -> ({output: array}, name of the class).
      It raises ValueError or RuntimeError if the class does not take the file as it is.
  """

  package: str
  run: Callable


def _nothing(*_):
  return {}


def _check_nothing(_):
  pass


def _official_content(weights, state):
  del weights
  return {"model": state}


@dataclasses.dataclass(frozen=True)
class Family:
  """Checkpoints that share names.

  Attributes:
    name: of the family, as commands spell it; its file has underscores in place of hyphens.
    entries: its table, in the order in which its files are written.
    recognise: `source.Source` -> NO, POSSIBLE, LIKELY or CERTAIN.
    licence: what is known of the licence of its published weights; the files themselves do not say.
    made_from: the earlier data sets and weights of its published files, newest first, each as arguments of
      `licences.source`.
    task: what its files are trained for, a file of `hap_jax/tasks`.
    stage: what an encoder is that comes alone and records nothing, in words.

    unused: beginnings of names that its files may hold and this project does not use.
    stand_ins: {name: other name}: a file may lack the first if it holds the second.
    renames: (pattern, replacement) that turn other spellings of the names into the table's, in this order.
    counters: integers of PyTorch's batch norms that are not used here; written as zero.
    nests: keys of files behind which the weights may stand, besides those of `source.py`.
    wrappers: prefixes that all names may have, besides those of `source.py`.
    backbones: prefixes that the encoder's names may have, and not those of heads.
    backbone: the one of these with which files are written.
    needs_decoder: its files cannot be written without a decoder.

    grids: {number of cells: (grid, which pictures these are)} of published models with learned tables.
    pixels_from: where it is known from that pixels are normalised as for ImageNet.
    check_source: raises ValueError for a `source.Source` that this project's encoder does not compute.
    check_weights: raises ValueError for Weights that its files cannot hold.
    network: (params, config.json of a folder or {}, recorded `Description.network` or {}) -> what the network
      of the task needs besides the encoder. Sizes are read from the parameters.
    classes: `Description.network` -> what the outputs stand for, {} if that is not known.

    content: (Weights, {name: array}) -> what the official scripts expect in a .pth file.
    folder: Weights -> {file name: text} of the files beside model.safetensors; None: it is no folder.

    network_of: {name: array} of a file -> `numpy_vit.Network`, by the file's own names.
    outputs: what the network gives besides tokens, in NumPy and in JAX; None: nothing.
    torch_class: None: no class of its project can be installed.
  """

  name: str
  entries: tuple[Entry, ...]
  recognise: Callable
  network_of: Callable
  licence: str = NOT_STATED
  made_from: tuple[tuple[str, ...], ...] = ()
  task: str = PRETRAINING
  stage: str = "pre-trained, without decoder"
  unused: tuple[str, ...] = ()
  stand_ins: Mapping[str, str] = dataclasses.field(default_factory=dict)
  renames: tuple[tuple[str, str], ...] = ()
  counters: tuple[str, ...] = ()
  nests: tuple[str, ...] = ()
  wrappers: tuple[str, ...] = ()
  backbones: tuple[str, ...] = ()
  backbone: str = ""
  needs_decoder: bool = False
  grids: Mapping[int, tuple[tuple[int, int], str]] = dataclasses.field(default_factory=dict)
  pixels_from: str = "assumed: the file does not tell"
  check_source: Callable = _check_nothing
  check_weights: Callable = _check_nothing
  network: Callable[..., dict[str, Any]] = reconstruction.network
  classes: Callable[..., dict[str, Any]] = _nothing
  content: Callable = _official_content
  folder: Callable | None = None
  outputs: Outputs | None = None
  torch_class: TorchClass | None = None

  @property
  def stacks(self):
    """The subtrees of this project's variables that its files can hold."""
    return frozenset(entry.stack for entry in self.entries)

  @property
  def patches(self):
    """The table's name of the projection of patches."""
    return next(entry.reference for entry in self.entries if entry.layout is PATCH_CONV)

  def in_file(self, name):
    """Returns a name of the table as the family's files spell it."""
    encoder = (entry for entry in self.entries if entry.stack == "encoder")
    is_encoder = any(name.startswith(entry.reference.partition("{i}")[0]) for entry in encoder)
    return f"{self.backbone}{name}" if is_encoder else name

  def rename(self, name):
    """Returns the table's spelling of a file's name."""
    for pattern, replacement in self.renames:
      name = re.sub(pattern, replacement, name)
    return name
