"""A small task for tests of whole runs: a linear regression with batch statistics and a moving average."""

import jax
import jax.numpy as jnp

from hap_jax.data import samplers
from hap_jax.evaluation.evaluate import EvalSplit, Evaluation
from hap_jax.tasks import base
from hap_jax.train import optim
from hap_jax.train.outline import NOTHING_KNOWN, Outline
from tests.train.regressor import Numbers


def check(config):
  del config


def _init(config):
  def init(key):
    w = jax.random.normal(key, (3, config.model.patch))
    return {"params": {"w": w}, "batch_stats": {"mean": jnp.zeros(3)}}

  return init


def _forward(variables, batch, *, key, train):
  mean = variables["batch_stats"]["mean"]
  outputs = ((batch["x"] - mean) @ variables["params"]["w"]).sum(-1)
  if train:
    outputs += 0.01 * jax.random.normal(key, outputs.shape)
    mean = 0.9 * mean + 0.1 * batch["x"].mean(0)
  return outputs, {"batch_stats": {"mean": mean}}


def _loss(outputs, batch, *, key):
  error = ((outputs - batch["y"]) ** 2).mean()
  return error, {"loss_square": (error, jnp.ones(()))}


def _step_of(config):
  return {
    "init": _init(config),
    "param_rules": (optim.Rule(".*"),),
    "optimizer": optim.OptimizerSpec(**config.optimizer),
    "forward": _forward,
    "loss": _loss,
    "ema_decay": config.ema_decay or None,
  }


def make(config, start=base.FROM_SCRATCH):
  source, held_out = Numbers(config.data.synthetic.num_train, seed=0), Numbers(8, seed=1)
  sampler = samplers.ShuffledEpochs(len(source), config.batch_size, config.seed)
  train = base.train_loader_of(config, start, source, (), sampler, ("x", "y"))
  total_steps, total_epochs, warmup_epochs = base.run_length_of(config, train)

  def predict(variables, batch):
    return {"error": (_forward(variables, batch, key=None, train=False)[0] - batch["y"]) ** 2}

  return base.Task(
    **_step_of(config),
    schedule=lambda step, progress: optim.warmup_cosine(
      progress, peak=config.base_lr, warmup=warmup_epochs, total=total_epochs
    ),
    train=train,
    total_steps=total_steps,
    evaluation=Evaluation(
      evals={"val": EvalSplit(base.reading_of(config).ordered(held_out, (), 8, ("x", "y")), predict)},
      score=lambda rows: {"val_error": float(rows["val"]["error"].mean())},
      select=("val_error", "min"),
    ),
    description=base.description_of(
      config, source, start.lineage, network={"outputs": 1}, classes={"names": [config.data.train_split]}
    ),
  )


def outline(config, sizes=NOTHING_KNOWN):
  B = config.batch_size
  batch = {"x": jax.ShapeDtypeStruct((B, 3), "float32"), "y": jax.ShapeDtypeStruct((B,), "float32")}
  return Outline(**_step_of(config), batch=batch, sizes=sizes)
