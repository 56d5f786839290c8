"""2D pose estimation as a Task: heat maps of the joints of one person (top-down), scored by AP, PCK or PCKh.

The recipe is the official one (junkunyuan/HAP, downstream_tasks/2d_pose_estimation, which is ViTPose, arXiv
2204.12484). The network sees the region of one person and returns one heat map per joint. The loss is the
mean squared error between these heat maps and Gaussians at the joints.

The data sets differ in two rules, which a checkpoint records:
  codec       "udp": unbiased data processing (arXiv 1911.07524), for COCO and MPII. "msra": the older rule,
              for AIC. The codec sets the matrix of the warp, the heat maps, the flip test and the decoder.
  fit_aspect  True: the box of a person grows to the aspect ratio of the network's input. False: a square box
              stays square, as in MPII.

Batch fields:
  image: [B, H, W, 3] uint8, the region of the person, normalised in the step.
  is_udp: [B] bool, the codec of each record.
  index: [B] int32, the number of the record in its source.
  valid: [B] bool. False: the row only fills up the batch.
  keypoints_xy: [B, K, 2] float32, in training only: joints in pixels of `image`.
  keypoints_visible: [B, K] bool, in training only. True: the joint is annotated; it may be outside the image.
  dataset: [B] int32, in a joint training only: the number of the record's data set.
  region: [B, 4] float32, in evaluation only: (centre x, centre y, width, height) in pixels of the picture.

A joint training has several data sets (ViTPose+, arXiv 2212.04246). Each of them has its own transforms, its
own head with as many heat maps as the longest skeleton has joints, its own scores, and optionally its own
expert in each MLP of the encoder. Every head computes heat maps of the whole batch.
"""

import dataclasses
import functools

import jax.numpy as jnp

from hap_jax import config as config_lib
from hap_jax import config_parts, config_sources
from hap_jax import config_values as values
from hap_jax.convert import pose_data_sets
from hap_jax.data.skeletons import COCO17
from hap_jax.data.transforms import topdown
from hap_jax.data.transforms.per_data_set import PerDataSet
from hap_jax.evaluation import joined, pose_evaluation, pose_scorers
from hap_jax.evaluation.evaluate import EvalSplit, Evaluation
from hap_jax.losses.heatmap import joint_heatmap_loss
from hap_jax.models import pose_estimator, vit
from hap_jax.pixels.heatmap_decode import decode, merge_mirrored
from hap_jax.pixels.heatmap_targets import make_heatmaps
from hap_jax.tasks import base
from hap_jax.train import optim
from hap_jax.train import outline as outlines
from hap_jax.train.outline import NOTHING_KNOWN

RESULTS = (".json", ".mat")  # COCO's list of results, and MPII's pred.mat
# Settings in config.data that the data sets of a run may have of their own.
PER_DATA_SET = (
  *("codec", "fit_aspect", "clip_boxes", "box_jitter_prob", "flip_prob", "half_body_prob"),
  *("scale_jitter", "rotation", "rotation_prob"),
)


# The configuration keys of this task, in addition to the keys that every task has.
_KINDS = {
  "warmup_steps": values.whole(0),
  "lr_drops": values.each(values.number(above=0)),
  "layer_decay": values.number(above=0, high=1),
  "heatmap_sigma": values.number(above=0),
  "flip_test": values.flag(),
  "model.patch_padding": values.whole(0),
  "model.head": values.one_of(*pose_estimator.HEADS),
  "model.head_channels": values.whole(1),
  "model.map_norm": values.flag(),
  "model.drop_path": values.number(low=0, below=1),
  "model.num_experts": values.whole(1),
  "model.part_features": values.whole(0),
  "data.flip_prob": values.number(low=0, high=1),
  "data.codec": values.one_of(*topdown.CODECS),
  "data.fit_aspect": values.flag(),
  "data.clip_boxes": values.flag(),
  "data.box_jitter_prob": values.number(low=0, high=1),
  "data.half_body_prob": values.number(low=0, high=1),
  "data.scale_jitter": values.number(low=0, below=1),
  "data.rotation": values.number(low=0),
  "data.rotation_prob": values.number(low=0, high=1),
}


# The keys of `Description.network`. For several data sets, the values of _PER_HEAD are lists with one value
# for each of them, `datasets` has their labels, and `experts` the labels of the experts.
_SIZES = {
  "head": values.one_of(*pose_estimator.HEADS),
  "head_channels": values.each(values.whole(1)),
}
_PER_HEAD = {
  "num_joints": values.whole(
    1
  ),  # number of heat maps; of several data sets, it may exceed the number of joints
  "codec": values.one_of(*topdown.CODECS),
  "fit_aspect": values.flag(),
}


def check(config):
  """Raises ValueError for values that 2D pose cannot use; the message names the key."""
  values.check(config, _KINDS | config_parts.per_part(config, _KINDS, PER_DATA_SET))
  drops, total = config.lr_drops, config.total_epochs
  config_lib.require(
    list(drops) == sorted(drops) and all(drop < total for drop in drops),
    "lr_drops",
    drops,
    f"epochs in ascending order, below total_epochs={total}",
  )
  parts = config_parts.parts_of(config)
  for part in parts:
    config_lib.require(
      part.data.fit_aspect or part.data.codec == "udp",
      f"{part.key}.fit_aspect",
      part.data.fit_aspect,
      f'True for {part.key}.codec="msra", which can use only boxes of the aspect ratio of the image',
    )
  model = config.model
  config_lib.require(
    not parts[0].label or model.num_experts in (1, len(parts)),
    "model.num_experts",
    model.num_experts,
    f"1, or the number of data sets, {len(parts)}",
  )
  width = vit.variant(model.variant).width
  config_lib.require(
    model.part_features < width, "model.part_features", model.part_features, f"less than the width {width}"
  )
  base.check_padding_of(config)


def check_network(description):
  """Raises ValueError if a value of `Description.network` is missing or wrong."""
  several = bool(pose_data_sets.labels_of(description))
  per_head = {key: values.each(kind) if several else kind for key, kind in _PER_HEAD.items()}
  base.check_network(description, _SIZES | per_head)


def network(description, compute=vit.FLOAT32, *, drop_path=0.0):
  """Builds the network of a Description, a `PoseEstimator`.

  Args:
    description: its `network` holds the keys of _SIZES and _PER_HEAD.
    compute: a `vit.Compute`. Heat maps are always float32.
    drop_path: rate of stochastic depth in training.
  Raises:
    ValueError: if a value of the Description is missing or wrong.
  """
  check_network(description)
  sizes, several = description.network, bool(pose_data_sets.labels_of(description))
  return pose_estimator.PoseEstimator(
    description.encoder.build(compute, drop_path=drop_path),
    tuple(sizes["num_joints"]) if several else (sizes["num_joints"],),
    sizes["head"],
    tuple(sizes["head_channels"]),
  )


def make_forward(model, normalize):
  """Returns a function (variables, batch, *, key, train) -> (outputs, model_state).

  The outputs are a tuple with the heat maps [B, h, w, K] float32 of each head.

  Args:
    model: from `network`.
    normalize: uint8 images -> float32 pixels.
  """

  def forward(variables, batch, *, key, train):
    run = functools.partial(
      model.apply, variables, normalize(batch["image"]), expert=batch.get("dataset"), head=None
    )
    if not train:
      return run(train=False), {}
    return run(train=True, drop_key=key, mutable=["batch_stats"])

  return forward


def make_loss(image_size, sigma, labels=()):
  """Returns a function (outputs, batch, *, key) -> (loss, {name: (sum, count)}).

  The loss is the sum of the losses of all heads, see `joint_heatmap_loss`.

  Args:
    image_size: (H, W) in pixels of the images.
    sigma: standard deviation of the Gaussian around a joint, in cells of the heat map.
    labels: the labels of the data sets. (): there is one data set. Otherwise the loss of each data set is
      logged.
  """

  def loss(outputs, batch, *, key):
    del key
    target, weight = make_heatmaps(
      batch["keypoints_xy"],
      batch["keypoints_visible"].astype(jnp.float32),
      batch["is_udp"],
      image_size=image_size,
      heatmap_size=outputs[0].shape[1:3],
      sigma=sigma,
    )
    losses, accuracy = joint_heatmap_loss(outputs, target, weight, batch.get("dataset"))
    named = {f"loss_{label}": (losses[d], jnp.float32(1)) for d, label in enumerate(labels)}
    return sum(losses), {"acc_pose": accuracy, **named}

  return loss


def make_predict(description, skeleton, flip_test, compute=vit.FLOAT32, label=""):
  """Returns a function (variables, batch) -> {"keypoints_xy", "score", "region"}.

  "keypoints_xy" is [B, K, 2] float32, joints in pixels of the whole picture. "score" is [B, K] float32, the
  largest value of each heat map. "region" is copied from the batch.

  Args:
    description: the Description of the variables.
    skeleton: the `Skeleton` of the joints.
    flip_test: True: the heat maps are averaged with the heat maps of the mirrored image.
    compute: a `vit.Compute`.
    label: the data set whose expert and head are used, if the network has several.
  """
  model, normalize = network(description, compute), base.make_normalize(description)
  expert, head = pose_data_sets.index_of(description, label) if label else (0, 0)

  def run(variables, image):
    experts = jnp.full(len(image), expert, jnp.int32)
    heatmaps = model.apply(variables, image, train=False, expert=experts, head=head)
    return heatmaps[..., : len(skeleton.joints)]

  def predict(variables, batch):
    image = normalize(batch["image"])
    heatmaps = run(variables, image)
    if flip_test:
      mirrored = run(variables, image[:, :, ::-1])
      heatmaps = merge_mirrored(heatmaps, mirrored, skeleton.flip_pairs, batch["is_udp"])
    xy, score = decode(heatmaps, batch["region"], batch["is_udp"])
    return {"keypoints_xy": xy, "score": score, "region": batch["region"]}

  return predict


def make_evaluation(config, description):
  """Makes the evaluation of weights with this Description on the split "val" of each data set.

  With several data sets, the score of the first one selects the best checkpoint.

  Args:
    config: the finalized config.
    description: the Description of the weights. None: the Evaluation can only score a file of results.
  Raises:
    ValueError: if the weights have no head for a data set, or predict other joints than its joints.
  """
  parts = config_parts.parts_of(config)
  evaluations = {part.label: _evaluate_part(config, part, description) for part in parts}
  return joined.join(evaluations) if parts[0].label else evaluations[""]


def _evaluate_part(config, part, description):
  """Makes the evaluation on one data set of the configuration, see `make_evaluation`."""
  source, name = config_sources.open_part(part, "val"), part.data.source
  check_source(source, part)
  truth, skeleton = source.truth(), source.spec.skeleton
  if truth is None:
    note = f"{name} has no truth for its split val, so nothing is scored"
    return Evaluation(evals={}, score=lambda splits: {}, notes=(note,))
  scorer, evals, own = pose_scorers.of(truth, skeleton), {}, description
  if description is not None:
    check_network(description)
    if part.label:
      check_data_set(description, part)
      own = pose_data_sets.of_label(description, part.label)
    check_joints(own, skeleton, part)
    view = topdown.make_view(
      image_size=own.encoder.image_size,
      codec=own.network["codec"],
      fit_aspect=own.network["fit_aspect"],
      clip=part.data.clip_boxes,
    )
    loader = base.reading_of(config).ordered(
      source, view, config.eval_batch_size, ("image", "region", "is_udp")
    )
    predict = make_predict(description, skeleton, config.flip_test, base.compute_of(config), part.label)
    evals["val"] = EvalSplit(loader, predict)
  notes = _notes(scorer, own) if evals else ()
  return pose_evaluation.make(evals, scorer, source, notes)


def check_data_set(description, part):
  """Raises ValueError if the weights have no head for a data set of the configuration, which has several."""
  labels = pose_data_sets.labels_of(description)
  if part.label not in labels:
    has = f"the data sets {', '.join(labels)}" if labels else "one data set"
    raise ValueError(
      f"config.{part.key}: the checkpoint has {has}, not {part.label}: choose a data set of the "
      "configuration with --dataset"
    )


def of_data_set(weights, label):
  """Returns the Weights of the network for one data set, see `pose_data_sets.take`.

  If the recorded configuration has several data sets, too, only this one remains.
  """
  labels, taken = pose_data_sets.labels_of(weights.description), pose_data_sets.take(weights, label)
  if not labels:
    return taken
  config = base.recorded_of_data_set(weights.description.config, label or labels[0])
  return dataclasses.replace(taken, description=dataclasses.replace(taken.description, config=config))


def _notes(scorer, description):
  """Returns the lines of text that belong to the scores of weights with this Description."""
  assumed = description.network.get("assumed")
  return (*([scorer.note] if scorer.note else []), *([f"assumed: {assumed}"] if assumed else []))


def check_source(source, part):
  """Raises ValueError if the records of a data set are not people with boxes and joints."""
  if not hasattr(source, "truth"):
    raise ValueError(
      f"config.{part.key}.source={part.data.source!r} has no boxes and joints of people on whole pictures: "
      "2D pose needs a source such as coco_pose, mpii_pose, aic_pose or synthetic"
    )


def check_joints(description, skeleton, part):
  """Raises ValueError if the weights predict other joints than the skeleton of a data set."""
  predicted, count = list(description.classes.get("joints", ())), description.network["num_joints"]
  if predicted != list(skeleton.joints) or count != len(predicted):
    has = f"{count} joints ({description.network.get('skeleton', 'unknown')})"
    raise ValueError(
      f"the checkpoint predicts {has}, data set {part.label or part.data.source} has {len(skeleton.joints)} "
      f"({skeleton.name}): set config.{part.key}.source to a data set with the joints of the checkpoint"
    )


def describe(config, skeletons, source=None, lineage=()):
  """Returns the Description of the weights of a run.

  Args:
    config: the finalized config.
    skeletons: the `Skeleton` of each data set.
    source, lineage: see `base.description_of`.
  """
  model, parts, several = config.model, config_parts.parts_of(config), {}
  labels, channels = [part.label for part in parts], [model.head_channels] * 2
  heads = {
    # Parity: every head has as many heat maps as the longest skeleton has joints.
    "num_joints": [max(len(skeleton.joints) for skeleton in skeletons)] * len(parts),
    "skeleton": [skeleton.name for skeleton in skeletons],
    "head": model.head,
    "head_channels": channels if model.head == "classic" else [],
    "codec": [part.data.codec for part in parts],
    "fit_aspect": [part.data.fit_aspect for part in parts],
  }
  joints, encoder = [list(skeleton.joints) for skeleton in skeletons], {}
  if parts[0].label and model.num_experts > 1:
    part_features = model.part_features or vit.variant(model.variant).width // 4
    encoder = {"num_experts": model.num_experts, "part_features": part_features}
  if parts[0].label:
    classes = dict(zip(labels, joints, strict=True))
    several = {"datasets": labels, "experts": labels if encoder else []}
  else:
    classes = {"joints": joints[0]}
    heads |= {key: heads[key][0] for key in ("num_joints", "skeleton", "codec", "fit_aspect")}
  return base.description_of(
    config,
    source,
    lineage,
    network=heads | several,
    classes=classes,
    encoder={"patch_padding": model.patch_padding, "class_token": False, **encoder},
  )


def step_of(config, description):
  """Returns {name: value}: the fields that the Task and the Outline of a finalized config have in common."""
  model = network(description, base.compute_of(config), drop_path=config.model.drop_path)
  return {
    "init": base.make_init(model, train=False, head=None),
    "param_rules": optim.layer_decay_rules(
      description.encoder.depth, layer_decay=config.layer_decay, weight_decay=config.weight_decay
    ),
    "optimizer": optim.OptimizerSpec(**config.optimizer),
    "forward": make_forward(model, base.make_normalize(description)),
    "loss": make_loss(
      description.encoder.image_size, config.heatmap_sigma, pose_data_sets.labels_of(description)
    ),
    "accumulate": config.accumulate,
  }


def make_augmentation(config, data, skeleton):
  """Returns the transforms of the training records of a data set.

  Args:
    config: the finalized config.
    data: the settings of the data set, see `config_parts.Part`.
    skeleton: the `Skeleton` of its joints.
  """
  return topdown.make_augmentation(
    image_size=tuple(config.model.image_size),
    codec=data.codec,
    skeleton=skeleton,
    fit_aspect=data.fit_aspect,
    clip=data.clip_boxes,
    jitter_prob=data.box_jitter_prob,
    flip_prob=data.flip_prob,
    half_body_prob=data.half_body_prob,
    scale=data.scale_jitter,
    rotation=data.rotation,
    rotation_prob=data.rotation_prob,
  )


def make_load(description, map_norm):
  """Returns the `load` function of a run: it copies the encoder, and the heads that fit the data sets."""
  heads = pose_estimator.head_names(max(len(pose_data_sets.labels_of(description)), 1))
  load_fitting = base.make_load(
    description, heads=heads, layout=("head", "head_channels"), own_norm_only=not map_norm
  )

  def load(variables, weights):
    fitted, notes = pose_data_sets.fit(weights, description)
    variables, report = load_fitting(variables, fitted)
    return variables, dataclasses.replace(report, notes=(*notes, *report.notes))

  return load


def make(config, start=base.FROM_SCRATCH):
  """Makes the 2D pose task of a finalized config.

  Args:
    config: see `configs/finetune_pose2d_coco_b16.py`.
    start: see `base.Start`.
  Raises:
    ValueError: for data or numbers that cannot be used; the message names the key.
  """
  opened = config_sources.open_parts(config, "train")
  for part, source in opened:
    check_source(source, part)
  source, skeletons = config_sources.join_parts(config, opened), [one.spec.skeleton for _, one in opened]
  description = describe(config, skeletons, source, start.lineage)
  labels = pose_data_sets.labels_of(description)
  transforms = tuple(
    make_augmentation(config, part.data, skeleton)
    for (part, _), skeleton in zip(opened, skeletons, strict=True)
  )
  train = base.train_loader_of(
    config,
    start,
    source,
    (PerDataSet(transforms),) if labels else transforms[0],
    base.shuffled_of(config, source),
    ("image", "keypoints_xy", "keypoints_visible", "is_udp", *(["dataset"] if labels else [])),
  )
  total_steps, total_epochs, _ = base.run_length_of(config, train)
  return base.Task(
    **step_of(config, description),
    load=make_load(description, config.model.map_norm),
    schedule=base.step_schedule_of(config, total_steps, total_epochs),
    train=train,
    total_steps=total_steps,
    evaluation=make_evaluation(config, description),
    description=description,
  )


def outline(config, sizes=NOTHING_KNOWN):
  """Returns the `Outline` of a training step; reads no data. `sizes`: see `base.sizes_of`."""
  sizes = base.sizes_of(config, "train", sizes)
  K = sizes.joints or len(COCO17.joints)
  # Only the number of the joints changes the shapes. Their names do not.
  skeleton = dataclasses.replace(COCO17, joints=tuple(map(str, range(K))))
  description = describe(config, [skeleton] * len(config_parts.parts_of(config)))
  labels = pose_data_sets.labels_of(description)
  step = step_of(config, description)
  batch = outlines.abstract_batch(
    config.batch_size,
    description.encoder.image_size,
    keypoints_xy=((K, 2), "float32"),
    keypoints_visible=((K,), "bool"),
    is_udp=((), "bool"),
    **({"dataset": ((), "int32")} if labels else {}),
  )
  heatmaps = outlines.trace(step, batch)
  count = f"{len(heatmaps)} x " if labels else ""
  return outlines.Outline(
    **step,
    batch=batch,
    sizes=sizes,
    lines=(
      outlines.image_line(batch, description.encoder),
      f"heat maps {count}{heatmaps[0].shape} {heatmaps[0].dtype}, compute {config.model.dtype}",
      outlines.size_words("joints", sizes.joints, K),
    ),
  )
