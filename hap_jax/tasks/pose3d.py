"""3D pose and shape as a Task: the parameters of a body model for one person, scored in millimetres.

The recipe is direct. The encoder is the ViT of 2D pose. From the mean of its tokens, one hidden layer and an
output layer compute 24 rotations, the shape and the camera (HMR, arXiv 1712.06584; rotations in 6D, arXiv
1812.07035). This recipe does not use the official network of HAP, which has a graph. The scores are the
official scores of 3DPW.

The body model is a constant of the task: an argument of every compiled function. Checkpoints hold its digest,
but none of its arrays. The body model of a source of drawn people comes with the source. All other sources
need config.body, a folder that `hap body` makes.

The step (`prepare`, `forward`) does all computations that need the body model. The loader only cuts the
person out of the picture.

Batch fields:
  image: [B, H, W, 3] uint8, the square around the person, normalised in the step.
  smpl_pose: [B, 72] float32, axis-angles of 24 joints. The first one turns the body frame to the camera
    frame.
  smpl_betas: [B, 10] float32, the shape.
  index: [B] int32, the number of the record in its source.
  valid: [B] bool. False: the row only fills up the batch.
In training only:
  smpl_translation: [B, 3] float32, metres in the camera frame.
  intrinsics: [B, 3, 3] float32, pixels of the picture.
  crop_matrix: [B, 2, 3] float32, from pixels of the picture to pixels of `image`, mirror and turn included.
  rotation: [B] float32, degrees by which the square was turned.
  is_mirrored: [B] bool. The parameters of the record belong to the picture before it was mirrored.
  has_fit: [B] bool, if the source has this field. False: the record has no parameters, so it has no loss.
In evaluation only:
  gender: [B] int32, index in `body_model.GENDERS`, if the source has this field.
"""

import jax.numpy as jnp
import numpy as np
from flax import struct

from hap_jax import config as config_lib
from hap_jax import config_sources
from hap_jax import config_values as values
from hap_jax.data import body_model, samplers
from hap_jax.data.transforms import square_crop
from hap_jax.evaluation import body_scores
from hap_jax.evaluation.evaluate import EvalSplit, Evaluation
from hap_jax.losses import body as losses
from hap_jax.losses import body_targets
from hap_jax.models import body_regressor, crop_camera, vit
from hap_jax.tasks import base
from hap_jax.train import initial_body, optim, start_pose
from hap_jax.train import outline as outlines
from hap_jax.train.outline import NOTHING_KNOWN

HEADS = ("body_head",)  # subtree of the parameters besides the encoder
_FIT = ("smpl_pose", "smpl_betas", "smpl_translation", "intrinsics")  # fields that every source needs
_CUT = ("intrinsics", "crop_matrix", "rotation", "is_mirrored")
_LOSSES = ("joints_2d", "joints_3d", "rotations", "betas")


# The configuration keys of this task, in addition to the keys that every task has.
_KINDS = {
  "warmup_epochs": values.number(low=0),
  "layer_decay": values.number(above=0, high=1),
  "body": values.text(),
  "loss": values.group(),
  **{f"loss.{name}": values.number(low=0) for name in _LOSSES},
  "model.patch_padding": values.whole(0),
  "model.hidden": values.whole(1),
  "model.drop_path": values.number(low=0, below=1),
  "data.eval_source": values.text(),
  "data.eval_root": values.text(),
  "data.eval_body": values.text(),
  "data.scale_jitter": values.number(low=0, below=1),
  "data.rotation": values.number(low=0),
  "data.rotation_prob": values.number(low=0, high=1),
  "data.color_gain": values.number(low=0, below=1),
}


# The keys of `Description.network`.
_NETWORK = {
  "hidden": values.whole(1),
  "start": values.each(values.number(low=-1000, high=1000)),
  "body": values.text(),
}


def check(config):
  """Raises ValueError for values that 3D pose cannot use; the message names the key."""
  values.check(config, _KINDS)
  H, W = config.model.image_size
  config_lib.require(H == W, "model.image_size", (H, W), "a square, because the region of a person is square")
  base.check_padding_of(config)


def network(description, compute=vit.FLOAT32, *, drop_path=0.0):
  """Builds the network of a Description, a `BodyRegressor`.

  Args:
    description: its `network` holds the keys of _NETWORK.
    compute: a `vit.Compute`. The head is always float32.
    drop_path: rate of stochastic depth in training.
  Raises:
    ValueError: if a value of the Description is missing or wrong.
  """
  base.check_network(description, _NETWORK)
  sizes, expected = description.network, body_regressor.NUM_VALUES
  if len(sizes["start"]) != expected:
    raise ValueError(f"start of the network has {len(sizes['start'])} numbers, expected {expected}")
  return body_regressor.BodyRegressor(
    description.encoder.build(compute, drop_path=drop_path),
    sizes["hidden"],
    tuple(sizes["start"]),
  )


@struct.dataclass
class Outputs:
  """The results for B people that the losses compare with their targets, all float32.

  Attributes:
    parameters: `BodyParameters`.
    joints: [B, 30, 3] metres, relative to the pelvis.
    pixels: [B, 30, 2], in halves of the image from its centre: -1 is the left or upper border, and 1 is the
      right or lower border.
  """

  parameters: body_regressor.BodyParameters
  joints: jnp.ndarray
  pixels: jnp.ndarray


def make_forward(model, normalize):
  """Returns a function (variables, batch, *, key, train) -> (Outputs, model_state).

  Args:
    model: from `network`.
    normalize: uint8 images -> float32 pixels.
  """

  def forward(variables, batch, *, key, train):
    image, drop_key = normalize(batch["image"]), key if train else None
    found = model.apply({"params": variables["params"]}, image, drop_key=drop_key)
    joints = body_targets.pose_joints(variables["constants"]["body"], found.rotations, found.betas)
    pixels = crop_camera.project(joints + crop_camera.camera_translation(found.camera)[:, None])
    return Outputs(found, joints - joints[:, :1], body_targets.to_halves(pixels, crop_camera.SIDE)), {}

  return forward


def make_prepare(image_size):
  """Returns a function (variables, batch, *, key) -> batch with the targets of `make_loss`.

  The targets come from `body_targets.make_targets`. If the batch has no field has_fit [B] bool, the function
  adds it, with True for every record.

  Args:
    image_size: (H, W) in pixels of the images.
  """
  (side, _) = image_size

  def prepare(variables, batch, *, key):
    del key
    targets = body_targets.make_targets(
      variables["constants"]["body"],
      pose=batch["smpl_pose"],
      betas=batch["smpl_betas"],
      translation=batch["smpl_translation"],
      side=side,
      **{name: batch[name] for name in _CUT},
    )
    has_fit = batch.get("has_fit", jnp.ones(len(batch["index"]), bool))
    return {name: batch[name] for name in ("image", "index", "valid")} | targets | {"has_fit": has_fit}

  return prepare


def make_loss(weights):
  """Returns a function (Outputs, batch, *, key) -> (loss, {name: (sum, count)}).

  The loss is the weighted sum of four means over the people with a fit:
    joints_2d  mean absolute error of the projected joints inside the image, in halves of the image
    joints_3d  mean squared error of the joints relative to the pelvis, in square metres
    rotations  mean squared error of the rotation matrices
    betas      mean absolute error of the shape. A squared error would be large for drawn children, because
               their shape is far from the mean

  Args:
    weights: {name: weight} of these four.
  """

  def loss(outputs, batch, *, key):
    del key
    errors = {
      "joints_2d": losses.joint_error(
        outputs.pixels, batch["joints_2d"], batch["is_inside"].astype(jnp.float32)
      ),
      "joints_3d": losses.squared_error(outputs.joints, batch["joints_3d"]),
      "rotations": losses.squared_error(outputs.parameters.rotations, batch["rotations"]),
      "betas": losses.absolute_error(outputs.parameters.betas, batch["betas"]),
    }
    has_fit = batch["has_fit"]
    means = {name: losses.mean_over_people(error, has_fit) for name, error in errors.items()}
    count = has_fit.sum().astype(jnp.float32)
    return sum(weights[name] * mean for name, mean in means.items()), {
      f"loss_{name}": (mean * count, count) for name, mean in means.items()
    }

  return loss


def make_predict_parameters(description, compute=vit.FLOAT32):
  """Returns a function (variables, batch) -> {"rotations", "betas", "camera", "region"}.

  The first three are the fields of `BodyParameters`. "region" [B, 4] is copied from the batch.

  Args:
    description: the Description of the variables.
    compute: a `vit.Compute`.
  """
  model, normalize = network(description, compute), base.make_normalize(description)

  def predict(variables, batch):
    found = model.apply({"params": variables["params"]}, normalize(batch["image"]))
    return {
      "rotations": found.rotations,
      "betas": found.betas,
      "camera": found.camera,
      "region": batch["region"],
    }

  return predict


def make_predict(description, compute=vit.FLOAT32):
  """Returns a function (variables, batch) -> the result of `body_scores.measure`.

  The collection "constants" of the variables comes from `body_scores.constants_of`.

  Args:
    description: the Description of the variables.
    compute: a `vit.Compute`.
  """
  model, normalize = network(description, compute), base.make_normalize(description)

  def predict(variables, batch):
    found = model.apply({"params": variables["params"]}, normalize(batch["image"]))
    return body_scores.measure(variables["constants"], found.rotations, found.betas, batch)

  return predict


def bodies_of(config):
  """Returns (BodySet of the network, BodySet of the truth of the evaluation) of a finalized config."""
  data = config.data
  return initial_body.choose(
    data.source, config.body, eval_source=data.eval_source, eval_folder=data.eval_body
  )


def make_evaluation(config, description):
  """Makes the evaluation of weights with this Description.

  Args:
    config: the finalized config.
    description: the Description of the weights.
  Raises:
    ValueError: if a body model or the regressor of Human3.6M is missing.
  """
  return evaluation_of(config, description, *bodies_of(config))


def evaluation_of(config, description, bodies, true_bodies):
  """Returns the same as `make_evaluation`, for body models that were read already."""
  data = config.data
  source = (
    config_sources.open_source(config, "val")
    if not data.eval_source
    else config_sources.open_named_source(
      data.eval_source,
      root=data.eval_root,
      split="test",
      seed=config.seed,
      options=dict(data.get(data.eval_source, {})),
    )
  )
  check_source(source, data.eval_source or data.source)
  check_genders(source, true_bodies)
  fields = ["image", "smpl_pose", "smpl_betas"] + ["gender"] * ("gender" in source.spec.fields)
  view = square_crop.make_view(image_size=description.encoder.image_size)
  loader = base.reading_of(config).ordered(source, view, config.eval_batch_size, tuple(fields))
  predict = make_predict(description, base.compute_of(config))
  return Evaluation(
    evals={"test": EvalSplit(loader, predict)},
    score=body_scores.make_score("test"),
    select=("PA-MPJPE", "min"),
    constants=body_scores.constants_of(bodies, true_bodies),
    notes=(*body_scores.notes(bodies, true_bodies), *initial_body.notes(description, bodies)),
  )


def check_source(source, name):
  """Raises ValueError if the records of the source `name` have no parameters of a body model."""
  if missing := [field for field in _FIT if field not in source.spec.fields]:
    raise ValueError(
      f"config.data.source={name!r} has no {', '.join(missing)}: 3D pose needs people with the parameters of "
      "a body model, such as the source synthetic"
    )


def check_genders(source, bodies):
  """Raises ValueError if a person of a source has a gender whose body is missing in a `BodySet`."""
  if "gender" in source.spec.fields:
    for gender in np.unique(source.columns["gender"]).tolist():
      bodies.of(body_model.GENDERS[gender])


def describe(config, body, start, source=None, lineage=()):
  """Returns the Description of the weights of a run.

  Args:
    config: the finalized config.
    body: {"name", "licence", "digest"} of the body of the network, see `body_facts`.
    start: see `BodyRegressor`.
    source, lineage: see `base.description_of`.
  """
  return base.description_of(
    config,
    source,
    lineage,
    network={"hidden": config.model.hidden, "start": list(start), "body": body["digest"]},
    classes={"body": [body["name"]]},
    encoder={"patch_padding": config.model.patch_padding, "class_token": False},
    body={key: body[key] for key in ("name", "licence")},
  )


def start_of_head(description, task, hidden, body):
  """Returns the recorded start of the weights if the run keeps their head, or None if the run has a new head.

  A run that resumes keeps the head. A run that starts from other weights keeps their head if they are of the
  same task and have the same hidden layer and the same body model, see `base.make_load`.

  Args:
    description: the Description of the weights. None: the run starts without weights.
    task: the name of the task of the run.
    hidden: width of the hidden layer of the run.
    body: the name of the body model of the run.
  Raises:
    ValueError: if the description of these weights is damaged.
  """
  if description is None or description.task != task:
    return None
  if description.network.get("hidden") != hidden or description.classes != {"body": [body]}:
    return None
  base.check_network(description, _NETWORK)
  return description.network["start"]


def body_facts(bodies):
  """Returns the facts about a `BodySet` that a Description records: {"name", "licence", "digest"}."""
  return {"name": bodies.name, "licence": bodies.licence, "digest": bodies.digest}


def step_of(config, description):
  """Returns {name: value}: the fields that the Task and the Outline of a finalized config have in common."""
  model = network(description, base.compute_of(config), drop_path=config.model.drop_path)
  return {
    "init": base.make_init(model),
    "param_rules": optim.layer_decay_rules(
      description.encoder.depth, layer_decay=config.layer_decay, weight_decay=config.weight_decay
    ),
    "optimizer": optim.OptimizerSpec(**config.optimizer),
    "prepare": make_prepare(description.encoder.image_size),
    "forward": make_forward(model, base.make_normalize(description)),
    "loss": make_loss(dict(config.loss)),
    "accumulate": config.accumulate,
  }


def make(config, start=base.FROM_SCRATCH):
  """Makes the task 3D pose of a finalized config.

  Args:
    config: see `configs/finetune_pose3d_direct_b16.py`.
    start: see `base.Start`.
  Raises:
    ValueError: for data or numbers that cannot be used; the message names the key.
  """
  source = config_sources.open_source(config, "train")
  check_source(source, config.data.source)
  bodies, true_bodies = bodies_of(config)
  size = tuple(config.model.image_size)
  given = start_of_head(start.description, config.task, config.model.hidden, bodies.name)
  values_at_start = start_pose.choose(given, source, bodies, size)
  description = describe(config, body_facts(bodies), values_at_start, source, start.lineage)
  augment = square_crop.make_augmentation(
    image_size=size,
    flip_pairs=source.spec.skeleton.flip_pairs if source.spec.skeleton else (),
    flip_prob=config.data.flip_prob,
    scale=config.data.scale_jitter,
    rotation=config.data.rotation,
    rotation_prob=config.data.rotation_prob,
    color_gain=config.data.color_gain,
  )
  sampler = samplers.ShuffledEpochs(len(source), config.batch_size, config.seed)
  fields = ("image", "smpl_pose", "smpl_betas", "smpl_translation", *_CUT)
  fields += ("has_fit",) * ("has_fit" in source.spec.fields)
  train = base.train_loader_of(config, start, source, augment, sampler, fields)
  total_steps, total_epochs, warmup_epochs = base.run_length_of(config, train)
  evaluation = evaluation_of(config, description, bodies, true_bodies)
  return base.Task(
    **step_of(config, description),
    load=base.make_load(description, heads=HEADS, layout=("hidden",)),
    schedule=lambda step, progress: optim.warmup_cosine(
      progress, peak=config.base_lr, warmup=warmup_epochs, total=total_epochs
    ),
    train=train,
    total_steps=total_steps,
    constants=evaluation.constants,
    evaluation=evaluation,
    description=description,
  )


def outline(config, sizes=NOTHING_KNOWN):
  """Returns the `Outline` of a training step; reads no data. `sizes`: see `base.sizes_of`."""
  # No body is read. Its facts and the start do not change the shapes.
  no_body = dict.fromkeys(("name", "licence", "digest"), "not read")
  description = describe(config, no_body, (0.0,) * body_regressor.NUM_VALUES)
  step, data = step_of(config, description), config.data
  batch = outlines.abstract_batch(
    config.batch_size,
    description.encoder.image_size,
    smpl_pose=((72,), "float32"),
    smpl_betas=((10,), "float32"),
    smpl_translation=((3,), "float32"),
    intrinsics=((3, 3), "float32"),
    crop_matrix=((2, 3), "float32"),
    rotation=((), "float32"),
    is_mirrored=((), "bool"),
  )
  bodies, true_bodies = initial_body.placeholders(data.source, data.eval_source or data.source)
  constants = outlines.shapes_of(body_scores.constants_of(bodies, true_bodies))
  outputs = outlines.trace(step, batch, constants)
  found = outputs.parameters
  return outlines.Outline(
    **step,
    batch=batch,
    constants=constants,
    sizes=base.sizes_of(config, "train", sizes),
    lines=(
      outlines.image_line(batch, description.encoder),
      f"rotations {found.rotations.shape}, shape {found.betas.shape}, camera {found.camera.shape} float32, "
      f"compute {config.model.dtype}; a body of {bodies.of('neutral').num_vertices:,} vertices",
    ),
  )
