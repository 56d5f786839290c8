"""Proves a conversion: runs source and result on the same pictures and compares their outputs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from hap_jax import config as config_lib
from hap_jax.convert import constants, detect, families, numpy_vit
from hap_jax.convert.family import Family
from hap_jax.convert.numpy_vit import Forward
from hap_jax.convert.selection import WHOLE, Selection
from hap_jax.convert.source import open_source
from hap_jax.description import Description
from hap_jax.io import checkpoint_file
from hap_jax.models import layers

# Largest error of a float32 output. It is relative to the largest output if that is above 1, else absolute.
MAX_ERROR = 1e-4
_SEED = 2310_20695


@dataclasses.dataclass(frozen=True)
class Setting:
  """Everything that a forward pass needs, except weights and pictures.

  Attributes:
    description: the description of the written weights. Its grid is the grid of the pictures.
    source_grid: (Gh, Gw) of the source's position tables.
    family: the family of the source. For a checkpoint of this project, it is a family that can hold the
      checkpoint. None: there is no such family, and only the tokens are compared.
    subtrees: the names of the subtrees of the parameters and of the constants.
    selection: the `Selection` of the source.
    norm_eps: an epsilon of the layer norms that the caller chose for source and result. None: their own.
    expert, head: the expert and the head of the source that are used, see `Weights.part`. If the written
      weights have experts, all of them are used.
  """

  description: Description
  source_grid: tuple[int, int]
  family: Family | None
  subtrees: frozenset[str]
  selection: Selection = WHOLE
  norm_eps: float | None = None
  expert: int = 0
  head: int = 0

  @classmethod
  def of(cls, weights, source_grid, selection=WHOLE, norm_eps=None):
    """Returns the Setting for Weights whose position tables have the grid `source_grid` in the source."""
    # `families.find` returns None for a checkpoint of this project.
    family = families.find(weights.family) or families.holding(weights.task, weights.params)
    family = family and family.for_weights(family, weights)
    subtrees = frozenset((*weights.params, *weights.constants))
    expert, head = weights.part
    return cls(
      weights.description, source_grid, family, subtrees, selection, norm_eps, expert=expert, head=head
    )

  @property
  def grid(self):
    return self.description.encoder.grid

  @property
  def patch(self):
    return self.description.encoder.patch

  def outputs_of(self, family):
    """Returns the `outputs.Outputs` that the weights can compute, or None if they compute only tokens.

    Args:
      family: a Family, or None.
    """
    outputs = family and family.outputs
    return outputs if outputs and outputs.are_of(self.subtrees) else None


@dataclasses.dataclass(frozen=True)
class Batch:
  """Two fixed random pictures with half of their patches hidden.

  Attributes:
    image: [2, H, W, 3] float32, normalised pixels.
    ids_keep: [2, V] int32, the visible patches.
    ids_restore: [2, L] int32, the position of each patch if visible patches come first, then hidden patches.
    expert: [2] int64, the expert of each picture. It has no effect on networks without experts.
  """

  image: np.ndarray
  ids_keep: np.ndarray
  ids_restore: np.ndarray
  expert: np.ndarray | None = None


def outputs_of(setting, stacks):
  """Returns the names of the outputs that both source and target compute, as a tuple.

  Args:
    setting: the Setting of the source.
    stacks: the subtrees that the target can hold. None: all subtrees.
  """
  outputs = setting.outputs_of(setting.family)
  needs = {"tokens": "encoder", **(outputs.needs if outputs else {})}
  return tuple(name for name, stack in needs.items() if stacks is None or stack in stacks)


def make_batch(setting):
  """Makes the Batch of a Setting. The same Setting always gives the same Batch."""
  rng = np.random.default_rng(_SEED)
  Gh, Gw = setting.grid
  image = rng.standard_normal((2, Gh * setting.patch, Gw * setting.patch, 3), dtype=np.float32)
  # The order of the patches is random, as in MAE. The first half is visible, and always at least one patch.
  order = np.argsort(rng.random((2, Gh * Gw)), axis=1).astype(np.int32)
  # The first and the last expert show a wrong order of the experts.
  count = setting.description.encoder.num_experts
  chosen = (0, count - 1) if count > 1 else (setting.expert, setting.expert)
  return Batch(
    image=image,
    ids_keep=order[:, : max(1, Gh * Gw // 2)],
    ids_restore=np.argsort(order, axis=1).astype(np.int32),
    expert=np.array(chosen),
  )


def run_foreign(path, setting, family=None, *, grid=None):
  """Runs a foreign file in NumPy, by the names in the file.

  Args:
    path: file or folder.
    setting: a Setting.
    family: the family of the file. None: the family of the source.
    grid: the grid of the file's position tables. None: the grid of the source.
  Returns:
    {name: array}. "tokens" are after the final norm, [2, 1 + L, D], or [2, L, D] without a class token. All
    other names are outputs of the family.
  """
  # A written file is read as a whole.
  source = open_source(path, WHOLE if family else setting.selection)
  family = family or setting.family
  source = dataclasses.replace(source, config=family.read_config(source.config))
  network, epsilon = family.network_of(source.state), setting.norm_eps or detect.norm_eps(source, family)
  return _run_numpy(network, setting, family, grid or setting.source_grid, epsilon)


def run_own(path, setting):
  """Runs a checkpoint of this project in NumPy, by its own names. Returns a dict like `run_foreign`."""
  variables, description = checkpoint_file.read(path)
  encoder = Description.from_json(description).encoder
  network = numpy_vit.own(variables | _constants_of(path, description, setting), encoder.part_features)
  epsilon = setting.norm_eps or encoder.norm_eps
  return _run_numpy(network, setting, setting.family, setting.source_grid, epsilon)


def _constants_of(path, description, setting):
  """Returns {collection: arrays} of the constants that the outputs of a checkpoint of this project need."""
  # The tokens of the encoder need no constants.
  if not setting.outputs_of(setting.family):
    return {}
  return constants.read(Description.from_json(description, path))


def run_written(path, setting, family):
  """Runs the written file or folder. Returns a dict like `run_foreign`.

  Args:
    path: file or folder.
    setting: a Setting.
    family: the Family of the written file. None: it is a checkpoint of this project.
  """
  setting = dataclasses.replace(setting, head=0)  # the written weights have only the heads that were taken
  return run_jax(path, setting) if family is None else run_foreign(path, setting, family, grid=setting.grid)


def _run_numpy(network, setting, family, grid, epsilon):
  forward = Forward(
    network=network,
    batch=make_batch(setting),
    num_heads=setting.description.encoder.num_heads,
    sizes=setting.description.network,
    grids=(grid, setting.grid),
    epsilon=epsilon,
    padding=setting.description.encoder.patch_padding,
    head=setting.head,
  )
  outputs = setting.outputs_of(family)
  return {"tokens": forward.tokens} | (outputs.in_numpy(forward) if outputs else {})


# By default, accelerators multiply float32 with fewer bits. The error would exceed MAX_ERROR.
@jax.default_matmul_precision("highest")
def run_jax(path, setting):
  """Runs a checkpoint of this project in the network of its task. Returns a dict like `run_foreign`."""
  variables, description = checkpoint_file.read(path)
  variables |= _constants_of(path, description, setting)
  description, batch = Description.from_json(description), make_batch(setting)
  patches = layers.patchify(batch.image, setting.patch, description.encoder.patch_padding)
  outputs = setting.outputs_of(setting.family)

  @jax.jit  # one program compiles faster than its parts
  def run(variables, patches):
    # The encoder runs separately, because not every network of a task returns its tokens.
    encoder = {"params": variables["params"]["encoder"]}
    experts = {"expert": jnp.asarray(batch.expert)} if description.encoder.num_experts > 1 else {}
    found = {"tokens": description.encoder.build().apply(encoder, patches, **experts).normed}
    if outputs:
      network = config_lib.load("tasks", description.task).network(description)
      found |= outputs.in_jax(network, variables, batch, description)
    return found

  return {name: np.asarray(value) for name, value in run(variables, patches).items()}


def compare(want, got, outputs):
  """Compares the named outputs and returns {output: {"max_abs_error", "max_abs_value"}}.

  Args:
    want: {output: array} of the source.
    got: {output: array} of the result.
    outputs: the names to compare.
  Raises:
    ValueError: if an output differs by more than `MAX_ERROR`, is not finite, or is missing.
  """
  errors = {}
  for name in outputs:
    if name not in want or name not in got:
      side = "source" if name not in want else "result"
      raise ValueError(f"the conversion is wrong: the {side} has no output {name}; nothing was kept")
    error, size = float(np.abs(got[name] - want[name]).max()), float(np.abs(want[name]).max())
    errors[name] = {"max_abs_error": error, "max_abs_value": size}
    # "not <=" instead of ">", so that NaN is an error too.
    if not error <= MAX_ERROR * max(1.0, size):
      raise ValueError(
        f"the conversion is wrong: {name} differs by {error:.3g} from the output of the source, whose "
        f"largest value is {size:.3g}; at most {MAX_ERROR:g} is allowed; nothing was kept. Report this file"
      )
  return errors
