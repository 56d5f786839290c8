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
  region: [B, 4] float32, in evaluation only: (centre x, centre y, width, height) in pixels of the picture.
"""

import dataclasses
import os

import jax.numpy as jnp
import numpy as np

from hap_jax import config as config_lib
from hap_jax import config_values as values
from hap_jax.data import samplers
from hap_jax.data.skeletons import COCO17
from hap_jax.data.transforms import topdown
from hap_jax.evaluation import pose_scorers
from hap_jax.evaluation.evaluate import EvalSplit, Evaluation
from hap_jax.losses.heatmap import heatmap_accuracy, heatmap_loss
from hap_jax.models import pose_estimator, vit
from hap_jax.pixels.heatmap_decode import decode, merge_mirrored
from hap_jax.pixels.heatmap_targets import make_heatmaps
from hap_jax.tasks import base
from hap_jax.train import optim
from hap_jax.train import outline as outlines
from hap_jax.train.outline import NOTHING_KNOWN
from hap_jax.viz import pose_report

RESULTS = (".json", ".mat")  # COCO's list of results, and MPII's pred.mat
HEADS = ("keypoint_head",)  # subtree of the parameters besides the encoder
_WORST = 24  # people in the picture of the worst predictions
_CURVE_POINTS = 121


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
  "data.codec": values.one_of(*topdown.CODECS),
  "data.fit_aspect": values.flag(),
  "data.clip_boxes": values.flag(),
  "data.box_jitter_prob": values.number(low=0, high=1),
  "data.half_body_prob": values.number(low=0, high=1),
  "data.scale_jitter": values.number(low=0, below=1),
  "data.rotation": values.number(low=0),
  "data.rotation_prob": values.number(low=0, high=1),
}


# The keys of `Description.network`.
_NETWORK = {
  "num_joints": values.whole(1),
  "head": values.one_of(*pose_estimator.HEADS),
  "head_channels": values.each(values.whole(1)),
  "codec": values.one_of(*topdown.CODECS),
  "fit_aspect": values.flag(),
}


def check(config):
  """Raises ValueError for values that 2D pose cannot use; the message names the key."""
  values.check(config, _KINDS)
  drops, total = config.lr_drops, config.total_epochs
  config_lib.require(
    list(drops) == sorted(drops) and all(drop < total for drop in drops),
    "lr_drops",
    drops,
    f"epochs in ascending order, below total_epochs={total}",
  )
  config_lib.require(
    config.data.fit_aspect or config.data.codec == "udp",
    "data.fit_aspect",
    config.data.fit_aspect,
    'True for data.codec="msra", which can use only boxes of the aspect ratio of the image',
  )
  base.check_padding_of(config)


def network(description, compute=vit.FLOAT32, *, drop_path=0.0):
  """Builds the network of a Description, a `PoseEstimator`.

  Args:
    description: its `network` holds the keys of _NETWORK.
    compute: a `vit.Compute`. Heat maps are always float32.
    drop_path: rate of stochastic depth in training.
  Raises:
    ValueError: if a value of the Description is missing or wrong.
  """
  base.check_network(description, _NETWORK)
  sizes = description.network
  return pose_estimator.PoseEstimator(
    description.encoder.build(compute, drop_path=drop_path),
    sizes["num_joints"],
    sizes["head"],
    tuple(sizes["head_channels"]),
  )


def make_forward(model, normalize):
  """Returns a function (variables, batch, *, key, train) -> (heat maps [B, h, w, K] float32, model_state).

  Args:
    model: from `network`.
    normalize: uint8 images -> float32 pixels.
  """

  def forward(variables, batch, *, key, train):
    image = normalize(batch["image"])
    if not train:
      return model.apply(variables, image, train=False), {}
    return model.apply(variables, image, train=True, drop_key=key, mutable=["batch_stats"])

  return forward


def make_loss(image_size, sigma):
  """Returns a function (heat maps, batch, *, key) -> (mean squared error, {name: (sum, count)}).

  A joint that is not annotated adds 0 to the error, but it counts in the mean.

  Args:
    image_size: (H, W) in pixels of the images.
    sigma: standard deviation of the Gaussian around a joint, in cells of the heat map.
  """

  def loss(heatmaps, batch, *, key):
    del key
    target, weight = make_heatmaps(
      batch["keypoints_xy"],
      batch["keypoints_visible"].astype(jnp.float32),
      batch["is_udp"],
      image_size=image_size,
      heatmap_size=heatmaps.shape[1:3],
      sigma=sigma,
    )
    accuracy = heatmap_accuracy(heatmaps, target, weight)
    return heatmap_loss(heatmaps, target, weight), {"acc_pose": accuracy}

  return loss


def make_predict(description, skeleton, flip_test, compute=vit.FLOAT32):
  """Returns a function (variables, batch) -> {"keypoints_xy", "score", "region"}.

  "keypoints_xy" is [B, K, 2] float32, joints in pixels of the whole picture. "score" is [B, K] float32, the
  largest value of each heat map. "region" is copied from the batch.

  Args:
    description: the Description of the variables.
    skeleton: the `Skeleton` of the joints.
    flip_test: True: the heat maps are averaged with the heat maps of the mirrored image.
    compute: a `vit.Compute`.
  """
  model, normalize = network(description, compute), base.make_normalize(description)

  def predict(variables, batch):
    image = normalize(batch["image"])
    heatmaps = model.apply(variables, image, train=False)
    if flip_test:
      mirrored = model.apply(variables, image[:, :, ::-1], train=False)
      heatmaps = merge_mirrored(heatmaps, mirrored, skeleton.flip_pairs, batch["is_udp"])
    xy, score = decode(heatmaps, batch["region"], batch["is_udp"])
    return {"keypoints_xy": xy, "score": score, "region": batch["region"]}

  return predict


def make_score(scorer, num_records):
  """Returns the score function: {"val": rows} -> {metric: float}.

  A person whose picture cannot be read counts as missed. If there are such people, "unread" is their number.

  Args:
    scorer: from `pose_scorers.of`.
    num_records: number of records of the split.
  """

  def score(splits):
    rows = splits["val"]
    num_unread = num_records - len(rows["index"])
    return scorer.score(rows) | ({"unread": float(num_unread)} if num_unread else {})

  return score


def make_row_figures(scorer, source):
  """Returns a function rows -> {name: picture}, which draws the predictions on the split "val".

  The picture "joints" shows the score of each joint, and the curve of the score over the threshold. The
  picture "worst" shows the people with the worst predictions, with predicted and true joints.

  Args:
    scorer: from `pose_scorers.of`.
    source: the records of the split.
  """

  def row_figures(splits):
    errors = scorer.errors(splits["val"])
    scale = errors.scale
    thresholds = np.linspace(0, scale.limit, _CURVE_POINTS)
    people = f"{len(errors.record):,} people of val"
    pictures = {
      "joints": pose_report.accuracy_chart(
        scorer.skeleton.joints,
        errors.joint_shares(),
        thresholds,
        errors.curve(thresholds),
        score=scale.score,
        marks=((scale.threshold, scale.score),),
        unit=scale.unit,
        full=scale.full,
        title=f"{people}; {scorer.note}" if scorer.note else people,
      )
    }
    shown = [
      pose_report.ShownPerson(
        image=source[int(errors.record[i])]["image"],
        region=errors.region[i],
        truth_xy=errors.truth_xy[i],
        is_labelled=errors.is_labelled[i],
        xy=errors.xy[i],
        title=errors.remarks[i],
        name=os.path.basename(source.name(int(errors.record[i]))),
      )
      for i in errors.worst(_WORST)
    ]
    if shown:
      title = f"The worst {len(shown)} of {people}"
      pictures["worst"] = pose_report.people_sheet(shown, scorer.skeleton, title=title, note=errors.note)
    return pictures

  return row_figures


def make_evaluation(config, description):
  """Makes the evaluation of weights with this Description on the split "val".

  Args:
    config: the finalized config.
    description: the Description of the weights. None: the Evaluation can only score a file of results.
  Raises:
    ValueError: if the weights predict other joints than the joints of the data set.
  """
  source = config_lib.open_source(config, "val")
  check_source(source, config.data.source)
  truth, skeleton = source.truth(), source.spec.skeleton
  if truth is None:
    note = f"{config.data.source} has no truth for its split val, so nothing is scored"
    return Evaluation(evals={}, score=lambda splits: {}, notes=(note,))
  scorer, evals = pose_scorers.of(truth, skeleton), {}
  if description is not None:
    check_joints(description, skeleton, config.data.source)
    view = topdown.make_view(
      image_size=description.encoder.image_size,
      codec=description.network["codec"],
      fit_aspect=description.network["fit_aspect"],
      clip=config.data.clip_boxes,
    )
    loader = base.reading_of(config).ordered(
      source, view, config.eval_batch_size, ("image", "region", "is_udp")
    )
    predict = make_predict(description, skeleton, config.flip_test, base.compute_of(config))
    evals["val"] = EvalSplit(loader, predict)
  return Evaluation(
    evals=evals,
    score=make_score(scorer, len(source)),
    row_figures=make_row_figures(scorer, source),
    select=(scorer.select, "max"),
    notes=_notes(scorer, description) if evals else (),
    write_results=lambda splits, folder: scorer.write(splits["val"], folder),
    read_results=scorer.read,
  )


def _notes(scorer, description):
  """Returns the lines of text that belong to the scores of weights with this Description."""
  assumed = description.network.get("assumed")
  return (*([scorer.note] if scorer.note else []), *([f"assumed: {assumed}"] if assumed else []))


def check_source(source, name):
  """Raises ValueError if the records of the source `name` are not people with boxes and joints."""
  if not hasattr(source, "truth"):
    raise ValueError(
      f"config.data.source={name!r} has no boxes and joints of people on whole pictures: 2D pose needs a "
      "source such as coco_pose, mpii_pose, aic_pose or synthetic"
    )


def check_joints(description, skeleton, name):
  """Raises ValueError if the weights predict other joints than the skeleton of the source `name`."""
  base.check_network(description, _NETWORK)
  predicted, count = list(description.classes.get("joints", ())), description.network["num_joints"]
  if predicted != list(skeleton.joints) or count != len(predicted):
    has = f"{count} joints ({description.network.get('skeleton', 'unknown')})"
    raise ValueError(
      f"the checkpoint predicts {has}, data set {name} has {len(skeleton.joints)} ({skeleton.name}): set "
      "config.data.source to a data set with the joints of the checkpoint"
    )


def describe(config, skeleton, source=None, lineage=()):
  """Returns the Description of the weights of a run.

  Args:
    config: the finalized config.
    skeleton: the `Skeleton` of the joints.
    source, lineage: see `base.description_of`.
  """
  model, channels = config.model, config.model.head_channels
  sizes = {
    "num_joints": len(skeleton.joints),
    "skeleton": skeleton.name,
    "head": model.head,
    "head_channels": [channels, channels] if model.head == "classic" else [],
    "codec": config.data.codec,
    "fit_aspect": config.data.fit_aspect,
  }
  return base.description_of(
    config,
    source,
    lineage,
    network=sizes,
    classes={"joints": list(skeleton.joints)},
    patch_padding=model.patch_padding,
    class_token=False,
  )


def step_of(config, description):
  """Returns {name: value}: the fields that the Task and the Outline of a finalized config have in common."""
  model = network(description, base.compute_of(config), drop_path=config.model.drop_path)
  return {
    "init": base.make_init(model, train=False),
    "param_rules": optim.layer_decay_rules(
      description.encoder.depth, layer_decay=config.layer_decay, weight_decay=config.weight_decay
    ),
    "optimizer": optim.OptimizerSpec(**config.optimizer),
    "forward": make_forward(model, base.make_normalize(description)),
    "loss": make_loss(description.encoder.image_size, config.heatmap_sigma),
    "accumulate": config.accumulate,
  }


def make(config, start=base.FROM_SCRATCH):
  """Makes the 2D pose task of a finalized config.

  Args:
    config: see `configs/finetune_pose2d_coco_b16.py`.
    start: see `base.Start`.
  Raises:
    ValueError: for data or numbers that cannot be used; the message names the key.
  """
  source = config_lib.open_source(config, "train")
  check_source(source, config.data.source)
  skeleton = source.spec.skeleton
  description = describe(config, skeleton, source, start.lineage)
  augment = topdown.make_augmentation(
    image_size=description.encoder.image_size,
    codec=config.data.codec,
    skeleton=skeleton,
    fit_aspect=config.data.fit_aspect,
    clip=config.data.clip_boxes,
    jitter_prob=config.data.box_jitter_prob,
    flip_prob=config.data.flip_prob,
    half_body_prob=config.data.half_body_prob,
    scale=config.data.scale_jitter,
    rotation=config.data.rotation,
    rotation_prob=config.data.rotation_prob,
  )
  sampler = samplers.ShuffledEpochs(len(source), config.batch_size, config.seed)
  fields = ("image", "keypoints_xy", "keypoints_visible", "is_udp")
  train = base.train_loader_of(config, start, source, augment, sampler, fields)
  total_steps, total_epochs, _ = base.run_length_of(config, train)
  return base.Task(
    **step_of(config, description),
    load=base.make_load(
      description, heads=HEADS, layout=("head", "head_channels"), own_norm_only=not config.model.map_norm
    ),
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
  description = describe(config, skeleton)
  step = step_of(config, description)
  batch = outlines.abstract_batch(
    config.batch_size,
    description.encoder.image_size,
    keypoints_xy=((K, 2), "float32"),
    keypoints_visible=((K,), "bool"),
    is_udp=((), "bool"),
  )
  heatmaps = outlines.trace(step, batch)
  return outlines.Outline(
    **step,
    batch=batch,
    sizes=sizes,
    lines=(
      outlines.image_line(batch, description.encoder),
      f"heat maps {heatmaps.shape} {heatmaps.dtype}, compute {config.model.dtype}",
      outlines.size_words("joints", sizes.joints, K),
    ),
  )
