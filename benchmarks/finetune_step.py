"""Times a task's training step and its encoder, one line of JSON: python -m benchmarks.finetune_step.

    python -m benchmarks.finetune_step --set model.locality=True

`step` is the whole training step: pixels, encoder, heads, losses, gradients, AdamW. `encoder` is the encoder
up to its class token, or up to its patch tokens if it has no class token: forward and backward pass for all
its parameters, without an update. Both are timed in turn. The default task is person ReID without drop path,
on pictures of synthetic people. They show 1041 persons, as many as MSMT17's training set.
"""

import itertools

import jax
import jax.numpy as jnp

from benchmarks import compiled, measure, workload
from hap_jax import sharding
from hap_jax.models import layers
from hap_jax.synthetic.draw import PICTURES_PER_PERSON
from hap_jax.tasks import base

_DEFAULTS = {
  "data.synthetic.num_train": 1041 * PICTURES_PER_PERSON,
  "data.workers": 0,
  "model.drop_path": 0.0,  # the timed encoder has no drop path
}


def parse_args(argv=None):
  """Reads the command line."""
  parser = measure.make_parser(__doc__)
  parser.add_argument(
    "--config",
    default=workload.CONFIGS / "finetune_reid_msmt17_b16.py",
    help="configuration file of a task whose network has an encoder",
  )
  workload.add_settings(parser, batch=32)
  workload.add_repeats(parser)
  return parser.parse_args(argv)


def make_config(args):
  """Returns the finalized configuration of a command line."""
  return workload.make_config(args.config, args, _DEFAULTS)


def make_encoder_pass(encoder):
  """Returns the `Program` of the encoder: the gradient of the sum of squares of its class tokens.

  An encoder without a class token has the squares of its patch tokens instead.
  """

  def loss(params, image):
    patches = layers.patchify(image, encoder.patch, encoder.patch_padding)
    latent = encoder.apply({"params": params}, patches)
    return jnp.square(latent.cls if encoder.class_token else latent.patches).sum()

  function = jax.jit(jax.grad(loss))
  return workload.Program(function, lambda state, image, *_: (state.params["encoder"], image))


def time_both(config, *, warmup, repeats, steps):
  """Compiles, warms up and times step and encoder. Returns the line to print."""
  task, mesh = workload.make_task(config), workload.one_device()
  training, step = workload.Training(task, mesh), workload.make_step(task, mesh)
  encoder_pass = make_encoder_pass(task.description.encoder.build(base.compute_of(config)))
  batch = sharding.put_batch(task.train.batch(0), mesh)
  image = base.make_normalize(task.description)(batch["image"])

  parts = {
    "step": lambda _: training.run(step, itertools.repeat(batch), steps),
    "encoder": lambda _: training.run(encoder_pass, itertools.repeat(image), steps),
  }
  times = measure.time_in_turn(parts, warmup=warmup, repeats=repeats, per=steps)
  training.check()
  found = {
    "ratio": measure.median_ratio(times["step"], times["encoder"]),
    **measure.summary(times["step"], "step_"),
    **measure.summary(times["encoder"], "encoder_"),
    "update_included": {"step": True, "encoder": False},
    **workload.settings(config),
    "rounds": repeats,
    "steps_a_round": steps,
  }
  return compiled.line("finetune_step", found)


def main(argv=None):
  args = parse_args(argv)
  measure.show(time_both(make_config(args), **workload.repeats(args)))


if __name__ == "__main__":
  main()
