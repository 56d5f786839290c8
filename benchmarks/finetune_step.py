"""Times person ReID's training step against its encoder: python -m benchmarks.finetune_step --locality.

Prints one line of JSON. `step` is the whole training step: pixels, boxes erased, encoder, heads, losses,
gradients, AdamW with layer-wise rates; no drop path. `encoder` is the encoder up to its class token, forward
and backward for all its parameters, without any update. Both take turns; CPU seconds of all cores count.
"""

import argparse
import json

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import compiled, measure
from hap_jax import sharding
from hap_jax.description import Description, Encoder
from hap_jax.models import layers, vit
from hap_jax.pixels.normalize import normalize
from hap_jax.tasks import base, reid
from hap_jax.train import optim, state, step


def parse_args(argv=None):
  """Reads the command line; the sizes are the published recipe's but for the batch."""
  parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
  parser.add_argument("--variant", choices=sorted(vit.VARIANTS), default="B")
  parser.add_argument(
    "--image_size", type=measure.parse_size, default=(256, 128), metavar="HxW", help="in pixels"
  )
  parser.add_argument("--patch", type=int, default=16, help="side in pixels")
  parser.add_argument("--batch", type=int, default=32, help="pictures a step")
  parser.add_argument("--num_classes", type=int, default=1041, help="persons; MSMT17 has 1041 to train by")
  parser.add_argument("--locality", action="store_true", help="with the locality enhanced module")
  parser.add_argument("--repeats", type=int, default=5, help="timed calls of each, after one that warms up")
  return parser.parse_args(argv)


def make_task(args, model, description):
  """Makes the ReID task of a network without data: all that the step asks for."""
  return base.Task(
    init=base.make_init(model, train=False),
    param_rules=optim.layer_decay_rules(model.encoder.depth, layer_decay=0.4, weight_decay=0.05),
    optimizer=optim.OptimizerSpec(beta2=0.999),
    schedule=lambda _, progress: optim.warmup_cosine(progress, peak=8e-3, warmup=5, total=100),
    forward=reid.make_forward(model, normalize),
    loss=reid.make_loss(np.arange(args.num_classes), id_weight=0.5, triplet_weight=0.5),
    train=None,
    total_steps=0,
    evaluation=None,
    description=description,
  )


def make_batch(args):
  """Makes a batch of pictures of noise, four a person, each with a box of half its height to be erased."""
  H, W = args.image_size
  rng = np.random.default_rng(0)
  return {
    "image": rng.integers(0, 256, (args.batch, H, W, 3), np.uint8),
    "pid": np.arange(args.batch, dtype=np.int32) // 4 % args.num_classes,
    "erase_box": np.tile(np.array([0, 0, H // 2, W - 1], np.int32), (args.batch, 1)),
  }


def make_encoder_pass(model):
  """Compiles (encoder parameters, normalised images) -> gradient of a sum over the class tokens."""

  def loss(params, image):
    latent = model.encoder.apply({"params": params}, layers.patchify(image, model.encoder.patch))
    return jnp.square(latent.normed[:, 0]).sum()

  return jax.jit(jax.grad(loss))


def time_both(args):
  """Compiles, warms up and times both; returns what is printed."""
  encoder = Encoder.of_variant(args.variant, image_size=args.image_size, patch=args.patch)
  sizes = {"num_classes": args.num_classes, "locality": args.locality}
  description = Description("reid", encoder, network=sizes)
  model = reid.network(description)
  task, mesh = make_task(args, model, description), sharding.make_mesh(devices=jax.devices()[:1])
  train_step, encoder_pass = step.make_train_step(task, mesh, seed=0), make_encoder_pass(model)
  train_state = state.create(task, 0, mesh)
  batch = jax.device_put(make_batch(args), sharding.batch_split(mesh))
  image = jax.block_until_ready(normalize(batch["image"]))

  encoder_times, step_times = [], []
  for i in range(args.repeats + 1):
    wait = jax.block_until_ready
    _, *encoder_time = measure.timed(encoder_pass, train_state.params["encoder"], image, wait=wait)
    clock = np.int32(i), np.float32(i / 100)
    (train_state, metrics), *step_time = measure.timed(train_step, train_state, {}, batch, *clock, wait=wait)
    if i:  # the first call compiles
      encoder_times.append(encoder_time)
      step_times.append(step_time)
  if int(train_state.step) != args.repeats + 1:
    raise ValueError(f"the loss became {metrics['loss'][0]}: a step that is not made cannot be timed")
  return {
    "bench": "finetune_step",
    "ratio": measure.median_ratio([cpu for cpu, _ in step_times], [cpu for cpu, _ in encoder_times]),
    **measure.summary(step_times, "step_"),
    **measure.summary(encoder_times, "encoder_"),
    "update_included": {"step": True, "encoder": False},
    **{key: getattr(args, key) for key in ("variant", "image_size", "patch", "batch", "locality", "repeats")},
    "device": compiled.device(),
    "machine": measure.machine(),
    "versions": measure.versions("jax", "jaxlib"),
  }


def main(argv=None):
  print(json.dumps(time_both(parse_args(argv))))


if __name__ == "__main__":
  main()
