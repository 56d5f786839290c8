"""A small pose model learns from synthetic people and finds the joints of people it never saw.

The model is the project's encoder with one dense layer. The layer predicts a small map of each joint for each
patch. The training loop runs the model as a task of its own. The error of a joint is its distance divided by
the longer side of the person's box, clipped to the picture. All labelled joints inside the picture count. The
split `val` selects the method that reads a joint from its map; the score is on the split `test`.
"""

import dataclasses

import cv2
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax import sharding
from hap_jax.data.loader import Loader
from hap_jax.data.samplers import Sequential, ShuffledEpochs
from hap_jax.data.skeletons import COCO17
from hap_jax.data.sources import synthetic
from hap_jax.data.transforms.image import HorizontalFlip
from hap_jax.description import Description, Encoder
from hap_jax.evaluation.evaluate import EvalSplit, Evaluation
from hap_jax.models import layers, vit
from hap_jax.pixels.normalize import normalize
from hap_jax.tasks.base import Task
from hap_jax.train import loop, optim
from hap_jax.train.checkpoint import Checkpoints

GOAL = 0.8  # PCK@0.1 on held-out people
SIZE, PATCH, CELL = (64, 32), 8, 2  # pixels: crop (H, W), side of a patch, side of a heatmap cell
SPREAD = 1.5  # standard deviation of a joint's target, in cells
# Sides of the squares of cells over which probabilities are added up before the highest cell is found. 1 uses
# the map as it is.
REACHES = (1, 3, 5, 7)
BATCH, STEPS, PEAK_LR = 32, 5000, 1.5e-3
K = len(COCO17.joints)


@dataclasses.dataclass(frozen=True)
class CropBox:
  """Crops a person's box, clipped to the picture and enlarged by a quarter; both axes have one scale.

  Attributes:
    jitter: range of the random scale and shift of a training crop, as a share of the box; 0 for none.
  """

  jitter: float = 0.0
  adds = ("box_side",)

  def __call__(self, record, rng):
    H, W = record["image"].shape[:2]
    left, top, right, bottom = np.clip(record["box"], 0, (W - 1, H - 1, W - 1, H - 1))
    zoom, dx, dy = 1 + self.jitter * rng.uniform(-1, 1, 3)
    scale = zoom * min(SIZE[0] / (bottom - top + 1), SIZE[1] / (right - left + 1)) / 1.25
    center = (
      (left + right) / 2 + (dx - 1) * (right - left),
      (top + bottom) / 2 + (dy - 1) * (bottom - top) / 2,
    )
    shift = (np.array(SIZE[::-1]) - 1) / 2 - scale * np.array(center)
    warp = np.array(((scale, 0, shift[0]), (0, scale, shift[1])))
    return record | {
      "image": cv2.warpAffine(record["image"], warp, SIZE[::-1], flags=cv2.INTER_AREA),
      "keypoints_xy": (scale * record["keypoints_xy"] + shift).astype(np.float32),
      "box_side": np.float32(scale * max(bottom - top, right - left)),
    }


class PoseNet(nn.Module):
  """Computes heatmap logits [B, K, H / CELL, W / CELL] of normalised pictures [B, H, W, 3]."""

  @nn.compact
  def __call__(self, image):
    size, grid = vit.variant("Mu"), layers.grid_of(SIZE, PATCH)
    encoder = vit.ViT(size.width, size.depth, size.num_heads, grid, PATCH, name="encoder")
    tokens = encoder(layers.patchify(image, PATCH)).patches
    side = PATCH // CELL
    maps = layers.dense(K * side * side, jnp.float32, "head")(tokens)
    # The channels of a token are the cells of its patch.
    maps = maps.reshape(-1, *grid, K, side, side).transpose(0, 3, 1, 4, 2, 5)  # [B, K, Gh, side, Gw, side]
    return maps.reshape(-1, K, SIZE[0] // CELL, SIZE[1] // CELL)


def cell_centres():
  """Returns the pixel positions (y [h], x [w]) of the heatmap's cells."""
  return tuple((jnp.arange(side // CELL) + 0.5) * CELL - 0.5 for side in SIZE)


def loss(logits, batch, *, key):
  """Returns the mean cross-entropy between heatmaps and Gaussians around the joints inside the crop."""
  del key
  y, x = cell_centres()
  joint = batch["keypoints_xy"] / (CELL * SPREAD)
  rows = jnp.exp(-0.5 * jnp.square(y / (CELL * SPREAD) - joint[..., 1:]))
  columns = jnp.exp(-0.5 * jnp.square(x / (CELL * SPREAD) - joint[..., :1]))
  target = rows[..., :, None] * columns[..., None, :]
  target = (target / (target.sum((-2, -1), keepdims=True) + 1e-9)).reshape(*target.shape[:2], -1)
  cost = -(target * jax.nn.log_softmax(logits.reshape(target.shape))).sum(-1)
  weight = batch["keypoints_visible"].astype(jnp.float32)
  total = (cost * weight).sum()
  return total / weight.sum(), {"loss_pose": (total, weight.sum())}


def predict(variables, batch):
  """Returns the errors of joints as shares of the box's longer side, and which joints count.

  Returns:
    dict of arrays [B, K]:
      error_plain: the joint is at the highest cell of its map.
      error_<reach>: the maps of the picture and of its mirror image are averaged. The joint is at the cell
        with the largest sum of probabilities within reach.
      labelled, seen: whether the joint counts.
  """
  order = np.arange(K)
  for left, right in COCO17.flip_pairs:
    order[[left, right]] = right, left
  image = normalize(batch["image"])
  plain = heatmaps(variables, image)
  both = plain + heatmaps(variables, image[:, :, ::-1])[:, order, :, ::-1]
  errors = {f"error_{reach}": joint_error(gather_near(both, reach), batch) for reach in REACHES}
  is_seen = batch["keypoints_visible"] & ~batch["keypoints_occluded"]
  return errors | {
    "error_plain": joint_error(plain, batch),
    "labelled": batch["keypoints_visible"],
    "seen": is_seen,
  }


def gather_near(heat, reach):
  """Returns the mean probability of the square around each cell, [B, K, h, w]."""
  near = nn.avg_pool(heat.reshape(-1, *heat.shape[2:], 1), (reach, reach), padding="SAME")
  return near.reshape(heat.shape)


def joint_error(heat, batch):
  """Returns the distance of each map's highest cell from its joint, as a share of the longer side; [B, K]."""
  best = heat.reshape(*heat.shape[:2], -1).argmax(-1)
  y, x = cell_centres()
  found = jnp.stack([x[best % len(x)], y[best // len(x)]], axis=-1)
  return jnp.linalg.norm(found - batch["keypoints_xy"], axis=-1) / batch["box_side"][:, None]


def heatmaps(variables, image):
  """Returns the probabilities of the cells, [B, K, h, w]."""
  logits = PoseNet().apply(variables, image)
  return jax.nn.softmax(logits.reshape(*logits.shape[:2], -1)).reshape(logits.shape)


def score(splits):
  """Returns PCK@0.1 on the split `test`, with the reach that is best on `val`, and with single cells."""
  val, test = splits["val"], splits["test"]
  reach = max(REACHES, key=lambda reach: pck(val, f"error_{reach}", "labelled"))
  return {
    "pck": pck(test, f"error_{reach}", "labelled"),
    "pck_seen": pck(test, f"error_{reach}", "seen"),
    "pck_plain": pck(test, "error_plain", "labelled"),
    "pck_val": pck(val, f"error_{reach}", "labelled"),
    "reach": reach,
  }


def pck(rows, error, joints):
  """Returns the share of joints whose error is less than a tenth of the box's longer side."""
  return float((rows[error] < 0.1)[rows[joints]].mean())


def make_task(num_train, num_held_out, total_steps):
  """Returns the supervised pose task on pictures in memory."""
  options = {"num_train": num_train, "num_val": num_held_out, "num_test": num_held_out}
  train, val, test = (
    synthetic.open_source(split=split, image_size=(96, 48), hold_in_memory=True, **options)
    for split in ("train", "val", "test")
  )
  flip = HorizontalFlip(COCO17.flip_pairs)
  fields = ("image", "keypoints_xy", "keypoints_visible")
  loader = Loader(
    train, (CropBox(jitter=0.15), flip), ShuffledEpochs(num_train, BATCH, 0), seed=0, fields=fields
  )
  more = (*fields, "keypoints_occluded", "box_side")
  evals = {
    name: EvalSplit(
      Loader(held_out, (CropBox(),), Sequential(num_held_out, BATCH), seed=0, fields=more), predict
    )
    for name, held_out in (("val", val), ("test", test))
  }
  model, epochs = PoseNet(), loader.progress(total_steps)

  def forward(variables, batch, *, key, train):
    del key, train
    return model.apply(variables, normalize(batch["image"])), {}

  return Task(
    init=lambda key: model.init(key, jnp.zeros((1, *SIZE, 3))),
    param_rules=(optim.Rule(".*/kernel", weight_decay=0.05), optim.Rule(".*")),
    optimizer=optim.OptimizerSpec(beta2=0.99),
    schedule=lambda step, progress: optim.warmup_cosine(
      progress, peak=PEAK_LR, warmup=0.05 * epochs, total=epochs
    ),
    forward=forward,
    loss=loss,
    train=loader,
    total_steps=total_steps,
    evaluation=Evaluation(evals=evals, score=score, select=("pck_val", "max")),
    description=Description("pose, for a test", Encoder(width=1, depth=1, num_heads=1, grid=(1, 1), patch=1)),
  )


def train_pose(workdir, num_train, num_held_out, total_steps):
  """Trains on one device and returns the last scores."""
  task = make_task(num_train, num_held_out, total_steps)
  cadence = loop.Cadence(log=100, save=0, evaluate=500, panel=0)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  with Checkpoints(workdir, keep_last=1) as checkpoints:
    _, scores = loop.run(task, workdir=workdir, seed=0, mesh=mesh, checkpoints=checkpoints, cadence=cadence)
  return scores


@pytest.mark.soak
def test_a_small_pose_model_finds_joints_of_people_it_never_saw(tmp_path):
  scores = train_pose(tmp_path, num_train=20_000, num_held_out=1_024, total_steps=STEPS)
  assert scores["pck"] > GOAL
