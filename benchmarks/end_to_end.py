"""Times training with its loader, and the step alone: python -m benchmarks.end_to_end.

    python -m benchmarks.end_to_end --config=configs/pretrain_b16.py --set data.source=coco_persons \\
        --set data.root=DIR --batch=256

Source, transforms, workers and the copies of later batches to the device are the same as in the training
loop. The step alone is timed before and after the rounds with the loader, with one batch that stays on the
device. `share` is the rate with the loader divided by the rate of the step alone. By default the pictures
show synthetic people.
"""

import itertools
import statistics

from benchmarks import compiled, measure, workload
from hap_jax import run, sharding
from hap_jax.data import pipeline


def parse_args(argv=None):
  """Reads the command line."""
  parser = measure.make_parser(__doc__)
  parser.add_argument(
    "--config", default=workload.CONFIGS / "pretrain_b16.py", help="configuration file of any task"
  )
  workload.add_settings(parser)
  workload.add_repeats(parser)
  return parser.parse_args(argv)


def make_config(args):
  """Returns the finalized configuration of a command line."""
  return workload.make_config(args.config, args)


def measure_share(config, mesh, *, warmup, repeats, steps):
  """Times training with and without the loader. Returns the line to print."""
  task = workload.make_task(config)
  training, program = workload.Training(task, mesh), workload.make_step(task, mesh)

  def time_rounds(batches):
    part = {"": lambda _: training.run(program, batches, steps)}
    return measure.time_in_turn(part, warmup=warmup, repeats=repeats)[""]

  held = itertools.repeat(sharding.put_batch(task.train.batch(0), mesh))
  alone = time_rounds(held)
  # Workers read some batches before the first step. The untimed rounds use these batches up.
  with pipeline.device_batches(task.train, mesh, 0, (warmup + repeats) * steps) as batches:
    with_loader = time_rounds(batches)
  # The step alone is timed again, because the machine may have become slower or faster meanwhile.
  alone += time_rounds(held)
  training.check()
  per_round = config.batch_size * steps
  rates = [per_round / statistics.median(wall for _, wall in times) for times in (with_loader, alone)]
  found = {
    "share": measure.digits(rates[0] / rates[1], 4),
    "images_per_s": measure.digits(rates[0], 4),
    "step_images_per_s": measure.digits(rates[1], 4),
    **measure.summary(with_loader, "round_"),
    **measure.summary(alone, "step_round_"),
    "source": config.data.source,
    "augment": config.data.get("augment", "host"),
    "workers": config.data.workers,
    **workload.settings(config),
    "rounds": repeats,
    "steps_a_round": steps,
  }
  return compiled.line("end_to_end", found, "grain")


def main(argv=None):
  args = parse_args(argv)
  config = make_config(args)
  measure.show(measure_share(config, run.make_mesh(config), **workload.repeats(args)))


if __name__ == "__main__":
  main()
