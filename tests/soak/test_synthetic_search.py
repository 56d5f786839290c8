"""A small network finds synthetic people it never saw, with far better scores than colour histograms.

Four convolutions and the means of four horizontal stripes compute a vector. Training moves it nearer to other
pictures of the same person than to pictures of other people in the batch. The training loop runs the network
as a task of its own.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hap_jax import sharding
from hap_jax.data.loader import Loader
from hap_jax.data.pipeline import Reading
from hap_jax.data.samplers import IdentityBalanced
from hap_jax.data.sources import synthetic
from hap_jax.data.transforms.image import HorizontalFlip
from hap_jax.data.transforms.reid import PadCrop, ResizeBicubic
from hap_jax.description import Description, Encoder
from hap_jax.evaluation import retrieval_probe
from hap_jax.evaluation.evaluate import EvalSplit, Evaluation
from hap_jax.metrics import retrieval
from hap_jax.models.layers import l2_normalize
from hap_jax.pixels.normalize import normalize
from hap_jax.tasks.base import Task
from hap_jax.train import loop, optim
from hap_jax.train.checkpoint import Checkpoints
from tests.synthetic.test_synthetic_difficulty import colour_histogram

SIZE = (64, 32)  # pixels
STRIPES = 4
BATCH, PICTURES, STEPS, PEAK_LR = 96, 4, 400, 2e-3
TEMPERATURE = 0.1


class SearchNet(nn.Module):
  """Computes vectors of length 1, [B, 128], of normalised pictures [B, H, W, 3]."""

  @nn.compact
  def __call__(self, image):
    x = image
    for width, stride in ((32, 2), (64, 2), (96, 1), (128, 1)):
      x = nn.Conv(width, (3, 3), strides=stride, use_bias=False)(x)
      x = nn.gelu(nn.GroupNorm(num_groups=8)(x))
    B, H, W, C = x.shape
    stripes = x.reshape(B, STRIPES, H // STRIPES, W, C).mean(axis=(2, 3))
    return l2_normalize(nn.Dense(128)(stripes.reshape(B, -1)))


def loss(vectors, batch, *, key):
  """Returns the cross-entropy of finding the other pictures of each person in the batch."""
  del key
  itself = jnp.eye(len(vectors), dtype=bool)
  is_same = (batch["pid"][:, None] == batch["pid"]) & ~itself
  # A picture must not find itself.
  closeness = jnp.where(itself, -jnp.inf, vectors @ vectors.T / TEMPERATURE)
  cost = -jnp.where(is_same, jax.nn.log_softmax(closeness), 0).sum(-1) / is_same.sum(-1)
  return cost.mean(), {"loss_search": (cost.sum(), jnp.float32(len(cost)))}


def make_task(num_train, num_test, total_steps):
  """Returns the supervised search task on pictures in memory."""
  train, query, gallery = (
    synthetic.open_source(
      split=split, num_train=num_train, num_test=num_test, image_size=SIZE, hold_in_memory=True
    )
    for split in ("train", "query", "gallery")
  )
  loader = Loader(
    train,
    (HorizontalFlip(), PadCrop(pad=3)),
    IdentityBalanced(train.columns["pid"], BATCH, PICTURES, seed=0),
    seed=0,
    fields=("image", "pid"),
  )
  model, epochs = SearchNet(), loader.progress(total_steps)

  def forward(variables, batch, *, key, train):
    del key, train
    return model.apply(variables, normalize(batch["image"])), {}

  def predict(variables, batch):
    return {"feature": model.apply(variables, normalize(batch["image"]))}

  def score(splits):
    identities = retrieval_probe.identities(splits, query, gallery)
    features = splits["query"]["feature"], splits["gallery"]["feature"]
    # Colour histograms of the same pictures are the baseline.
    colours = [
      np.array([colour_histogram(side[k]["image"]) for k in range(len(side))]) for side in (query, gallery)
    ]
    return retrieval.evaluate(*features, **identities).metrics() | {
      "mAP_colours": retrieval.evaluate(*colours, **identities).mean_ap,
      "mAP_chance": retrieval.chance_mean_ap(**identities),
    }

  reading, resize = Reading(max_bad_share=0.0), (ResizeBicubic(size=SIZE),)
  sides = {"query": query, "gallery": gallery}
  evals = {name: EvalSplit(reading.ordered(side, resize, BATCH), predict) for name, side in sides.items()}
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
    evaluation=Evaluation(evals=evals, score=score),
    description=Description("search, for a test", Encoder(1, 1, 1, (1, 1), 1)),
  )


def train_search(workdir, num_train, num_test, total_steps):
  """Trains on one device and returns the last scores."""
  task = make_task(num_train, num_test, total_steps)
  cadence = loop.Cadence(log=100, save=0, evaluate=500, panel=0)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  with Checkpoints(workdir, keep_last=1) as checkpoints:
    _, scores = loop.run(task, workdir=workdir, seed=0, mesh=mesh, checkpoints=checkpoints, cadence=cadence)
  return scores


@pytest.mark.soak
def test_a_small_network_finds_people_it_never_saw_far_better_than_colours_do(tmp_path):
  scores = train_search(tmp_path, num_train=20_000, num_test=1_600, total_steps=STEPS)
  assert scores["mAP"] > 3 * scores["mAP_colours"]
