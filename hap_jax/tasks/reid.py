"""Person re-identification (ReID) as a Task: an embedding that separates persons, scored by retrieval.

The recipe is the official one (junkunyuan/HAP, downstream_tasks/person_reid, which is based on MALE). A batch
has P persons with K pictures each. The losses are a cross-entropy over the training persons and a batch-hard
triplet loss. With several data sets, a batch has persons of all of them, and the scores of each data set are
computed separately.

Batch fields:
  image: [B, H, W, 3] uint8, normalised in the step.
  index: [B] int32, the number of the record in its source.
  valid: [B] bool. False: the row only fills up the batch.
  pid: [B] int, in training only: the person numbers of the data set.
  erase_box: [B, 4] int32, in training only: (top, left, height, width). The step fills the box with noise.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hap_jax import config as config_lib
from hap_jax import config_parts, config_sources
from hap_jax import config_values as values
from hap_jax.data import samplers
from hap_jax.data.transforms import reid as transforms
from hap_jax.data.transforms.image import HorizontalFlip
from hap_jax.evaluation import joined, retrieval_probe
from hap_jax.evaluation.evaluate import EvalSplit, Evaluation, Search
from hap_jax.losses.identity import identity_loss
from hap_jax.losses.triplet import triplet_loss
from hap_jax.metrics import rerank, retrieval
from hap_jax.models import embedder, vit
from hap_jax.pixels import erase
from hap_jax.tasks import base
from hap_jax.train import optim
from hap_jax.train import outline as outlines
from hap_jax.train.outline import NOTHING_KNOWN
from hap_jax.viz import ranks

_PERSONS = 2  # number of training persons of an outline if the data set's number is not known
RANK_LIST_LENGTH = 10  # pictures per query in a rank list
# Subtrees of the parameters besides the encoder. The neck reads the encoder's tokens. The heads classify.
NECK = ("conv_head_0", "conv_head_1", "conv_head_2", "conv_fc_norm", "bn", "conv_bn")
HEADS = ("head", "conv_fc")
PER_DATA_SET = ()


# The configuration keys of this task, in addition to the keys that every task has.
_KINDS = {
  "warmup_epochs": values.number(),
  "num_instances": values.whole(1),
  "panel_rows": values.whole(1),
  "id_weight": values.number(low=0),
  "triplet_weight": values.number(low=0),
  "layer_decay": values.number(above=0, high=1),
  "ema_decay": values.number(low=0, below=1),
  "rerank": values.flag(),
  "model.locality": values.flag(),
  "model.drop_path": values.number(low=0, below=1),
  "data.pad": values.whole(0),
  "data.erase_prob": values.number(low=0, high=1),
}


def check(config):
  """Raises ValueError for values that person ReID cannot use; the message names the key."""
  values.check(config, _KINDS)
  config_lib.require(
    config.accumulate == 1,
    "accumulate",
    config.accumulate,
    "1: the triplet loss compares all pictures of a batch with each other",
  )
  if config_parts.joins(config.data.source):
    key = f"data.{config.data.source}.shares"
    shares = config.data[config.data.source].shares
    config_lib.require(
      not shares, key, shares, "(): a batch has the persons of all data sets, drawn uniformly"
    )


def network(description, compute=vit.FLOAT32, *, drop_path=0.0):
  """Builds the network of a Description: an `Embedder` or a `LocalityEmbedder`.

  Args:
    description: its `network` holds "locality" (True: the network has the LEM) and "num_classes" (the number
      of training persons).
    compute: a `vit.Compute`. Features and logits are always float32.
    drop_path: rate of stochastic depth in training.
  Raises:
    ValueError: if there are no classes.
  """
  num_classes = description.network["num_classes"]
  if num_classes < 1:
    raise ValueError(
      f"a classifier of {num_classes} persons cannot be trained: the training set has no persons"
    )
  make = embedder.LocalityEmbedder if description.network["locality"] else embedder.Embedder
  return make(description.encoder.build(compute, drop_path=drop_path), num_classes)


def make_forward(model, normalize):
  """Returns a function (variables, batch, *, key, train) -> (embedder outputs, model_state).

  Args:
    model: from `network`.
    normalize: uint8 images -> float32 pixels.
  """

  def forward(variables, batch, *, key, train):
    image = normalize(batch["image"])
    if not train:
      return model.apply(variables, image, train=False), {}
    # Erasing comes after normalisation, because the official code fills the box with normal noise.
    erase_key, drop_key = jax.random.split(key)
    image = erase.erase(image, batch["erase_box"], erase_key)
    return model.apply(variables, image, train=True, drop_key=drop_key, mutable=["batch_stats"])

  return forward


def make_embed(description, compute=vit.FLOAT32):
  """Returns a function (variables, [B, H, W, 3] uint8 images) -> [B, D] float32 embeddings with unit norm."""
  model, normalize = network(description, compute), base.make_normalize(description)
  return lambda variables, image: embedder.embedding(model.apply(variables, normalize(image), train=False))


def make_loss(pids, id_weight, triplet_weight):
  """Returns a function (outputs, batch, *, key) -> (loss, {name: (sum, count)}).

  The loss is the weighted sum of identity loss and triplet loss. Each of them is averaged over all pictures
  and all heads.

  Args:
    pids: [C] person numbers of the training set in ascending order. Class c is person pids[c].
    id_weight: weight of the identity loss.
    triplet_weight: weight of the triplet loss.
  Raises:
    ValueError: if a person number does not fit into int32, because pid is int32 on the device.
  """
  pids, bounds = np.asarray(pids), np.iinfo(np.int32)
  if pids.min() < bounds.min or pids.max() > bounds.max:
    raise ValueError(
      f"the training persons have the numbers {pids.min()} to {pids.max()}; expected int32 numbers: "
      "renumber the persons of config.data.source"
    )

  def loss(outputs, batch, *, key):
    del key
    # Person numbers of a data set have gaps, but the classifier needs labels 0 to C - 1.
    labels = jnp.searchsorted(pids, batch["pid"])
    identity = jnp.stack([identity_loss(logits, labels) for logits in outputs.logits])
    triplet = jnp.stack([triplet_loss(feature, labels) for feature in outputs.features])
    total = id_weight * identity.mean() + triplet_weight * triplet.mean()
    sums = {"loss_id": identity, "loss_triplet": triplet}
    return total, {name: (values.sum(), jnp.float32(values.size)) for name, values in sums.items()}

  return loss


def make_score(query, gallery, with_rerank):
  """Returns the score function, which computes mAP, CMC and mINP.

  It maps {"query": {"feature", "index"}, "gallery": {"feature", "index"}} to {metric: float}.

  Args:
    query: the source of the queries, for its pids and camids.
    gallery: the source of the gallery, for its pids and camids.
    with_rerank: True: the scores after re-ranking are added.
  """

  def score(splits):
    features = splits["query"]["feature"], splits["gallery"]["feature"]
    identities = retrieval_probe.identities(splits, query, gallery)
    scores = retrieval.evaluate(*features, **identities).metrics()
    if with_rerank:
      scores |= retrieval.evaluate(*features, **identities, reranking=rerank.Reranking()).metrics()
    return scores

  return score


def make_searches(query, gallery):
  """Returns a function rows -> {"picture": Search}: the queries search the gallery.

  Args:
    query, gallery: the sources, as in `make_score`.
  """

  def searches(splits):
    features = splits["query"]["feature"], splits["gallery"]["feature"]
    return {"picture": Search(*features, **retrieval_probe.identities(splits, query, gallery))}

  return searches


def make_rank_lists(query, gallery, num_queries):
  """Returns a function rows -> {"ranks": picture}.

  The picture shows `num_queries` queries, each with the gallery pictures that are closest to it. The queries
  are evenly spaced over the query split.
  """

  def rank_lists(splits):
    rows = splits["query"], splits["gallery"]
    # np.unique removes repeated rows if there are fewer queries than num_queries.
    chosen = np.unique(np.linspace(0, len(rows[0]["index"]) - 1, num_queries).astype(int))
    shown = {name: values[chosen] for name, values in rows[0].items()}
    identities = retrieval_probe.identities({"query": shown, "gallery": rows[1]}, query, gallery)
    found = retrieval.rank_list(shown["feature"], rows[1]["feature"], k=RANK_LIST_LENGTH, **identities)
    # `found.index` is a row of the gallery features, but the source needs the number of the record.
    entries = rows[1]["index"][found.index]
    picture = ranks.rank_sheet(
      [query[int(i)]["image"] for i in shown["index"]],
      [[gallery[int(i)]["image"] for i in line] for line in entries],
      found.distance,
      found.verdict,
    )
    return {"ranks": picture}

  return rank_lists


def make_evaluation(config, description):
  """Makes the evaluation of weights with this Description. It compares every query with the whole gallery.

  Each data set has its own queries, gallery and scores. With several data sets, the highest mean of their mAP
  selects the best checkpoint.

  Args:
    config: the finalized config.
    description: the Description of the weights. They may have been trained on the persons of another data
      set.
  """
  embed, parts = make_embed(description, base.compute_of(config)), config_parts.parts_of(config)

  def predict(variables, batch):
    return {"feature": embed(variables, batch["image"])}

  evaluations = {part.label: _evaluate_part(config, part, description, predict) for part in parts}
  return joined.join(evaluations, mean_of="mAP") if parts[0].label else evaluations[""]


def _evaluate_part(config, part, description, predict):
  """Makes the evaluation on one data set of the configuration; `predict` is that of the EvalSplits."""
  query, gallery = (config_sources.open_part(part, split) for split in ("query", "gallery"))
  guide = retrieval_probe.chance_guide(query, gallery)
  # The picture size is the size of the checkpoint, because its position table has this grid.
  resize = transforms.ResizeBicubic(size=description.encoder.image_size)
  make_pass = functools.partial(
    base.reading_of(config).ordered, transforms=(resize,), batch_size=config.eval_batch_size
  )
  return Evaluation(
    evals={"query": EvalSplit(make_pass(query), predict), "gallery": EvalSplit(make_pass(gallery), predict)},
    score=make_score(query, gallery, config.rerank),
    row_figures=make_rank_lists(query, gallery, config.panel_rows),
    select=("mAP", "max"),
    guides={"mAP": guide, "mAP_reranked": guide},
    searches=make_searches(query, gallery),
  )


def make_augmentation(*, image_size, flip_prob, pad, erase_prob):
  """Makes the transforms of training pictures, in the official order.

  DrawErasing only chooses the box at random. The step fills the box with noise after normalisation.
  """
  return (
    transforms.ResizeBicubic(size=image_size),
    HorizontalFlip(prob=flip_prob),
    transforms.PadCrop(pad=pad),
    transforms.DrawErasing(prob=erase_prob),
  )


def check_source(source, part):
  """Raises ValueError if the records of a source have no person numbers. `part` is its data set."""
  if "pid" not in source.spec.fields:
    raise ValueError(
      f"config.{part.key}.source={part.data.source!r} has no person numbers: person ReID needs a source with "
      "the field pid, such as market1501"
    )


def network_of(config, num_classes):
  """Returns `Description.network` of a finalized config for this number of training persons."""
  return {"locality": config.model.locality, "num_classes": num_classes}


def step_of(config, description, pids):
  """Returns {name: value}: the fields that the Task and the Outline of a finalized config have in common.

  Args:
    config: the finalized config.
    description: the Description of the weights.
    pids: see `make_loss`.
  """
  model = network(description, base.compute_of(config), drop_path=config.model.drop_path)
  return {
    "init": base.make_init(model, train=False),
    "param_rules": optim.layer_decay_rules(
      description.encoder.depth, layer_decay=config.layer_decay, weight_decay=config.weight_decay
    ),
    "optimizer": optim.OptimizerSpec(**config.optimizer),
    "forward": make_forward(model, base.make_normalize(description)),
    "loss": make_loss(pids, config.id_weight, config.triplet_weight),
    "ema_decay": config.ema_decay or None,
  }


def make(config, start=base.FROM_SCRATCH):
  """Makes the ReID task of a finalized config.

  Args:
    config: see `configs/finetune_reid_market1501_b16.py`.
    start: see `base.Start`.
  Raises:
    ValueError: for data or numbers that cannot be used; the message names the key.
  """
  opened = config_sources.open_parts(config, "train")
  for part, source in opened:
    check_source(source, part)
  source = config_sources.join_parts(config, opened)
  pids = np.unique(source.columns["pid"])
  description = base.description_of(
    config,
    source,
    start.lineage,
    network=network_of(config, len(pids)),
    classes={"people": source.spec.people, "pids": pids.tolist()},
  )
  augment = make_augmentation(
    image_size=description.encoder.image_size,
    flip_prob=config.data.flip_prob,
    pad=config.data.pad,
    erase_prob=config.data.erase_prob,
  )
  sampler = samplers.IdentityBalanced(
    source.columns["pid"], config.batch_size, config.num_instances, config.seed
  )
  train = base.train_loader_of(config, start, source, augment, sampler, ("image", "pid", "erase_box"))
  total_steps, total_epochs, warmup_epochs = base.run_length_of(config, train)
  return base.Task(
    **step_of(config, description, pids),
    load=base.make_load(description, neck=NECK, heads=HEADS, layout=("locality",)),
    schedule=lambda step, progress: optim.warmup_cosine(
      progress, peak=config.base_lr, warmup=warmup_epochs, total=total_epochs
    ),
    train=train,
    total_steps=total_steps,
    evaluation=make_evaluation(config, description),
    description=description,
  )


def outline(config, sizes=NOTHING_KNOWN):
  """Returns the `Outline` of a training step; reads no data. `sizes`: see `base.sizes_of`."""
  sizes = base.sizes_of(config, "train", sizes)
  pids = np.arange(sizes.persons or _PERSONS, dtype=np.int32)
  description = base.description_of(config, network=network_of(config, len(pids)))
  step = step_of(config, description, pids)
  batch = outlines.abstract_batch(
    config.batch_size, description.encoder.image_size, pid=((), "int32"), erase_box=((4,), "int32")
  )
  outputs = outlines.trace(step, batch)
  widths = " + ".join(str(feature.shape[-1]) for feature in outputs.features)
  return outlines.Outline(
    **step,
    batch=batch,
    sizes=sizes,
    lines=(
      outlines.image_line(batch, description.encoder),
      f"batch: {config.batch_size // config.num_instances} persons with {config.num_instances} pictures each",
      f"feature {widths}, compute {config.model.dtype}",
      outlines.size_words("training persons", sizes.persons, _PERSONS),
    ),
  )
