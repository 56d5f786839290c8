"""Text-to-image person re-identification as a Task: pictures and captions in one space, scored by retrieval.

The recipe is the official one (junkunyuan/HAP, downstream_tasks/text_to_image_person_reid). A ViT embeds the
picture. BERT and an LSTM embed the caption. The losses are a cross entropy over the training persons on both
embeddings, and a ranking loss between pictures and captions.

BERT is frozen by default. Its parameters are then a constant of the task, and `store` writes them beside the
checkpoints (`<workdir>/text_encoder/<digest>/`). With config.text.lr_scale above 0, they are the subtree
"bert" of the trained parameters.

Batch fields:
  image: [B, H, W, 3] uint8, normalised in the step. A batch of captions has no image.
  ids: [B, T] int32, the token ids of the caption, then 0. A batch of pictures has no ids.
  length: [B] int32, the number of tokens of the caption.
  index: [B] int32, the number of the record in its source.
  valid: [B] bool. False: the row only fills up the batch.
  pid: [B] int, in training only: the person numbers of the data set.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from hap_jax import config as config_lib
from hap_jax import config_sources
from hap_jax import config_values as values
from hap_jax.data import samplers, tokenized
from hap_jax.data.transforms import reid as transforms
from hap_jax.data.transforms.image import HorizontalFlip
from hap_jax.data.word_piece import WordPiece
from hap_jax.evaluation import caption_search
from hap_jax.evaluation.evaluate import EvalSplit, Evaluation
from hap_jax.losses import ranking
from hap_jax.losses.identity import identity_loss
from hap_jax.metrics import retrieval
from hap_jax.models import bert, layers, text_embedder, vit
from hap_jax.tasks import base
from hap_jax.train import initial_text, optim
from hap_jax.train import outline as outlines
from hap_jax.train.outline import NOTHING_KNOWN
from hap_jax.viz.curves import Guide, Mark

_PERSONS = 2  # number of training persons of an outline if the data set's number is not known
TRAIN_SPLITS = ("train", "trainval")
# Subtrees of the parameters besides the encoder. The heads classify.
NECK, HEADS = ("lstm", "projection", "bert"), ("head",)


# The configuration keys of this task, in addition to the keys that every task has.
_KINDS = {
  "warmup_steps": values.whole(0),
  "lr_drops": values.each(values.number(above=0)),
  "image_lr_scale": values.number(low=0),
  "id_weight": values.number(low=0),
  "ranking_weight": values.number(low=0),
  "margin": values.number(above=0),
  "panel_rows": values.whole(1),
  "model.drop_path": values.number(low=0, below=1),
  "model.embedding_dim": values.whole(1),
  "text": values.group(),
  "text.init_from": values.text(),
  "text.lr_scale": values.number(low=0),
  "text.max_tokens": values.whole(2),
  "text.pooling": values.one_of(*text_embedder.POOLINGS),
  "text.width": values.whole(1),
  "text.depth": values.whole(1),
  "text.num_heads": values.whole(1),
  "text.max_words": values.whole(1),
  "data.train_split": values.one_of(*TRAIN_SPLITS),
  "data.pad": values.whole(0),
}


# The keys of `Description.network`.
_NETWORK = {
  "embedding_dim": values.whole(1),
  "num_classes": values.whole(1),
  "pooling": values.one_of(*text_embedder.POOLINGS),
}


def check(config):
  """Raises ValueError for values that text ReID cannot use; the message names the key."""
  values.check(config, _KINDS)
  config_lib.require(
    config.accumulate == 1,
    "accumulate",
    config.accumulate,
    "1: the ranking loss compares all pairs of a batch with each other",
  )
  config_lib.require(
    config.text.width % config.text.num_heads == 0,
    "text.num_heads",
    config.text.num_heads,
    f"a divisor of text.width={config.text.width}",
  )


def network(description, compute=vit.FLOAT32, *, drop_path=0.0):
  """Builds the network of a Description without its BERT, a `TextEmbedder`.

  Args:
    description: its `network` holds the keys of _NETWORK. "num_classes" is the number of training persons.
    compute: a `vit.Compute`. Embeddings and logits are always float32.
    drop_path: rate of stochastic depth in training.
  Raises:
    ValueError: if a value of the Description is missing or wrong, for example if there are no classes.
  """
  base.check_network(description, _NETWORK)
  sizes = description.network
  return text_embedder.TextEmbedder(
    description.encoder.build(compute, drop_path=drop_path),
    sizes["embedding_dim"],
    sizes["num_classes"],
    sizes["pooling"],
  )


def text_network(description, compute=vit.FLOAT32):
  """Builds the `bert.Bert` of a Description. Its `network["text"]` holds the sizes."""
  return bert.Bert(**description.network["text"], dtype=compute.dtype)


def make_features(description, compute=vit.FLOAT32):
  """Returns a function (variables, batch) -> [B, T, D] token features of the captions.

  The parameters of BERT are in the constants if it is frozen, otherwise in the trained parameters.
  """
  model, is_trained = text_network(description, compute), description.network["text_is_trained"]

  def features(variables, batch):
    params = variables["params" if is_trained else "constants"]["bert"]
    return model.apply({"params": params}, batch["ids"], batch["length"])

  return features


def make_forward(model, features, normalize):
  """Returns a function (variables, batch, *, key, train) -> (TextEmbedderOutputs, model_state).

  Args:
    model: from `network`.
    features: from `make_features`.
    normalize: uint8 images -> float32 pixels.
  """

  def forward(variables, batch, *, key, train):
    outputs = model.apply(
      {"params": _without_bert(variables["params"])},
      normalize(batch["image"]),
      features(variables, batch),
      batch["length"],
      drop_key=key if train else None,
    )
    return outputs, {}

  return forward


def _without_bert(params):
  return {name: tree for name, tree in params.items() if name != "bert"}


def make_loss(pids, *, id_weight, ranking_weight, margin):
  """Returns a function (outputs, batch, *, key) -> (loss, {name: (sum, count)}).

  The loss is the weighted sum of the identity losses of both branches and of the ranking loss. An identity
  loss is a mean over the batch. The ranking loss is a *sum* over all anchors, as in the official code.

  Args:
    pids: [C] person numbers of the training set in ascending order. Class c is person pids[c].
    id_weight: weight of the identity losses.
    ranking_weight: weight of the ranking loss.
    margin: margin of the ranking loss.
  """
  pids = np.asarray(pids, np.int32)

  def loss(outputs, batch, *, key):
    # Person numbers of a data set have gaps, but the classifier needs labels 0 to C - 1.
    labels = jnp.searchsorted(pids, batch["pid"])
    identity = identity_loss(outputs.image_logits, labels) + identity_loss(outputs.text_logits, labels)
    similarity = ranking.similarity(outputs.image, outputs.text)
    of_images, of_captions = ranking.ranking_loss(similarity, labels, key, margin)
    ranked = of_images.sum() + of_captions.sum()
    count = jnp.float32(len(labels))
    return id_weight * identity.mean() + ranking_weight * ranked, {
      "loss_id": (identity.sum(), count),
      "loss_ranking": (ranked, jnp.float32(1)),
    }

  return loss


def make_embed(description, compute=vit.FLOAT32):
  """Returns a function (variables, [B, H, W, 3] uint8 images) -> [B, F] float32 embeddings with unit norm."""
  model, normalize = network(description, compute), base.make_normalize(description)

  def embed(variables, image):
    params = {"params": _without_bert(variables["params"])}
    return layers.l2_normalize(model.apply(params, normalize(image), method="embed_images"))

  return embed


def make_embed_captions(description, compute=vit.FLOAT32):
  """Returns a function (variables, batch of captions) -> [B, F] float32 embeddings with unit norm."""
  model, features = network(description, compute), make_features(description, compute)

  def embed(variables, batch):
    params = {"params": _without_bert(variables["params"])}
    tokens = features(variables, batch)
    return layers.l2_normalize(model.apply(params, tokens, batch["length"], method="embed_captions"))

  return embed


def open_split(config, split, word_piece, max_tokens):
  """Opens an evaluation split. Returns (source of its pictures, tokenised source of its captions)."""
  pictures = config_sources.open_source(config, f"{split}_pictures")
  captions = config_sources.open_source(config, f"{split}_captions")
  return pictures, tokenized.tokenize(captions, word_piece, max_tokens)[0]


def make_evaluation(config, description):
  """Makes the evaluation of weights with this Description: captions search the pictures, and the reverse.

  It scores the test set. It also scores the validation set if the data set has one and the run does not train
  on it.

  Args:
    config: the finalized config.
    description: the Description of the weights.
  Raises:
    ValueError: if the frozen text encoder of the checkpoint is not found.
  """
  text = initial_text.of_checkpoint(description, config.text.init_from)
  return evaluation_of(config, description, text)


def evaluation_of(config, description, text):
  """Returns the same as `make_evaluation`, for a `TextEncoder` that was read already."""
  word_piece, max_tokens = WordPiece.of(text.vocabulary), description.network["max_tokens"]
  splits = ("val", "test") if _holds_out_val(config) else ("test",)
  sources = {split: open_split(config, split, word_piece, max_tokens) for split in splits}
  compute = base.compute_of(config)
  embed, embed_captions = make_embed(description, compute), make_embed_captions(description, compute)
  resize = transforms.ResizeBicubic(size=description.encoder.image_size)
  make_pass = functools.partial(base.reading_of(config).ordered, batch_size=config.eval_batch_size)

  def predict_pictures(variables, batch):
    return {"feature": embed(variables, batch["image"])}

  def predict_captions(variables, batch):
    return {"feature": embed_captions(variables, batch)}

  evals = {}
  for split, (pictures, captions) in sources.items():
    evals[f"{split}_pictures"] = EvalSplit(make_pass(pictures, (resize,)), predict_pictures)
    loader = make_pass(captions, (), fields=tokenized.FIELDS)
    evals[f"{split}_captions"] = EvalSplit(loader, predict_captions)
  pictures, captions = sources["test"]
  pids = captions.columns["pid"], pictures.columns["pid"]
  return Evaluation(
    evals=evals,
    score=caption_search.make_score(sources),
    row_figures=caption_search.make_rank_lists(pictures, captions, config.panel_rows),
    searches=caption_search.make_searches(pictures, captions),
    select=("val_rank1" if "val" in splits else "rank1_on_test", "max"),
    guides={"mAP": Guide(baseline=Mark("chance", retrieval.chance_mean_ap(*pids)))},
    constants=constants_of(description, text),
  )


def constants_of(description, text):
  """Returns the constants of the task: the parameters of a frozen text encoder."""
  return {} if description.network["text_is_trained"] else {"bert": text.params}


def read_constants(description):
  """Returns the constants of a checkpoint: its frozen text encoder, or {} if its text encoder was trained.

  Raises:
    ValueError: if the text encoder is not found.
  """
  return constants_of(description, initial_text.of_checkpoint(description))


def store(description, constants, folder):
  """Writes the frozen text encoder into the folder of a converted checkpoint.

  Args:
    description: the Description of the converted checkpoint.
    constants: from `read_constants`, or from a file that contains the text encoder.
    folder: the folder of the converted checkpoint.
  Raises:
    ValueError: if the sizes or the words of the text encoder are not known.
  """
  initial_text.store(initial_text.with_parameters(description, constants["bert"]), folder)


def _holds_out_val(config):
  """Returns True if the data set has a validation set on which the run does not train."""
  name = config.data.source
  has_val = "val" in config_lib.load("data/sources", name).SPLITS
  # For some sources, config.data.num_val sets the number of validation pictures.
  has_val = has_val and (config.data.num_val > 0 or not config_sources.holds_out(name))
  return config.data.train_split == "train" and has_val


def make_augmentation(*, image_size, flip_prob, pad):
  """Makes the transforms of training pictures, in the official order.

  The words "left" and "right" of a caption stay as they are if its picture is mirrored, as in the official
  code.
  """
  return (
    transforms.ResizeBicubic(size=image_size),
    transforms.PadCrop(pad=pad),
    HorizontalFlip(prob=flip_prob),
  )


def check_source(source, name):
  """Raises ValueError if the records of the source `name` are not pictures with captions and persons."""
  if not {"image", "caption", "pid"} <= set(source.spec.fields):
    raise ValueError(
      f"config.data.source={name!r} has no captions of persons: text ReID needs a source with the fields "
      "caption and pid, such as cuhk_pedes"
    )


def describe(config, text, source=None, lineage=(), pids=(0, 1)):
  """Returns the Description of the weights of a run.

  Args:
    config: the finalized config.
    text: a `TextEncoder`.
    source, lineage: see `base.description_of`.
    pids: person numbers of the training set.
  """
  is_trained = config.text.lr_scale > 0
  sizes = {
    "embedding_dim": config.model.embedding_dim,
    "num_classes": len(pids),
    "pooling": config.text.pooling,
    "max_tokens": config.text.max_tokens,
    "text": text.sizes.to_json(),
    "text_is_trained": is_trained,
    "text_digest": "" if is_trained or source is None else text.digest,
  }
  if config.text.max_tokens > text.sizes.max_positions:
    raise ValueError(
      f"config.text.max_tokens={config.text.max_tokens}: the text encoder has {text.sizes.max_positions} "
      "positions; lower config.text.max_tokens"
    )
  return base.description_of(
    config,
    source,
    lineage,
    network=sizes,
    classes={"people": source.spec.people, "pids": list(pids)} if source is not None else {},
    vocabulary=list(text.vocabulary) or None,
  )


def make_init(model, text_model, max_tokens, is_trained):
  """Returns a function key -> variables. A trained text encoder is the subtree "bert" of the parameters."""
  image = jnp.zeros((1, *base.image_size_of(model), 3))
  ids, lengths = jnp.zeros((1, max_tokens), jnp.int32), jnp.ones(1, jnp.int32)
  features = jnp.zeros((1, max_tokens, text_model.width))

  def init(key):
    model_key, text_key = jax.random.split(key)
    variables = dict(model.init(model_key, image, features, lengths))
    if is_trained:
      bert_params = text_model.init(text_key, ids, lengths)["params"]
      variables["params"] = {**variables["params"], "bert": bert_params}
    return variables

  return init


def param_rules(*, image_lr_scale, text_lr_scale, weight_decay):
  """Returns the parameter rules. The picture encoder and the text encoder have their own learning rates."""
  return (
    # Parity: the network does not use the final norm.
    optim.Rule("encoder/norm/.*", trainable=False),
    optim.Rule("encoder/.*", lr_scale=image_lr_scale, weight_decay=weight_decay),
    optim.Rule("bert/.*", lr_scale=text_lr_scale, weight_decay=weight_decay),
    optim.Rule(".*", weight_decay=weight_decay),
  )


def text_sizes_of(config):
  """Returns the sizes of a new text encoder of a finalized config."""
  return {name: config.text[name] for name in ("width", "depth", "num_heads", "max_words", "max_tokens")}


def step_of(config, description, pids):
  """Returns {name: value}: the fields that the Task and the Outline of a finalized config have in common.

  Args:
    config: the finalized config.
    description: the Description of the weights.
    pids: see `make_loss`.
  """
  compute, is_trained = base.compute_of(config), description.network["text_is_trained"]
  model = network(description, compute, drop_path=config.model.drop_path)
  return {
    "init": make_init(model, text_network(description, compute), config.text.max_tokens, is_trained),
    "param_rules": param_rules(
      image_lr_scale=config.image_lr_scale,
      text_lr_scale=config.text.lr_scale,
      weight_decay=config.weight_decay,
    ),
    "optimizer": optim.OptimizerSpec(**config.optimizer),
    "forward": make_forward(model, make_features(description, compute), base.make_normalize(description)),
    "loss": make_loss(
      pids, id_weight=config.id_weight, ranking_weight=config.ranking_weight, margin=config.margin
    ),
  }


def make(config, start=base.FROM_SCRATCH):
  """Makes the text ReID task of a finalized config.

  Args:
    config: see `configs/finetune_text_reid_cuhk_pedes_b16.py`.
    start: see `base.Start`.
  Raises:
    ValueError: for data or numbers that cannot be used; the message names the key.
  """
  pairs = config_sources.open_source(config, config.data.train_split)
  check_source(pairs, config.data.source)
  text = initial_text.choose(
    start,
    captions=pairs.columns["caption"],
    init_from=config.text.init_from,
    is_trained=config.text.lr_scale > 0,
    sizes=text_sizes_of(config),
  )
  pids = np.unique(pairs.columns["pid"])
  description = describe(config, text, pairs, start.lineage, pids.tolist())
  source, num_cut = tokenized.tokenize(pairs, WordPiece.of(text.vocabulary), config.text.max_tokens)
  if num_cut:
    logging.warning(
      "%d of %d captions are longer than config.text.max_tokens=%d tokens and were cut",
      num_cut,
      len(source),
      config.text.max_tokens,
    )
  augment = make_augmentation(
    image_size=description.encoder.image_size, flip_prob=config.data.flip_prob, pad=config.data.pad
  )
  sampler = samplers.ShuffledEpochs(len(source), config.batch_size, config.seed)
  train = base.train_loader_of(config, start, source, augment, sampler, ("image", "pid", *tokenized.FIELDS))
  is_trained = description.network["text_is_trained"]
  total_steps, total_epochs, _ = base.run_length_of(config, train)
  return base.Task(
    **step_of(config, description, pids),
    load=base.make_load(
      description, neck=NECK, heads=HEADS, layout=("embedding_dim", "text"), interpolation="bilinear"
    ),
    preset=initial_text.make_preset(text) if is_trained else None,
    constants=constants_of(description, text),
    store=None if is_trained else functools.partial(initial_text.store, text),
    schedule=base.step_schedule_of(config, total_steps, total_epochs),
    train=train,
    total_steps=total_steps,
    evaluation=evaluation_of(config, description, text),
    description=description,
  )


def outline(config, sizes=NOTHING_KNOWN):
  """Returns the `Outline` of a training step; reads no data. `sizes`: see `base.sizes_of`."""
  sizes = base.sizes_of(config, config.data.train_split, sizes)
  pids = np.arange(sizes.persons or _PERSONS, dtype=np.int32)
  text = initial_text.placeholder(
    text_sizes_of(config), is_new=config.text.lr_scale > 0 and not config.text.init_from
  )
  description = describe(config, text, pids=pids.tolist())
  step, T = step_of(config, description, pids), config.text.max_tokens
  fields = {"ids": ((T,), "int32"), "length": ((), "int32"), "pid": ((), "int32")}
  batch = outlines.abstract_batch(config.batch_size, description.encoder.image_size, **fields)
  constants, is_trained = {}, description.network["text_is_trained"]
  if not is_trained:
    bert_init = functools.partial(text_network(description).init, jax.random.key(0))
    constants["bert"] = jax.eval_shape(bert_init, batch["ids"], batch["length"])["params"]
  outputs = outlines.trace(step, batch, constants)
  return outlines.Outline(
    **step,
    batch=batch,
    constants=constants,
    sizes=sizes,
    lines=(
      outlines.image_line(batch, description.encoder),
      f"captions {batch['ids'].shape}, text encoder {'trained' if is_trained else 'frozen'}, "
      f"{text.sizes.depth} blocks of width {text.sizes.width} and {text.sizes.vocab_size:,} words",
      f"embeddings {outputs.image.shape}, compute {config.model.dtype}",
      outlines.size_words("training persons", sizes.persons, _PERSONS),
    ),
  )
