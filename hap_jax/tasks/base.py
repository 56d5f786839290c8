"""The Task record: all that the training loop knows about a task.

The loop, the step and the evaluation use the fields of this record and nothing else. If a new task does not
fit, add a field to the record for all tasks. Do not add a branch to the loop.

A task is a module in this folder with these functions:
  check(config)                         raises ValueError if a key of this task has a wrong value
  make(config, start)                   returns the Task of a run; `start` is a Start
  network(description, compute)         returns the Linen module of a Description; no other code builds it
  make_evaluation(config, description)  returns the Evaluation of weights with this Description
  outline(config, sizes)                returns the `train.outline.Outline` of a training step; reads no data.
                                        `sizes` is a `train.outline.DataSizes`
A task that trains an embedding of a picture also has this function:
  make_embed(description, compute)      returns a function (variables, [B, H, W, 3] uint8 images) -> [B, D]
                                        float32 embeddings with unit norm
A task that can train on several data sets at once also has this constant:
  PER_DATA_SET                          names of the settings in config.data that may differ between the data
                                        sets, such as ("codec",). It may be ()
A task whose networks have parts for single data sets also has this function:
  of_data_set(weights, label)           returns the Weights of a network for one data set, see
                                        `convert/experts.py`
A task whose data sets have a file format for results also has this constant:
  RESULTS                               endings of the names of these files, such as (".json",). For such a
                                        task, make_evaluation(config, None) returns an Evaluation that can
                                        only score a file of results
A task that sets the field `store` of its Task record also has these functions, for conversions:
  read_constants(description)           returns the constants of a checkpoint, or {}. It finds the stored
                                        files by `description.place`
  store(description, constants, folder) writes these files into `folder`, the new folder of a converted
                                        checkpoint
Of these functions, only `check`, `make`, `make_evaluation` and `outline` take a configuration. To read it,
they also use helper functions whose names end in `_of`. All other functions take named arguments.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from hap_jax import config as config_lib
from hap_jax import config_parts, config_sources
from hap_jax.convert import fit
from hap_jax.data import rows, samplers
from hap_jax.data.continued_order import ContinuedOrder
from hap_jax.data.loader import Loader
from hap_jax.data.pipeline import Reading
from hap_jax.data.shares import ShuffledShares
from hap_jax.data.sources.base import sections_of
from hap_jax.description import Description, Encoder
from hap_jax.evaluation.evaluate import Evaluation
from hap_jax.models import vit
from hap_jax.models.layers import LAYER_NORM_EPSILON
from hap_jax.pixels.normalize import IMAGENET_MEAN, IMAGENET_STD, normalize
from hap_jax.train import optim, run_length
from hap_jax.train.optim import OptimizerSpec, Rule
from hap_jax.train.outline import DataSizes

_FINAL_NORM = "encoder/norm"  # the path of the encoder's norm after the last block


@dataclasses.dataclass(frozen=True)
class Start:
  """Facts about the weights that a run starts from, or about the run itself if it resumes.

  Attributes:
    lineage: the origins of the starting weights. A resumed run keeps the lineage of its first start. If the
      run continues another run, the first origin is the checkpoint of that run. It has the key "continued",
      see `convert/lineage.py`.
    description: the `Description` of the starting weights, or of the newest checkpoint of a resumed run.
      None: the run starts without weights.
  """

  lineage: tuple[Mapping[str, Any], ...] = ()
  description: Description | None = None

  @property
  def continued(self):
    """The (step, epochs) at which the run took over the state of another run. None: it did not.

    Raises:
      ValueError: if the lineage is damaged. Anyone may have written the checkpoint.
    """
    origin = self.lineage[0] if self.lineage else {}
    if "continued" not in origin:
      return None
    step, epochs = origin.get("step"), origin["continued"]
    if type(step) is not int or step < 0 or type(epochs) not in (int, float) or not 0 <= epochs < math.inf:
      raise ValueError(
        f"the lineage of the checkpoint states step={step!r:.40} and continued={epochs!r:.40}, expected a "
        "whole number and a number of epochs"
      )
    return step, epochs


FROM_SCRATCH = Start()


def list_scores(scores):
  """Returns a list of one line with the scores of the last evaluation, or [] if there are no scores."""
  listed = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
  return [f"last step: {listed}"] if scores else []


@dataclasses.dataclass(frozen=True)
class Task:
  """A record of functions. `variables` are {"params": ..., other collections}.

  Attributes:
    init: key -> variables. It runs inside a jitted function when the state is created.
    param_rules: rules that set the learning-rate scale, the weight decay and the trainability of each
      parameter. The first rule that matches the path of the parameter applies.
    optimizer: kind and constants.
    schedule: (step, progress in epochs) -> learning rate. It runs inside the compiled step.
    forward: (variables, batch, *, key, train) -> (outputs, model_state).
    loss: (outputs, batch, *, key) -> (scalar, {name: (sum, count)}).
    train: the training loader.
    total_steps: number of steps of the whole run.
    evaluation: the splits and the score function that measure the weights during the run.
    description: the facts that a checkpoint records for later commands.
    load: (variables, `convert.weights.Weights`) -> (variables, `fit.FitReport`). All variables are NumPy
      arrays. The function copies the starting weights that the task can use, and also the running statistics
      of norms. None: a default function that copies only the encoder.
    preset: a function (variables) -> variables, or None. All variables are NumPy arrays. It replaces initial
      values by weights that the task has read itself, such as a text encoder that is trained. It runs at the
      start of a run, before `load`. A resumed run does not call it.
    constants: arrays that do not train, such as a frozen text encoder. `prepare`, `forward` and `predict` get
      them as the collection "constants" of their variables. They are arguments of the compiled step.
      Checkpoints and the moving average do not contain them.
    store: a function of the workdir that writes files which all checkpoints of the run need, such as a frozen
      text encoder, or None. It runs before the first step, in process 0 only.
    ema_decay: decay of an exponential moving average of all variables. The evaluation scores the average
      instead of the variables. None: no average.
    prepare: (variables, batch, *, key) -> batch, or None. It runs once per step, before the batch is split
      into parts. Per-example randomness is drawn here, because it must not depend on the number of parts.
    accumulate: number of parts into which a batch is split. The parts go through the model one after the
      other. 1: the whole batch goes through the model at once.
    from_scratch: the line that is printed if the run starts without weights.
    summarize: function from the scores of the last evaluation, {metric: float}, to the lines that are printed
      at the end of the run.
  """

  init: Callable
  param_rules: tuple[Rule, ...]
  optimizer: OptimizerSpec
  schedule: Callable
  forward: Callable
  loss: Callable
  train: Loader
  total_steps: int
  evaluation: Evaluation
  description: Description
  load: Callable | None = None
  preset: Callable | None = None
  constants: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  store: Callable | None = None
  ema_decay: float | None = None
  prepare: Callable | None = None
  accumulate: int = 1
  from_scratch: str = "starting from scratch: no pre-trained encoder is given (config.init_from=CHECKPOINT)"
  summarize: Callable[[Mapping[str, float]], Sequence[str]] = list_scores

  def __post_init__(self):
    if self.load is None:
      object.__setattr__(self, "load", make_load(self.description))


def run_length_of(config, train):
  """Returns `train.run_length.compute` of a finalized config and the training loader."""
  return run_length.compute(
    train,
    total_epochs=config.total_epochs,
    warmup_epochs=config.get("warmup_epochs", 0.0),
    total_steps=config.total_steps,
  )


def step_schedule_of(config, total_steps, total_epochs):
  """Returns the schedule (step, progress) -> learning rate: a warm-up in steps, then drops by a factor of 10.

  The warm-up takes at most a tenth of the run. If config.total_steps sets the length of the run, each drop
  comes at the same share of the run as before.

  Args:
    config: the finalized config, with base_lr, warmup_steps and lr_drops (epochs).
    total_steps, total_epochs: length of the run, from `run_length_of`.
  """
  warmup_steps = min(config.warmup_steps, total_steps // 10)
  drops = tuple(drop * total_epochs / config.total_epochs for drop in config.lr_drops)
  return lambda step, progress: optim.warmup_then_steps(
    step, progress, peak=config.base_lr, warmup_steps=warmup_steps, boundaries=drops
  )


def check_padding_of(config):
  """Raises ValueError if config.model.patch_padding does not fit config.model.patch."""
  padding, patch = config.model.patch_padding, config.model.patch
  config_lib.require(
    2 * padding < patch, "model.patch_padding", padding, f"less than half of model.patch={patch}"
  )


def with_norm_eps(config, start):
  """Returns a finalized config with the epsilon of the starting weights in place of model.norm_eps=0.

  Args:
    config: the finalized config.
    start: a `Start`. A run that resumes keeps its epsilon.
  """
  given = start.description and start.description.encoder.norm_eps
  if config.model.norm_eps or given in (None, LAYER_NORM_EPSILON):
    return config
  return config_lib.replaced(config, "model.norm_eps", given)


def compute_of(config):
  """Returns the `vit.Compute` of a finalized config."""
  model = config.model
  return vit.Compute(
    dtype=jnp.dtype(model.dtype), scan=model.scan, remat=model.remat, attention=model.attention
  )


def reading_of(config):
  """Returns the `Reading` of a finalized config."""
  return Reading(seed=config.seed, workers=config.data.workers, max_bad_share=config.data.max_bad_share)


def shuffled_of(config, source):
  """Returns the sampler of a run that draws single records, in the order that the configuration sets.

  All records are shuffled together, or the data set of each row is drawn by its share.

  Args:
    config: the finalized config.
    source: the training records.
  """
  name = config.data.source
  if config_parts.joins(name) and (shares := config.data[name].shares):
    sizes = tuple(section.size for section in sections_of(source))
    return ShuffledShares(sizes, tuple(shares), config.batch_size, config.seed)
  return samplers.ShuffledEpochs(len(source), config.batch_size, config.seed)


def train_loader_of(config, start, source, transforms, sampler, fields):
  """Returns the training loader of a run.

  Args:
    config: the finalized config.
    start: a `Start`. If the run continues another run, the sampler begins after the steps of that run.
    source, transforms, fields: see `Loader`.
    sampler: the order of the records from its beginning.
  """
  if start.continued is not None:
    sampler = ContinuedOrder(sampler, *start.continued)
  return reading_of(config).loader(source, transforms, sampler, fields)


def sizes_of(config, split, given):
  """Returns the `DataSizes` of the training records: `given`, completed by the sizes that are published.

  Args:
    config: the finalized config.
    split: the split on which the run trains.
    given: `DataSizes` that the user knows.
  """
  return given.or_else(DataSizes(**config_sources.published_sizes(config, split)))


def description_of(config, source=None, lineage=(), *, network, classes=None, encoder=None, **more):
  """Returns the Description of the weights of a run.

  Args:
    config: the finalized config.
    source: the training records. None: the field `data` of the Description stays empty.
    lineage: the origins of the starting weights.
    network: the sizes of the network besides the encoder, such as the number of classes. The task's function
      `network` reads them.
    classes: the meaning of each output of the head.
    encoder: {field: value} of the `Encoder` that do not have their default, such as its padding.
    more: further facts to record. A fact that is None is left out.
  """
  data = {}
  if source is not None:
    spec = source.spec
    data = {"name": spec.name, "licence": spec.licence, "records": len(source), "notes": list(spec.notes)}
    data["exif"] = spec.exif
    if spec.parts:
      data["parts"] = [{"name": part.name, "licence": part.licence} for part in spec.parts]
  return Description(
    task=config.task,
    encoder=Encoder.of_variant(
      config.model.variant,
      image_size=tuple(config.model.image_size),
      patch=config.model.patch,
      norm_eps=config.model.norm_eps or LAYER_NORM_EPSILON,
      **(encoder or {}),
    ),
    network=network,
    normalization={
      "mean": list(IMAGENET_MEAN),
      "std": list(IMAGENET_STD),
      "range": [0, 1],
    },
    classes=classes or {},
    data=data,
    lineage=tuple(lineage),
    config=config_lib.to_plain(config),
    more={key: fact for key, fact in more.items() if fact is not None},
  )


def check_network(description, kinds):
  """Checks the recorded sizes of a network, because anyone may have written the description of a checkpoint.

  Args:
    description: the Description of the weights.
    kinds: {key of `Description.network`: `config_values.Kind`}.
  Raises:
    ValueError: if a value is missing or wrong. The message names the key.
  """
  for key, kind in kinds.items():
    if not kind.holds(description.network.get(key)):
      found = repr(description.network[key])[:60] if key in description.network else "missing"
      raise ValueError(f"{key} of the network in the description is {found}, expected {kind.words}")


def recorded_of_data_set(recorded, label):
  """Returns a recorded configuration with only the data set of a label.

  Args:
    recorded: nested dicts of JSON values, or None. It is returned unchanged if it is damaged or has no data
      set with this label.
    label: the label.
  """
  try:
    config = config_lib.finalize(config_lib.from_recorded(recorded, "the configuration"))
    return config_lib.to_plain(config_parts.only(config, label))
  except ValueError:
    return recorded


def open_pictures(config, split):
  """Opens pictures of any source, for a task that needs no labels.

  Args:
    config: the finalized config.
    split: "train", or "val" for the held-out records. Some sources have their own rule for the held-out
      records. In all other sources, the last config.data.num_val records of the split "train" are held out.
      If a source has no split "train", its first split is used in place of "train". With several data sets,
      these rules hold for each of them.
  """
  parts = config_parts.parts_of(config)
  return config_sources.join_parts(config, [(part, _open_pictures_of(part, split)) for part in parts])


def _open_pictures_of(part, split):
  """Returns the pictures of a data set of the configuration, see `open_pictures`."""
  data = part.data
  if config_sources.holds_out(data.source):
    return config_sources.open_part(part, split)
  splits = config_lib.load("data/sources", data.source).SPLITS
  source = config_sources.open_part(part.with_data(num_val=0), "train" if "train" in splits else splits[0])
  return rows.hold_out(source, data.num_val, split)


def make_normalize(description):
  """Returns a function [B, H, W, 3] uint8 images -> float32 pixels, with mean and std of the Description."""
  mean, std = (description.normalization[key] for key in ("mean", "std"))
  return lambda image: normalize(image, mean, std)


def make_init(network, **options):
  """Returns a function key -> variables of a network that takes pictures.

  `options` are further arguments of the network's call.
  """
  image = jnp.zeros((1, *image_size_of(network), 3))
  return lambda key: network.init(key, image, **options)


def image_size_of(network):
  """Returns the picture size (H, W) in pixels of a network with an encoder."""
  return tuple(side * network.encoder.patch for side in network.encoder.grid)


def make_load(description, *, neck=(), heads=(), layout=(), own_norm_only=False, interpolation="bicubic"):
  """Returns the `load` function of a Task. It copies the encoder, and also neck and heads if they fit.

  The encoder of the weights may differ from the encoder of the task in two ways. It may have another padding.
  It may have a class token that the encoder of the task does not have. See `fit.fit_to`. The report lists
  these differences.

  Args:
    description: the Description of the task.
    neck: names of the subtrees between encoder and heads. They are copied if the weights were trained for the
      same task and have the same layout.
    heads: names of the subtrees that output the classes. They are copied if, in addition, the
      Description of the weights records the same classes.
    layout: keys of `Description.network`. The layout is the same if both Descriptions have equal values for
      these keys.
    own_norm_only: True: the final norm of the encoder is copied only from weights that were trained for the
      same task. With other weights, this norm keeps its initial values.
    interpolation: how position tables are resized, see `posemb.resize_table`.
  """

  def load(variables, weights):
    stacks, notes = _choose_stacks(description, weights.description, neck, heads, layout)
    keep = ()
    if own_norm_only and weights.task != description.task:
      keep = (_FINAL_NORM,)
      reason = f"the file was not trained for {description.task}; config.model.map_norm=True loads its norm"
      notes = (*notes, f"the final norm of the encoder starts at scale 1 and bias 0: {reason}")
    return fit.fit_to(
      variables,
      weights,
      grid=description.encoder.grid,
      num_heads=description.encoder.num_heads,
      patch_padding=description.encoder.patch_padding,
      norm_eps=description.encoder.norm_eps,
      stacks=stacks,
      keep=keep,
      notes=notes,
      interpolation=interpolation,
    )

  return load


def _choose_stacks(own, given, neck, heads, layout):
  """Returns (names of the subtrees to copy, lines that give the reason why the heads are new)."""
  # The heads of another task have other outputs and other names.
  if given.task != own.task:
    return ("encoder",), ()
  for key in layout:
    if _plain(own.network[key]) != _plain(given.network.get(key)):
      found = f"config.model.{key}={own.network[key]}, but the file has {given.network.get(key)}"
      return ("encoder",), (f"the heads are new: {found}",)
  if own.classes and own.classes == given.classes:
    return ("encoder", *neck, *heads), ()
  # Equal shapes are not enough: class 3 of another data set is another person or another attribute.
  reason = "it has other classes" if given.classes else "it does not record its classes"
  return ("encoder", *neck), (f"the heads of the file are not used: {reason}",)


def _plain(value):
  """Returns the value as JSON would return it: a tuple becomes a list."""
  return list(value) if isinstance(value, tuple) else value
