"""A small task: linear regression of the person's box (left, top, right, bottom; pixels), encoder frozen."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from hap_jax import config_sources
from hap_jax.data import samplers
from hap_jax.data.transforms.reid import ResizeBicubic
from hap_jax.evaluation.evaluate import EvalSplit, Evaluation
from hap_jax.models import image_encoder, vit
from hap_jax.tasks import base
from hap_jax.train import optim


class BoxRegressor(nn.Module):
  encoder: vit.ViT

  @nn.compact
  def __call__(self, image):
    return nn.Dense(4, name="box")(image_encoder.encode(self.encoder, image).patches.mean(axis=1))


def check(config):
  """Accepts every value, because this task has no keys of its own."""


def network(description, compute=vit.FLOAT32):
  return BoxRegressor(description.encoder.build(compute))


def make_forward(description, compute=vit.FLOAT32):
  model, normalize = network(description, compute), base.make_normalize(description)

  def forward(variables, batch, *, key=None, train=False):
    return variables["constants"]["mean"] + 10 * model.apply(variables, normalize(batch["image"])), {}

  return forward


def loss(outputs, batch, *, key):
  error = jnp.abs(outputs - batch["box"])
  return error.mean(), {"error_px": (error.sum(), jnp.float32(error.size))}


def make_evaluation(config, description):
  source, forward = config_sources.open_source(config, "test"), make_forward(description)
  resize = (ResizeBicubic(size=description.encoder.image_size),)
  loader = base.reading_of(config).ordered(source, resize, config.eval_batch_size, ("image", "box"))

  def predict(variables, batch):
    return {"error": jnp.abs(forward(variables, batch)[0] - batch["box"])}

  return Evaluation(
    evals={"test": EvalSplit(loader, predict)},
    score=lambda splits: {"error_px": float(splits["test"]["error"].mean())},
    select=("error_px", "min"),
    constants={"mean": np.array(description.more["mean"], np.float32)},
  )


def make(config, start=base.FROM_SCRATCH):
  source = config_sources.open_source(config, "train")
  mean = np.mean([source[i]["box"] for i in range(len(source))], axis=0).tolist()
  description = base.description_of(config, source, start.lineage, network={}, mean=mean)
  sampler = samplers.ShuffledEpochs(len(source), config.batch_size, config.seed)
  resize = (ResizeBicubic(size=description.encoder.image_size),)
  train = base.train_loader_of(config, start, source, resize, sampler, ("image", "box"))
  evaluation = make_evaluation(config, description)
  return base.Task(
    init=base.make_init(network(description)),
    param_rules=(optim.Rule("encoder/.*", trainable=False), optim.Rule(".*")),
    optimizer=optim.OptimizerSpec(**config.optimizer),
    schedule=lambda step, progress: jnp.float32(config.base_lr),
    forward=make_forward(description, base.compute_of(config)),
    loss=loss,
    train=train,
    total_steps=base.run_length_of(config, train)[0],
    evaluation=evaluation,
    constants=evaluation.constants,
    description=description,
  )
