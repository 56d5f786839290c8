"""Pre-training as a Task: two masked views, reconstruction and alignment (HAP, arXiv 2310.20695, Sec. 3).

Batch fields:
  image: [B, H, W, 3] uint8, normalised in the step.
  keypoints_xy: [B, 17, 2] float32, in pixels of the image, if the records have joints.
  keypoints_visible: [B, 17] bool, if the batch has keypoints_xy.
  index: [B] int32, the number of the record in its source.
  valid: [B] bool. False: the row only fills up the batch.
  mask: `masking.Mask`, added in the step.
With config.data.augment="device", `image` is a canvas that holds a whole picture, and the step crops it. The
batch then has two more fields (`data/transforms/canvas.py`):
  crop: [B, 4] int32, (top, left, height, width).
  flip: [B] bool. True: the step mirrors the crop.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import struct

from hap_jax import config as config_lib
from hap_jax import config_parts, config_sources
from hap_jax import config_values as values
from hap_jax.convert import fit
from hap_jax.data import source_options
from hap_jax.data.skeletons import COCO17
from hap_jax.data.transforms import canvas
from hap_jax.data.transforms import image as transforms
from hap_jax.data.transforms.reid import ResizeBicubic
from hap_jax.evaluation import held_out, joined, retrieval_probe
from hap_jax.losses.alignment import alignment_loss
from hap_jax.losses.reconstruction import masked_patch_loss, normalize_patches
from hap_jax.masking import sampler as masking
from hap_jax.models import decoder as decoders
from hap_jax.models import hap, layers, vit
from hap_jax.pixels import warp
from hap_jax.tasks import base
from hap_jax.train import optim
from hap_jax.train import outline as outlines
from hap_jax.train.outline import NOTHING_KNOWN

# The mask of a held-out record depends only on its index and on this seed. So it is the same in all runs.
EVAL_SEED = 2310_20695
PER_DATA_SET = ()
_ENCODER_ONLY = ("mae", "hf-vitmae")  # families whose decoder the official run does not load


def param_rules(weight_decay):
  """Returns the parameter rules of pre-training; all trained parameters have the same learning rate."""
  return (
    optim.Rule(r".*/pos_embed", trainable=False),  # position tables are fixed, also after a resize
    optim.Rule(r".*/(bias|scale)"),
    # Parity: weight decay also applies to class and mask tokens. They are not biases and have more than one
    # dimension.
    optim.Rule(r".*", weight_decay=weight_decay),
  )


@struct.dataclass
class PretrainOutputs:
  """Outputs of the model for B images with N views each, with the targets of the losses.

  Attributes:
    pred: [B, N, L, P*P*3] float32, the predicted patches.
    target: [B, L, P*P*3] float32, the true patches.
    cls: [B, N, D] float32, the class tokens.
    mask: `masking.Mask`; its arrays have the leading axes [B, N].
  """

  pred: jax.Array
  target: jax.Array
  cls: jax.Array
  mask: masking.Mask


# The configuration keys of this task, in addition to the keys that every task has. The mask recipe, the crop
# and the decoder check the ranges of their own keys.
_KINDS = {
  "warmup_epochs": values.number(),
  "baseline_records": values.whole(1),
  "panel_rows": values.whole(1),
  "learned_ratio": values.number(low=0),
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
  """Raises ValueError for values that pre-training cannot use; the message names the key."""
  values.check(config, _KINDS)
  config_lib.require(config.views in (1, 2), "views", config.views, "1 or 2")
  if config.data.augment == "device" and config.data.shuffle_pixels:
    raise ValueError(
      "config.data.shuffle_pixels=True needs pictures that are cropped on the host: set "
      'config.data.augment="host"'
    )
  if config.views == 1 and config.align_weight:
    raise ValueError(
      f"config.align_weight={config.align_weight} needs two views; set it to 0, or set config.views to 2"
    )


def network(description, compute=vit.FLOAT32):
  """Builds the network of a Description, a `hap.HAP`.

  Args:
    description: its `network["decoder"]` is {"width", "depth", "num_heads", optionally "mlp_ratio"}.
    compute: a `vit.Compute`, for encoder and decoder.
  Raises:
    ValueError: if there is no decoder, or if a width is not a multiple of 4 and of its number of heads.
  """
  encoder, sizes = description.encoder, description.network.get("decoder")
  if sizes is None:
    file = description.lineage[0]["file"] if description.lineage else "the weights"
    raise ValueError(
      f"{file}: no decoder, but the scores of pre-training need one; expected an encoder and a decoder"
    )
  for name, width, heads in (
    ("model.variant", encoder.width, encoder.num_heads),
    ("model.decoder_width", sizes["width"], sizes["num_heads"]),
  ):
    if heads < 1 or width < 4 or width % heads or width % 4:
      raise ValueError(f"{name}: width {width} must be a multiple of 4 and of the number of heads, {heads}")
  return hap.HAP(
    encoder=encoder.build(compute),
    decoder=decoders.Decoder(
      grid=encoder.grid,
      num_outputs=encoder.patch**2 * 3,
      norm_eps=encoder.norm_eps,
      **sizes,
      **compute.options(),
    ),
  )


def make_init(model):
  """Returns a function key -> variables of a HAP model."""

  def init(key):
    (Gh, Gw), P = model.encoder.grid, model.encoder.patch
    # The shapes of the parameters do not depend on the mask, so any indices work here.
    ids = jnp.zeros((1, 1, Gh * Gw), jnp.int32)
    return model.init(key, jnp.zeros((1, Gh * P, Gw * P, 3)), ids, ids)

  return init


def make_load(description):
  """Returns the `load` function of pre-training.

  It copies the encoder from every checkpoint. It also copies the decoder, except from a checkpoint that an
  MAE run trained.
  """
  wanted = description.network["decoder"]

  def load(variables, weights):
    # Parity: the official run loads the encoder of MAE and starts with a new decoder.
    stacks = ("encoder",) if _trained_as(weights) in _ENCODER_ONLY else ("encoder", "decoder")
    given = weights.decoder
    # The number of heads changes no tensor's shape, so `fit_to` cannot notice a wrong number.
    if given and "decoder" in stacks and given["num_heads"] not in (None, wanted["num_heads"]):
      raise ValueError(
        f"{weights.lineage[0]['file']}: its decoder has {given['num_heads']} heads, but "
        f"config.model.decoder_heads={wanted['num_heads']}: change this key or config.init_from"
      )
    return fit.fit_to(
      variables,
      weights,
      grid=description.encoder.grid,
      num_heads=description.encoder.num_heads,
      patch_padding=description.encoder.patch_padding,
      norm_eps=description.encoder.norm_eps,
      stacks=stacks,
    )

  return load


def _trained_as(weights):
  """Returns the family of the run that trained the weights."""
  # A lineage starts with the newest origin. If the weights were converted after the run, the conversion comes
  # first. A conversion records no step, so it is skipped here.
  return next((o for o in weights.lineage if "step" in o), weights.lineage[-1])["family"]


def make_target(image, patch, norm_pix_loss):
  """Returns the decoder's targets [B, L, P*P*3]: the patches of normalised images.

  With norm_pix_loss, each patch is standardised by its own mean and variance.
  """
  patches = layers.patchify(image, patch)
  return normalize_patches(patches) if norm_pix_loss else patches


def make_prepare(recipe, draw_counts, views, image_size):
  """Returns a function (variables, batch, *, key) -> batch.

  The function crops the pictures if the batch holds canvases. It adds the field `mask`, a `masking.Mask`
  whose arrays have the leading axes [B, N].

  Args:
    recipe: a `masking.MaskRecipe`.
    draw_counts: from `masking.num_parts_policy`.
    views: N, the number of masked views per picture.
    image_size: (H, W) in pixels of the crops. It is used only if the batch holds canvases.
  """

  def prepare(variables, batch, *, key):
    del variables
    if "crop" in batch:
      crop, flip = batch["crop"], batch["flip"]
      image = warp.crop_resize_flip(batch["image"], crop, flip, image_size)
      batch = {**{name: x for name, x in batch.items() if name not in ("crop", "flip")}, "image": image}
    B = len(batch["index"])
    # Rows 0 to B - 1 are the keys of the masks. Row B is for the numbers of parts.
    keys = jax.random.split(key, (B + 1, views))
    counts = jax.vmap(lambda count_key: draw_counts(count_key, B), out_axes=1)(keys[B])
    return {**batch, "mask": masking.sample_view_masks(keys[:B], counts, batch, recipe)}

  return prepare


def make_forward(model, normalize, norm_pix_loss):
  """Returns a function (variables, batch with `mask`, *, key, train) -> (PretrainOutputs, {}).

  Args:
    model: from `network`.
    normalize: uint8 images -> float32 pixels.
    norm_pix_loss: see `make_target`.
  """

  def forward(variables, batch, *, key=None, train=False):
    del key, train  # this model has no randomness and does the same in training and in evaluation
    image, mask = normalize(batch["image"]), batch["mask"]
    outputs = model.apply(variables, image, mask.ids_keep, mask.ids_restore)
    target = make_target(image, model.encoder.patch, norm_pix_loss)
    return PretrainOutputs(pred=outputs.pred, target=target, cls=outputs.cls, mask=mask), {}

  return forward


def make_loss(align_weight, align_temperature, align_block=0):
  """Returns a function (outputs, batch, *, key) -> (loss, {name: (sum, count)}).

  The loss is L_rec + align_weight * L_align.
  """

  def loss(outputs, batch, *, key):
    del batch, key
    # Only masked patches count in the loss, as in MAE.
    sums, counts = masked_patch_loss(outputs.pred, outputs.target[:, None], outputs.mask.is_masked)
    metrics = {"loss_rec": (sums.sum(), counts.sum())}
    total = sums.sum() / counts.sum()
    # With align_weight=0 there may be only one view, so the alignment loss is not computed.
    if align_weight:
      align = alignment_loss(outputs.cls[:, 0], outputs.cls[:, 1], align_temperature, align_block)
      metrics["loss_align"] = (align.sum(), jnp.float32(len(align)))
      total = total + align_weight * align.mean()
    return total, metrics

  return loss


def fields_of(config, source):
  """Returns the names of the record fields that the run reads.

  These are the picture, and the joints if their skeleton has body parts.

  Raises:
    ValueError: if the mask needs joints, but the records have none or their skeleton has no body parts.
  """
  skeleton = source.spec.skeleton
  if skeleton is not None and skeleton.parts:
    return ("image", "keypoints_xy", "keypoints_visible")
  if config.mask.parts:
    found = "has none" if skeleton is None else f"has {skeleton.name}, whose body parts are not known"
    raise ValueError(
      f"config.mask.parts=True needs joints, and {config.data.source} {found}: set "
      "config.mask.parts=False, or use a source with joints "
      f"({', '.join(source_options.with_joints())}, or tfds with records packed from one of them)"
    )
  return ("image",)


def shuffle_of(config):
  """Returns the transforms of the control experiment with shuffled pixels; () by default."""
  return (transforms.ShufflePixels(),) if config.data.shuffle_pixels else ()


def recipe_of(config, encoder):
  """Returns the `masking.MaskRecipe` of a finalized config for an encoder's grid."""
  return masking.MaskRecipe(
    grid=encoder.grid,
    patch=encoder.patch,
    ratio=config.mask.ratio,
    use_blocks=config.mask.blocks,
    use_parts=config.mask.parts,
    max_parts=config.mask.max_parts,
    part_fraction=config.mask.part_fraction,
  )


def network_of(config):
  """Returns `Description.network` of a finalized config."""
  model = config.model
  sizes = {"width": model.decoder_width, "depth": model.decoder_depth, "num_heads": model.decoder_heads}
  return {"decoder": sizes}


def step_of(config, description):
  """Returns {name: value}: the fields that the Task and the Outline of a finalized config have in common."""
  model, mask = network(description, base.compute_of(config)), config.mask
  draw_counts = masking.num_parts_policy(
    mask.part_policy, max_parts=mask.max_parts, group=mask.released_group
  )
  recipe = recipe_of(config, description.encoder)
  return {
    "init": make_init(model),
    "param_rules": param_rules(config.weight_decay),
    "optimizer": optim.OptimizerSpec(**config.optimizer),
    "prepare": make_prepare(recipe, draw_counts, config.views, description.encoder.image_size),
    "accumulate": config.accumulate,
    "forward": make_forward(model, base.make_normalize(description), config.norm_pix_loss),
    "loss": make_loss(config.align_weight, config.align_temperature, config.align_block),
  }


def make(config, start=base.FROM_SCRATCH):
  """Makes the pre-training task of a finalized config.

  Args:
    config: see `configs/pretrain_b16.py`.
    start: see `base.Start`.
  Raises:
    ValueError: for data or numbers that cannot be used; the message names the key.
  """
  source, data = base.open_pictures(config, "train"), config.data
  fields, skeleton = fields_of(config, source), source.spec.skeleton
  description = base.description_of(
    config, source, start.lineage, network=network_of(config), skeleton=skeleton and skeleton.name
  )
  crop = canvas.make_crop(
    image_size=description.encoder.image_size,
    area=tuple(data.crop_area),
    aspect=tuple(data.crop_aspect),
    flip_prob=data.flip_prob,
    canvas_size=tuple(data.canvas) if data.augment == "device" else None,
  )
  train = base.train_loader_of(
    config,
    start,
    source,
    (crop, *shuffle_of(config)),
    base.shuffled_of(config, source),
    (*fields, *getattr(crop, "adds", ())),
  )
  total_steps, total_epochs, warmup_epochs = base.run_length_of(config, train)
  return base.Task(
    **step_of(config, description),
    load=make_load(description),
    schedule=lambda step, progress: optim.warmup_cosine(
      progress,
      peak=config.base_lr * config.batch_size / 256,
      warmup=warmup_epochs,
      total=total_epochs,
    ),
    train=train,
    total_steps=total_steps,
    evaluation=make_evaluation(config, description, source),
    description=description,
    from_scratch="starting from scratch; the official run starts from ImageNet MAE weights "
    "(config.init_from=FILE.pth)",
    summarize=functools.partial(held_out.summarize, learned_ratio=config.learned_ratio),
  )


def make_evaluation(config, description, source=None):
  """Makes the evaluation of pre-trained weights: the reconstruction error on held-out records.

  The error is compared with the error of the position mean, see `evaluation/held_out.py`.

  Args:
    config: the finalized config.
    description: the Description of the weights.
    source: the training records. None: they are opened here.
  Raises:
    ValueError: if the weights have no decoder.
  """
  encoder, normalize = description.encoder, base.make_normalize(description)
  model = network(_with_decoder_heads(description, config.model.decoder_heads), base.compute_of(config))
  forward, recipe = make_forward(model, normalize, config.norm_pix_loss), recipe_of(config, encoder)

  def forward_by_index(variables, batch):
    mask = masking.sample_masks_by_index(batch, EVAL_SEED, config.views, recipe)
    return forward(variables, {**batch, "mask": mask})[0]

  make_pass = functools.partial(base.reading_of(config).ordered, batch_size=config.eval_batch_size)
  resize = (transforms.ResizeWhole(size=encoder.image_size), *shuffle_of(config))
  source = source or base.open_pictures(config, "train")
  whole = {"transforms": resize, "fields": fields_of(config, source)}
  num_val = sum(part.data.num_val for part in config_parts.parts_of(config))
  evaluation = held_out.make_evaluation(
    forward_by_index,
    lambda image: make_target(normalize(image), encoder.patch, config.norm_pix_loss),
    train=make_pass(source, **whole),
    val=make_pass(base.open_pictures(config, "val"), **whole) if num_val else None,
    num_mean_records=config.baseline_records,
    num_rows=config.panel_rows,
    encoder=encoder,
    norm_pix_loss=config.norm_pix_loss,
    learned_ratio=config.learned_ratio,
  )
  if not config.probe.source:
    return evaluation
  as_reid = (ResizeBicubic(size=encoder.image_size),)
  sides = {
    split: make_pass(config_sources.open_source(config, split, config.probe), transforms=as_reid)
    for split in ("query", "gallery")
  }
  encode = retrieval_probe.make_encode(model.encoder, normalize)
  probe = retrieval_probe.make_evaluation(encode, model.encoder, sides)
  return joined.join({"": evaluation, "probe": probe})


def _with_decoder_heads(description, num_heads):
  """Returns the Description. If it records no number of decoder heads, `num_heads` is filled in."""
  decoder = description.network.get("decoder")
  if decoder is None or decoder["num_heads"] is not None:
    return description
  return dataclasses.replace(description, network={"decoder": {**decoder, "num_heads": num_heads}})


def outline(config, sizes=NOTHING_KNOWN):
  """Returns the `Outline` of a training step; reads no data. `sizes`: see `base.sizes_of`."""
  description = base.description_of(config, network=network_of(config))
  step, recipe = step_of(config, description), recipe_of(config, description.encoder)
  K, data = len(COCO17.joints), config.data
  size = data.canvas if data.augment == "device" else description.encoder.image_size
  fields = (
    {"keypoints_xy": ((K, 2), "float32"), "keypoints_visible": ((K,), "bool")} if config.mask.parts else {}
  )
  if data.augment == "device":
    fields |= {"crop": ((4,), "int32"), "flip": ((), "bool")}
  batch = outlines.abstract_batch(config.batch_size, size, **fields)
  outputs = outlines.trace(step, batch)
  L, V = recipe.grid[0] * recipe.grid[1], masking.num_visible(recipe)
  return outlines.Outline(
    **step,
    batch=batch,
    sizes=base.sizes_of(config, "train", sizes),
    lines=(
      outlines.image_line(batch, description.encoder),
      f"patches L={L}, visible V={V}, views N={config.views}",
      f"pred {outputs.pred.shape}, cls {outputs.cls.shape}, compute {config.model.dtype}",
    ),
  )
