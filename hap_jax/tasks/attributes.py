"""Pedestrian attribute recognition as a Task: it predicts [A] binary labels for a picture of a person.

The recipe is the official one (junkunyuan/HAP, downstream_tasks/pedestrian_attribute_recognition, which is
based on Rethinking_of_PAR). A linear classifier reads the mean patch token. The loss is a weighted sigmoid
cross entropy.

Batch fields:
  image: [B, H, W, 3] uint8, normalised in the step.
  index: [B] int32, the number of the record in its source.
  valid: [B] bool. False: the row only fills up the batch.
  attributes: [B, A] bool, in training only.
  attributes_known: [B, A] bool, in training only, and only if some labels of the source are unknown. True:
    the label is known.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hap_jax import config_sources
from hap_jax import config_values as values
from hap_jax.data import samplers
from hap_jax.data.transforms.attributes import ResizeBilinear
from hap_jax.data.transforms.image import HorizontalFlip
from hap_jax.data.transforms.reid import PadCrop
from hap_jax.evaluation.evaluate import EvalSplit, Evaluation
from hap_jax.losses.attributes import attribute_loss, attribute_weights
from hap_jax.metrics import attributes as metrics
from hap_jax.models import attribute_classifier, vit
from hap_jax.tasks import base
from hap_jax.train import optim
from hap_jax.train import outline as outlines
from hap_jax.train.outline import NOTHING_KNOWN
from hap_jax.viz import attributes as viz
from hap_jax.viz.curves import Guide, Mark

_ATTRIBUTES = 2  # number of attributes of an outline if the data set's number is not known
TRAIN_SPLITS = ("trainval", "train")
_MISTAKES = 24  # number of pictures in the sheet of mistakes
# mA is the mean of the accuracy on positive pictures and the accuracy on negative pictures. A model with the
# same answer for all pictures has one accuracy of 1 and one of 0, so its mA is 0.5.
_GUIDE = Guide(baseline=Mark("same answer for all", 0.5))


# The configuration keys of this task, in addition to the keys that every task has.
_KINDS = {
  "warmup_epochs": values.number(),
  "warmup_lr": values.number(low=0),
  "final_lr": values.number(low=0),
  "optimizer.clip_norm": values.number(above=0),
  "ema_decay": values.number(low=0, below=1),
  "data.train_split": values.one_of(*TRAIN_SPLITS),
  "data.pad": values.whole(0),
}


def check(config):
  """Raises ValueError for values that attribute recognition cannot use; the message names the key."""
  values.check(config, _KINDS)


def network(description, compute=vit.FLOAT32):
  """Builds the network of a Description, an `AttributeClassifier`.

  Args:
    description: its `network["num_attributes"]` is the number of attributes. If that key is missing, the
      names in its `classes` are counted.
    compute: a `vit.Compute`. Logits are always float32.
  Raises:
    ValueError: if there are no attributes.
  """
  # Checkpoints of older versions record only the names of the attributes, not their number.
  num_attributes = description.network.get(
    "num_attributes", len(description.classes.get("attribute_names", ()))
  )
  if num_attributes < 1:
    raise ValueError(f"a classifier of {num_attributes} attributes cannot be trained: the data set has none")
  return attribute_classifier.AttributeClassifier(description.encoder.build(compute), num_attributes)


def make_forward(model, normalize):
  """Returns a function (variables, batch, *, key, train) -> (logits [B, A] float32, model_state).

  The function has no randomness.

  Args:
    model: from `network`.
    normalize: uint8 images -> float32 pixels.
  """

  def forward(variables, batch, *, key, train):
    del key, train
    return model.apply(variables, normalize(batch["image"])), {}

  return forward


def make_loss(positive_ratio):
  """Returns a function (logits, batch, *, key) -> (mean weighted loss, {name: (sum, count)}).

  The mean is over all pictures of the batch, also over pictures without known labels. So a known label has
  the same weight in every batch.

  Args:
    positive_ratio: [A] share of positive pictures of each attribute in the training split.
  """

  def loss(logits, batch, *, key):
    del key
    labels, known = batch["attributes"], batch.get("attributes_known")
    losses = attribute_loss(logits, labels, attribute_weights(labels, positive_ratio), known)
    # A logit above 0 is a probability above 0.5, which counts as "present".
    agrees = (logits > 0) == labels
    count = jnp.float32(agrees.size)
    if known is not None:
      agrees, count = agrees & known, known.sum(dtype=jnp.float32)
    return losses.mean(), {"answers_right": (agrees.sum(dtype=jnp.float32), count)}

  return loss


def _labels(source, rows=slice(None)):
  """Returns (labels, known) of records, each [n, A] bool. `known` is None if all labels are known."""
  known = source.columns.get("attributes_known")
  return source.columns["attributes"][rows], None if known is None else known[rows]


def positive_ratio(source):
  """Returns [A] float64, the share of positive labels of each attribute among its known labels.

  Raises:
    ValueError: if an attribute has no positive label, because the model cannot learn it then.
  """
  ratio = metrics.positive_share(*_labels(source))
  if absent := [
    name for name, share in zip(source.spec.labels["attributes"], ratio, strict=True) if not share
  ]:
    raise ValueError(
      f"{source.spec.name}: no positive label of {', '.join(absent)} in the {len(source):,} training "
      "pictures; expected at least one of each attribute: use more data, such as "
      "config.data.train_split=trainval, or a data set without this attribute"
    )
  return ratio


def make_predict(description, compute=vit.FLOAT32):
  """Returns a function (variables, batch) -> {"probability": [B, A] float32}.

  Args:
    description: the Description of the variables.
    compute: a `vit.Compute`.
  """
  forward = make_forward(network(description, compute), base.make_normalize(description))

  def predict(variables, batch):
    logits, _ = forward(variables, batch, key=None, train=False)
    return {"probability": jax.nn.sigmoid(logits)}

  return predict


def check_names(description, source):
  """Raises ValueError if the attributes of the weights differ from the attributes of the source."""
  names = source.spec.labels["attributes"]
  predicted = description.classes.get("attribute_names", ())
  count = network(description).num_attributes
  if count != len(names) or (predicted and list(predicted) != list(names)):
    # A converted official checkpoint may record no names. Then only the number is compared.
    what = f"{count} attributes" + (f" ({', '.join(predicted)})" if predicted else "")
    raise ValueError(
      f"the checkpoint predicts {what}, data set {source.spec.name} has {len(names)} ({', '.join(names)}): "
      "set config.data.source to the data set that the checkpoint was trained for"
    )


def make_score(sources, train_split):
  """Returns the score function: {split: {"probability", "index"}} -> {metric: float}.

  The split "test" is always scored. The split "val" is scored if the run does not train on it. Metrics with
  names `val_...` are computed on the validation set, and all other metrics on the test set. If the run trains
  on the validation set, `mA_on_test` is added, with the value of mA. The best checkpoint is then selected by
  `mA_on_test`. Its name warns that the test set was used for this selection.
  """

  def score(splits):
    found = {
      name: metrics.score(rows["probability"], *_labels(sources[name], rows["index"])).metrics()
      for name, rows in splits.items()
    }
    scores = found.pop("test")
    if train_split == "trainval":
      scores["mA_on_test"] = scores["mA"]
    for name, others in found.items():
      scores |= {f"{name}_{metric}": value for metric, value in others.items()}
    return scores

  return score


def make_row_figures(source):
  """Returns a function rows -> {name: picture}, which draws the predictions on the test set.

  The picture "attributes" shows the mA of each attribute. The picture "mistakes" shows the wrong answers with
  the highest confidence.

  Args:
    source: the records of the split "test".
  """

  def row_figures(splits):
    rows = splits["test"]
    (labels, known), names = _labels(source, rows["index"]), source.spec.labels["attributes"]
    scores = metrics.score(rows["probability"], labels, known)
    scored = np.flatnonzero(scores.num_known)  # an attribute without known labels has no bar
    accuracy, share = scores.label_mean_accuracy[scored], metrics.positive_share(labels, known)[scored]
    pictures = {
      "attributes": viz.attribute_bars([names[a] for a in scored], accuracy, share, title="mA on test")
    }
    shown, texts = [], []
    # Rows are sorted by record, but unreadable records are missing. So `index` gives the record number.
    for row, a in viz.confident_mistakes(rows["probability"], labels, _MISTAKES, known):
      shown.append(source[int(rows["index"][row])]["image"])
      texts.append(
        [names[a], f"p {rows['probability'][row, a]:.2f}, is {'there' if labels[row, a] else 'not there'}"]
      )
    if shown:
      pictures["mistakes"] = viz.labelled_sheet(shown, texts, title="The most certain mistakes on test")
    return pictures

  return row_figures


def make_evaluation(config, description):
  """Makes the evaluation of weights with this Description.

  It scores the test set. It also scores the validation set if the run does not train on it.

  Raises:
    ValueError: if the attributes of the weights differ from the attributes of the data set.
  """
  train_split = config.data.train_split
  names = ("test",) if train_split == "trainval" else ("val", "test")
  sources = {name: config_sources.open_source(config, name) for name in names}
  check_source(sources["test"], config.data.source)
  for name, source in sources.items():
    check_known(source, name)
  check_names(description, sources["test"])
  predict = make_predict(description, base.compute_of(config))
  make_pass = functools.partial(
    base.reading_of(config).ordered,
    transforms=(ResizeBilinear(size=description.encoder.image_size),),
    batch_size=config.eval_batch_size,
  )
  return Evaluation(
    evals={name: EvalSplit(make_pass(source), predict) for name, source in sources.items()},
    score=make_score(sources, train_split),
    row_figures=make_row_figures(sources["test"]),
    guides={"mA": _GUIDE, "mA_on_test": _GUIDE, "val_mA": _GUIDE},
    # Parity: the published recipe trains on the validation set, so it selects the best checkpoint on the test
    # set.
    select=("mA_on_test", "max") if train_split == "trainval" else ("val_mA", "max"),
  )


def check_source(source, name):
  """Raises ValueError if the records of the source `name` have no attributes."""
  if "attributes" not in source.spec.labels:
    raise ValueError(
      f"config.data.source={name!r} has no attributes: expected a source with the field attributes, such as "
      "pa100k"
    )


def check_known(source, split):
  """Raises ValueError if the source of this split has no known label, because it cannot be scored then."""
  labels, known = _labels(source)
  if known is not None and not known.any():
    raise ValueError(
      f"{source.spec.name}: none of the {labels.size:,} labels of split {split!r} is known; expected at "
      "least one known label: add labels to the data in config.data.root, or choose other splits"
    )


def make_augmentation(*, image_size, pad, flip_prob):
  """Makes the transforms of training pictures."""
  # Parity: the official order is padding first, then the flip.
  return ResizeBilinear(size=image_size), PadCrop(pad=pad), HorizontalFlip(prob=flip_prob)


def step_of(config, description, ratio):
  """Returns {name: value}: the fields that the Task and the Outline of a finalized config have in common.

  Args:
    config: the finalized config.
    description: the Description of the weights.
    ratio: see `make_loss`.
  """
  model = network(description, base.compute_of(config))
  return {
    "init": base.make_init(model),
    # Parity: weight decay also applies to biases, norms, class token and position table. All parameters have
    # the same learning rate.
    "param_rules": (optim.Rule(".*", weight_decay=config.weight_decay),),
    "optimizer": optim.OptimizerSpec(**config.optimizer),
    "forward": make_forward(model, base.make_normalize(description)),
    "loss": make_loss(np.asarray(ratio, np.float32)),
    "ema_decay": config.ema_decay or None,
    "accumulate": config.accumulate,
  }


def make(config, start=base.FROM_SCRATCH):
  """Makes the attribute task of a finalized config.

  Args:
    config: see `configs/finetune_attributes_pa100k_b16.py`.
    start: see `base.Start`.
  Raises:
    ValueError: for data or numbers that cannot be used; the message names the key.
  """
  source = config_sources.open_source(config, config.data.train_split)
  check_source(source, config.data.source)
  names, ratio = source.spec.labels["attributes"], positive_ratio(source)
  description = base.description_of(
    config,
    source,
    start.lineage,
    network={"num_attributes": len(names)},
    classes={"attribute_names": list(names)},
  )
  augment = make_augmentation(
    image_size=description.encoder.image_size, pad=config.data.pad, flip_prob=config.data.flip_prob
  )
  sampler = samplers.ShuffledEpochs(len(source), config.batch_size, config.seed)
  fields = ("image", *(name for name in ("attributes", "attributes_known") if name in source.columns))
  train = base.train_loader_of(config, start, source, augment, sampler, fields)
  total_steps, total_epochs, warmup_epochs = base.run_length_of(config, train)
  return base.Task(
    **step_of(config, description, ratio),
    load=base.make_load(description, heads=("classifier",)),
    schedule=lambda step, progress: optim.warmup_cosine_by_epoch(
      progress,
      start=config.warmup_lr,
      peak=config.base_lr,
      end=config.final_lr,
      warmup=warmup_epochs,
      total=total_epochs,
    ),
    train=train,
    total_steps=total_steps,
    evaluation=make_evaluation(config, description),
    description=description,
  )


def outline(config, sizes=NOTHING_KNOWN):
  """Returns the `Outline` of a training step; reads no data. `sizes`: see `base.sizes_of`."""
  sizes = base.sizes_of(config, config.data.train_split, sizes)
  A = sizes.attributes or _ATTRIBUTES
  description = base.description_of(config, network={"num_attributes": A})
  step = step_of(config, description, np.full(A, 0.5))
  batch = outlines.abstract_batch(
    config.batch_size, description.encoder.image_size, attributes=((A,), "bool")
  )
  logits = outlines.trace(step, batch)
  return outlines.Outline(
    **step,
    batch=batch,
    sizes=sizes,
    lines=(
      outlines.image_line(batch, description.encoder),
      f"logits {logits.shape} {logits.dtype}, compute {config.model.dtype}",
      outlines.size_words("attributes", sizes.attributes, A),
    ),
  )
