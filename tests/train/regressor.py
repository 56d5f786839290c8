"""A small task for tests of the loop: a linear regression on numbers in memory."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from hap_jax import sharding
from hap_jax.data import samplers
from hap_jax.data.loader import Loader
from hap_jax.data.sources.base import SourceSpec
from hap_jax.description import Description, Encoder
from hap_jax.evaluation.evaluate import EvalSplit, Evaluation
from hap_jax.tasks.base import Task
from hap_jax.train import loop
from hap_jax.train.checkpoint import Checkpoints
from hap_jax.train.optim import OptimizerSpec, Rule

# The cadence of runs in separate processes. Checkpoints and scores are due at different steps.
CADENCE = loop.Cadence(log=1, save=2, evaluate=3, panel=0)
SPEC = SourceSpec("numbers", None, "none", ("x", "y"))


@dataclasses.dataclass(frozen=True)
class Numbers:
  """A source of records with x [3] float32 and y = x . (1, 2, 3).

  Attributes:
    length: number of records.
    seed: seed that draws the records.
    read: called with the index of each record when it is read.
  """

  length: int
  seed: int
  read: object = None
  spec: SourceSpec = SPEC

  def __len__(self):
    return self.length

  def __getitem__(self, index):
    if self.read is not None:
      self.read(index)
    x = np.random.default_rng((self.seed, index)).normal(size=3).astype(np.float32)
    return {"x": x, "y": np.float32(x @ np.array([1, 2, 3], np.float32))}

  def name(self, index):
    return f"number {index}"


def make_task(*, total_steps=6, read_held_out=None, score=None, row_figures=None, figures=None, guides=None):
  """Returns the Task.

  Args:
    total_steps: length of the run.
    read_held_out: called with the index of each held-out record when it is read. There are six records in
      three batches.
    score: the field of the `Evaluation`. None: the mean squared error.
    row_figures: the field of the `Evaluation`.
    figures: the field of the `Evaluation`.
    guides: the field of the `Evaluation`.
  """
  train = Numbers(16, seed=0)
  held_out = Loader(
    Numbers(6, seed=1, read=read_held_out), (), samplers.Sequential(6, 2), seed=0, read_ahead=0
  )

  def predict(variables, batch):
    return {"error": (batch["x"] @ variables["params"]["w"] - batch["y"]) ** 2}

  def mean_error(rows):
    return {"val_error": float(rows["val"]["error"].mean())}

  def loss(outputs, batch, *, key):
    error = ((outputs - batch["y"]) ** 2).mean()
    return error, {"loss_square": (error, jnp.ones(()))}

  return Task(
    init=lambda key: {"params": {"w": jax.random.normal(key, (3,))}},
    param_rules=(Rule(".*"),),
    optimizer=OptimizerSpec("sgd"),
    schedule=lambda step, progress: jnp.float32(0.02),
    forward=lambda variables, batch, *, key, train: (batch["x"] @ variables["params"]["w"], {}),
    loss=loss,
    train=Loader(train, (), samplers.ShuffledEpochs(16, 8, seed=0), seed=0),
    total_steps=total_steps,
    evaluation=Evaluation(
      evals={"val": EvalSplit(held_out, predict)},
      score=score or mean_error,
      figures=figures,
      row_figures=row_figures,
      select=("val_error", "min"),
      guides=guides or {},
    ),
    description=Description("regression", Encoder(width=1, depth=1, num_heads=1, grid=(1, 1), patch=1)),
  )


def train(workdir, *, cadence, say, devices=None, **task):
  """Trains the regressor. Returns {metric: float} of the last evaluation.

  Args:
    workdir: folder of the run.
    cadence: `loop.Cadence`.
    say: called with each line that a run prints.
    devices: the devices of the mesh. None: all devices.
    task: arguments of `make_task`.
  """
  with Checkpoints(workdir, keep_last=9, say=say) as checkpoints:
    _, scores = loop.run(
      make_task(**task),
      workdir=workdir,
      seed=0,
      mesh=sharding.make_mesh(devices=devices),
      checkpoints=checkpoints,
      cadence=cadence,
      say=say,
    )
  return scores
