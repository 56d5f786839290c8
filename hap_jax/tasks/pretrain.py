"""Pre-training as a Task: two masked views, reconstruction and alignment (HAP, arXiv 2310.20695, Sec. 3).

Batch fields: image [B, H, W, 3] uint8 (normalised in the step), keypoints_xy [B, 17, 2] float32 pixels of
the image, keypoints_visible [B, 17] bool, index [B] int32, valid [B] bool. With data.augment="device" the
image is a canvas, and there are crop [B, 4] int32 and flip [B] bool (`data/transforms/canvas.py`). In the
step, `mask` is added.
"""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hap_jax import config as config_lib
from hap_jax import config_values as values
from hap_jax import sharding
from hap_jax.data import samplers
from hap_jax.data.loader import Loader
from hap_jax.data.skeletons import COCO17
from hap_jax.data.transforms import canvas
from hap_jax.data.transforms import image as transforms
from hap_jax.losses.alignment import alignment_loss
from hap_jax.losses.reconstruction import masked_patch_loss, normalize_patches
from hap_jax.masking import sampler as masking
from hap_jax.models import decoder as decoders
from hap_jax.models import hap, layers, pixels, vit, warp
from hap_jax.tasks.base import Task, compute_options, describe_encoder, run_length
from hap_jax.train import optim, probe
from hap_jax.train.evaluate import EvalSplit, Evaluation
from hap_jax.viz import reconstruction as viz

# Held-out masks are drawn from the record's index and this seed alone: every run is scored on the same masks.
EVAL_SEED = 2310_20695


def param_rules(weight_decay):
  """Returns the rules of pre-training's parameters; one learning rate for all that train."""
  return (
    optim.Rule(r".*/pos_embed", trainable=False),  # fixed tables, resized ones included
    optim.Rule(r".*/(bias|scale)"),
    # Parity: class and mask tokens are decayed, as all parameters of more than one dimension but biases.
    optim.Rule(r".*", weight_decay=weight_decay),
  )


@struct.dataclass
class PretrainOutputs:
  """Model outputs of B images with N views, with what the losses compare them to.

  Attributes:
    pred: [B, N, L, P*P*3] float32. target: [B, L, P*P*3] float32. cls: [B, N, D] float32.
    mask: `masking.Mask` with leading [B, N].
  """

  pred: jax.Array
  target: jax.Array
  cls: jax.Array
  mask: masking.Mask


# Keys of this task, beside those that every task has. The mask recipe, the crop and the decoder check the
# ranges of theirs.
_KINDS = {
  "baseline_records": values.whole(1),
  "panel_rows": values.whole(1),
  "model.decoder_width": values.whole(),
  "model.decoder_depth": values.whole(0),
  "model.decoder_heads": values.whole(),
  "mask.ratio": values.number(),
  "mask.blocks": values.flag(),
  "mask.parts": values.flag(),
  "mask.max_parts": values.whole(),
  "mask.part_fraction": values.number(),
  "mask.part_policy": values.text(),
  "mask.released_group": values.whole(),
  "views": values.whole(),
  "align_weight": values.number(low=0),
  "align_temperature": values.number(above=0),
  "align_block": values.whole(0),
  "norm_pix_loss": values.flag(),
  "data.crop_area": values.pair(values.number(), "(low, high)"),
  "data.crop_aspect": values.pair(values.number(), "(low, high)"),
  "data.augment": values.one_of("host", "device"),
  "data.canvas": values.pair(values.whole(1), "(H, W)"),
  "data.shuffle_pixels": values.flag(),
  "probe.source": values.text(),
  "probe.root": values.text(),
}


def check(config):
  """Raises ValueError, naming the key, for values that pre-training cannot work with."""
  values.check(config, _KINDS)
  config_lib.require(config.views in (1, 2), "views", config.views, "1 or 2")
  if config.data.augment == "device" and config.data.shuffle_pixels:
    raise ValueError(
      'config.data.shuffle_pixels=True shuffles cropped pictures: set config.data.augment="host" with it'
    )
  if config.views == 1 and config.align_weight:
    raise ValueError(
      f"config.align_weight={config.align_weight} needs two views to align; set it to 0 or config.views to 2"
    )


def network(description, compute=vit.FLOAT32):
  """Builds the network of a Description, a `hap.HAP`.

  Args:
    description: its `network` holds "decoder": {"width", "depth", "num_heads", perhaps "mlp_ratio"}.
    compute: a `vit.Compute`, of both halves.
  Raises:
    ValueError: if there is no decoder, or the heads do not divide a width.
  """
  encoder, sizes = description.encoder, description.network.get("decoder")
  if sizes is None:
    raise ValueError("the weights have no decoder, which pre-training needs: use them by config.init_from")
  for name, width, heads in (
    ("model.variant", encoder.width, encoder.num_heads),
    ("model.decoder_width", sizes["width"], sizes["num_heads"]),
  ):
    if heads < 1 or width < 4 or width % heads or width % 4:
      raise ValueError(f"{name}: width {width} must be a multiple of its {heads} heads and of 4")
  return hap.HAP(
    encoder=encoder.build(compute),
    decoder=decoders.Decoder(
      grid=encoder.grid, num_outputs=encoder.patch**2 * 3, **sizes, **compute.options()
    ),
  )


def build_model(config):
  """Builds the HAP model of a finalized config."""
  model = config.model
  return hap.build(
    vit.variant(model.variant),
    image_size=tuple(model.image_size),
    patch=model.patch,
    decoder_width=model.decoder_width,
    decoder_depth=model.decoder_depth,
    decoder_heads=model.decoder_heads,
    **compute_options(config),
  )


def make_init(model):
  """Makes key -> variables of a HAP model."""

  def init(key):
    (Gh, Gw), P = model.encoder.grid, model.encoder.patch
    ids = jnp.zeros((1, 1, Gh * Gw), jnp.int32)
    return model.init(key, jnp.zeros((1, Gh * P, Gw * P, 3)), ids, ids)

  return init


def build_recipe(config):
  """Builds the mask recipe of a finalized config."""
  return masking.MaskRecipe(
    grid=layers.grid_of(config.model.image_size, config.model.patch),
    patch=config.model.patch,
    ratio=config.mask.ratio,
    use_blocks=config.mask.blocks,
    use_parts=config.mask.parts,
    max_parts=config.mask.max_parts,
    part_fraction=config.mask.part_fraction,
  )


def draw_masks(keys, num_parts, batch, recipe):
  """Draws the masks of all views of a batch in one call.

  Args:
    keys: [B, N] PRNG keys. num_parts: [B, N] int32. batch: with keypoints. recipe: a `masking.MaskRecipe`.
  Returns:
    `masking.Mask` with leading [B, N].
  """
  B, N = keys.shape
  mask = masking.sample_masks(
    keys.reshape(B * N),
    jnp.repeat(batch["keypoints_xy"], N, axis=0),
    jnp.repeat(batch["keypoints_visible"], N, axis=0),
    num_parts.reshape(B * N),
    recipe,
  )
  return jax.tree.map(lambda x: x.reshape(B, N, *x.shape[1:]), mask)


def make_target(image, patch, norm_pix_loss):
  """Returns what the decoder predicts: [B, L, P*P*3] of normalised images, standardised if norm_pix_loss."""
  patches = layers.patchify(image, patch)
  return normalize_patches(patches) if norm_pix_loss else patches


def make_prepare(config):
  """Makes (batch, *, key) -> batch with cropped pictures and the field `mask`, a `masking.Mask` of [B, N]."""
  recipe = build_recipe(config)
  draw_counts = masking.num_parts_policy(
    config.mask.part_policy, max_parts=config.mask.max_parts, group=config.mask.released_group
  )
  N = config.views

  def prepare(batch, *, key):
    if "crop" in batch:
      crop, flip = batch["crop"], batch["flip"]
      image = warp.crop_resize_flip(batch["image"], crop, flip, tuple(config.model.image_size))
      batch = {**{name: x for name, x in batch.items() if name not in ("crop", "flip")}, "image": image}
    B = len(batch["index"])
    keys = jax.random.split(key, (B + 1, N))  # of the masks, and in the last row of the counts
    counts = jax.vmap(lambda count_key: draw_counts(count_key, B), out_axes=1)(keys[B])
    return {**batch, "mask": draw_masks(keys[:B], counts, batch, recipe)}

  return prepare


def make_prepare_by_index(config):
  """Makes batch -> batch with a `mask` that depends on batch["index"] alone, for scores and pictures."""
  recipe, N = build_recipe(config), config.views
  root = jax.random.key(EVAL_SEED)

  def draw(index, view):
    count_key, mask_key = jax.random.split(jax.random.fold_in(jax.random.fold_in(root, index), view))
    return mask_key, masking.draw_num_parts_uniform(count_key, 1, config.mask.max_parts)[0]

  def prepare(batch):
    keys, counts = jax.vmap(jax.vmap(draw, (None, 0)), (0, None))(batch["index"], jnp.arange(N))
    return {**batch, "mask": draw_masks(keys, counts, batch, recipe)}

  return prepare


def make_forward(config, model):
  """Makes (variables, batch with `mask`, *, key, train) -> (PretrainOutputs, {})."""

  def forward(variables, batch, *, key=None, train=False):
    del key, train  # nothing in this model is random or differs between training and scoring
    image, mask = pixels.normalize(batch["image"]), batch["mask"]
    outputs = model.apply(variables, image, mask.ids_keep, mask.ids_restore)
    target = make_target(image, config.model.patch, config.norm_pix_loss)
    return PretrainOutputs(pred=outputs.pred, target=target, cls=outputs.cls, mask=mask), {}

  return forward


def make_forward_by_index(config, model):
  """Makes (variables, batch) -> PretrainOutputs with masks that depend on batch["index"] alone."""
  forward, prepare = make_forward(config, model), make_prepare_by_index(config)
  return lambda variables, batch: forward(variables, prepare(batch))[0]


def make_loss(align_weight, align_temperature, align_block=0):
  """Makes (outputs, batch, *, key) -> (L_rec + weight * L_align, {name: (sum, count)})."""

  def loss(outputs, batch, *, key):
    del batch, key
    sums, counts = masked_patch_loss(outputs.pred, outputs.target[:, None], outputs.mask.is_masked)
    metrics = {"loss_rec": (sums.sum(), counts.sum())}
    total = sums.sum() / counts.sum()
    if align_weight:
      align = alignment_loss(outputs.cls[:, 0], outputs.cls[:, 1], align_temperature, align_block)
      metrics["loss_align"] = (align.sum(), jnp.float32(len(align)))
      total = total + align_weight * align.mean()
    return total, metrics

  return loss


def make_predict(forward_by_index, position_mean):
  """Makes the held-out prediction: sums of squared error of the model and of the position mean, a record."""

  def predict(variables, batch):
    outputs = forward_by_index(variables, batch)
    is_masked = outputs.mask.is_masked
    error, count = masked_patch_loss(outputs.pred, outputs.target[:, None], is_masked)
    mean_error, _ = masked_patch_loss(jnp.asarray(position_mean), outputs.target[:, None], is_masked)
    return {"error": error.sum(1), "mean_error": mean_error.sum(1), "count": count.sum(1)}

  return predict


def score(splits):
  """Scores held-out records: masked-patch loss, that of predicting each position's training mean, ratio."""
  val = splits["val"]
  count = val["count"].sum(dtype=np.float64)
  loss = val["error"].sum(dtype=np.float64) / count
  mean_loss = val["mean_error"].sum(dtype=np.float64) / count
  return {
    "val_loss_rec": float(loss),
    "val_loss_position_mean": float(mean_loss),
    "val_ratio": float(loss / mean_loss),
  }


def position_mean(loader, num_records, patch, norm_pix_loss):
  """Averages the target of each patch position over records: the best guess without looking at a picture.

  Args:
    loader: an ordered pass; its first batches of together at least `num_records` are read.
  Returns:
    [L, P*P*3] float32.
  """
  sum_batch = jax.jit(
    lambda image, valid: jnp.einsum(
      "blp,b->lp", make_target(pixels.normalize(image), patch, norm_pix_loss), valid.astype(jnp.float32)
    )
  )
  total, count = 0.0, 0
  loader = loader.whole()
  num_steps = min(-(-num_records // loader.sampler.batch_size), loader.num_steps)
  with contextlib.closing(loader.iterate(0, num_steps)) as batches:
    for batch in batches:
      total = total + np.asarray(sum_batch(batch["image"], batch["valid"]), np.float64)
      count += int(batch["valid"].sum())
  return (total / count).astype(np.float32)


def make_figures(forward_by_index, loader, config):
  """Makes variables -> {"reconstruction": panel} of records spread over those of a loader."""
  grid = layers.grid_of(config.model.image_size, config.model.patch)
  forward_by_index = jax.jit(forward_by_index)
  num_records = loader.sampler.num_records
  spread = samplers.Spread(num_records, min(config.panel_rows, num_records))
  loader = dataclasses.replace(loader.whole(), sampler=spread)

  def figures(variables):
    batch = loader.batch(0)
    outputs = forward_by_index(variables, batch)
    # Over several processes the compiler may leave it in parts.
    cause, pred = sharding.fetch((outputs.mask.cause, outputs.pred))
    picture = viz.panel(
      images=batch["image"],
      cause=cause,
      pred=pred,
      grid=grid,
      patch=config.model.patch,
      keypoints_xy=batch["keypoints_xy"],
      keypoints_visible=batch["keypoints_visible"],
      target_space="normalized" if config.norm_pix_loss else "pixels",
    )
    return {"reconstruction": picture}

  return figures


def make_transforms(config):
  """Makes the training and the evaluation transforms: tuples of record -> record."""
  size = tuple(config.model.image_size)
  shuffle = (transforms.ShufflePixels(),) if config.data.shuffle_pixels else ()
  crop = transforms.RandomResizedCrop(
    size=size,
    area=tuple(config.data.crop_area),
    aspect=tuple(config.data.crop_aspect),
    flip_prob=config.data.flip_prob,
  )
  if config.data.augment == "device":
    crop = canvas.CropOnDevice(crop=crop, canvas=tuple(config.data.canvas))
  return (crop, *shuffle), (transforms.ResizeWhole(size=size), *shuffle)


def make_loaders(config):
  """Opens the source and makes the loaders.

  Returns:
    (train, ordered pass over the training records, ordered pass over the held-out records or None).
  """
  train_transforms, eval_transforms = make_transforms(config)
  fields = ("image", "keypoints_xy", "keypoints_visible")
  make_loader = functools.partial(
    Loader,
    seed=config.seed,
    workers=config.data.workers,
    max_bad_share=config.data.max_bad_share,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )

  def ordered(source):
    sampler = samplers.Sequential(len(source), config.eval_batch_size)
    return make_loader(source=source, transforms=eval_transforms, sampler=sampler, fields=fields)

  source = config_lib.open_source(config, "train")
  if source.spec.skeleton is None:
    raise ValueError(
      f"config.data.source={config.data.source!r} tells no joints: pre-training needs a source whose "
      "records have the fields keypoints_xy and keypoints_visible, such as luperson"
    )
  sampler = samplers.ShuffledEpochs(len(source), config.batch_size, config.seed)
  drawn = train_transforms[0].adds if config.data.augment == "device" else ()
  train = make_loader(source=source, transforms=train_transforms, sampler=sampler, fields=(*fields, *drawn))
  val = ordered(config_lib.open_source(config, "val")) if config.data.num_val else None
  return train, ordered(source), val


def describe(config, source, lineage):
  """Returns what a checkpoint of pre-training tells later commands."""
  description = describe_encoder(config, source, lineage)
  description["model"]["decoder"] = {
    "width": config.model.decoder_width,
    "depth": config.model.decoder_depth,
    "num_heads": config.model.decoder_heads,
  }
  return {**description, "skeleton": source.spec.skeleton.name}


def make(config, lineage=()):
  """Makes the pre-training task of a finalized config.

  Args:
    config: see `configs/pretrain_b16.py`. lineage: what is known of the weights it starts from.
  Raises:
    ValueError: for data or numbers that cannot work, naming the key.
  """
  model = build_model(config)
  train, train_ordered, val = make_loaders(config)
  total_steps, total_epochs, warmup_epochs = run_length(config, train)
  return Task(
    init=make_init(model),
    param_rules=param_rules(config.weight_decay),
    optimizer=optim.OptimizerSpec(**config.optimizer),
    schedule=lambda step, progress: optim.warmup_cosine(
      progress,
      peak=config.base_lr * config.batch_size / 256,
      warmup=warmup_epochs,
      total=total_epochs,
    ),
    prepare=make_prepare(config),
    accumulate=config.accumulate,
    forward=make_forward(config, model),
    loss=make_loss(config.align_weight, config.align_temperature, config.align_block),
    train=train,
    total_steps=total_steps,
    evaluation=_evaluation(config, make_forward_by_index(config, model), train_ordered, val),
    description=describe(config, train.source, list(lineage)),
  )


def make_evaluation(config):
  """Makes the evaluation of a pre-trained model: held-out reconstruction beside the position mean's."""
  _, train_ordered, val = make_loaders(config)
  forward_by_index = make_forward_by_index(config, build_model(config))
  return _evaluation(config, forward_by_index, train_ordered, val)


def _evaluation(config, forward_by_index, train_ordered, val):
  evals = {}
  if val is not None:
    mean = position_mean(train_ordered, config.baseline_records, config.model.patch, config.norm_pix_loss)
    evals["val"] = EvalSplit(loader=val, predict=make_predict(forward_by_index, mean))
  figures = make_figures(forward_by_index, val or train_ordered, config)
  evaluation = Evaluation(evals=evals, score=score, figures=figures)
  return probe.beside(evaluation, make_probe(config)) if config.probe.source else evaluation


def make_probe(config):
  """Makes the frozen probe of a finalized config: retrieval by the encoder's tokens of whole pictures."""
  model, patch = build_model(config), config.model.patch

  def make_pass(split):
    return probe.picture_pass(
      config_lib.open_source(config, split, config.probe),
      image_size=config.model.image_size,
      batch_size=config.eval_batch_size,
      workers=config.data.workers,
      max_bad_share=config.data.max_bad_share,
    )

  def encode(variables, images):
    patches = layers.patchify(pixels.normalize(images), patch)
    return model.encoder.apply({"params": variables["params"]["encoder"]}, patches).normed

  loaders = {split: make_pass(split) for split in ("query", "gallery")}
  return probe.make_evaluation(encode, model.encoder.grid, loaders)


def outline(config):
  """Returns (abstract params, lines that tell the shapes of a step); reads no data."""
  model, recipe = build_model(config), build_recipe(config)
  L, V = recipe.grid[0] * recipe.grid[1], masking.num_visible(recipe)
  B, K = config.batch_size, len(COCO17.joints)
  batch = {
    "image": jax.ShapeDtypeStruct((B, *config.model.image_size, 3), "uint8"),
    "keypoints_xy": jax.ShapeDtypeStruct((B, K, 2), "float32"),
    "keypoints_visible": jax.ShapeDtypeStruct((B, K), "bool"),
    "index": jax.ShapeDtypeStruct((B,), "int32"),
  }
  params = jax.eval_shape(make_init(model), jax.random.key(0))["params"]
  batch |= jax.eval_shape(make_prepare(config), batch, key=jax.random.key(0))
  outputs, _ = jax.eval_shape(make_forward(config, model), {"params": params}, batch)
  return params, [
    f"image {batch['image'].shape} uint8, grid {recipe.grid}",
    f"patches L={L}, visible V={V}, views N={config.views}",
    f"pred {outputs.pred.shape}, cls {outputs.cls.shape}, compute {config.model.dtype}",
  ]
