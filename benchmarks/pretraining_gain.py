"""Compares fine-tuning with and without pre-training on synthetic people. Prints one line of JSON.

    python -m benchmarks.pretraining_gain --pretrained=runs/demo --out=runs/gain
    python -m benchmarks.pretraining_gain --task=attributes [--frozen] --pretrained=... --out=...
    python -m benchmarks.pretraining_gain --task=pose3d_direct --also pose2d=runs/pose2d ...

Each seed gives a pair of runs. The two runs are called arms: "pretrained" and "scratch". Each --also adds an
arm that starts from another checkpoint. All arms of a seed have the same people, the same batches and the
same initial values of new layers. All use configs/finetune_<task>_demo.py, but each arm has its own learning
rate. --tune tries the same rates for all arms, with a separate seed. --figure draws the curves. With --frozen
no encoder is trained. Linear classifiers are then trained on the features of the pre-trained encoder and of
an untrained encoder.
"""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import scipy.stats

from benchmarks import compiled, measure, workload
from hap_jax import config as config_lib
from hap_jax import run
from hap_jax.inference import probing
from hap_jax.io import picture_file
from hap_jax.train import report
from hap_jax.viz import figure as charts

PRETRAINED, SCRATCH = "pretrained", "scratch"
_COLORS = (charts.RED, charts.BLUE, charts.GREEN)
_TUNE_SEED = 100


@dataclasses.dataclass(frozen=True)
class _Task:
  """A fine-tuning demo.

  Attributes:
    metric: metric that is compared, on people that training never sees.
    select: metric that selects a learning rate.
    lr: {arm: learning rate}. An arm of --also has the rate of "pretrained".
    steps: number of steps of a run.
    chance: the score without learning, where the axis of the picture starts. None: the axis fits the curves.
    best: max or min, the better one of two scores.
    changes: {key of the configuration: value}. Fewer people are drawn and scored, so that a run is short.
  """

  metric: str
  select: str
  lr: dict[str, float]
  steps: int
  chance: float | None = 0
  best: Callable = max
  changes: dict[str, int] = dataclasses.field(default_factory=dict)


_TASKS = {
  "reid": _Task("mAP", "mAP", {PRETRAINED: 5e-4, SCRATCH: 2e-3}, 600),
  "attributes": _Task("mA", "val_mA", {PRETRAINED: 1e-3, SCRATCH: 1e-3}, 1_250, chance=0.5),
  "pose2d": _Task(
    "PCK@0.1",
    "PCK@0.1",
    {PRETRAINED: 2e-3, SCRATCH: 1e-3},
    360,
    chance=None,
    changes={"batch_size": 32, "data.num_val": 512, "data.synthetic.num_train": 3_000},
  ),
  "text_reid": _Task("mAP", "mAP", {PRETRAINED: 1e-3, SCRATCH: 1e-3}, 390, changes={"data.num_val": 0}),
  "pose3d_direct": _Task(
    "PA-MPJPE", "PA-MPJPE", {PRETRAINED: 2e-3, SCRATCH: 2e-3}, 480, chance=None, best=min
  ),
}


def parse_args(argv=None):
  """Reads the command line."""
  parser = measure.make_parser(__doc__)
  parser.add_argument(
    "--task", choices=tuple(_TASKS), default="reid", help="reads configs/finetune_<task>_demo.py"
  )
  parser.add_argument(
    "--pretrained",
    required=True,
    metavar="CHECKPOINT",
    help="checkpoint of a run of configs/pretrain_demo.py",
  )
  parser.add_argument(
    "--also",
    action="append",
    default=[],
    metavar="NAME=CHECKPOINT",
    help="one more arm, which starts from another checkpoint",
  )
  parser.add_argument(
    "--out", required=True, metavar="DIR", help="folder of the runs; finished runs are used again"
  )
  parser.add_argument(
    "--seeds", type=int, nargs="+", default=list(range(1, 11)), help="seeds, one pair of runs per seed"
  )
  steps = ", ".join(f"{name} {task.steps}" for name, task in _TASKS.items())
  parser.add_argument("--steps", type=int, help=f"steps of each run; default: {steps}")
  parser.add_argument(
    "--lr",
    nargs="+",
    default=[],
    metavar="ARM=LR",
    help="learning rates of arms; default: the rate of the task",
  )
  parser.add_argument(
    "--tune", type=float, nargs="+", metavar="LR", help="learning rates to try for each arm"
  )
  parser.add_argument(
    "--frozen", action="store_true", help="train only linear classifiers; needs --task=attributes"
  )
  parser.add_argument("--figure", metavar="FILE.png", help="file for a picture of the curves")
  args = parser.parse_args(argv)
  args.start = {PRETRAINED: args.pretrained, SCRATCH: "", **_pairs(parser, "--also", args.also)}
  if len(args.start) < 2 + len(args.also):
    parser.error(f"--also: expected names that differ from each other, {PRETRAINED} and {SCRATCH}")
  args.lr = {arm: float(rate) for arm, rate in _pairs(parser, "--lr", args.lr).items()}
  if args.lr.keys() - args.start.keys():
    parser.error(f"--lr: the arms are {', '.join(args.start)}")
  if len(args.seeds) < 2:
    parser.error("--seeds: expected two or more seeds, because one pair of runs gives no confidence interval")
  if args.frozen and (args.task != "attributes" or args.tune or args.figure or args.also):
    parser.error("--frozen: needs --task=attributes, and cannot be used with --also, --tune or --figure")
  if args.tune and _TUNE_SEED in args.seeds:
    parser.error(f"--seeds: {_TUNE_SEED} is reserved for --tune: choose other seeds")
  if args.figure and not args.figure.endswith(".png"):
    parser.error(f"--figure={args.figure}: expected a name that ends in .png")
  args.steps = _TASKS[args.task].steps if args.steps is None else args.steps
  if args.steps < 3:
    parser.error("--steps: expected 3 or more, because each run is scored three times")
  return args


def _pairs(parser, option, words):
  """Returns {name: value} of words NAME=VALUE."""
  if not all("=" in word for word in words):
    parser.error(f"{option}: expected a name, = and a value")
  return dict(word.split("=", 1) for word in words)


def make_config(args, arm, seed, lr):
  """Returns the finalized configuration of one run."""
  config = config_lib.read_file(workload.CONFIGS / f"finetune_{args.task}_demo.py")
  config.update_from_flattened_dict(_TASKS[args.task].changes)
  config.seed = seed
  config.total_steps = args.steps
  config.base_lr = lr
  config.init_from = args.start[arm]
  config.eval_every, config.eval_every_epochs, config.save_every = args.steps // 3, 0, 0
  return config_lib.finalize(config)


def train(args, arm, seed, lr):
  """Trains one arm of a seed if its run is not finished. Returns the rows of its evaluations."""
  workdir = pathlib.Path(args.out) / f"{args.task}_{arm}_seed{seed}_lr{lr:g}"
  config = make_config(args, arm, seed, lr)
  config_lib.check_same(config, workdir)  # a finished run with other settings must not be used again
  if not _is_finished(workdir, args):
    run.run(config, workdir, say=lambda line: None)
  return [row for row in report.read_metrics(workdir) if _TASKS[args.task].metric in row]


def tune(args, arm):
  """Returns (best learning rate of an arm, {tried rate: score})."""
  task = _TASKS[args.task]
  if not args.tune:
    return args.lr.get(arm) or task.lr.get(arm, task.lr[PRETRAINED]), {}
  tried = {f"{lr:g}": round(train(args, arm, _TUNE_SEED, lr)[-1][task.select], 4) for lr in args.tune}
  return task.best(args.tune, key=lambda lr: tried[f"{lr:g}"]), tried


def make_untrained(out, seed):
  """Writes a checkpoint of the pre-training demo with untrained weights. Returns its folder."""
  workdir = pathlib.Path(out) / f"untrained_seed{seed}"
  config = config_lib.read_file(workload.CONFIGS / "pretrain_demo.py")
  config.seed = seed
  config.total_steps = 1  # the warm-up starts at a learning rate of 0, so this step changes no parameter
  config.panel_every = config.eval_every = config.data.num_val = 0
  config.data.synthetic.num_train = config.batch_size
  config.model.scan = True  # compiles faster and stores the same parameters
  config = config_lib.finalize(config)
  config_lib.check_same(config, workdir)
  run.run(config, workdir, say=lambda line: None)
  return workdir


def probe(args, arm, seed):
  """Returns the mA of linear classifiers on the features of a frozen encoder."""
  people = config_lib.read_file(workload.CONFIGS / "finetune_attributes_demo.py").data.synthetic.to_dict()
  path = args.start[arm] or make_untrained(args.out, seed)
  return probing.probe_attributes(
    str(path), source="synthetic", options=people, seed=seed, say=lambda line: None
  )["mA"]


def _is_finished(workdir, args):
  path, metric = workdir / report.METRICS_FILE, _TASKS[args.task].metric
  return path.is_file() and any(
    row["step"] == args.steps and metric in row for row in report.read_metrics(path)
  )


def summarize(differences):
  """Returns the mean of paired differences and its 95 % interval by Student's t: (mean, (low, high))."""
  mean, error = np.mean(differences), scipy.stats.sem(differences)
  low, high = scipy.stats.t.interval(0.95, len(differences) - 1, loc=mean, scale=error)
  return float(mean), (float(low), float(high))


def draw(task, steps, curves):
  """Draws the curve of each run and the mean of each arm.

  Args:
    task: a `_Task`.
    steps: [evaluations] steps of the evaluations.
    curves: {arm: [seeds, evaluations]}.
  Returns:
    [h, w, 3] uint8.
  """
  figure = charts.new(5.2, 3.2)
  axes = figure.add_axes((0.13, 0.15, 0.84, 0.8))
  names = {PRETRAINED: "from the demo's pre-trained encoder", SCRATCH: "from scratch"}
  for (arm, values), color in zip(curves.items(), _COLORS, strict=False):
    axes.plot(steps, values.T, color=color, linewidth=0.7, alpha=0.4)
    label = names.get(arm, f"from {arm}")
    axes.plot(steps, values.mean(0), color=color, linewidth=2.2, marker="o", label=label)
  axes.set_xlabel("fine-tuning step")
  axes.set_ylabel(f"{task.metric} on people never seen")
  if task.chance is not None:
    axes.set_ylim(bottom=task.chance)
  axes.grid(color=charts.GRID, linewidth=0.6)
  axes.legend(frameon=False, fontsize=9)
  return charts.to_picture(figure)


def describe(scores):
  """Returns the results to print: scores, means, and each arm minus "scratch". `scores`: {arm: [seeds]}."""
  # All arms of a seed have the same people and batches. So most of the noise cancels in their differences.
  gains = {arm: summarize(scores[arm] - scores[SCRATCH]) for arm in scores if arm != SCRATCH}
  return {
    "scores": {arm: [round(float(value), 4) for value in values] for arm, values in scores.items()},
    "mean": {arm: round(float(values.mean()), 4) for arm, values in scores.items()},
    "minus_scratch": {
      arm: {"difference": round(mean, 4), "interval_95": [round(limit, 4) for limit in interval]}
      for arm, (mean, interval) in gains.items()
    },
  }


def run_frozen(args):
  """Probes both encoders of all pairs. Returns the results to print."""
  scores = {arm: np.array([probe(args, arm, seed) for seed in args.seeds]) for arm in args.start}
  return {"steps": 0, "metric": "mA", **describe(scores)}


def run_pairs(args):
  """Tunes and trains the arms of all seeds and draws the curves. Returns the results to print."""
  task, curves, lr, tried = _TASKS[args.task], {}, {}, {}
  for arm in args.start:
    lr[arm], tried[arm] = tune(args, arm)
    runs = [train(args, arm, seed, lr[arm]) for seed in args.seeds]
    curves[arm] = np.array([[row[task.metric] for row in rows] for rows in runs])
  if args.figure:
    picture = draw(task, [row["step"] for row in runs[0]], curves)
    picture_file.write(args.figure, picture)
  return {
    "steps": args.steps,
    "lr": lr,
    "tried": {"seed": _TUNE_SEED, "by": task.select, "arms": tried} if args.tune else None,
    "metric": task.metric,
    **describe({arm: values[:, -1] for arm, values in curves.items()}),
  }


def main(argv=None):
  args = parse_args(argv)
  about = {"task": args.task, "frozen": args.frozen, "seeds": args.seeds}
  found = run_frozen(args) if args.frozen else run_pairs(args)
  measure.show(compiled.line("pretraining_gain", {**about, **found}))


if __name__ == "__main__":
  main()
