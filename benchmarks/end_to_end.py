"""Times training with its loader against the step alone: python -m benchmarks.end_to_end.

    python -m benchmarks.end_to_end --config=configs/pretrain_b16.py --set data.source=coco_persons \
        --set data.root=DIR --set batch_size=256

The loop's own parts: source, transforms, workers, copies ahead of the step. The step alone runs before and
after on one batch that stays on the device; `share` is the rate with the loader over the rate without.
"""

import argparse
import json
import pathlib
import statistics

import jax

from benchmarks import compiled, measure, pretrain_step, workload
from hap_jax import config as config_lib
from hap_jax import run, sharding
from hap_jax.cli import _options
from hap_jax.data import pipeline
from hap_jax.tasks import pretrain
from hap_jax.train import state as train_state
from hap_jax.train import step as train_step

_CONFIG = pathlib.Path(__file__).parents[1] / "configs" / "pretrain_b16.py"


def parse_args(argv=None):
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
  parser.add_argument("--config", default=str(_CONFIG), help="of pre-training; synthetic people by default")
  parser.add_argument(
    "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="of the configuration"
  )
  workload.add_repeats(parser)
  return parser.parse_args(argv)


def make_config(args):
  """Returns the configuration, finalized; drawn people unless a source is set."""
  config = config_lib.read_file(args.config).lock()  # a key that is not there is an error
  values = {"data.source": "synthetic", **_options.settings(args.settings)}
  try:
    config.update_from_flattened_dict(values)
  except (AttributeError, KeyError, TypeError) as error:
    raise ValueError(f"--set: {' '.join(str(error).split())}") from error
  return config_lib.finalize(config)


def measure_share(args):
  """Times both; returns what is printed."""
  warmup, repeats, steps = workload.repeats(args)
  config = make_config(args)
  mesh = run.make_mesh(config)
  task = pretrain.make(config)
  state = train_state.create(task, config.seed, mesh)
  function = train_step.make_train_step(task, mesh, config.seed)
  made = 0

  def go(batches):
    """Makes `steps` steps, each with the next batch; returns the last one's metrics."""
    nonlocal state, made
    metrics = None
    for _ in range(steps):
      state, metrics = function(state, task.constants, next(batches), *pretrain_step.clock(made, mesh))
      made += 1
    return metrics

  def time_rounds(batches):
    times = [measure.timed(go, batches, wait=jax.block_until_ready)[1:] for _ in range(warmup + repeats)]
    return times[warmup:]

  held = sharding.put_batch(task.train.batch(0), mesh)
  always = iter(lambda: held, None)
  alone = time_rounds(always)
  # What workers read ahead of the first step is used up in the rounds that are not timed.
  with pipeline.device_batches(task.train, mesh, 0, (warmup + repeats) * steps) as batches:
    with_loader = time_rounds(batches)
  alone += time_rounds(always)
  if int(state.step) != made:
    raise ValueError(f"a loss was not finite after {int(state.step)} of {made} steps: nothing to time")
  per_round = config.batch_size * steps
  rates = [per_round / statistics.median(wall for _, wall in times) for times in (with_loader, alone)]
  return {
    "bench": "end_to_end",
    "share": measure.digits(rates[0] / rates[1], 4),
    "images_per_s": measure.digits(rates[0], 4),
    "step_images_per_s": measure.digits(rates[1], 4),
    **measure.summary(with_loader, "round_"),
    **measure.summary(alone, "step_round_"),
    "source": config.data.source,
    "augment": config.data.augment,
    "workers": config.data.workers,
    **workload.settings(config),
    "rounds": repeats,
    "steps_a_round": steps,
    "device": compiled.device(),
    "machine": measure.machine(),
    "versions": measure.versions("jax", "jaxlib", "grain"),
  }


def main(argv=None):
  print(json.dumps(measure_share(parse_args(argv))))


if __name__ == "__main__":
  main()
